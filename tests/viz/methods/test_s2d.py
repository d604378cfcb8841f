"""The view of S2D: bars, counts and sentences against a step written down by hand; traces from elsewhere do no harm."""

import math

import pytest

from decoding.score_names import CONFIDENCE_AFTER
from decoding.trace import Node, Step, Times
from viz.methods.s2d import (
    exits_alt,
    exits_figure,
    exits_seen,
    exits_table,
    favourites,
    guess_of,
    guesses,
    opinions_figure,
    opinions_table,
    opinions_words,
    stack_alt,
    stack_figure,
    stack_table,
    threshold_words,
    way,
    work_words,
)
from viz.style import LOOKS

TOKEN_BYTES = {1: b" the", 2: b"<b>", 3: b"$x$", 4: b"\n"}
THRESHOLDS = {1: 0.7, 2: 0.6}


def node(token: int, parent: int, verdict: str, met: dict[int, float], passes: int, rows: int = 1) -> Node:
    scores = {CONFIDENCE_AFTER.format(level): value for level, value in met.items()}
    scores |= {"exit": max(met), "layers": 4, "rows read": rows, "layer passes": passes}
    return Node(token, parent, 0.5, 0.5, 0.5, verdict, "layer 1", scores)


def step(*nodes: Node) -> Step:
    path = tuple(i for i, n in enumerate(nodes) if n.verdict == "accepted")
    return Step(nodes, (), path, (9,), ("bonus",), len(nodes), Times(1, 1, 1, 1), "")


STEP = step(
    node(1, -1, "accepted", {1: 0.9}, passes=2, rows=2),
    node(2, 0, "accepted", {1: 0.61, 2: 0.78}, passes=4),  # two rows had waited in front of the second layer
    node(3, 1, "rejected", {1: 0.2, 2: 0.3, 4: 0.25}, passes=10),
    node(4, 2, "not judged", {1: 0.95}, passes=1),
)
EXITS = [1, 2, 4]


def test_guesses():
    found = guesses(STEP)
    assert [(g.exit, g.caught_up, g.whole) for g in found] == [(1, 0, 8), (2, 2, 4), (4, 6, 4), (1, 0, 4)]
    assert way(found[1]) == "0.61 ✗ → 0.78 ✓" and way(found[0]) == "0.90 ✓"
    assert exits_seen([STEP]) == EXITS


def test_bars_are_as_high_as_the_exits_and_say_the_verdict_by_more_than_colour():
    figure = stack_figure(STEP, TOKEN_BYTES, EXITS, THRESHOLDS, selected=1)
    bars = {trace.name: trace for trace in figure.data if trace.type == "bar"}
    assert list(bars["✓ accepted"].x) == [0, 1] and list(bars["✓ accepted"].y) == [1, 2]
    assert list(bars["✗ rejected"].y) == [4] and list(bars["not judged"].y) == [1]
    assert len({bars[name].marker.pattern.shape for name in ("✓ accepted", "✗ rejected", "not judged")}) == 3
    marks = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "markers"]
    assert {mark.marker.symbol for mark in marks} == {LOOKS[v].symbol for v in ("accepted", "rejected", "not judged")}
    assert list(bars["✓ accepted"].marker.line.width) == [1.5, 3]


def test_confidences_stand_at_the_levels_where_they_were_met():
    figure = stack_figure(STEP, TOKEN_BYTES, EXITS, THRESHOLDS)
    places = [(label.x, label.y, label.text) for label in figure.layout.annotations]
    assert (1, 1, "0.61 ✗") in places and (1, 2, "<b>0.78 ✓</b>") in places and len(places) == 7


def test_what_had_waited_is_a_bar_of_its_own():
    (ghost,) = (t for t in stack_figure(STEP, TOKEN_BYTES, EXITS, THRESHOLDS).data if t.name and "caught up" in t.name)
    assert list(ghost.text) == ["+2", "+6"] and list(ghost.base) == [1, 1] and list(ghost.y) == [1, 3]


def test_levels_are_ruled_with_their_thresholds():
    axis = stack_figure(STEP, TOKEN_BYTES, EXITS, THRESHOLDS).layout.yaxis
    assert list(axis.tickvals) == EXITS
    assert list(axis.ticktext) == ["layer 1<br>more than 0.70", "layer 2<br>more than 0.60", "layer 4<br>always"]


@pytest.mark.parametrize("dark", [False, True])
def test_tokens_are_escaped(dark):
    figure = stack_figure(STEP, TOKEN_BYTES, EXITS, THRESHOLDS, dark=dark)
    ticks = list(figure.layout.xaxis.ticktext)
    assert ticks[1] == "&lt;b&gt;" and ticks[2] == "&#36;x&#36;" and ticks[3] == "↵"
    opinions = [(1, (2, 3), (0.5, 0.3), 0.5), (2, (3, 2), (0.6, 0.2), 0.2)]
    ticks = list(opinions_figure(opinions, 2, 1, TOKEN_BYTES, dark).layout.yaxis.ticktext)
    assert ticks == ["<b>&lt;b&gt;</b> drafted", "&#36;x&#36;"]


def test_the_table_holds_what_the_figure_shows():
    table = stack_table(STEP, TOKEN_BYTES)
    assert table["left after layer"].tolist() == [1, 2, 4, 1]
    assert table["own passes"].tolist() == [2, 2, 4, 1] and table["caught up"].tolist() == [0, 2, 6, 0]
    assert table["token"].tolist() == ["␣the", "<b>", "$x$", "↵"]
    assert table["verdict"].tolist() == ["accepted", "accepted", "rejected", "not judged"]
    assert stack_alt(STEP) == (
        "4 drafted tokens left after layer 1 (accepted), layer 2 (accepted), layer 4 (rejected), layer 1 (not judged)."
    )


def test_exits_over_a_run():
    table = exits_table([STEP, STEP])
    assert table["drafted"].tolist() == [4, 2, 2] and table["share"].tolist() == [0.5, 0.25, 0.25]
    assert table["judged"].tolist() == [2, 2, 2] and table["accepted"].tolist() == [2, 2, 0]
    assert table["acceptance"].tolist() == [1, 1, 0]
    assert table["mean confidence"].tolist() == pytest.approx([0.925, 0.78, 0.25])
    (share,) = (t for t in exits_figure([STEP]).data if t.name.startswith("share"))
    assert list(share.x) == [0.5, 0.25, 0.25] and share.text[0] == "50% of 4"
    assert exits_alt([STEP]).startswith("layer 1: 50% of the drafted tokens, 100% of 1 judged accepted; layer 2:")


def test_an_exit_without_judged_tokens_has_no_acceptance():
    only = step(node(1, -1, "rejected", {1: 0.9}, 1), node(1, 0, "not judged", {1: 0.1, 2: 0.8}, 3))
    table = exits_table([only])
    assert table["left after layer"].tolist() == [1, 2, 4]
    assert table["acceptance"].tolist()[0] == 0 and math.isnan(table["acceptance"].tolist()[1])
    assert "none judged" in exits_alt([only])
    (rate,) = (t for t in exits_figure([only]).data if t.name.startswith("accepted"))
    assert list(rate.text) == ["0% of 1", "none", "none"]


def test_layer_passes_against_the_whole_model():
    """Exits 1, 2, 4 and 1; 17 passes for 4 tokens, 8 of them for what had waited; the whole model would have made 20 for 5 rows."""
    words = work_words([STEP])
    assert "per drafted token: 2.00 of 4, 50% fewer" in words
    assert "4.25 passes, 2.00 of them for rows that had waited, against 5.00" in words
    assert work_words([]) == ""


def test_what_the_acceptance_says_of_the_thresholds():
    good = step(*[node(1, -1, "accepted", {1: 0.9}, 1)] * 10, *[node(1, -1, "rejected", {1: 0.2, 2: 0.9}, 2)] * 10)
    bad = step(*[node(1, -1, "rejected", {1: 0.9}, 1)] * 10, *[node(1, -1, "accepted", {1: 0.2, 2: 0.9}, 2)] * 10)
    assert "kept at least as often (100%)" in threshold_words([good])
    assert "kept less often (0%)" in threshold_words([bad]) and "lets too much through" in threshold_words([bad])
    assert threshold_words([STEP]) == ""


def test_opinions():
    opinions = [(1, (1, 2), (0.7, 0.2), 0.7), (2, (1, 4), (0.5, 0.4), 0.5), (4, (2, 1), (0.8, 0.1), 0.1)]
    assert favourites(opinions, 1) == [1, 2, 4]
    table = opinions_table(opinions, 1, 1, TOKEN_BYTES)
    assert table[""].tolist() == ["drafted it", "deeper", "deeper"] and table.iloc[:, -1].tolist() == [0.7, 0.5, 0.1]
    assert table["would have said"].tolist()[2] == "<b> 0.80, ␣the 0.10"
    words = opinions_words(opinions, 1, 1, TOKEN_BYTES)
    assert words == "␣the was drafted after layer 1; likeliest further down: ␣the after layer 2, <b> after layer 4."
    assert opinions_words(opinions[:2], 1, 1, TOKEN_BYTES).startswith("Every deeper sub-model likes ␣the best as well")
    assert opinions_words(opinions, 2, 4, TOKEN_BYTES).startswith("The deepest sub-model drafted <b>")
    figure = opinions_figure(opinions, 1, 2, TOKEN_BYTES)
    assert [trace.name for trace in figure.data] == ["layer 1", "layers 1 to 2 (drafted it)", "layers 1 to 4"]
    assert list(figure.data[2].x) == [0.1, 0.8, None] and len({t.marker.pattern.shape for t in figure.data}) == 3


BROKEN = {
    "no scores": {},
    "an exit below the stack": {"exit": 0},
    "an exit above it": {"exit": 9},
    "not a number": {"exit": math.nan},
    "endless": {"layers": math.inf},
    "passes that cannot be": {"layer passes": 1},
    "no confidence at the exit": {CONFIDENCE_AFTER.format(2): None},
    "a confidence above 1": {CONFIDENCE_AFTER.format(2): 7.0},
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_trace_whose_scores_do_not_hang_together_does_no_harm(case):
    good = STEP.nodes[1]
    scores = {} if case == "no scores" else {k: v for k, v in (good.scores | BROKEN[case]).items() if v is not None}
    bad = step(Node(1, -1, 0.5, 0.5, 0.5, "accepted", "x", scores))
    assert guess_of(0, bad.nodes[0]) is None and guess_of(0, good) is not None
    assert stack_figure(bad, TOKEN_BYTES, exits_seen([bad]), {}).to_json() and exits_figure([bad]).to_json()
    assert len(stack_table(bad, TOKEN_BYTES)) == len(exits_table([bad])) == 0
    assert work_words([bad]) == threshold_words([bad]) == "" and "No token" in stack_alt(bad)
