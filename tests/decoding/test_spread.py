"""A target that accelerate spreads over several places writes what it writes in one.

There is one device here: parts of the model are kept on disk until they are run, by the same hooks that bring rows from GPU to GPU.
"""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from decoding.models import heads, spread
from decoding.models.family import find_device, load
from decoding.models.self_test import TOLERANCE, largest_error, layers_refusal
from decoding.models.target import PRE_NORM
from decoding.runs.run import Run
from decoding.sample import Sampling

pytest.importorskip("accelerate")
PROMPT = "the cat sat on the mat and the dog sat on the"
PLACES = {
    "model.embed_tokens": "disk",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "lm_head": "disk",
}
READERS = ("kangaroo", "ppd", "clover", "chimera", "eagle", "multi_candidate")  # each takes something else of the target


@pytest.fixture(scope="module")
def apart(llama, folders, tmp_path_factory):
    """The llama with its embeddings, its last layer and its head kept on disk."""
    model = AutoModelForCausalLM.from_pretrained(
        folders("llama"), device_map=PLACES, offload_folder=tmp_path_factory.mktemp("aside"), dtype=torch.float32
    )
    assert model.device.type == "meta"
    return replace(llama, target=replace(llama.target, model=model.eval()))


def written(family, key: str) -> list[int]:
    run = Run(family, key, prompt=PROMPT, sampling=Sampling(0), max_tokens=30, record=False)
    return [token for step in run for token in step.tokens]


def test_where_it_reads_and_what_it_keeps_aside(llama, apart):
    model = apart.target.model
    assert apart.target.device == torch.device("cpu") and apart.target.dtype == torch.float32
    assert spread.devices(model) == ("disk", "cpu") and spread.devices(llama.target.model) == ()
    table = model.get_input_embeddings()
    assert table.weight.is_meta and not spread.weight_of(table).is_meta
    tokens = torch.tensor([[3, 1], [4, 1]])
    assert torch.equal(spread.looked_up(table, tokens), llama.target.embedded(tokens))
    assert heads.fingerprint(model) == heads.fingerprint(llama.target.model)


def test_the_self_test_is_passed(apart):
    assert largest_error(apart.target) < TOLERANCE[torch.float32]
    assert not layers_refusal(apart.target)


def test_states_come_to_where_it_reads(apart):
    _, hidden = apart.target.extend_with_hidden(apart.target.new_cache(), [1, 2, 3], (0, 1, 2, PRE_NORM))
    assert {rows.device for rows in hidden.values()} == {apart.target.device}


@pytest.mark.parametrize("key", READERS)
def test_methods_write_the_same(llama, apart, key):
    wanted = written(llama, key)
    assert written(apart, key) == wanted


def test_auto_map_on_a_machine_with_one_place(llama, folders):
    family = load(folders("llama"), folders("llama"), device="auto-map")
    if torch.accelerator.is_available():
        assert family.target.device.type == torch.accelerator.current_accelerator().type
    else:
        assert family.target.device == family.draft.device == torch.device("cpu") and family.notes == ()
    assert written(family, "speculative_sampling") == written(llama, "plain")


def test_without_accelerate_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(spread, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="'auto-map' .* pip install accelerate"):
        find_device("auto-map")
    with pytest.raises(ValueError, match="pip install accelerate"):
        load("embedded", device="auto-map")


def test_unknown_device_names_all():
    with pytest.raises(ValueError, match="use auto, cpu, cuda, mps or auto-map"):
        find_device("everywhere")
