"""DySpec's view: the tree grown again, the draws that waited, the estimates against what came."""

import pytest

from decoding.runs.run import Run
from decoding.sample import Sampling
from tests.viz_samples import HOSTILE, TOKEN_BYTES, node, step_of
from viz.methods.dyspec import draw_words, draws_table, reached, regrown, sum_words, waiting, waiting_bars
from viz.step.boxes import ROOT, has_final
from viz.step.tree import tree_figure


def scored(token: int, parent: int, before: float, after: float, verdict="not judged"):
    return node(token, parent, verdict, scores={"order": 1.0, "estimate before": before, "estimate after": after})


STEP = step_of(
    [
        scored(0, -1, 1.0, 0.6, "rejected"),
        scored(1, 0, 0.6, 0.5),
        scored(2, -1, 0.4, 0.01, "accepted"),
        scored(3, -1, 0.39, 0.3),
    ],
    (2,),
    "correction",
)


def test_what_waits_is_what_the_draws_left():
    assert [(d.node, d.child, round(d.value, 6)) for d in waiting(STEP, 0)] == [(ROOT, 1, 1.0)]
    assert [(d.node, d.child, round(d.value, 6)) for d in waiting(STEP, 3)] == [
        (1, 1, 0.5), (ROOT, 3, 0.39), (0, 2, 0.1), (2, 1, 0.01)
    ]  # fmt: skip


@pytest.mark.parametrize(("greedy", "variant"), [(False, "queue"), (True, "queue"), (False, "threshold")])
def test_a_real_tree_was_grown_from_what_waited(embedded, greedy, variant):
    """The estimate a node carries is the one that the numbers of the earlier nodes give; the queue takes the largest."""
    sampling = Sampling(0.0 if greedy else 1.0)
    run = Run(embedded, "dyspec", {"variant": variant, "nodes": 16}, "Once upon a time", sampling, seed=1, max_tokens=24)
    draws = 0
    for step in run:
        for count, made in enumerate(step.nodes):
            draws += 1
            waited = waiting(step, count)
            mine = next(d for d in waited if d.node == made.parent)
            assert mine.value == pytest.approx(made.scores["estimate before"], abs=1e-5)
            if variant == "queue":
                assert mine.value == pytest.approx(waited[0].value, abs=1e-5)
    assert draws > 50


def test_the_tree_is_grown_again():
    part = regrown(STEP, 3)
    assert len(part.nodes) == 3 and part.path == (2,) and not has_final(part)
    assert regrown(STEP, 2).path == () and regrown(STEP, 0).tokens == ()
    assert tree_figure(regrown(STEP, 0), TOKEN_BYTES).data and tree_figure(part, TOKEN_BYTES).data


def test_the_next_draw_is_marked_even_below_the_listed_ones():
    wide = step_of([scored(i, -1, 1 - 0.08 * i, 0.08) for i in range(12)] + [scored(3, 11, 0.08, 0.01)])
    markup = waiting_bars(wide, 12, TOKEN_BYTES)
    assert markup.count("made next") == 1 and "and 4 more" in markup
    assert "made next" not in waiting_bars(wide, 13, TOKEN_BYTES)


def test_words_say_what_a_draw_brought():
    assert "certainty" in draw_words(STEP, 0, TOKEN_BYTES)
    assert "0.40" in draw_words(STEP, 3, TOKEN_BYTES) and "unlikely token" in draw_words(STEP, 3, TOKEN_BYTES)
    assert "unlikely" not in draw_words(STEP, 1, TOKEN_BYTES)
    assert list(draws_table(STEP, TOKEN_BYTES)["W after"]) == [0.6, 0.5, 0.01, 0.3]


def test_estimates_against_what_came():
    frame = reached([STEP, step_of()])
    assert list(frame["confidence"]) == [1.0, 0.6, 0.4, 0.39] and list(frame["accepted"]) == [True, False, True, False]
    assert "1.41 a step so far, and 1.00 were" in sum_words([STEP])
    assert "Nothing" in sum_words([step_of()])


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_tokens_are_escaped(token):
    step = step_of([scored(token, -1, 1.0, 0.5)])
    markup = waiting_bars(step, 1, HOSTILE)
    assert "<script" not in markup and "<b>" not in markup and '"><a' not in markup
