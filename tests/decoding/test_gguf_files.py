"""GGUF files: a random model written as llama.cpp writes it opens as what it was, or is refused with a sentence."""

import numpy as np
import pytest
import torch

from decoding.models import apart, converting, downloads, fetching, gguf_files
from decoding.models.apart import Ended, conversion
from decoding.models.family import load
from decoding.models.gguf_files import LLAMA3, llama3_factors
from decoding.models.progress import told_to
from tests import gguf_samples, toys

APART = fetching.convert_apart
QUANTS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
ROUNDED = {"BF16": 2e-2, "F16": 2e-3}  # of a norm's weight, or of a block's scale
WORDS = "the cat and a dog"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Most of these files are converted here: a process of its own imports torch and transformers for each."""
    monkeypatch.setattr(fetching, "convert_apart", gguf_files.convert)


def logits_of(model, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def check_same(family, model, tolerance: float = 0.05) -> None:
    """The opened model scores as the one that was written."""
    ids = family.encode(WORDS, 100)
    found, wanted = logits_of(family.target.model, ids), logits_of(model, ids)
    assert (found - wanted).abs().max() < tolerance * wanted.std()


@pytest.mark.parametrize("quant", QUANTS)
def test_every_kind_of_blocks_opens_as_what_it_was(quant, tmp_path):
    model = gguf_samples.write(tmp_path / "a.gguf", quant=quant)
    family = load(str(tmp_path / "a.gguf"), device="cpu")
    check_same(family, model)
    assert family.target.ends == {0} and not family.notes and family.tokenizer.chat_template == gguf_samples.TEMPLATE
    assert family.text(family.encode(WORDS, 100)) == WORDS
    assert family.tokenizer.get_vocab() == toys.tokenizer().get_vocab()


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_other_architectures_open(kind, tmp_path):
    model = gguf_samples.write(tmp_path / "a.gguf", kind)
    check_same(load(str(tmp_path / "a.gguf"), device="cpu"), model)


def test_tied_embeddings_and_fewer_key_heads(tmp_path):
    sizes = {"tie_word_embeddings": True, "num_key_value_heads": 1}
    model = gguf_samples.write(tmp_path / "a.gguf", **sizes)
    check_same(load(str(tmp_path / "a.gguf"), device="cpu"), model)


def test_it_is_converted_once_and_again_when_it_is_another(tmp_path):
    file = tmp_path / "model.GGUF"
    gguf_samples.write(file)
    told = []
    with told_to(told.append):
        load(str(file), device="cpu")
    assert [step for step in told if step.stage == "converting"]
    again = []
    with told_to(again.append):
        load(str(file), device="cpu")
    assert not [step for step in again if step.stage == "converting"]
    before = fetching.converted_place(file)
    gguf_samples.write(file, quant="Q8_0")
    assert fetching.converted_place(file) != before


def test_a_gguf_file_drafts(tmp_path, tiny_gguf):
    family = load(str(tiny_gguf), str(tiny_gguf), device="cpu")
    assert family.draft is not None and family.name == f"{tiny_gguf} + {tiny_gguf}"


def test_weights_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_files, "SHARD", 20_000)
    model = gguf_samples.write(tmp_path / "a.gguf", quant="Q4_1", num_hidden_layers=3)
    family = load(str(tmp_path / "a.gguf"), device="cpu")
    assert len(list(fetching.converted_place(tmp_path / "a.gguf").glob("*.safetensors"))) > 2
    check_same(family, model)


def test_further_end_tokens_end_a_text(tmp_path):
    gguf_samples.write(tmp_path / "a.gguf", facts={"tokenizer.ggml.eot_token_id": 7})
    assert load(str(tmp_path / "a.gguf"), device="cpu").target.ends == {0, 7}


def test_an_unknown_way_to_split_text_is_said(tmp_path):
    gguf_samples.write(tmp_path / "a.gguf", facts={"tokenizer.ggml.pre": "novel"})
    assert "(novel) is not known here" in load(str(tmp_path / "a.gguf"), device="cpu").notes[0]


def test_digits_stand_apart_where_the_file_says_so(tmp_path):
    gguf_samples.write(tmp_path / "a.gguf", facts={"tokenizer.ggml.pre": "smollm"})
    family = load(str(tmp_path / "a.gguf"), device="cpu")
    spaces = family.encode("a  12", 100)
    assert family.text(spaces) == "a  12" and not family.notes
    assert type(family.tokenizer.backend_tokenizer.pre_tokenizer).__name__ == "Sequence"


# -- positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts, wanted",
    [
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        ),
        ({"rope.scaling.type": "none"}, {"rope_type": "default"}),
    ],
)
def test_scaled_positions_are_read(facts, wanted, tmp_path):
    gguf_samples.write(tmp_path / "a.gguf", facts={f"llama.{key}": value for key, value in facts.items()})
    found = load(str(tmp_path / "a.gguf"), device="cpu").target.model.config.rope_parameters
    assert found.items() >= wanted.items()


def test_llama_3_scales_its_frequencies(tmp_path):
    model = toys.causal_lm("llama")
    factors = llama3_factors(8, model.config, 32.0)
    assert factors[0] == 1 and factors.max() <= 32
    theta, count = 500_000.0, 32
    wave = 2 * np.pi * theta ** (np.arange(count) / count)
    factors = np.where(wave < 8192 / 4, 1.0, np.where(wave > 8192, 32.0, 0.0))
    known = factors > 0
    config = toys.causal_lm("llama", rope_parameters={"rope_theta": theta, "rope_type": "default"}).config
    assert np.allclose(llama3_factors(count, config, 32.0)[known], factors[known])
    sizes = {"head_dim": 2 * count, "rope_parameters": {"rope_theta": theta, "rope_type": "default"}}
    gguf_samples.write(tmp_path / "a.gguf", extra={gguf_files.FREQUENCIES: llama3_factors(count, config, 32.0)}, **sizes)
    found = load(str(tmp_path / "a.gguf"), device="cpu").target.model.config.rope_parameters
    assert found.items() >= {"rope_type": "llama3", "factor": 32.0, **LLAMA3}.items()


REFUSED = {
    "scales its rotary positions in a way that is not known here .longrope.": {
        "facts": {"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0}
    },
    "scales its rotary positions in a way that is not known here .rope_freqs": {"extra": {"rope_freqs.weight": [3.0] * 8}},
    "holds tensors that transformers has no place for: blk.0.attn_sinks": {"extra": {"blk.0.attn_sinks.weight": [1.0, 2.0]}},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_would_be_computed_wrongly_is_refused(sentence, tmp_path):
    gguf_samples.write(tmp_path / "a.gguf", **REFUSED[sentence])
    with pytest.raises(ValueError, match=sentence):
        load(str(tmp_path / "a.gguf"), device="cpu")


# -- what is none ------------------------------------------------------------------------------------------------------


def test_what_is_no_gguf_file_is_refused(tmp_path, tiny_gguf):
    whole = tiny_gguf.read_bytes()
    damaged = {
        "is no GGUF file: it does not begin as one": b"PK\3\4 something else",
        "is cut short": whole[:-5000],
        "is cut short, or is no GGUF file that can be read": whole[:300],
        "is no GGUF file that can be read": whole[:4] + b"\xff" * 400,
    }
    for sentence, data in damaged.items():
        (tmp_path / "a.gguf").write_bytes(data)
        with pytest.raises(ValueError, match=sentence):
            load(str(tmp_path / "a.gguf"), device="cpu")
    with pytest.raises(ValueError, match="There is no file"):
        load(str(tmp_path / "none.gguf"), device="cpu")


def test_an_architecture_that_nobody_maps_is_named(tmp_path, tiny_gguf):
    data = tiny_gguf.read_bytes().replace(b"llama", b"ollma")
    (tmp_path / "a.gguf").write_bytes(data)
    with pytest.raises(ValueError, match="holds a model of the kind 'ollma', which cannot be opened"):
        load(str(tmp_path / "a.gguf"), device="cpu")


def test_sizes_that_no_model_has_are_refused_at_once(tmp_path):
    gguf_samples.write(tmp_path / "a.gguf", facts={"llama.block_count": 10**6})
    with pytest.raises(ValueError, match="num_hidden_layers .* is 1,000,000; at most 1,000 can be read"):
        load(str(tmp_path / "a.gguf"), device="cpu")


# -- in a process of its own -------------------------------------------------------------------------------------------


@pytest.fixture
def in_its_own(monkeypatch):
    monkeypatch.setattr(fetching, "convert_apart", APART)


def test_a_file_is_converted_in_a_process_of_its_own(tmp_path, in_its_own, monkeypatch):
    """Nothing of it is read here, and how far it is comes across."""
    monkeypatch.setattr(gguf_files, "convert", lambda file, folder: pytest.fail("it was converted here"))
    model, told = gguf_samples.write(tmp_path / "a.gguf", quant="Q8_0", facts={"general.name": "apart"}), []
    with told_to(told.append):
        check_same(load(str(tmp_path / "a.gguf"), device="cpu"), model)
    assert any("of its own" in step.stage for step in told)


def test_what_is_wrong_with_a_file_comes_across(tmp_path, in_its_own):
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + b"\xff" * 400)
    with pytest.raises(ValueError, match="is cut short, or is no GGUF file that can be read"):
        load(str(tmp_path / "a.gguf"), device="cpu")
    assert not (fetching.converted_place(tmp_path / "a.gguf") / fetching.WHOLE).exists()


def test_how_a_conversion_ends_is_a_sentence(tmp_path, monkeypatch):
    """Killed for its memory or its time, ended by a signal, or never heard of again."""
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    for end, words in (
        (Ended(-9, ""), "takes more than 120 seconds of a processor, or all memory"),
        (Ended(-11, ""), r"ends the process that converts it \(signal 11\)"),
        (Ended(None, ""), "nothing was heard of it for 300 seconds"),
        (Ended(1, "a\nIt is wrong.\n"), "It is wrong."),
    ):

        def ended(*arguments, end=end):
            yield None
            return end

        monkeypatch.setattr(apart, "run", ended)
        with pytest.raises(ValueError, match=words):
            list(converting.convert_apart(file, tmp_path / "new"))
    assert conversion(10**9).memory > 8 * 10**9 and conversion(10**9).seconds > conversion(1).seconds


def test_no_room_is_said(tmp_path, monkeypatch):
    gguf_samples.write(tmp_path / "full.gguf", quant="Q5_0")
    monkeypatch.setattr(downloads, "SPARE", 2**60)
    with pytest.raises(ValueError, match="full.gguf needs .* the disk has .* left"):
        load(str(tmp_path / "full.gguf"), device="cpu")
