"""Pictures of the hyperfitting lens: numbers that can be counted by hand."""

import re
from dataclasses import replace

import msgspec

from decoding.looks.hyperfitting import Acceptance, HyperfittingLook, Text, Written
from viz.lenses import hyperfitting as pictures
from viz.verdicts import NARROW

NAMES = {0: b" a", 1: b" car", 2: b" and", 3: b"<b>", 4: b"\n"}


def text(target: str, temperature: float, tokens: list[int], copied: int = 0, entropy: float = 1.0) -> Text:
    return Text(target, temperature, tuple(Written(token, entropy, 0.5, i < copied) for i, token in enumerate(tokens)))


LOOK = HyperfittingLook(
    length=12,
    pieces=200,
    piece=65,
    texts=(
        text("embedded", 0.0, [0, 1, 2] * 4, entropy=2.0),
        text("embedded", 1.0, [0, 1, 2, 4] * 3),
        text("embedded-hyper", 0.0, [0, 1, 2, 3, 4, 0, 2, 1, 3, 0, 4, 2], copied=9),
        text("embedded-hyper", 1.0, [0] * 12),
    ),
    pairs=tuple(
        Acceptance(target, draft, temperature, 0.5 if target == draft else 0.25, 0.5, 0.01, 12, 0.75 if temperature else None)
        for target in ("embedded", "embedded-hyper")
        for draft in ("embedded", "embedded-hyper")
        for temperature in (0.0, 1.0)
    ),
    token_bytes=NAMES,
)


def test_the_numbers_are_those_counted_by_hand():
    """9 4-grams of 12 tokens; of the repeated triple the first three are new. Nine copied tokens in a row."""
    first, twin = (pictures.numbers(one) for one in pictures.texts_of(LOOK, 0.0))
    assert (first.again, first.different, first.copied, first.longest) == (6 / 9, 3 / 12, 0.0, 0)
    assert twin == replace(twin, again=0.0, different=5 / 12, copied=9 / 12, longest=9, entropy=1.0)
    assert first.entropy == 2.0 and first.top == 0.5


def test_the_sentence_has_them():
    said = pictures.sentence(LOOK).replace(NARROW, " ")
    assert "embedded says 67 % of its 4-grams again, embedded-hyper 0 %" in said and "2.00 and 1.00 nats" in said
    assert "75 % of the twin's tokens stand so in the 200 pieces" in said and "9 in a row (0 % of the other's)" in said
    assert "each takes 50 % and 50 % of the drafts of its own draft model, 25 % and 25 % of the other's" in said
    assert "written 12 tokens" in pictures.sentence(msgspec.structs.replace(LOOK, texts=LOOK.texts[:2], pairs=()))
    assert pictures.sentence(HyperfittingLook()) == "Nothing was written yet."


def test_the_texts_are_escaped_marked_and_shaded():
    made = pictures.html(LOOK, False)
    texts = made.partition("<h4>Drafted tokens")[0]
    assert "&lt;b&gt;" in texts and "<b>" not in texts and "<br>" in texts
    left, right = texts.split("<section>")[1:3]
    assert left.count("ds-again") == 9 and pictures.COPIED not in left, "from the fourth token on"
    assert right.count("ds-again") == 0 and right.count(pictures.COPIED) == 9


def test_the_squares_say_what_was_expected_and_measured():
    """Targets downwards, draft models to the right; the errors where dice were thrown."""
    warm, cold = (pictures.squares(LOOK, temperature) for temperature in (1.0, 0.0))
    for made in (warm, cold):
        assert re.findall(r"<b>(.*?)</b>", made) == ["0.500", "0.250", "0.250", "0.500"]
        assert re.findall(r"<th>(.+?)</th>", made)[1:] == ["draft of embedded-hyper", "embedded", "embedded-hyper"]
    assert warm.count("measured 0.500 ± 0.020<br>where it copies 0.750") == 4
    assert "±" not in cold and "copies" not in cold and warm in pictures.html(LOOK, True)
    partly = pictures.squares(msgspec.structs.replace(LOOK, pairs=LOOK.pairs[:5]), 0.0)
    assert partly.count("<td></td>") == 1 and pictures.squares(HyperfittingLook(), 1.0) == ""


def test_the_lines_and_the_table_have_every_token():
    figure = pictures.figure(LOOK, False)
    assert [len(line.x) for line in figure.data] == [12] * 4
    assert "embedded: 2.00 nats in the mean over 12 tokens" in pictures.alt(LOOK)
    table = pictures.table(LOOK)
    assert len(table) == 48 and table["said before"].sum() == 9 + 8 + 0 + 11 and table["copied"].sum() == 9
