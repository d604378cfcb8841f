"""The door of a model's folder: files, fields, numbers; and the trial of its tokenizer and template in a process of its own."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from decoding.models import checkpoints, probe
from decoding.models.family import EMBEDDED, load
from decoding.models.model_folder import check_folder, described, without
from decoding.models.progress import told_to
from decoding.models.published_heads import method_of

BASE = json.loads((EMBEDDED / "draft" / "tokenizer.json").read_text("utf-8"))


@pytest.fixture
def folder(folders, tmp_path) -> Path:
    return shutil.copytree(folders("llama"), tmp_path / "model")


def changed(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | fields), "utf-8")


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_link_out_of_the_folder_is_refused(folder, name):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ValueError, match=f"{name} in 'model' is a link that leads out of the folder"):
        load(str(folder), device="cpu")
    with pytest.raises(ValueError, match="leads out of the folder"):  # the same door for heads
        method_of(str(folder))


def test_links_within_the_folder_and_to_the_folder_are_fine(folder):
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    (folder.parent / "other").symlink_to(folder)
    check_folder(folder)
    check_folder(folder.parent / "other")


def test_the_cache_of_the_hub_is_made_of_links(folder, tmp_path):
    blobs, place = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "c"
    blobs.mkdir(parents=True)
    place.mkdir(parents=True)
    for file in folder.iterdir():
        shutil.copy(file, blobs)
        (place / file.name).symlink_to(blobs / file.name)
    check_folder(place)
    (place / "chat_template.jinja").symlink_to(folder / "config.json")
    with pytest.raises(ValueError, match="leads out"):
        check_folder(place)


def test_what_is_no_file_or_too_large_is_refused(folder):
    os.mkfifo(folder / "vocab.json")
    with pytest.raises(ValueError, match=r"vocab\.json is no file"):
        check_folder(folder)
    (folder / "vocab.json").unlink()
    with (folder / "config.json").open("r+b") as file:
        file.truncate(3 * 2**20)
    with pytest.raises(ValueError, match="config.json has 3,145,728 bytes; at most"):
        check_folder(folder)


def test_an_adapter_leads_to_another_model(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(ValueError, match="adapter for another model"):
        load(str(folder), device="cpu")


# -- fields ------------------------------------------------------------------------------------------------------------

CODE = {
    "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "org/other--evil.Evil"},
    "_attn_implementation": "org/kernel",
    "attn_implementation": {"": "org/kernel"},
    "experts_implementation": "org/kernel",
    "custom_pipelines": {"x": {"impl": "evil.Evil"}},
    "trust_remote_code": True,
    "use_kernels": True,
    "transformers_weights": "../other/model.safetensors",
    "configuration_files": ["config.4.0.0.json"],
    "fast_tokenizer_files": ["../tokenizer.4.0.json"],
    "tokenizer_file": "/etc/passwd",
    "init_inputs": ["/etc/passwd"],
}


@pytest.mark.parametrize("name", CODE)
def test_fields_that_choose_code_or_files_are_left_out(folder, name):
    """In the config and in the tokenizer's, at any depth; the folder itself stays as it is."""
    for file in ("config.json", "tokenizer_config.json"):
        changed(folder / file, **{name: CODE[name]}, extra={"deep": [{name: CODE[name]}]})
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with described(folder) as place:
        assert place != folder
        said = [(place / file).read_text("utf-8") for file in ("config.json", "tokenizer_config.json")]
        assert not any(f'"{name}"' in text for text in said) and "model.safetensors" not in os.listdir(place)
    assert not place.exists()
    family = load(str(folder), device="cpu")
    assert family.encode("The cat", 64) and family.target.model.config._attn_implementation == "sdpa"
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_folder_without_such_fields_is_opened_as_it_is(folder):
    with described(folder) as place:
        assert place == folder
    assert without({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


def test_what_weights_lack_is_a_sentence_and_no_report(folder, monkeypatch):
    said: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger(checkpoints.REPORTS)
    logger.addHandler(listener)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    try:
        with pytest.raises(ValueError, match="missing: model.norm.weight"):
            load(str(folder), device="cpu")
        assert not said and not logger.filters
        monkeypatch.setattr(checkpoints, "no_report", lambda record: True)
        with pytest.raises(ValueError, match="missing: model.norm.weight"):
            load(str(folder), device="cpu")
        assert any("LOAD REPORT" in one for one in said)  # what it would have said
    finally:
        logger.removeHandler(listener)


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("config.json", {"tie_word_embeddings": "yes"}, "Validation error for field 'tie_word_embeddings'"),
        ("config.json", {"layer_types": ["x"]}, "layer_types"),
        ("config.json", {"num_attention_heads": 0}, "by zero"),
        ("tokenizer_config.json", {"model_max_length": {"a": 1}}, "model_max_length in tokenizer_config.json is .* no number"),
    ],
)
def test_fields_of_another_kind_are_a_sentence(folder, file, fields, words):
    changed(folder / file, **fields)
    with pytest.raises(ValueError, match=f"cannot be opened: .*{words}"):
        load(str(folder), device="cpu")


# -- numbers -----------------------------------------------------------------------------------------------------------

NUMBERS = {
    "num_hidden_layers": 1_000_000,
    "num_labels": 10**9,
    "num_attention_heads": 10**7,
    "max_position_embeddings": 10**12,
    "vocab_size": 10**400,
    "layer_types": ["full_attention"] * 100_000,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_no_model_has_are_refused_at_once(folder, name):
    changed(folder / "config.json", **{name: NUMBERS[name]})
    with pytest.raises(ValueError, match=f"{name} in config.json .* can be read"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("fields", [{"vocab_size": 2**24}, {"intermediate_size": 2**24}, {"num_hidden_layers": 900}])
def test_a_config_of_a_far_larger_model_takes_no_memory(folder, fields):
    changed(folder / "config.json", **fields, **({"intermediate_size": 2**20} if "num_hidden_layers" in fields else {}))
    with pytest.raises(ValueError, match="describes a model of .* its weights are"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("text", ["[", "[]", "7", '{"a": ' * 100_000, '{"num_hidden_layers": ' + "9" * 5000 + "}", "\0"])
def test_a_damaged_config_is_a_sentence(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be opened"):
        load(str(folder), device="cpu")


# -- tokenizers and templates ------------------------------------------------------------------------------------------


def replacing(count: int, pattern: dict) -> dict:
    return {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": pattern, "content": "a" * 9}] * count}


def split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


TOKENIZERS = {
    "a broken trie": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "an endless search": {"pre_tokenizer": split("(a+)+$")},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a replacement of nothing": {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}},
    "replacements in a row": {"normalizer": replacing(9, {"String": "a"})},
    "replacements of anything": {"normalizer": replacing(9, {"Regex": "."})},
    "replacements behind": {"decoder": {"type": "Sequence", "decoders": replacing(9, {"String": "a"})["normalizers"]}},
    "no tokens": {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
    "nothing": {"model": None},
}


@pytest.mark.parametrize("fault", TOKENIZERS)
@pytest.mark.parametrize("part", ["target", "draft"])
def test_a_tokenizer_that_breaks_what_opens_it_is_a_sentence(folder, fault, part):
    (folder / "tokenizer.json").write_text(json.dumps(BASE | TOKENIZERS[fault]), "utf-8")
    with pytest.raises(ValueError, match="cannot be opened: (its tokenizer|the (normalizer|decoder) in|.*tokenizer.json)"):
        load(str(folder), device="cpu") if part == "target" else load("embedded", str(folder), device="cpu")


def test_a_tokenizer_that_takes_all_memory_is_ended(folder, monkeypatch):
    """Past the look at its parts, so that the limit of the process is what ends it."""
    changed(folder / "tokenizer.json", normalizer=replacing(9, {"String": "a"}))
    assert "memory" in probe.tried(folder)


TEMPLATES = {
    "powers": "{{ 9 ** 9 ** 9 }}",
    "a number": "{{ 'a' * 10000000000 }}",
    "no template": "{% for %}",
    "no end": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
}


@pytest.mark.parametrize("fault", TEMPLATES)
@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja", "additional_chat_templates/other.jinja"])
def test_a_template_that_need_not_end_is_a_sentence(folder, fault, file, monkeypatch):
    monkeypatch.setattr(probe, "TRIAL", replace(probe.TRIAL, patience=3))  # of the one without an end
    if file.endswith(".json"):
        changed(folder / file, chat_template=[{"name": "default", "template": TEMPLATES[fault]}])
    else:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(TEMPLATES[fault], "utf-8")
    with pytest.raises(ValueError, match="chat template"):
        load(str(folder), device="cpu")


def test_a_template_may_refuse_a_chat(folder):
    template = "{% generation %}{{ raise_exception('no system') }}{% endgeneration %}{{ messages[9].content | tojson }}"
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    assert load(str(folder), device="cpu").chats


def test_a_folder_is_tried_once_as_long_as_it_stays_the_same(folder, monkeypatch):
    tried = []
    monkeypatch.setattr(probe, "tried", lambda place: tried.append(place) or "")
    for _ in range(3):
        load(str(folder), device="cpu")
    assert len(tried) == 1
    changed(folder / "tokenizer_config.json", extra=1)
    load(str(folder), device="cpu")
    load("embedded", device="cpu")  # what ships is not tried
    assert len(tried) == 2


def test_a_trial_can_be_stopped(folder):
    def stop(progress) -> None:
        if "of its own" in progress.stage:
            raise KeyError("stopped")

    with pytest.raises(KeyError, match="stopped"), told_to(stop):
        probe.check(folder)
