"""What a model takes is told from its files, and is what it takes; what does not fit is refused. Loading can be stopped."""

import threading
from pathlib import Path

import pytest

from decoding.models import memory
from decoding.models.family import load
from decoding.models.memory import TOLD, needs
from decoding.models.progress import told_to
from decoding.runs.worker import Worker
from tests import toys


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_files_say_what_a_model_takes(kind, folders):
    model = toys.causal_lm(kind)
    found = needs(Path(folders(kind)), 4)
    assert found.weights == sum(values.nbytes for values in model.parameters())
    target = load(folders(kind), device="cpu").target
    cache = target.new_cache()
    target.extend(cache, [1, 2, 3, 4])
    kept = sum(layer.keys[..., : cache.length, :].nbytes + layer.values[..., : cache.length, :].nbytes for layer in cache.layers)
    assert found.cache * cache.length == kept * TOLD


def test_a_folder_that_does_not_say_is_none(tmp_path):
    assert needs(tmp_path, 4) is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    assert needs(tmp_path, 4) is None


def test_what_does_not_fit_is_refused(folders, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 1000)
    with pytest.raises(ValueError, match="does not fit: .* this machine has 1.0 kB left"):
        load(folders("llama"), device="cpu")


def test_loading_names_model_device_and_number_format(folders):
    told = []
    with told_to(told.append):
        load(folders("llama"), device="cpu")
    assert any(f"loading {Path(folders('llama')).name} on cpu in float32" in step.stage for step in told)


def test_loading_can_be_stopped(folders):
    """The page asks for a run and stops it before the models are there."""
    begun, stopped = threading.Event(), threading.Event()

    def make():
        begun.set()
        stopped.wait(60)
        return load(folders("llama"), device="cpu")

    live = Worker().live(make)
    live.ask()
    assert begun.wait(60)
    live.pause()
    stopped.set()
    live.wait()
    assert live.state == "paused" and live.run is None and not live.problem
