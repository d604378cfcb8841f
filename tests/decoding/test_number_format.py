"""The number format of a model on a processor: bfloat16 where a measurement says that it is faster."""

import json
import shutil

import pytest
import torch
from transformers import LlamaConfig

from decoding.models import number_format
from decoding.models.family import EMBEDDED, load
from decoding.models.number_format import ROWS, on_processor, speedups, stored_in_bfloat16

STORED = LlamaConfig(hidden_size=64, intermediate_size=128, dtype="bfloat16")


@pytest.fixture
def able(monkeypatch):
    """A processor that multiplies bfloat16, so many times as fast as float32."""

    def make(*found: float) -> None:
        monkeypatch.setattr(number_format, "has_bfloat16", lambda: True)
        monkeypatch.setattr(number_format, "speedups", lambda *_shape: found)

    return make


@pytest.mark.parametrize(("found", "taken"), [((1.6, 2.5), "bfloat16"), ((1.6, 0.2), "float32"), ((0.9, 2.5), "float32")])
def test_what_is_faster_for_both_is_taken_and_said(able, found, taken):
    able(*found)
    kind, note = on_processor(STORED, "toy")
    assert kind == taken and f"'toy' is read in {taken}" in note
    assert all(f"{times:.2f}" in note for times in found)


def test_without_the_instructions_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(number_format, "has_bfloat16", lambda: False)
    monkeypatch.setattr(number_format, "speedups", lambda *_shape: pytest.fail("it was measured"))
    assert on_processor(STORED, "toy") == ("float32", "")


@pytest.mark.parametrize(
    "fields", [{"dtype": "float16"}, {"dtype": None}, {"quantization_config": {"bits": 4}}, {"hidden_size": 0}]
)
def test_only_what_is_stored_in_bfloat16_has_a_choice(able, fields):
    able(9, 9)
    config = LlamaConfig(**{"hidden_size": 64, "intermediate_size": 128, "dtype": "bfloat16"} | fields)
    assert stored_in_bfloat16(config) is None and on_processor(config, "toy") == ("float32", "")


def test_a_measurement_is_a_measurement():
    found = speedups(256, 128)
    assert len(found) == len(ROWS) and all(0 < times < 1000 for times in found)


@pytest.mark.parametrize(("found", "taken"), [((2, 2), torch.bfloat16), ((2, 0.5), torch.float32)])
def test_a_folder_is_opened_in_it(able, tmp_path, found, taken):
    able(*found)
    folder = shutil.copytree(EMBEDDED / "draft", tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    family = load(str(folder))
    assert family.target.dtype == taken and any("on this processor" in note for note in family.notes)
    assert load(str(folder), dtype="float32").target.dtype == torch.float32, "what the user names is taken"


def test_what_ships_stays_as_it_was_recorded(able):
    able(9, 9)
    assert load("embedded").target.dtype == torch.float32
