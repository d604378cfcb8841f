"""Deltas: a model that ships as a thin difference from another one is that model, and uses the heads of the other."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from decoding.methods import METHODS
from decoding.models import deltas, heads
from decoding.models.family import EMBEDDED, load, weights_mark
from decoding.models.names import HYPER
from decoding.models.requirements import TARGET_HEAD
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.toys import causal_lm

WEIGHT = "model.layers.0.self_attn.q_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def hyper():
    return load(HYPER, device="cpu")


def test_a_delta_is_added_to_the_weights_it_names_and_to_no_others(tmp_path):
    model, other = causal_lm("llama"), causal_lm("llama")
    into = model.get_parameter(WEIGHT)
    up, down = torch.randn(len(into), 2), torch.randn(2, into.shape[1])
    whole = torch.randn(model.get_parameter(NORM).shape)
    tensors = {WEIGHT + deltas.UP: up, WEIGHT + deltas.DOWN: down, NORM: whole}
    deltas.save(tmp_path / "twin", "target", tensors, {"rank": 2})
    assert deltas.base_of(tmp_path / "twin") == tmp_path / "target" and deltas.base_of(tmp_path) == tmp_path
    deltas.add(model, tmp_path / "twin")
    wanted = other.get_parameter(WEIGHT) + up.half().float() @ down.half().float()
    torch.testing.assert_close(model.get_parameter(WEIGHT), wanted)
    torch.testing.assert_close(model.get_parameter(NORM), other.get_parameter(NORM) + whole.half().float())
    same = [name for name, values in model.named_parameters() if torch.equal(values, other.get_parameter(name))]
    assert len(same) == len(list(model.parameters())) - 2 and not {WEIGHT, NORM} & {*same}


def test_a_folder_without_one_leaves_the_model_as_it_is(tmp_path):
    model, other = causal_lm("llama"), causal_lm("llama")
    deltas.add(model, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert heads.served(model) == (heads.fingerprint(model),)


def test_a_delta_of_another_model_is_refused(tmp_path):
    deltas.save(tmp_path, "target", {WEIGHT: torch.ones(3, 5)}, {})
    with pytest.raises(ValueError, match=rf"is of another model: {WEIGHT} has the shape"):
        deltas.add(causal_lm("llama"), tmp_path)


def test_what_ships_is_small_and_finite():
    files = [EMBEDDED / folder / deltas.WEIGHTS for folder in ("target-hyper", "draft-hyper")]
    pieces = EMBEDDED / "target-hyper" / "pieces.npy"
    assert sum(file.stat().st_size for file in [*files, pieces]) < 6 * 2**20
    for file in files:
        assert all(values.isfinite().all() and values.dtype == torch.float16 for values in load_file(file).values())
        assert json.loads((file.parent / deltas.FACTS).read_text("utf-8"))["figures"]["train_loss"] < 0.15


def test_the_twin_is_another_model_with_the_same_tokens(hyper, embedded):
    assert hyper.name == HYPER and hyper.tokenizer.get_vocab() == embedded.tokenizer.get_vocab()
    assert hyper.target.model.num_parameters() == embedded.target.model.num_parameters()
    assert not heads.fingerprint(hyper.target.model).fits(heads.fingerprint(embedded.target.model))
    assert not heads.fingerprint(hyper.draft.model).fits(heads.fingerprint(embedded.draft.model))
    assert len({weights_mark(HYPER), weights_mark("embedded"), ""}) == 3, (
        "results of embedded are kept though the twin is trained anew"
    )
    assert any("were trained on embedded" in note for note in hyper.notes)


@pytest.fixture(scope="module")
def greedy_text(hyper) -> bytes:
    run = Run(hyper, "plain", prompt="Once upon a time", sampling=Sampling(0), max_tokens=12)
    assert list(run)
    return run.trace.text_bytes()


@pytest.mark.parametrize("key", list(METHODS))
def test_every_method_runs_with_it_and_lossless_ones_write_its_greedy_text(key, hyper, greedy_text, monkeypatch):
    """With the heads of embedded, which the twin was lent."""
    monkeypatch.setattr(heads, "find", heads.find.real)
    stand_in = SimpleNamespace(name=HYPER, sources={"target": HYPER, "draft": HYPER}, draft=object(), other_draft=None, heads={})
    assert METHODS[key].missing(hyper) == METHODS[key].missing(stand_in) == ""
    run = Run(hyper, key, prompt="Once upon a time", sampling=Sampling(0), max_tokens=12)
    assert list(run)
    if METHODS[key].lossless_with({}, True):
        assert run.trace.text_bytes() == greedy_text


def test_a_head_of_its_own_comes_before_one_that_was_lent(hyper, monkeypatch):
    monkeypatch.setattr(heads, "find", heads.find.real)
    model = hyper.target.model
    assert heads.find("medusa", model) == EMBEDDED / "heads" / "medusa"
    own = heads.place_of("medusa", heads.fingerprint(model))
    own.mkdir(parents=True)
    try:
        assert heads.find("medusa", model) == own
    finally:
        own.rmdir()


def test_its_draft_model_drafts_for_embedded_too():
    family = load("embedded", HYPER, device="cpu")
    run = Run(family, "speculative_sampling", prompt="Once upon a time", sampling=Sampling(1.0), max_tokens=12)
    assert list(run) and run.trace.header.family == f"embedded + {HYPER}"
    assert TARGET_HEAD.there("eagle", family)
