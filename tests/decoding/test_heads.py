"""Heads: which model one fits, in any number format and layout; where it is found; what is refused."""

import gc
import json
import weakref
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from decoding.methods import METHODS, judge
from decoding.models import heads
from decoding.models.checkpoints import DTYPES, transpose_weights
from decoding.models.family import EMBEDDED, Family
from decoding.models.heads import Head, command, fingerprint, head_for, open_head, save
from decoding.models.requirements import TARGET_HEAD, head_of
from decoding.runs.run import Run
from decoding.sample import Sampling
from pages.parts.shared.settings import Settings, family_named
from tests import toys
from tests.toys import ARCHITECTURES, causal_lm, noisy

WIDTH = 32
KEY = "judge"
WITH_HEADS = [key for key, method in METHODS.items() if head_of(method)]


def tensors(width: int = WIDTH) -> dict[str, torch.Tensor]:
    return {"mean": torch.zeros(width), "scale": torch.ones(width), "weight": torch.arange(float(width)), "bias": torch.tensor(0.5)}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No heads anywhere, and none made on demand."""
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(heads, "SHIPPED_FOR", {"embedded": tmp_path / "embedded"})
    monkeypatch.setattr(heads, "find", heads.find.real)
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return causal_lm("llama")


@pytest.fixture
def folder(model, tmp_path):
    save(tmp_path / "head", KEY, model, tensors(), {"width": WIDTH}, {"AUC": 0.9})
    return tmp_path / "head"


def opened(folder, model, method: str = KEY) -> Head:
    return open_head(folder, method, model, judge.shapes)


def test_numbers_that_no_weight_has_are_refused(model, tmp_path):
    """What is drafted with them would be no probability, or none that anybody could trust."""
    save(tmp_path / "large", KEY, model, tensors() | {"weight": torch.full((WIDTH,), 3e38)}, {"width": WIDTH}, {})
    with pytest.raises(ValueError, match="weight in .* holds 3.*; no weight is above 1,048,576"):
        opened(tmp_path / "large", model)


# -- eight bits --------------------------------------------------------------------------------------------------------


def test_matrices_in_eight_bits_take_a_quarter_and_move_little(model, tmp_path):
    given = {"a": torch.randn(64, 300) * torch.logspace(-3, 3, 64)[:, None], "b": torch.randn(300), "c": torch.randn(3, 4, 5)}
    shapes = {name: tuple(values.shape) for name, values in given.items()}
    for name, dtype in (("whole", torch.float32), ("eight", torch.int8)):
        save(tmp_path / name, KEY, model, given, {}, {}, dtype)
    found = open_head(tmp_path / "eight", KEY, model, lambda settings: shapes).tensors
    step = given["a"].abs().amax(1, keepdim=True) / 127
    assert found.keys() == given.keys() and ((found["a"] - given["a"]).abs() <= 0.501 * step).all()
    assert torch.equal(found["b"], given["b"]) and torch.equal(found["c"], given["c"])
    whole, eight = ((tmp_path / name / heads.WEIGHTS).stat().st_size for name in ("whole", "eight"))
    assert eight < 0.3 * whole
    assert heads.parameters(tmp_path / "whole") == heads.parameters(tmp_path / "eight") == 64 * 300 + 300 + 60


def test_eight_bits_without_their_worth_are_refused(model, tmp_path):
    save(tmp_path / "head", KEY, model, {"a": torch.randn(4, 6)}, {}, {}, torch.int8)
    found = load_file(tmp_path / "head" / heads.WEIGHTS)
    save_file({"a": found["a"]}, tmp_path / "head" / heads.WEIGHTS)
    with pytest.raises(ValueError, match="missing a.worth"):
        open_head(tmp_path / "head", KEY, model, lambda settings: {"a": (4, 6)})


# -- the fingerprint ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_one_model_in_every_number_format(kind, stored, tmp_path):
    """Saved in one format, loaded in all: float32 weights are rounded twice on some of the ways."""
    causal_lm(kind).to(DTYPES[stored]).save_pretrained(tmp_path)
    found = [fingerprint(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)) for dtype in DTYPES.values()]
    assert all(one.fits(other) for one in found for other in found)
    assert len({one.shapes for one in found}) == 1 and len(found[0].values) > 20


def test_the_layout_in_memory_does_not_matter(model):
    other = transpose_weights(noisy(model, 0.0))
    assert other.lm_head.weight.stride() != model.lm_head.weight.stride()
    assert fingerprint(other) == fingerprint(model)


def test_other_models_differ(model):
    others = [causal_lm("llama", seed=1), causal_lm("qwen2"), causal_lm("llama", num_hidden_layers=1), noisy(model, 0.02)]
    assert not any(fingerprint(other).fits(fingerprint(model)) for other in others)
    assert len({fingerprint(other).mark for other in [model, *others]}) == 5


def test_weights_of_one_layer_suffice_to_tell_models_apart(model):
    other = noisy(model, 0.0)
    other.model.layers[1].mlp.up_proj.weight.data *= 1.05
    assert not fingerprint(other).fits(fingerprint(model))


def test_half_a_unit_of_bfloat16_is_forgiven_and_more_is_not():
    def fits(a: float, b: float) -> bool:
        return heads.Fingerprint("s", (a,)).fits(heads.Fingerprint("s", (b,)))

    assert fits(1.0, 1.0 + 2**-8) and fits(-1e-8, 1e-8) and not fits(1.0, 1.02) and not fits(0.01, -0.01)
    assert not heads.Fingerprint("s", (1.0,)).fits(heads.Fingerprint("s", (1.0, 2.0)))


def test_scalars_and_empty_models():
    part = nn.Module()
    assert fingerprint(part).values == ()
    other = nn.Module()
    other.scale = nn.Parameter(torch.tensor(3.0))
    assert fingerprint(other).values == (3.0,) * heads.SAMPLES


# -- where heads are ---------------------------------------------------------------------------------------------------


def test_written_and_found_again(empty, model):
    assert heads.find(KEY, model) is None
    with pytest.raises(ValueError, match="no head 'judge'"):
        head_for(KEY, model, judge.shapes)
    folder = heads.folder_for(KEY, "some/model", model)
    assert str(folder).startswith(str(empty / "cache"))
    save(folder, KEY, model, tensors(), {"width": WIDTH}, {"AUC": 0.9})
    assert heads.find(KEY, model) == folder and heads.find("specdec_pp", model) is None
    assert heads.find(KEY, causal_lm("llama", seed=1)) is None
    head = head_for(KEY, model, judge.shapes)
    assert head.figures == {"AUC": 0.9} and all(torch.equal(head.tensors[name], values) for name, values in tensors().items())


def test_a_head_is_built_once_for_all_runs_and_anew_when_another_lies_there(empty):
    """Forty pages that began run after run kept both processors busy with it."""
    model, built = causal_lm("llama"), []

    def shared(model: nn.Module) -> Head:
        return heads.shared(KEY, model, lambda: built.append(head_for(KEY, model, judge.shapes)) or built[-1])

    with pytest.raises(ValueError, match="no head 'judge'"):
        shared(model)
    folder = heads.folder_for(KEY, "x", model)
    save(folder, KEY, model, tensors(), {"width": WIDTH}, {"AUC": 0.8})
    assert shared(model) is shared(model) and len(built) == 1
    save(folder, KEY, model, tensors(), {"width": WIDTH}, {"AUC": 0.95})
    assert shared(model).figures == {"AUC": 0.95} and len(built) == 2
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("key", WITH_HEADS)
def test_runs_share_the_heads_of_their_target(key, embedded, monkeypatch):
    opened = []
    monkeypatch.setattr(heads, "open_head", lambda *what, real=heads.open_head: opened.append(what) or real(*what))
    for _ in range(2):
        Run(embedded, key, prompt="Once", sampling=Sampling(), max_tokens=4)
    assert len(opened) <= 1


def test_found_by_the_same_weights_in_another_format(empty, model):
    save(heads.folder_for(KEY, "x", model), KEY, model, tensors(), {"width": WIDTH}, {})
    half = noisy(model, 0.0).to(torch.bfloat16)
    assert heads.find(KEY, half) is not None
    assert head_for(KEY, half, judge.shapes).tensors["weight"].dtype == torch.float32


def test_the_shipped_folder_comes_first_but_only_for_its_own_model(empty, model):
    save(heads.folder_for(KEY, "embedded", model), KEY, model, tensors(), {"width": WIDTH}, {})
    assert heads.find(KEY, model) == empty / "embedded" / KEY
    assert heads.find(KEY, causal_lm("llama", seed=1)) is None


def test_a_damaged_head_where_it_belongs_is_refused_rather_than_missed(empty, model):
    folder = heads.folder_for(KEY, "x", model)
    save(folder, KEY, model, tensors(), {"width": WIDTH}, {})
    (folder / heads.FACTS).write_text("{")
    assert heads.find(KEY, model) == folder
    with pytest.raises(ValueError, match="damaged"):
        head_for(KEY, model, judge.shapes)


@pytest.mark.parametrize("key", WITH_HEADS)
def test_what_is_missing_is_said_with_the_command(key, empty, llama):
    method, family = METHODS[key], replace(llama, name="a target + b")
    sentence = method.missing(family)
    assert method.title in sentence and sentence.endswith(f"This makes one: {command(key, 'a target + b', head_of(method))}.")
    assert "--family 'a target'" in sentence and find_spec(sentence.split(" -m ")[1].split()[0])
    with pytest.raises(ValueError, match="no head"):
        method.build(family, method.params(), toys.GREEDY)
    part = getattr(family, head_of(method)).model
    toys.made_head(key, part)
    assert method.missing(family) == ""


@pytest.mark.parametrize("key", WITH_HEADS)
def test_without_a_loaded_model(key, empty, llama):
    """What the pages ask: a name is enough, and nothing is loaded."""
    method = METHODS[key]
    for family in (family_named("embedded", None), family_named("x", "y"), family_named("embedded", "y")):
        assert "decoding.training" in method.missing(family)
    (empty / "embedded" / key).mkdir(parents=True)
    assert method.missing(family_named("embedded", None)) == ""
    assert command(key, "x + y", head_of(method)) in method.missing(family_named("x", "y"))
    toys.made_head(key, getattr(llama, head_of(method)).model)
    assert method.missing(family_named("x", "y")) == "", "there is one for some model: loading will tell"


@pytest.mark.parametrize("key", WITH_HEADS)
def test_the_shipped_heads_fit_the_shipped_models(key, embedded):
    method = METHODS[key]
    assert heads.find.real(key, getattr(embedded, head_of(method)).model) == EMBEDDED / "heads" / key
    assert Settings(method=key).problem() == ""


def test_a_family_that_nobody_knows():
    assert "needs a head" in TARGET_HEAD.lacking(METHODS[KEY], SimpleNamespace(name="x"))
    assert "needs a head" in TARGET_HEAD.lacking(METHODS[KEY], Family("x", None, None))
    assert command("judge", "x") == "python -m decoding.training judge --family x"


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 4, 40, -1, -64])
def test_weights_cut_short(folder, model, size):
    data = (folder / heads.WEIGHTS).read_bytes()
    (folder / heads.WEIGHTS).write_bytes(data[:size])
    with pytest.raises(ValueError, match="cut short"):
        opened(folder, model)


def test_a_file_of_any_size_is_opened_and_only_what_is_needed_is_read(folder, model):
    """Two GiB and more: the tensor that is too many is told by its name, in a moment and without memory for it."""
    kept = opened(folder, model)
    with_zeros(folder / heads.WEIGHTS, "giant", 3 * 2**30)
    assert (folder / heads.WEIGHTS).stat().st_size > 3 * 2**30
    with pytest.raises(ValueError, match="missing none, too many giant"):
        opened(folder, model)
    stored = heads.stored_in(folder / heads.WEIGHTS)
    del stored["giant"]
    found = heads.tensors_of(folder, stored, {name: one.shape for name, one in stored.items()})
    assert all(torch.equal(found[name], values) for name, values in kept.tensors.items())


def with_zeros(file: Path, name: str, size: int) -> None:
    """One tensor of so many bytes more, which take no room on the disk."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    end = len(data) - 8 - length
    header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    text = json.dumps(header).encode()
    file.unlink()  # what was opened before is still mapped from it
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text + data[8 + length :])
        out.truncate(8 + len(text) + end + size)


def test_descriptions_that_are_too_large(folder, model, monkeypatch):
    monkeypatch.setattr(heads, "MAX_FACTS", 10)
    with pytest.raises(ValueError, match="at most 10 are read"):
        opened(folder, model)


def test_a_file_that_is_not_there(folder, model):
    (folder / heads.WEIGHTS).unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        opened(folder, model)


@pytest.mark.parametrize(
    "change",
    [
        {"method": None},
        {"model": {"shapes": "x"}},
        {"model": {"shapes": "x", "values": ["1"]}},
        {"model": {"shapes": "x", "values": [float("inf")]}},
        {"settings": []},
        {"figures": 3},
    ],
)
def test_descriptions_that_cannot_be(folder, model, change):
    facts = json.loads((folder / heads.FACTS).read_text()) | change
    (folder / heads.FACTS).write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="damaged"):
        opened(folder, model)


@pytest.mark.parametrize("text", ["", "[]", "null", "\x00", "[" * 100_000, '{"method": "judge"}'])
def test_descriptions_that_are_none(folder, model, text):
    (folder / heads.FACTS).write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        opened(folder, model)
