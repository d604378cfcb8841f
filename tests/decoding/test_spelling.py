"""Text across two tokenizers: half characters, special tokens, spaces in front, beginnings; every case says it all or nothing."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from decoding.models.spelling import Spelling, retold, whole
from tests.toys import END, letters

LINES = [
    "the cat sat on the mat, hello yellow fellow",
    "caf\u00e9 na\u00efve \u20ac12 \u2603 \U0001f600 \U0001f680",
    "if x:\n    return 12\n",
]
TEXTS = (
    "hello the cat",
    "the caf\u00e9 has \u20ac12 \U0001f600\U0001f680!",
    "  two  spaces\n\n    and lines\t.",
    "\u2603",
    "na\u00efve\u0301 \U0001f468\u200d\U0001f469\u200d\U0001f467 z",
)


def byte_level(size: int = 400, **special) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    options = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    bpe.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=size, special_tokens=[END, "<|im_end|>"], **options))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, additional_special_tokens=["<|im_end|>"], **special)


def sentencepiece_like(*, prepend: str = "first") -> PreTrainedTokenizerFast:
    """As Llama 2: a space in front of the first word, bytes for what has no piece, and a token of the beginning."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.pre_tokenizer = spaces if prepend == "first" else None
    if prepend == "normalizer":
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    special = ["<unk>", "<s>", "</s>"]
    bpe.train_from_iterator(LINES[:1], trainers.BpeTrainer(vocab_size=60, special_tokens=special + fallback, show_progress=False))
    made = json.loads(bpe.to_str())  # in which the bytes are pieces like all others
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] in special]
    bpe = Tokenizer.from_str(json.dumps(made))
    bpe.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


KINDS = {
    "byte level": byte_level,
    "sentencepiece": sentencepiece_like,
    "sentencepiece, old": lambda: sentencepiece_like(prepend="normalizer"),
}


@pytest.fixture(scope="module", params=KINDS)
def spelling(request) -> Spelling:
    return Spelling(KINDS[request.param]())


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_goes_on_at_every_border(spelling, text):
    """Whatever stands in front, what is found says what was meant, but for half a character at the end; and where a text was broken
    between two of its tokens, the rest is found as it was."""
    tokens = spelling.encode(text)
    assert spelling.said(tokens).decode() in (text, f" {text}")
    for i in range(1, len(tokens) + 1):
        rest = spelling.said(tokens[i:])
        assert spelling.continued(tokens[:i], rest) == tokens[i:], i
        for cut in range(len(rest)):
            found = spelling.said(spelling.continued(tokens[:i], rest[:cut]))
            assert rest.startswith(found) and cut - len(found) < 4, (i, cut)


def test_what_would_be_merged_across_the_border_is_written_alone():
    spelling = Spelling(byte_level())
    (hello,) = spelling.encode("hello")
    half = [token for c in "hel" for token in spelling.encode(c)]
    found = spelling.continued(half, b"lo the")
    assert spelling.said(found) == b"lo the" and hello not in found
    assert spelling.continued([hello], b" the") == spelling.encode(" the"), "and not as the beginning of a text"


def test_a_word_that_goes_on_gains_no_space():
    for prepend in ("first", "normalizer"):
        spelling = Spelling(sentencepiece_like(prepend=prepend))
        found = spelling.continued(spelling.encode("hel"), b"lo the cat")
        assert spelling.said(found) == b"lo the cat"


def test_a_half_character_goes_on():
    spelling = Spelling(byte_level(258))  # bytes alone
    tokens = spelling.encode("a\u20ac")
    assert len(tokens) == 4
    for i in range(1, 4):
        rest = "\u20acb".encode()[i - 1 :]
        assert spelling.said(spelling.continued(tokens[:i], rest)) == rest
    assert spelling.continued(tokens, "\u20ac".encode()[:2]) == []


def test_no_tokens_where_a_tokenizer_changes_the_text():
    bare = Tokenizer(models.WordLevel({"the": 0, "cat": 1, "?": 2}, "?"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    lower = byte_level()
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert Spelling(PreTrainedTokenizerFast(tokenizer_object=bare)).continued([0], b" cat") == []
    assert Spelling(lower).continued(Spelling(lower).encode("the"), b" Cat") == []
    assert Spelling(letters("ab")).continued([0, 1], b"c") == [], "a letter that it lacks vanishes"


def test_arbitrary_tokens_never_break_it(spelling):
    """Also those that are no text: broken characters, special tokens, single bytes, in any order."""
    rng, other = torch.Generator().manual_seed(0), Spelling(byte_level(300))
    count = max(spelling.tokenizer.get_vocab().values()) + 1
    for _ in range(60):
        tokens = torch.randint(count, (12,), generator=rng).tolist()
        text, half = retold(tokens, spelling, other)
        assert len(half) < 4 and all(0 <= token < 300 for token in text)
        for new in (b" cat", "\u20ac".encode()[len(half) :], b"\xff"):
            found = spelling.continued(tokens, new)
            assert new.startswith(spelling.said(found))


# -- what a draft model is told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_the_text_is_told_whole(one, other, text):
    """With the beginning that its tokenizer puts there, and without the space that the target's put there."""
    mine, theirs = Spelling(KINDS[one]()), Spelling(KINDS[other]())
    told, half = retold(mine.tokenizer(text)["input_ids"], mine, theirs)
    assert told == theirs.tokenizer(text)["input_ids"] and half == b""


def test_half_a_character_is_left_out_until_it_is_whole():
    mine, theirs = Spelling(byte_level(258)), Spelling(sentencepiece_like())
    tokens = mine.encode("the \u20ac")
    for i in (1, 2):
        told, half = retold(tokens[: 4 + i], mine, theirs)
        assert theirs.said(told[1:]) == b" the " and half == "\u20ac".encode()[:i]
    assert retold(tokens, mine, theirs)[1] == b""
    broken = [*tokens[:5], *mine.encode("x")]  # a character that never ended
    assert theirs.said(retold(broken, mine, theirs)[0][1:]).decode() == " the \ufffdx"


def test_special_tokens_become_those_of_the_same_name_or_nothing():
    mine, theirs = Spelling(byte_level()), Spelling(byte_level(300))
    names = mine.tokenizer.get_vocab()
    end, own = names["<|im_end|>"], theirs.tokenizer.get_vocab()["<|im_end|>"]
    tokens = [*mine.encode("the cat"), end, *mine.encode("sat")]
    assert retold(tokens, mine, theirs)[0] == [*theirs.encode("the cat"), own, *theirs.encode("sat")]
    assert retold(tokens, mine, Spelling(letters("the casxyz")))[0] == Spelling(letters("the casxyz")).encode("the catsat")


def test_the_beginning_is_told_once():
    one, other = Spelling(sentencepiece_like()), Spelling(sentencepiece_like(prepend="normalizer"))
    told, _ = retold(one.tokenizer("the cat")["input_ids"], one, other)
    assert told.count(1) == 1 and told == other.tokenizer("the cat")["input_ids"]


def test_only_the_beginning_stands_in_front():
    """Not what a tokenizer puts behind a text."""
    words = letters("abc", eos_token="c", bos_token="b")
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(single="b $A c", special_tokens=[("b", 1), ("c", 2)])
    assert words("a")["input_ids"] == [1, 0, 2] and Spelling(words).front == [1]


def test_whole_characters():
    euro = "\u20ac".encode()
    assert [whole(b"a" + euro[:i]) for i in range(4)] == ["a", "a", "a", "a\u20ac"]
    assert whole(b"\xffabc") == "" and whole(b"") == ""
