"""Bars of one row, and the dice of one node."""

import pytest
from viz_samples import HOSTILE, PIECES, node, row

from viz.probabilities import (
    dice_alt,
    dice_figure,
    probability_alt,
    probability_figure,
    probability_table,
    threshold,
)

LONG = row(tuple(range(12)), tuple(0.3 - 0.02 * i for i in range(12)), q=(0.0,) * 10 + (0.1, 0.9), drawn=10)


def test_bars_carry_the_rows_numbers():
    figure = probability_figure(row(q=(0.1, 0.2, 0.7), rest=(0.9, 0.1, 0.0)), PIECES)
    assert [list(bar.x) for bar in figure.data] == [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]]
    assert [bar.name[0] for bar in figure.data] == ["p", "q", "r"]
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 3  # not by colour alone


def test_no_q_and_no_rest_where_there_were_no_children():
    assert [bar.name for bar in probability_figure(row(), PIECES).data] == ["p target"]


def test_ten_tokens_and_always_the_marked_ones():
    figure = probability_figure(LONG, PIECES, highlight=9)
    ticks = " ".join(figure.layout.yaxis.ticktext)
    assert len(figure.layout.yaxis.ticktext) == len(figure.data[0].x) == 10
    assert "this node" in ticks.split("↵")[1] and "drawn" in ticks.split("␣understanding")[1]
    assert "ing" in ticks.split()[-1]  # token 11: q alone makes it one of the largest


def test_the_frame_is_around_the_token_looked_at():
    (frame,) = probability_figure(row(), PIECES, highlight=1).layout.shapes
    assert frame.y0 < 1 < frame.y1
    assert not probability_figure(row(), PIECES, highlight=77).layout.shapes


def test_equal_labels_are_told_apart():
    pieces = {0: b"a", 1: b"a", 2: b"b"}
    ticks = [tick.strip() for tick in probability_figure(row(), pieces).layout.yaxis.ticktext]
    assert ticks == ["a #0", "a #1", "b"]


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_tokens_are_escaped(token):
    figure = probability_figure(row(tokens=(token, 1, 2)), PIECES | HOSTILE)
    for text in (figure.layout.yaxis.ticktext[0], figure.data[0].hovertext[0].removesuffix("<br>p target: 0.60")):
        assert not set(text) & set("<>$")
    assert probability_table(row(tokens=(token, 1, 2)), HOSTILE)["token"][0].isprintable()


def test_alt_and_table_say_the_same():
    drawn = row(q=(0.1, 0.2, 0.7), drawn=2)
    alt = probability_alt(drawn, PIECES, highlight=1)
    assert "␣the 0.60, ␣little 0.30" in alt and "drafter: ␣cat 0.70" in alt
    assert "Marked: ␣little, p 0.30, q 0.20." in alt and "drew ␣cat" in alt
    table = probability_table(drawn, PIECES)
    assert list(table["q"]) == [0.1, 0.2, 0.7] and list(table["drawn"]) == [False, False, True]
    assert probability_table(row(), PIECES)["q"].isna().all()


def test_an_empty_row_is_drawn_empty():
    empty = row((), (), rest=())
    assert probability_figure(empty, PIECES).data and len(probability_table(empty, PIECES)) == 0
    assert "No probabilities" in probability_alt(empty, PIECES)


@pytest.mark.parametrize(
    ("p", "q", "limit"), [(0.2, 0.5, 0.4), (0.9, 0.5, 1.0), (0.3, None, 0.3), (0.3, 0.0, 1.0), (0.0, 0.0, 0.0)]
)
def test_threshold(p, q, limit):
    assert threshold(node(p=p, q=q)) == pytest.approx(limit)


@pytest.mark.parametrize("dark", [False, True])
def test_dice_show_u_and_threshold(dark):
    figure = dice_figure(node(u=0.31, q=0.5, p=0.2), dark)
    assert list(figure.data[0].x) == [0.31]
    assert [shape.x1 for shape in figure.layout.shapes] == [0.4, 1, 0.4]
    assert "0.40" in figure.layout.annotations[0].text


def test_no_dice_without_a_u():
    assert dice_figure(node(u=None)) is None
    assert dice_figure(node(verdict="unread")) is None
    assert "not judged" in dice_alt(node(u=None)) and "0.31" in dice_alt(node())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_do_not_break_the_axis(bad):
    figure = probability_figure(row(p=(bad, 0.3, 0.1)), PIECES)
    assert 0 < figure.layout.xaxis.range[1] < 2
