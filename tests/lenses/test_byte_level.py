"""Byte-level probabilities: every check of the specification on models that can be enumerated, and what was measured on real ones.

The enumerable source is a random chain of second order over three bytes and an end; a toy BPE cuts it into tokens, and the token
model is the very one that this makes: P(t) is the probability of all texts whose tokens begin with t.
"""

import functools
import itertools
import math

import numpy as np
import pytest
import torch

from decoding.lens import Cursor
from decoding.models.byte_view import END, Cover, TargetRows, distance, endings, plain_row, unfinished, view
from decoding.models.speller import cover_of, lacking
from decoding.runs.lens_run import LensRun
from decoding.runs.run import Run
from viz.lenses.byte_level import alt, figure, mixture, sentence, table

LETTERS = b"ab "
DEPTH = 9  # bytes up to which texts are enumerated


class Toy:
    """A BPE over LETTERS with a few merges; validity needs no look-ahead."""

    MERGES = ((b"a", b"b"), (b" ", b"a"), (b"ab", b"a"), (b"b", b"b"), (b" a", b"b"))

    def __init__(self) -> None:
        self.pieces = (b"", *(bytes([c]) for c in LETTERS), *(x + y for x, y in self.MERGES))
        self.ids = {piece: i for i, piece in enumerate(self.pieces) if piece}

    def encode(self, texts):
        return [self.one(text) for text in texts]

    @functools.cache  # noqa: B019
    def one(self, text: bytes) -> list[int]:
        parts = [bytes([c]) for c in text]
        for left, right in self.MERGES:
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == (left, right):
                    parts[i : i + 2] = [left + right]
                else:
                    i += 1
        return [self.ids[part] for part in parts if part in self.ids] if all(p in self.ids for p in parts) else [0] * len(parts)

    def border(self, text: bytes) -> int:
        return 0


class Letters(Toy):
    """{A, B, AA}, longest match: the smallest example of the paper."""

    MERGES = ()

    def __init__(self) -> None:
        self.pieces = (b"", b"A", b"B", b"AA")

    def encode(self, texts):
        return [self.longest(text) for text in texts]

    def longest(self, text: bytes) -> list[int]:
        found = []
        while text:
            token = 3 if text.startswith(b"AA") else 1 if text.startswith(b"A") else 2 if text.startswith(b"B") else 0
            found.append(token)
            text = text[max(1, len(self.pieces[token])) :]
        return found


class Source:
    """A chain of second order over LETTERS; P(x) of a text that begins with x, and the token model that it makes."""

    def __init__(self, speller, letters: bytes = LETTERS, table=None) -> None:
        rng = np.random.default_rng(0)
        self.speller, self.letters = speller, letters
        self.table = table or {}
        self.rng = rng

    def next(self, x: bytes) -> np.ndarray:
        key = x[-2:]
        if key not in self.table:
            weights = self.rng.random(len(self.letters)) + 0.05
            self.table[key] = weights / weights.sum()
        return self.table[key]

    @functools.cache  # noqa: B019
    def p(self, x: bytes) -> float:
        return 1.0 if not x else self.p(x[:-1]) * float(self.next(x[:-1])[self.letters.index(x[-1:])])

    @functools.cache  # noqa: B019
    def tokens(self, t: tuple[int, ...]) -> float:
        """P of all texts whose tokens begin with t; by long texts that decide it."""
        text = b"".join(self.speller.pieces[i] for i in t)
        longest = max(map(len, self.speller.pieces))
        total = 0.0
        for more in itertools.product(self.letters, repeat=longest):
            whole = text + bytes(more)
            if tuple(self.speller.encode([whole])[0][: len(t)]) == t:
                total += self.p(whole)
        return total

    def rows(self, sequences) -> torch.Tensor:
        made = torch.zeros(len(sequences), len(self.speller.pieces), dtype=torch.float64)
        for i, t in enumerate(sequences):
            mine = self.tokens(t) if t else 1.0
            for v in range(1, len(self.speller.pieces)):
                made[i, v] = self.tokens((*t, v)) / mine if mine else 0.0
        return made


@pytest.fixture(scope="module")
def toy():
    """Prompts, cover, source: of every text of up to four letters."""
    speller = Toy()
    patched = Cover.by(speller)
    texts = [bytes(t) for n in range(1, 5) for t in itertools.product(LETTERS, repeat=n)]
    return texts, patched, Source(speller)


@pytest.fixture(autouse=True)
def three_letters(monkeypatch):
    """What may follow a toy text are the letters of the toy."""
    import decoding.models.byte_view as room

    real = room.endings

    def endings(text: bytes):
        if text and set(text) <= set(LETTERS) | {ord("A"), ord("B")}:
            letters = b"AB" if set(text) & set(b"AB") else LETTERS
            return iter([text, *(text + bytes(more) for n in (1, 2, 3) for more in itertools.product(letters, repeat=n))])
        return real(text)

    monkeypatch.setattr(room, "endings", endings)


def test_the_cover_adds_up_to_the_text_and_its_next_bytes_are_exact(toy):
    """Checks 1 and 8: the lemma, the next byte, and the sum over the bytes, on every text."""
    texts, cover, source = toy
    for text in texts:
        seen = view(cover, text, source.rows)
        assert sum(one.p for one in seen.members) == pytest.approx(source.p(text), abs=1e-12), text
        assert seen.p == pytest.approx(source.p(text), abs=1e-12) and seen.kept == pytest.approx(1, abs=1e-9)
        truth = {letter: source.p(text + bytes([letter])) / source.p(text) for letter in LETTERS}
        assert [seen.exact[letter] for letter in LETTERS] == pytest.approx(list(truth.values()), abs=1e-9), text
        assert seen.exact.sum() == pytest.approx(1)


def test_the_cover_is_what_the_definition_says(toy):
    """Check 3: against all sequences of tokens, by brute force."""
    texts, cover, source = toy
    speller = source.speller
    for text in texts[:60]:
        found = {one.tokens for one in view(cover, text, source.rows).members}
        told = set()
        for more in itertools.product(LETTERS, repeat=4):
            tokens, length = speller.encode([text + bytes(more)])[0], 0
            for i, token in enumerate(tokens):
                length += len(speller.pieces[token])
                if length >= len(text):
                    told.add(tuple(tokens[: i + 1]))
                    break
        assert found == told, text


def test_the_smallest_example_of_the_paper():
    """Check 2: behind A the token model gives A nothing, as AA would have been one token; the truth is 0.3."""
    speller = Letters()
    chain = {b"": np.array([0.5, 0.5])}
    chain |= {before + b"A": np.array([0.3, 0.7]) for before in (b"", b"A", b"B")}
    chain |= {before + b"B": np.array([0.6, 0.4]) for before in (b"", b"A", b"B")}
    seen = view(Cover.by(speller), b"A", Source(speller, b"AB", chain).rows)
    assert seen.plain[ord("A")] == pytest.approx(0, abs=1e-12) and seen.exact[ord("A")] == pytest.approx(0.3)


def test_the_chain_rule_over_bytes(toy):
    """Check 4: the exact next bytes of a text multiply to its probability."""
    texts, cover, source = toy
    for text in texts[-30:]:
        product = source.p(text[:1])
        for i in range(1, len(text)):
            product *= view(cover, text[:i], source.rows).exact[text[i]]
        assert product == pytest.approx(source.p(text), rel=1e-9)


def test_token_healing_is_not_exact_and_plain_is_worse(toy):
    """Check 5, the planted fault: if healing were exact everywhere, the covers that split earlier would be missing."""
    texts, cover, source = toy
    seen = [view(cover, text, source.rows) for text in texts]
    plain, healed = [one.plain_error for one in seen], [one.healed_error for one in seen]
    assert max(healed) > 0.3 and 0 < np.mean(healed) < np.mean(plain)


def test_where_only_one_spelling_is_possible_plain_is_exact(toy):
    """Check 6."""
    texts, cover, source = toy
    seen = [(text, view(cover, text, source.rows)) for text in texts]
    alone = [(text, one) for text, one in seen if len(one.members) == 1]
    assert alone and all(one.plain_error < 1e-9 for _, one in alone)
    assert any(one.plain_error > 0.1 for _, one in seen)


def test_bytes_drawn_one_by_one_are_texts_drawn_by_tokens(toy):
    """Check 7: strings of four bytes from byte views against the source's; token rows in the place of byte rows must fail."""
    _, cover, source = toy
    count, rng = 20_000, np.random.default_rng(1)
    truth = np.array([source.p(bytes(t)) for t in itertools.product(LETTERS, repeat=4)])

    @functools.cache
    def row(text: bytes, plain: bool) -> np.ndarray:
        if not text:
            return np.array([source.p(bytes([letter])) for letter in LETTERS])
        seen = view(cover, text, source.rows)
        found = np.array([(seen.plain if plain else seen.exact)[letter] for letter in LETTERS])
        return found / found.sum()

    def z(plain: bool) -> float:
        drawn: dict[bytes, int] = {b"": count}
        for _ in range(4):
            after: dict[bytes, int] = {}
            for text, many in drawn.items():
                for letter, n in zip(LETTERS, rng.multinomial(many, row(text, plain)), strict=True):
                    after[text + bytes([letter])] = int(n)
            drawn = {text: n for text, n in after.items() if n}
        seen = np.array([drawn.get(bytes(t), 0) for t in itertools.product(LETTERS, repeat=4)])
        chi = float(((seen - count * truth) ** 2 / (count * truth)).sum())
        return (chi - len(truth) + 1) / math.sqrt(2 * (len(truth) - 1))

    assert abs(z(plain=False)) < 5 < z(plain=True)


# -- characters --------------------------------------------------------------------------------------------------------


def test_half_a_character_is_spelled_by_what_completes_it():
    """Check 9."""
    for character in ("é", "€", "😀"):
        raw = character.encode()
        for i in range(1, len(raw)):
            assert unfinished(raw[:i]) == len(raw) - i
            assert all(filled.startswith(raw[:i]) and filled.decode() for filled in endings(raw[:i]))
        assert unfinished(raw) == 0
    assert list(endings(b"\xff")) == [] and unfinished(b"\x80") == 0


def test_a_text_cut_inside_a_character_goes_on_with_its_bytes(embedded):
    """Of the embedded target: behind half of é the next byte is a continuation byte, all but surely."""
    cover = cover_of(embedded.tokenizer, embedded.target.vocab)
    rows = TargetRows(embedded.target, tuple(embedded.tokenizer("The word is")["input_ids"]))
    for half in (b" caf\xc3", b" \xe2\x82"):
        seen = view(cover, half, rows)
        assert seen.exact[0x80:0xC0].sum() > 0.99, half


# -- real models -------------------------------------------------------------------------------------------------------


def at_end(family, text: str, **params):
    """The last look at the end of a prompt."""
    run = Run(family, "plain", prompt=text, max_tokens=1)
    list(run)
    *_, look = LensRun(family, "byte_level", run.trace, -1, None, {"meter": False} | params)
    return look


EMBEDDED = {  # prompt -> the likeliest byte plainly, healed, exactly
    "Once upon a ti": "-gm",
    "There was a litt": " el",
    "def __ini": "_nt",
    "He could not unders": "cct",
}


@pytest.mark.parametrize("text", EMBEDDED)
def test_the_examples_of_the_specification(text, embedded):
    look = at_end(embedded, text)
    best = "".join(chr(int(np.argmax(row))) for row in (look.plain, look.healed, look.exact))
    assert best == EMBEDDED[text] and max(look.exact) > 0.99 and look.kept > 0.999


@pytest.mark.parametrize(
    ("text", "byte"), [("The photosynth", "e"), ("import nump", "y"), ("The president of the United Sta", "t")]
)
def test_the_examples_on_smollm2(text, byte, smollm2):
    look = at_end(smollm2, text)
    assert chr(int(np.argmax(look.exact))) == byte and max(look.exact) > 0.9 and look.plain_error > 0.9


def test_the_text_typed_on_is_the_text_of_a_prompt(embedded):
    """Taking characters off and typing others gives what the prompt gives that ends there."""
    straight = at_end(embedded, "Once upon a ti")
    turned = at_end(embedded, "Once upon a time", cut=4, typed="ti")
    assert turned.exact == pytest.approx(straight.exact, abs=1e-6) and turned.word == straight.word == b" ti"


def test_the_view_of_the_target_is_that_of_longer_texts(embedded):
    """Brute force on the real model: P(x b) / P(x) from the covers of both."""
    cover = cover_of(embedded.tokenizer, embedded.target.vocab)
    rows = TargetRows(embedded.target, tuple(embedded.tokenizer("Once upon a")["input_ids"]))
    here = view(cover, b" ti", rows)
    for byte in np.argsort(-here.exact)[:6]:
        if byte == END:
            continue
        further = view(cover, b" ti" + bytes([byte]), rows)
        assert further.p / here.p == pytest.approx(here.exact[byte] * here.kept, abs=1e-5), chr(byte)


def test_the_meter_is_high_inside_words_and_low_behind_them(embedded):
    """And at a line's end, where hardly anything can be spelled another way, plain reading is nearly right."""
    run = Run(embedded, "plain", prompt="Once upon a time there was a litt", max_tokens=1)
    list(run)
    *_, look = LensRun(embedded, "byte_level", run.trace, -1, None, {})
    by_text = [(reading.text, reading.plain) for reading in look.meter]
    assert len(by_text) == 24 and dict(by_text[-5:])[b"t"] > 0.9
    spaces = [plain for text, plain in by_text if text == b" "]
    assert min(spaces) > 0.9, "a prompt that ends in a space is read wrong"
    ends = [by_text[i - 1][1] for i in range(1, len(by_text)) if by_text[i][0] == b" "]
    assert max(ends) < 0.3 and look.plain_error == pytest.approx(by_text[-1][1])


def test_exact_beats_plain_and_healing_on_cut_text(embedded):
    """Twenty-one fixed cuts of a text that was written for this test: the right next byte, and bits inside words."""
    text = (
        "The little dog wanted to play with the kitten, but the kitten was afraid. So the dog sat down and waited until she came "
        "out. They became good friends and shared the warm blanket every night."
    )
    bits = {"plain": [], "healed": [], "exact": []}
    right = dict.fromkeys(bits, 0)
    cuts = range(60, 185, 6)
    for cut in cuts:
        look, byte = at_end(embedded, text[:cut]), ord(text[cut])
        for way, found in bits.items():
            row = getattr(look, way)
            found.append(-math.log2(max(row[byte], 1e-9)))
            right[way] += int(np.argmax(row)) == byte
    assert right["exact"] >= right["healed"] >= right["plain"] and right["exact"] >= 0.55 * len(cuts) > right["plain"]
    assert np.mean(bits["exact"]) < np.mean(bits["healed"]) < np.mean(bits["plain"])


def test_a_family_without_bytes_is_refused_with_a_sentence(embedded):
    class Slow:
        name, tokenizer = "slow", object()

    assert lacking(Slow()).endswith(".") and lacking(embedded) == ""


def test_a_single_word_stands_behind_the_mark(smollm2):
    """Of a tokenizer that puts no mark in front of a text by itself."""
    look = at_end(smollm2, "Onc")
    assert any("single word" in note for note in look.notes) and chr(int(np.argmax(look.exact))) == "e"


def test_plain_is_the_row_by_first_bytes(toy):
    _, cover, source = toy
    row = source.rows([(1,)])[0]
    assert plain_row(cover, row).sum() == pytest.approx(float(row.sum())) and distance(np.zeros(2), np.array([0, 1.0])) == 0.5
    assert Cursor(0).node is None


def test_two_models_with_other_tokens_are_mixed_in_bytes(embedded):
    """The mixture is that of the two exact rows, the first of which the second model does not change."""
    alone, both = (at_end(embedded, "Once upon a ti", share=share) for share in (0.0, 0.25))
    assert alone.second == () and both.exact == pytest.approx(alone.exact, abs=1e-9)
    assert len(both.second) == 257 and sum(both.second) == pytest.approx(1) and both.share == 0.25
    assert chr(int(np.argmax(both.second))) == "m"
    row = mixture(both)
    assert row[ord("m")] == pytest.approx(0.75 * both.exact[ord("m")] + 0.25 * both.second[ord("m")]) and sum(row) == pytest.approx(
        1
    )
    assert mixture(alone) == () and "A second model" in sentence(both) and "A second model" not in sentence(alone)
    assert list(table(both).columns[-2:]) == ["second model", "mixture"] and "mixture" in alt(both)
    assert len(figure(both, dark=False).data) == 5 and len(figure(alone, dark=False).data) == 3
