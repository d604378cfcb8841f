"""The view of PPD: prompt tokens that light up where acceptance ended, states that are counted, escaped text, other traces, the
page."""

import pytest

import viz.methods.ppd as view
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import (
    MEMBERS,
    PROMPT_TOKEN_PROBABILITY,
    PROMPT_TOKENS,
    RANK,
    ROOT_PROMPT_TOKENS,
    ROW_BUDGET,
    STATE,
    TREE_VALUE,
)
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, step_of


def guessed(path=(1, 2), below=(3, 1, 2), now: int = 2, tokens=(0, 1, 2), final: int = 7, **more):
    """Two guesses below the root, one below the second of them."""
    nodes = []
    for i, (token, parent, count) in enumerate(zip(tokens, (-1, -1, 1), below, strict=True)):
        verdict = "accepted" if i in path else "rejected" if parent < 0 or 1 in path else "not judged"
        scores = {PROMPT_TOKEN_PROBABILITY: 0.3, RANK: 1.0, TREE_VALUE: 0.2, PROMPT_TOKENS: float(count), STATE: float(now)}
        nodes.append(node(token, parent, verdict, q=None, u=None, source=f"prompt token {1 + (parent >= 0)}", scores=scores))
    return step_of(nodes, path, "correction", final, facts={ROOT_PROMPT_TOKENS: 3.0, ROW_BUDGET: 24.0} | more)


CURVE = {"ms with 16 rows": 4.0, "tokens with 16 rows": 1.5, "ms with 24 rows": 5.0, "tokens with 24 rows": 2.0}


def test_prompt_tokens_speak_where_acceptance_ended():
    below = {(): 3, (0,): 3, (1,): 1, (1, 2): 2}  # root, node 0, node 1, node 2
    for path, count in below.items():
        step = guessed(path)
        figure = view.prompt_tokens_figure(step, TOKEN_BYTES)
        marks = {trace.marker.symbol: len(trace.x) for trace in figure.data if str(trace.marker.symbol).startswith("diamond")}
        assert marks == {"diamond": count, "diamond-open": 9 - count} and view.next_state(step) == count
    assert "ended at depth 2, below which 2 prompt tokens hung: the next tree is that of state 2" in view.prompt_tokens_alt(
        guessed()
    )
    assert "ended at the root, below which 3 prompt tokens hung" in view.prompt_tokens_alt(guessed(()))
    assert view.rows_words(guessed()).endswith("the root, 3 guesses and 9 prompt tokens; 7 of these were read in vain.")
    assert "13 rows" in view.rows_words(guessed()) and "22 rows" in view.rows_words(guessed(**{MEMBERS: 2.0}))
    table = view.guesses_table(guessed(), TOKEN_BYTES)
    assert table["prompt token"].tolist() == [1, 1, 2] and table["prompt tokens below"].tolist() == [3, 1, 2]


def test_states_are_counted():
    steps = (step_of(), guessed(now=3), guessed((), now=2), guessed((1,), now=3), guessed((), now=1))
    table = view.states_table(steps)
    assert table["state"].tolist() == [1, 2, 3] and table["steps"].tolist() == [1, 1, 2]
    assert table["tokens per step"].tolist() == [1, 1, 2.5] and table["next state (how often)"].tolist()[2] == "1 (1), 2 (1)"
    assert "state 3: 2.50 in 2 steps" in view.states_alt(steps) and len(view.states_figure(steps).data[0].x) == 3
    assert view.states_table(()).empty and view.states_figure(()) and "No state" in view.states_alt(())


def test_the_curve():
    steps = (step_of(), guessed(**CURVE))
    assert view.curve_of(steps) == [(16, 4.0, 1.5), (24, 5.0, 2.0)] and view.budget_of(steps) == 24
    figure = view.curve_figure(steps)
    assert list(figure.data[0].y) == [375, 400]
    assert [color == view.SERIES["p"] for color in figure.data[0].marker.color] == [False, True]
    assert "24 were chosen. 16 rows: 4.0 ms, 1.50 tokens; 24 rows" in view.curve_alt(steps)
    assert view.curve_of((guessed(),)) == [] and "Nothing was measured" in view.curve_alt((guessed(),))
    assert view.curve_of((guessed(**{"ms with x rows": 1.0, "ms with 9 rows": 0.0, "tokens with 9 rows": 1.0}),)) == []


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    nodes = view.prompt_tokens_figure(guessed(tokens=(token,) * 3), HOSTILE).data[-1]
    shown = "".join((*nodes.text, *nodes.hovertext))
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))
    assert len(view.guesses_table(guessed(tokens=(token,) * 3), HOSTILE)) == 3


def test_traces_of_another_kind():
    for step in (
        chain(),
        step_of(),
        guessed(below=(3, float("nan"), 2)),
        guessed(below=(3, 99, 2)),
        guessed(**{ROOT_PROMPT_TOKENS: -1.0}),
    ):
        assert view.prompt_tokens_of(step) is None and view.next_state(step) is None and view.rows_words(step) == ""
    assert view.budget_of((chain(),)) is None and view.states_table((chain(),)).empty


def test_the_states_are_those_of_a_run(embedded):
    steps = list(Run(embedded, "ppd", {"budget": "32"}, "Once upon a time there was", Sampling(1.0), max_tokens=40))
    known = [step for step in steps if view.prompt_tokens_of(step)]
    assert len(known) == len(steps) - 1, "all but the first"
    for step, after in zip(known, known[1:], strict=False):
        assert view.next_state(step) == after.nodes[0].scores[STATE]


@pytest.mark.parametrize("rule", ["exact", "typical"])
def test_the_page(rule):
    settings = Settings(prompt="Once upon a time", method="ppd", params={"rule": rule}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 2, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.params["rule"] == rule
    shown = " ".join(markdown.value for markdown in at.markdown)
    assert "the prompt tokens below them" in shown and ("not lossless" in shown) == (rule == "typical")
    at.session_state["ppd_box"] = True
    at.run()
    assert not at.exception and any("by state" in chart.proto.alt for chart in at.get("plotly_chart"))
