"""Bars of one row, and the uniforms of one node."""

import re

import pytest

from tests.viz_samples import HOSTILE, TOKEN_BYTES, node, row
from viz.step.probabilities import (
    probability_alt,
    probability_bars,
    probability_table,
    threshold,
    uniform_alt,
    uniform_rule,
)

LONG = row(tuple(range(12)), tuple(0.3 - 0.02 * i for i in range(12)), q=(0.0,) * 10 + (0.1, 0.9), sampled=10)


WIDTH = re.compile(r"--w:([\d.]+)%;background:([^;]*);")


def bars_of(markup: str) -> list[tuple[float, str]]:
    """(width in percent, background) of every bar, from the top."""
    return [(float(width), background) for width, background in WIDTH.findall(markup)]


def names_of(markup: str) -> list[str]:
    return re.findall(r'class="ds-bars-name[^"]*">(.*?)</div>', markup)


def test_bars_carry_the_rows_numbers():
    markup = probability_bars(row(q=(0.1, 0.2, 0.7), residual=(0.9, 0.1, 0.0)), TOKEN_BYTES)
    bars = bars_of(markup)
    assert [width for width, _ in bars] == [60, 10, 90, 30, 20, 10, 10, 70, 0]  # p, q, rest of one token after the other
    assert len({background for _, background in bars}) == 3 and "gradient" in bars[1][1]  # not by colour alone
    assert all(f">{value}</span>" in markup for value in ("0.60", "0.90", "0")) and "full width 1.00" in markup


def test_no_q_and_no_rest_where_there_were_no_children():
    markup = probability_bars(row(), TOKEN_BYTES)
    assert len(bars_of(markup)) == 3 and "p target" in markup and "q drafter" not in markup
    scaled = row(residual=(0.6000001, 0.3, 0.0999999))  # as the rule leaves it where nothing was taken away
    assert bars_of(probability_bars(scaled, TOKEN_BYTES)) == bars_of(markup)


def test_ten_tokens_and_always_the_marked_ones():
    names = names_of(probability_bars(LONG, TOKEN_BYTES, highlight=9))
    assert len(names) == 10
    assert [name for name in names if "this node" in name] == ["↵<small>▶ this node</small>"]
    assert [name for name in names if "drawn" in name] == ["␣understanding<small>⚄ drawn</small>"]
    assert names[-1] == "ing"  # token 11: q alone makes it one of the largest


def test_the_frame_is_around_the_token_looked_at():
    assert probability_bars(row(), TOKEN_BYTES, highlight=1).count("ds-bars-now") == 1
    assert "ds-bars-now" not in probability_bars(row(), TOKEN_BYTES, highlight=77)


def test_equal_labels_are_told_apart():
    assert names_of(probability_bars(row(), {0: b"a", 1: b"a", 2: b"b"})) == ["a #0", "a #1", "b"]


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_tokens_are_escaped(token):
    markup = probability_bars(row(tokens=(token, 1, 2)), TOKEN_BYTES | HOSTILE, highlight=token)
    assert set(re.findall(r"<[^>]*>", markup)) == set(re.findall(r"</?(?:div|span|i|small)\b[^<>]*>", markup))
    assert "<script" not in markup and "onerror" not in re.sub(r'"[^"]*"|>[^<]*<', "", markup)
    assert probability_table(row(tokens=(token, 1, 2)), HOSTILE)["token"][0].isprintable()


def test_alt_and_table_say_the_same():
    sampled = row(q=(0.1, 0.2, 0.7), sampled=2)
    alt = probability_alt(sampled, TOKEN_BYTES, highlight=1)
    assert "␣the 0.60, ␣little 0.30" in alt and "drafter: ␣cat 0.70" in alt
    assert "Marked: ␣little, p 0.30, q 0.20." in alt and "drew ␣cat" in alt
    table = probability_table(sampled, TOKEN_BYTES)
    assert list(table["q"]) == [0.1, 0.2, 0.7] and list(table["drawn"]) == [False, False, True]
    assert probability_table(row(), TOKEN_BYTES)["q"].isna().all()


def test_an_empty_row_is_drawn_empty():
    empty = row((), (), residual=())
    assert not bars_of(probability_bars(empty, TOKEN_BYTES)) and len(probability_table(empty, TOKEN_BYTES)) == 0
    assert "No probabilities" in probability_alt(empty, TOKEN_BYTES)


@pytest.mark.parametrize(
    ("p", "q", "limit"), [(0.2, 0.5, 0.4), (0.9, 0.5, 1.0), (0.3, None, 0.3), (0.3, 0.0, 1.0), (0.0, 0.0, 0.0)]
)
def test_threshold(p, q, limit):
    assert threshold(node(p=p, q=q)) == pytest.approx(limit)


def test_dice_show_u_and_threshold():
    markup = uniform_rule(node(u=0.31, q=0.5, p=0.2))
    assert re.findall(r"width:([\d.]+)%", markup) == ["40.00", "60.00"] and "left:31.00%" in markup
    assert "accepted below min(1, p / q) = 0.40" in markup and "u = 0.31" in markup


@pytest.mark.parametrize(("p", "widths"), [(0.9, ["100.00"]), (0.0, ["100.00"])])
def test_a_sure_verdict_leaves_one_zone(p, widths):
    markup = uniform_rule(node(u=0.5, q=0.5, p=p, verdict="accepted" if p else "rejected"))
    assert re.findall(r"width:([\d.]+)%", markup) == widths and ("solid" in markup) == (p > 0)


def test_no_dice_without_a_u():
    assert uniform_rule(node(u=None)) == uniform_rule(node(verdict="not judged")) == ""
    assert "not judged" in uniform_alt(node(u=None)) and "0.31" in uniform_alt(node())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_do_not_break_the_scale(bad):
    bars = bars_of(probability_bars(row(p=(bad, 0.3, 0.1)), TOKEN_BYTES))
    assert [width for width, _ in bars] == [0, 60, 20]
