"""Labels of tokens: everything visible, nothing active."""

import doctest
import html

import pytest

import viz.tokens
import viz.words
from tests.viz_samples import HOSTILE, TOKEN_BYTES
from viz.tokens import as_html, as_markdown, as_plotly, characters, full, is_half, joined, label, name, plain, shorten


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b" the", "␣the"),
        (b"\n\t", "↵⇥"),
        (b"", "∅"),
        (b"\xe2\x82", "<0xE2><0x82>"),
        (b"a\xff", "a<0xFF>"),
        ("é".encode(), "é"),
        ("\u202e".encode(), "<U+202E>"),
        ("\u200b".encode(), "<U+200B>"),
        ("\u00a0".encode(), "<U+00A0>"),
        (b"\x00", "<U+0000>"),
        ("\u0301".encode(), "◌\u0301"),  # a lone accent
        ("e\u0301".encode(), "e\u0301"),
    ],
)
def test_label_makes_everything_visible(piece, shown):
    assert label(piece) == full(piece) == shown


def test_long_labels_lose_their_middle():
    assert label(b" understanding", 9) == "␣und…ding"
    assert len(label(b"x" * 500, 12)) == 12
    assert full(b"x" * 500) == "x" * 500


def test_truncation_never_cuts_a_byte_in_two():
    shown = label(b"\xe2\x82" * 9, 12)
    assert shown.replace("<0xE2>", "").replace("<0x82>", "") == "…"
    assert shorten(["<0xE2>", "<0x82>"], 3) == "<0xE2>…"


def test_a_token_without_bytes_shows_its_id():
    assert name(4711, TOKEN_BYTES) == "#4711"


def test_joined_brings_halves_together():
    groups = joined([b"a", b"\xf0\x9f", b"\x98\x80", b"", b"b\xc3", b"\xa9"])
    assert [(g.start, g.stop, g.text) for g in groups] == [(0, 1, "a"), (1, 3, "😀"), (3, 4, "∅"), (4, 6, "bé")]


def test_joined_leaves_broken_bytes_alone():
    assert [(g.start, g.stop) for g in joined([b"\xc3", b"x", b"\xa9"])] == [(0, 1), (1, 2), (2, 3)]
    assert joined([]) == []


def test_half_means_not_a_text_by_itself():
    assert is_half(b"\xc3") and is_half(b"\xa9") and is_half(b"ok\xe2")
    assert not is_half("é".encode()) and not is_half(b"")


@pytest.mark.parametrize("piece", HOSTILE.values())
def test_hostile_pieces_are_escaped(piece):
    text = full(piece)
    assert not set(as_html(text)) & set("<>\"'")
    assert html.unescape(as_html(text)) == text
    assert not set(as_plotly(text)) & set("<>$")
    assert html.unescape(as_plotly(text)) == text
    assert text.isprintable()


def test_markdown_is_shown_and_not_obeyed():
    assert as_markdown("[a](b) *c* :red[x] $y$") == r"\[a\]\(b\) \*c\* \:red\[x\] \$y\$"


def test_plain_keeps_spaces_and_drops_controls():
    assert plain("draft model\x1b\u202e", 40) == "draft model<U+001B><U+202E>"


@pytest.mark.parametrize("module", [viz.tokens, viz.words])
def test_the_examples_in_the_docstrings_hold(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


ACCENTS = b"e" + "\u0301".encode() * 500


@pytest.mark.parametrize("piece", [b"a" * 1024, " \u00e9\n".encode() * 200, "\U0001f40d".encode() * 256, b"\xff" * 1000, ACCENTS])
@pytest.mark.parametrize("limit", [5, 12, 20])
def test_of_a_long_piece_no_more_is_looked_at_than_is_shown(piece, limit):
    assert label(piece, limit) == shorten(characters(piece), limit)
