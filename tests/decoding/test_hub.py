"""Models of the Hub, from a server that speaks its routes: sizes before, only what is needed, resume, refusals in time."""

import shutil
import time
from pathlib import Path

import pytest

from decoding.models import downloads, fetching, hub
from decoding.models.family import load
from decoding.models.progress import told_to
from decoding.runs.fetch_job import Fetch
from decoding.runs.run import Run
from decoding.runs.worker import Worker
from tests.conftest import eventually
from tests.local_server import Hub, serving

NAME = "somebody/tiny"


@pytest.fixture
def server(monkeypatch, tmp_path, folders):
    """A Hub with one model and what belongs to it, and an empty cache."""
    model = tmp_path / "hub" / NAME
    shutil.copytree(folders("llama"), model)
    (model / "pytorch_model.bin").write_bytes(b"\0" * 9999)
    (model / "onnx").mkdir()
    (model / "onnx" / "model.safetensors").write_bytes(b"\0" * 9999)
    (model / "consolidated.safetensors").write_bytes(b"\0" * 9999)
    monkeypatch.setattr(downloads, "SLICE", 4096)
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(tmp_path / "hub", Hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


def folder(server: Hub, name: str = NAME) -> Path:
    return server.folder / name


def test_a_model_is_fetched_and_opened_and_then_needs_no_hub(server, monkeypatch):
    told = []
    with told_to(told.append):
        family = load(NAME, device="cpu")
    assert family.name == NAME and family.text(family.encode("the cat", 100)) == "the cat"
    downloaded = [step for step in told if step.stage == f"downloading {NAME}"]
    assert downloaded[-1].done == downloaded[-1].total == hub.listing(NAME).size
    assert [a.done for a in downloaded] == sorted(a.done for a in downloaded)
    there = {file.name for file in fetching.fetched(NAME).iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= there
    assert not there & {"pytorch_model.bin", "onnx", "consolidated.safetensors"}
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    load(NAME, device="cpu")


def test_the_size_is_known_before(server):
    listing = hub.listing(NAME)
    needed = [file for file in folder(server).iterdir() if file.name in {one.name for one in listing.files}]
    assert listing.size == sum(file.stat().st_size for file in needed) and len(server.requests) == 1


def test_a_draft_model_and_a_shipped_one(server):
    assert load(NAME, NAME, device="cpu").draft is not None


def test_a_stopped_download_goes_on(server):
    steps = fetching.fetch(NAME)
    while next(steps).done < 40_000:
        pass
    steps.close()
    assert fetching.fetched(NAME) is None
    asked = len(server.requests)
    list(fetching.fetch(NAME))
    assert fetching.fetched(NAME) and server.ranges and len(server.requests) - asked < len(hub.listing(NAME).files) + 1
    assert load(NAME, device="cpu")


def test_another_revision_begins_anew(server):
    steps = fetching.fetch(NAME)
    while next(steps).done < 40_000:
        pass
    steps.close()
    server.revision = "b" * 40
    list(fetching.fetch(NAME))
    assert "b" * 40 in (fetching.fetched(NAME) / fetching.WHOLE).read_text() and not server.ranges


def test_no_room_is_said_before_anything_is_downloaded(server, monkeypatch):
    monkeypatch.setattr(downloads, "SPARE", 2**60)
    with pytest.raises(ValueError, match=f"{NAME} needs .* the disk has .* left"):
        list(fetching.fetch(NAME))
    assert len(server.requests) == 1


def test_a_gated_model_names_the_command_that_helps(server):
    server.gated.add(NAME)
    with pytest.raises(
        ValueError, match=rf"The model '{NAME}' cannot be opened: .*403.*/{NAME} asks .* in a terminal: hf auth login"
    ):
        load(NAME)


def test_a_model_that_is_not_there(server):
    with pytest.raises(ValueError, match="The model 'nobody/none' cannot be opened: there is no such model on the Hub"):
        load("nobody/none")


@pytest.mark.parametrize(
    "files, sentence",
    [
        (["config.json", "pytorch_model.bin"], "no weights as safetensors"),
        (["tiny.Q4_0.gguf", "README.md"], "holds GGUF files; download one, such as tiny.Q4_0.gguf"),
        (["model.safetensors"], "no config.json"),
    ],
)
def test_what_could_not_be_opened_is_not_downloaded(server, files, sentence):
    folder(server, "somebody/odd").mkdir()
    for file in files:
        (folder(server, "somebody/odd") / file).write_bytes(b"1")
    with pytest.raises(ValueError, match=sentence):
        load("somebody/odd")
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"sha": "../x", "siblings": []}', b'{"sha": 1, "siblings": 2}', b"<html>"])
def test_an_answer_of_another_kind_is_a_sentence(server, monkeypatch, answer):
    monkeypatch.setattr(Hub, "answer", lambda *_: (200, answer, {}))
    with pytest.raises(ValueError, match=f"The model '{NAME}' cannot be opened: "):
        load(NAME)


def test_offline_is_a_sentence_in_time(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ValueError, match=f"The model '{NAME}' cannot be opened: it is not on this machine, and the Hub cannot be"):
        load(NAME)
    assert time.monotonic() - began < 3


def test_a_hub_that_never_answers_is_given_up_in_time(server, monkeypatch):
    monkeypatch.setattr(hub, "asked", lambda *_: time.sleep(30))
    began = time.monotonic()
    with pytest.raises(ValueError, match="no answer within 0.5 s"):
        hub.listing(NAME, 0.5)
    assert time.monotonic() - began < 3


def test_a_model_of_the_shared_cache_is_not_fetched_again(server, monkeypatch, tmp_path, folders):
    snapshot = tmp_path / "shared" / "models--somebody--tiny" / "snapshots" / ("c" * 40)
    shutil.copytree(folders("llama"), snapshot)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("c" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "shared"))
    assert fetching.fetched(NAME) == snapshot and load(NAME, device="cpu") and not server.requests
    (snapshot / "model.safetensors").unlink()
    assert fetching.fetched(NAME) is None


@pytest.mark.parametrize("name", ["../up", "a/b/c", "", ".hidden", "a//b", "owner/..", "https://x"])
def test_what_is_no_id_is_not_asked_for(server, name):
    assert not hub.is_id(name)


def test_a_hub_that_dribbles_is_given_up_in_time(server, monkeypatch):
    server.dribbles = 0.02
    monkeypatch.setattr(downloads, "WINDOW", 0.5)
    begun = time.monotonic()
    with pytest.raises(ValueError, match="the server sends .* bytes a second. What came is kept"):
        list(fetching.fetch(NAME))
    assert time.monotonic() - begun < 30
    server.dribbles = 0
    list(fetching.fetch(NAME))
    assert fetching.fetched(NAME) and server.ranges  # it went on


def test_a_hub_whose_headers_dribble_is_given_up_in_time(server, monkeypatch):
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    monkeypatch.setattr(downloads, "TRIES", 1)
    monkeypatch.setattr(downloads, "opened", lambda *_: time.sleep(5))
    with pytest.raises(ValueError, match=r"cannot be downloaded: no answer within 0\.2 s"):
        list(fetching.fetch(NAME))


def test_a_dribbling_fetch_holds_up_no_run_and_is_stopped_at_once(server, llama):
    server.dribbles = 0.02
    worker = Worker()
    fetch, loading = worker.live(lambda: Fetch(NAME)), worker.live(lambda: Run(load(NAME), "plain", prompt="the cat"))
    fetch.ask(float("inf"))
    run = worker.live(lambda: Run(llama, "plain", prompt="the cat", max_tokens=4))
    run.ask(float("inf"))
    run.wait(20)
    assert run.state == "ended" and fetch.busy
    fetch.pause()
    fetch.wait(20)
    assert fetch.state == "paused"
    fetch.close()
    loading.ask()
    eventually(lambda: loading.progress and "downloading" in loading.progress.stage, "it never began")
    loading.pause()
    loading.wait(20)  # it may stand in the line still
    assert loading.state == "paused" and loading.run is None
