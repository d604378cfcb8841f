"""What every trained head promises of its file: what was written opens again, and anything else is refused with a sentence."""

from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from decoding.methods import METHODS
from decoding.models import eagle_head, heads, medusa_heads
from decoding.models.heads import Head, Settings, Shapes, open_head
from decoding.models.requirements import head_of
from tests import toys
from tests.toys import causal_lm

WITH_HEADS = [key for key, method in METHODS.items() if head_of(method)]
PUBLISHED = {"eagle": eagle_head, "medusa": medusa_heads}  # whose heads published files fill, too
OPTIONAL = {"eagle": {"vocab", "mapped", "embeds", "bias", "normed", "ranks"}}  # have a usual value


def shapes_of(key: str) -> Shapes:
    return (PUBLISHED.get(key) or import_module(f"decoding.methods.{key}")).shapes


def part_of(key: str, family) -> nn.Module:
    """The model that a head reads."""
    return getattr(family, head_of(METHODS[key])).model


@pytest.fixture(params=WITH_HEADS)
def key(request) -> str:
    return request.param


@pytest.fixture
def model(key, llama) -> nn.Module:
    return part_of(key, llama)


@pytest.fixture
def head(key, model, tmp_path, monkeypatch) -> Head:
    """An untrained one, written to `tmp_path`: the only one that is found."""
    made = open_head(toys.made_head(key, model), key, model, shapes_of(key))
    written(tmp_path, key, model, made.tensors, made.settings)
    monkeypatch.setattr(heads, "find", lambda *_: tmp_path)
    return made


def written(folder: Path, key: str, model: nn.Module, tensors: Mapping[str, Tensor], settings: Settings) -> None:
    heads.save(folder, key, model, dict(tensors), settings, {})


def refused(key: str, folder: Path, model: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_head(folder, key, model, shapes_of(key))


def test_what_was_written_is_opened(key, head, model, tmp_path):
    again = open_head(tmp_path, key, model, shapes_of(key))
    assert again.settings == head.settings and set(again.tensors) == set(head.tensors) == set(shapes_of(key)(head.settings))
    assert all(torch.equal(again.tensors[name], values) for name, values in head.tensors.items())


def test_a_head_of_another_model_or_method(key, head, model, tmp_path):
    refused(key, tmp_path, causal_lm("llama", seed=5), "was trained for the model .* hidden states mean different things")
    other = next(other for one, other in pairwise([*WITH_HEADS, WITH_HEADS[0]]) if one == key)
    refused(other, tmp_path, model, f"one of '{key}'; expected was '{other}'")


def test_tensors_that_are_missing_or_too_many(key, head, model, tmp_path):
    for name in (min(head.tensors), max(head.tensors)):
        others = {other: values for other, values in head.tensors.items() if other != name}
        save_file(others, tmp_path / heads.WEIGHTS)
        refused(key, tmp_path, model, f"missing {name}, too many none")
    save_file(head.tensors | {"more": torch.zeros(2)}, tmp_path / heads.WEIGHTS)
    refused(key, tmp_path, model, "missing none, too many more")


def test_tensors_of_another_shape_or_with_numbers_that_are_none(key, head, model, tmp_path):
    for name in (min(head.tensors), max(head.tensors)):
        larger = torch.zeros(*(size + 1 for size in head.tensors[name].shape), 2)
        save_file(head.tensors | {name: larger}, tmp_path / heads.WEIGHTS)
        refused(key, tmp_path, model, f"{name} in .* has the shape .*; expected was")
        for bad in (torch.nan, torch.inf):
            save_file(head.tensors | {name: torch.full_like(head.tensors[name], bad)}, tmp_path / heads.WEIGHTS)
            refused(key, tmp_path, model, "not finite")


def test_pickled_and_shortened_weights(key, head, model, tmp_path):
    torch.save(head.tensors, tmp_path / heads.WEIGHTS)
    refused(key, tmp_path, model, "cannot be read")
    written(tmp_path, key, model, head.tensors, head.settings)
    data = (tmp_path / heads.WEIGHTS).read_bytes()
    (tmp_path / heads.WEIGHTS).write_bytes(data[:-1])
    refused(key, tmp_path, model, "cut short")


def test_half_precision_on_disk_is_read_in_full(key, head, model, tmp_path):
    heads.save(tmp_path, key, model, dict(head.tensors), head.settings, {}, torch.float16)
    assert {values.dtype for values in load_file(tmp_path / heads.WEIGHTS).values()} == {torch.float16}
    again = open_head(tmp_path, key, model, shapes_of(key))
    assert all(torch.equal(values.half().float(), again.tensors[name]) for name, values in head.tensors.items())
    assert {values.dtype for values in again.tensors.values()} == {torch.float32}


def test_settings_that_are_missing(key, head):
    for name in set(head.settings) - OPTIONAL.get(key, set()):
        with pytest.raises(ValueError, match="cannot be"):
            shapes_of(key)({other: value for other, value in head.settings.items() if other != name})


def test_whole_numbers_that_cannot_be(key, head):
    whole = [name for name, value in head.settings.items() if type(value) is int]
    assert whole
    for name in whole:
        for value in (-1, True, 2.0, str(head.settings[name]), None, 2**40):
            with pytest.raises(ValueError, match="cannot be|do not divide"):
                shapes_of(key)(head.settings | {name: value})


@pytest.mark.parametrize(
    "settings", [{}, {"width": 0}, {"width": "3"}, {"width": True, "blocks": 1}, {"width": 10**9, "blocks": 10**9}]
)
def test_settings_of_nothing(key, settings):
    with pytest.raises(ValueError, match="cannot be"):
        shapes_of(key)(settings)


def test_a_head_for_states_of_another_width(key, head, model, llama, tmp_path):
    name = "reads" if key == "eagle" else "width"
    wide = head.settings | {name: 2 * head.settings[name]}
    tensors = {tensor: torch.zeros(shape) for tensor, shape in shapes_of(key)(wide).items()}
    written(tmp_path, key, model, tensors, wide)
    with pytest.raises(ValueError, match=f"states of width {wide[name]}.*; the (target|draft model) has {head.settings[name]}"):
        METHODS[key].build(llama, METHODS[key].params(), toys.GREEDY)
