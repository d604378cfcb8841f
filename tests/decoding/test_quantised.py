"""Quantised folders open where transformers opens them here, and else say the format and what is lacking."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from decoding.models import quantised
from decoding.models.family import load
from decoding.runs.run import Run
from tests.toys import causal_lm, save

WIDTH = 128  # one block of FP8
NEEDED = [(method, name, packages) for method, (name, packages) in quantised.FORMATS.items() if packages]


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    model = causal_lm("llama", hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1)
    save(tmp_path, model, tokenizer)
    return tmp_path


def say(folder: Path, said: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))


@pytest.mark.parametrize("method, name, packages", NEEDED)
def test_the_format_and_the_packages_that_are_lacking_are_named(method, name, packages, folder, monkeypatch):
    monkeypatch.setattr(quantised, "there", lambda module: module == "accelerate")
    monkeypatch.setattr("transformers.quantizers.auto.AutoHfQuantizer.from_config", refuse)
    say(folder, {"quant_method": method, "bits": 4, "group_size": 128, "load_in_4bit": True})
    with pytest.raises(ValueError) as caught:
        load(str(folder), device="cpu")
    verb = "is" if len(packages) == 1 else "are"
    words = (
        f"it is quantised ({name}), for which the package{'s' * (verb == 'are')} {' and '.join(packages.values())} {verb} lacking"
    )
    assert f"The model {str(folder)!r} cannot be opened: {words} here." in str(caught.value)


def refuse(*given, **more):
    raise ImportError("a package is not there")


def test_a_draft_model_says_it_too(folder, monkeypatch, folders):
    monkeypatch.setattr(quantised, "there", lambda module: module == "accelerate")
    say(folder, {"quant_method": "awq"})
    with pytest.raises(ValueError, match=r"quantised \(AWQ\), for which the package gptqmodel is lacking"):
        load(folders("llama"), str(folder), device="cpu")


@pytest.mark.parametrize("method", quantised.FETCHED)
def test_what_runs_with_code_from_the_hub_is_refused(method, folder):
    say(folder, {"quant_method": method})
    with pytest.raises(ValueError, match=rf"quantised \({method}\), which runs with code that is fetched"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("said", [{"bits": 4}, [1], "int4", {"quant_method": ["a"]}])
def test_a_description_that_is_none_is_a_sentence(said, folder):
    say(folder, said)
    with pytest.raises(ValueError, match="cannot be opened"):
        load(str(folder), device="cpu")


def halved(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The layers' matrices in FP8 with one scale each, and what they are worth."""
    stored, worth = dict(weights), dict(weights)
    for name, values in weights.items():
        if "_proj" in name:
            scale = values.abs().max() / 448
            stored[name] = (values / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale.view(1, 1)
            worth[name] = stored[name].float() * scale
    return stored, worth


def test_fp8_opens_as_plain_numbers_and_says_so(folder):
    stored, worth = halved(load_file(folder / "model.safetensors"))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    say(folder, {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [WIDTH, WIDTH]})
    family = load(str(folder), device="cpu")
    (note,) = family.notes
    assert "is stored in FP8; it was opened as plain numbers (float32)" in note and str(folder) in note
    for name, values in family.target.model.state_dict().items():
        if name in worth:
            assert torch.allclose(values, worth[name], rtol=1e-2, atol=1e-6), name
    assert sum(len(step.tokens) for step in Run(family, "token_recycling", prompt="the cat", max_tokens=6)) == 6


def test_an_fp8_folder_with_a_tensor_missing_is_refused(folder):
    stored, _ = halved(load_file(folder / "model.safetensors"))
    del stored["model.layers.0.mlp.up_proj.weight"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    say(folder, {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [WIDTH, WIDTH]})
    with pytest.raises(ValueError, match="up_proj"):
        load(str(folder), device="cpu")
