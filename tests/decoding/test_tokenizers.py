"""Tokenizers as people have them: sentencepiece alone, WordPiece, ends of words, added tokens, and one beginning of a text."""

import json
import sys

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from decoding.models.family import Family, load
from decoding.models.token_bytes import token_bytes_maker
from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.toys import TEXT, causal_lm, tokenizer

# -- a folder with tokenizer.model alone -------------------------------------------------------------------------------


@pytest.fixture(params=["bpe", "unigram"])
def pieces(request, tmp_path):
    """A folder with a random llama and a sentencepiece model like Llama's that was trained here, and that model."""
    return sentencepieces(tmp_path, request.param, normalization_rule_name="identity", remove_extra_whitespaces=False)


def sentencepieces(tmp_path, kind: str, **more):
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    folder = tmp_path / "model"
    causal_lm("llama", vocab_size=320).save_pretrained(folder)
    (tmp_path / "text.txt").write_text(f"{TEXT}\n" * 30)
    SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=290, model_type=kind,
        byte_fallback=True, hard_vocab_limit=False, unk_id=0, bos_id=1, eos_id=2, minloglevel=2, **more,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    return folder, SentencePieceProcessor(str(folder / "tokenizer.model"))


@pytest.mark.parametrize("said", [None, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>"}])
def test_a_folder_with_a_sentencepiece_model_alone_opens_and_cuts_as_it_does(pieces, said):
    """transformers left alone takes another class for it, which loses the space before the first word."""
    folder, own = pieces
    if said:
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
    family = load(str(folder), device="cpu")
    for text in ("the cat sat on the mat", "12 caf\u00e9s", "a  b"):
        assert list(family.encode(text, 160)) == [own.bos_id(), *own.encode(text)]
        assert family.text(own.encode(text)) == f" {text}"
    assert len(family.notes) == (said is None)
    assert all("texts begin with <s>" in note and str(folder) in note for note in family.notes)
    assert sum(len(step.tokens) for step in Run(family, "prompt_lookup", prompt="the cat", max_tokens=6)) == 6


def test_spaces_that_sentencepiece_takes_out_are_said(tmp_path):
    family = load(str(sentencepieces(tmp_path, "unigram")[0]), device="cpu")
    assert "takes out spaces at the end and next to others; here they are kept" in family.notes[-1]


def test_a_tokenizer_that_transformers_would_cut_differently_is_refused(pieces, monkeypatch):
    monkeypatch.setattr("decoding.models.tokenizers.cuts_alike", lambda tokenizer, own: False)
    with pytest.raises(ValueError, match="tokenizer.model is cut by transformers into other pieces than by sentencepiece"):
        load(str(pieces[0]), device="cpu")


def test_without_the_package_that_is_said(pieces, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ValueError, match="cannot be opened: its only tokenizer is tokenizer.model, for which the package sentence"):
        load(str(pieces[0]), device="cpu")


@pytest.mark.parametrize("data", [b"", b"IQ== 0\nIg== 1\n", bytes(range(256))])
def test_a_tokenizer_model_of_another_kind_is_a_sentence(pieces, data):
    (pieces[0] / "tokenizer.model").write_bytes(data)
    with pytest.raises(ValueError, match="cannot be opened"):
        load(str(pieces[0]), device="cpu")


# -- the text of pieces ------------------------------------------------------------------------------------------------

CORPUS = ["the cat sat on the mat and the dog sat on the log; playing cats played \u00e9t\u00e9"]


def trained(model, trainer, pre, decoder, added=(), **more) -> PreTrainedTokenizerFast:
    made = Tokenizer(model)
    made.pre_tokenizer, made.decoder = pre, decoder
    made.train_from_iterator(CORPUS, trainer)
    made.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=made, **more)


def wordpiece(added=()) -> PreTrainedTokenizerFast:
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    model, pre = models.WordPiece(unk_token="[UNK]"), pre_tokenizers.BertPreTokenizer()
    return trained(model, trainer, pre, decoders.WordPiece(), added, unk_token="[UNK]", sep_token="[SEP]")


def words_ended(added=()) -> PreTrainedTokenizerFast:
    model = models.BPE(unk_token="<unk>", end_of_word_suffix="</w>")
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False)
    return trained(model, trainer, pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder(suffix="</w>"), added, unk_token="<unk>")


def byte_level(added=()) -> PreTrainedTokenizerFast:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<e>"], initial_alphabet=alphabet, show_progress=False)
    return trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), added)


def text_of(words: PreTrainedTokenizerFast, text: str) -> str:
    of = token_bytes_maker(words)
    return b"".join(map(of, words(text, add_special_tokens=False)["input_ids"])).decode()


def test_pieces_of_wordpiece_are_put_together():
    assert text_of(wordpiece(), "the dogs played") == " the dogs played"
    pieces = wordpiece().convert_ids_to_tokens(wordpiece()("the dogs played")["input_ids"])
    assert any(piece.startswith("##") for piece in pieces)


def test_special_tokens_of_wordpiece_are_themselves():
    assert text_of(wordpiece(), "the[SEP]cat") == " the[SEP] cat"


def test_the_ends_of_words_are_spaces():
    assert text_of(words_ended(), "the cats played the log") == "the cats played the log "


ADDED = ["caf\u00e9", "\u00a1ol\u00e9!", "na\u00efve words", "\u00e9", "\u0120", AddedToken("<|\u00fcber|>", normalized=False)]


@pytest.mark.parametrize("kind", [byte_level, words_ended, wordpiece])
@pytest.mark.parametrize("added", ADDED, ids=str)
def test_added_tokens_with_accents_are_what_they_say(kind, added):
    """Not the spelling of bytes: in a byte-level vocabulary an accented letter stands for another byte."""
    words = kind([added])
    token = words.convert_tokens_to_ids(str(added))
    assert token_bytes_maker(words)(token).decode() == str(added)


def test_byte_level_text_with_added_tokens_is_the_text():
    text = "the caf\u00e9 says \u00a1ol\u00e9! to \u00e9t\u00e9"
    assert text_of(byte_level(ADDED[:2]), text) == text


# -- one beginning of a text -------------------------------------------------------------------------------------------


def beginning(adds: bool) -> PreTrainedTokenizerFast:
    """The toys' tokenizer with a token for the beginning, which it puts before every text or not."""
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer().backend_tokenizer.to_str()))
    words.add_special_tokens({"bos_token": "<s>"})
    if adds:
        template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", words.bos_token_id)])
        words.backend_tokenizer.post_processor = template
    return words


def family_of(llama: Family, words: PreTrainedTokenizerFast) -> Family:
    from dataclasses import replace

    return Family("toy", words, replace(llama.target, model=causal_lm("llama", vocab_size=300), vocab=len(words)))


@pytest.mark.parametrize("adds, prompt, count, noted", [
    (True, "the cat", 1, False), (True, "<s>the cat", 1, True), (True, "<s><s>the cat", 2, True), (True, "the <s> cat", 1, False),
    (False, "the cat", 0, False), (False, "<s>the cat", 1, False), (False, "<s><s>the cat", 2, False), (True, "<s>", 1, True),
])  # fmt: skip
def test_a_text_begins_once(llama, adds, prompt, count, noted):
    """A template that was rendered before begins with the token that the tokenizer puts there too: one of them, and one note."""
    family = family_of(llama, beginning(adds))
    run = Run(family, "plain", prompt=prompt, sampling=Sampling(0), max_tokens=2)
    first = family.tokenizer.bos_token_id
    assert [token == first for token in run.header.prompt_tokens[: count + 1]] == [True] * count + [False] * (
        len(run.header.prompt_tokens) > count
    )
    assert len(run.notes) == noted and all("begins with <s>" in note for note in run.notes)
    assert list(run)


def test_token_ids_are_taken_as_they_are(llama):
    family = family_of(llama, beginning(True))
    first = family.tokenizer.bos_token_id
    run = Run(family, "plain", prompt=[first, first, 5], max_tokens=1)
    assert run.header.prompt_tokens == (first, first, 5) and not run.notes
