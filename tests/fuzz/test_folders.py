"""Folders of models and heads: what is damaged, or made to run code, to read other files or to take all memory, is refused with a
sentence; what opens drafts and decodes. Nothing outside of the folder is read, and nothing is asked of the net."""

import json
import shutil
import socket
import struct
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from decoding.methods import METHODS
from decoding.models import heads, probe
from decoding.models.family import Family, load
from decoding.models.requirements import head_of
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.decoding.test_published_heads import FORMATS, folder, written  # noqa: F401  a fixture
from tests.fuzz.mutations import case, cases, changed, damaged, opened

MODELS, TOKENIZERS, HEADS, PUBLISHED = 80, 12, 60, 60
SECRET = "SECRET"  # a folder beside the one that is opened
WITH_HEADS = [key for key, method in METHODS.items() if head_of(method) and (heads.EMBEDDED / key).is_dir()]
FIELDS: dict[str, Any] = {
    "auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"},
    "_attn_implementation": "org/kernel",
    "attn_implementation": "eager",
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "transformers_weights": f"../{SECRET}/model.safetensors",
    "rope_parameters": {"rope_type": "evil"},
    "text_config": {"auto_map": {}},
    "num_hidden_layers": 10**9, "vocab_size": 2**40, "hidden_size": 0, "num_attention_heads": 0, "head_dim": -1, "pad_token_id": -1,
    "max_position_embeddings": -5, "eos_token_id": 10**9, "sliding_window": -3, "torch_dtype": 7, "rms_norm_eps": "nan",
    "model_type": "../../x", "architectures": ["os.system"], "dtype": "evil", "layer_types": ["x"], "hidden_act": "exec",
    "tie_word_embeddings": "yes", "is_encoder_decoder": True,
}  # fmt: skip
SAID = ("config.json", "config.json", "generation_config.json", "tokenizer_config.json")  # files that say what a model is
TENSOR: dict[str, Any] = {
    "shape": ([2**40], [-1], [], [0, 0], "x", [1.5]),
    "dtype": ("F8", "I64", "", 7, "BOOL"),
    "data_offsets": ([0, 2**62], [9, 3], [-1, 5]),
}


@pytest.fixture(autouse=True)
def no_net(monkeypatch):
    """Any connection fails the test."""

    def refused(*arguments, **more):
        raise AssertionError(f"the net was asked: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refused)


# -- faults ------------------------------------------------------------------------------------------------------------------


def json_changed(file: Path, dice: Random) -> None:
    said = json.loads(file.read_text("utf-8"))
    for name in dice.sample(sorted(FIELDS), dice.randint(0, 3)):
        said[name] = FIELDS[name]
    said = changed(said, dice) if dice.random() < 0.6 else said
    try:
        file.write_text(json.dumps(said), "utf-8")
    except (ValueError, TypeError, UnicodeEncodeError, RecursionError):  # nothing that a file could say
        file.write_bytes(b"{")


def bytes_damaged(file: Path, dice: Random) -> None:
    file.write_bytes(damaged(file.read_bytes(), dice))


def header_changed(file: Path, dice: Random) -> None:
    """The list of a safetensors file says something else."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    said = json.loads(data[8 : 8 + size])
    one = said[dice.choice(sorted(set(said) - {"__metadata__"}))]
    what = dice.choice(sorted(TENSOR))
    one[what] = dice.choice(TENSOR[what])
    text = json.dumps(said).encode()
    length = dice.choice((len(text), len(text), 2**62, 0))
    file.write_bytes(struct.pack("<Q", length) + text + data[8 + size :])


def numbers_broken(file: Path, dice: Random) -> None:
    """Numbers that are none, or far too large."""
    tensors = load_file(file)
    name = dice.choice(sorted(name for name, values in tensors.items() if values.is_floating_point()))
    most = torch.finfo(tensors[name].dtype).max
    tensors[name] = torch.full_like(tensors[name], dice.choice((float("nan"), float("inf"), most)))
    save_file(tensors, file, {"format": "pt"})


def elsewhere(file: Path, dice: Random) -> None:
    """The weights are a link, a pickle, a folder, or a list that leads somewhere."""
    beside, what = file.parent.parent / SECRET, dice.randrange(5)
    names = [name for name in load_file(file) if name]
    file.unlink()
    if what == 0:
        file.symlink_to(beside / "model.safetensors")
    elif what == 1:
        torch.save({"a": torch.zeros(1)}, file.parent / "pytorch_model.bin")
    elif what == 2:
        file.mkdir()
    else:
        shard = dice.choice(
            (f"../{SECRET}/model.safetensors", str(beside / "model.safetensors"), "shard.bin", "", "a.safetensors", 7, None)
        )
        said = (
            {"weight_map": dict.fromkeys(names, shard)}
            if what == 3
            else dice.choice(([], {"weight_map": []}, {"weight_map": {}}, "x"))
        )
        (file.parent / "model.safetensors.index.json").write_text(json.dumps(said))


def beside(place: Path, good: Path) -> None:
    """The same model where nothing may be read."""
    if not (place / SECRET).exists():
        shutil.copytree(good, place / SECRET)


def used(family: Family, method: str = "plain") -> None:
    """Two tokens of it."""
    list(Run(family, method, prompt="the cat", sampling=Sampling(0.7), max_tokens=2))


# -- models --------------------------------------------------------------------------------------------------------------------


def test_models(folders, tmp_path, monkeypatch):
    """Config and weights; the tokenizer is the good one, so that it need not be tried again."""
    monkeypatch.setattr(probe, "tried", lambda place: "")
    good = Path(folders("llama"))
    beside(tmp_path, good)
    faults = (json_changed, json_changed, bytes_damaged, header_changed, header_changed, numbers_broken, elsewhere)
    for name, dice in cases("model", MODELS):
        place = tmp_path / "model"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(good, place)
        fault = dice.choice(faults)
        weights = fault in (header_changed, numbers_broken, elsewhere) or (fault is bytes_damaged and dice.random() < 0.3)
        file = place / ("model.safetensors" if weights else dice.choice(SAID))
        fault(file, dice)
        with case(f"{name}, {fault.__name__} {file.name}", file.read_bytes()[:4_000] if file.is_file() else b""):
            family = opened(lambda place=place: load(str(place), device="cpu"), SECRET)
            if family is not None:
                opened(lambda family=family: used(family))


def test_tokenizers_and_templates(folders, tmp_path):
    """Tried in the process of their own, as of any model."""
    good = Path(folders("llama"))
    for name, dice in cases("tokenizer", TOKENIZERS):
        place = tmp_path / name.replace(" ", "_")
        shutil.copytree(good, place)
        file = place / dice.choice(("tokenizer.json", "tokenizer.json", "tokenizer_config.json"))
        dice.choice((json_changed, bytes_damaged))(file, dice)
        if dice.random() < 0.3:
            (place / "chat_template.jinja").write_text(
                dice.choice(("{{ messages", "{% for m in messages %}{{ m.x.y }}{% endfor %}"))
            )
        with case(f"{name}, {file.name}", file.read_bytes()[:4_000]):
            family = opened(lambda place=place: load(str(place), device="cpu"), str(tmp_path))
            if family is not None:
                opened(lambda family=family: used(family))


# -- heads -----------------------------------------------------------------------------------------------------------------------


def test_trained_heads(embedded, tmp_path, monkeypatch):
    """head.json and weights of every method that has them."""
    place = tmp_path / "head"
    monkeypatch.setattr(heads, "find", lambda method, model: place)
    for number, (name, dice) in enumerate(cases("head", HEADS)):
        method = WITH_HEADS[number % len(WITH_HEADS)]
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(heads.EMBEDDED / method, place)
        fault = dice.choice((json_changed, json_changed, bytes_damaged, header_changed, numbers_broken))
        file = place / (
            "head.json" if fault is json_changed or (fault is bytes_damaged and dice.random() < 0.5) else "model.safetensors"
        )
        fault(file, dice)
        with case(f"{name}, {method}, {fault.__name__} {file.name}", file.read_bytes()[:4_000]):
            opened(lambda method=method: used(embedded, method), SECRET)


def test_published_heads(folder, tmp_path):  # noqa: F811
    """config.json and weights in every format that is read."""
    target = load(folder, device="cpu")
    for name, dice in cases("published", PUBLISHED):
        kind = dice.choice(list(FORMATS))
        method, config, tensors = FORMATS[kind]
        place = written(tmp_path / "head" / name.replace(" ", "_"), config, tensors)
        beside(place.parent, place)
        fault = dice.choice((json_changed, json_changed, bytes_damaged, header_changed, numbers_broken, elsewhere))
        file = place / (
            "config.json" if fault is json_changed or (fault is bytes_damaged and dice.random() < 0.5) else "model.safetensors"
        )
        fault(file, dice)
        family = replace(target, heads={method: place})
        with case(f"{name}, {kind}, {fault.__name__} {file.name}", file.read_bytes()[:4_000] if file.is_file() else b""):
            opened(lambda family=family, method=method: used(family, method), SECRET)
