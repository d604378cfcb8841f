"""Ten thousand draws: the rule meets p, the wrong one does not, and both are what they are said to be."""

import pytest

from decoding.runs import lesson_runs
from viz.lessons.draws import COUNT, Bars, bars_of, draw, draws_data, filled, leftover, meets, picked, shares_of, variation
from viz.lessons.places import varied

P, Q = (0.5, 0.3, 0.15, 0.05), (0.2, 0.7, 0.0, 0.1)
BARS = Bars(("a", "b", "c", "all others"), P, Q)


def test_by_the_rule_p_comes_out_exactly():
    assert meets(P, Q, leftover(P, Q)) == pytest.approx(P)


def test_by_the_wrong_rule_it_does_not():
    assert variation(meets(P, Q, P), P) > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_the_draws_follow_what_is_computed(seed):
    """Within five standard deviations of a share of ten thousand; the wrong rule is further from p than that."""
    done = draw(BARS, seed)
    right, wrong = shares_of(done.right[-1]), shares_of(done.wrong[-1])
    assert max(abs(a - b) for a, b in zip(right, P, strict=True)) < 0.025
    assert max(abs(a - b) for a, b in zip(wrong, meets(P, Q, P), strict=True)) < 0.025
    assert variation(right, P) < 0.02 < variation(wrong, P)


def test_seeds_are_kept_and_differ():
    assert draw(BARS, 3) == draw(BARS, 3) != draw(BARS, 4)


def test_every_stop_counts_as_many_draws_as_it_says():
    done = draw(BARS, 1)
    assert done.after[-1] == COUNT and list(done.after) == sorted(set(done.after))
    assert all(sum(counts) == stop for stop, counts in zip(done.after, done.right, strict=True))
    assert all(sum(counts) == stop for stop, counts in zip(done.after, done.wrong, strict=True))


def test_what_has_no_share_is_never_drawn():
    import numpy as np

    uniforms = np.array([0.0, 0.25, 0.5, 0.75, 1 - 1e-16])
    assert set(picked(np.array([0.0, 0.5, 0.0, 0.5, 0.0]), uniforms)) == {1, 3}


def test_the_position_of_the_course_is_a_real_one():
    """Its bars are the recorded p and q, all others in one; the wrong rule is seen to fail there."""
    trace = lesson_runs.read("story")
    step, r = varied(trace)
    row = trace.steps[step].rows[r]
    bars = bars_of(row, trace.token_bytes)
    assert sum(bars.p) == pytest.approx(1) == sum(bars.q)
    known = dict(zip(row.tokens, zip(row.p, row.q, strict=True), strict=True))
    assert all(
        any(pair == pytest.approx((p, q), abs=1e-6) for pair in known.values())
        for p, q in list(zip(bars.p, bars.q, strict=True))[:-1]
    )
    assert variation(meets(bars.p, bars.q, bars.p), bars.p) > 0.05


def test_a_position_without_a_drafter_is_refused():
    trace = lesson_runs.read("story_plain")
    with pytest.raises(ValueError, match="Nothing was drawn"):
        bars_of(trace.steps[0].rows[0], trace.token_bytes)


def test_shares_that_sum_to_more_than_one_are_scaled():
    assert sum(filled([0.7, 0.4])) == pytest.approx(1) and filled([0.7, 0.4])[-1] == pytest.approx(0)


def test_before_anything_is_drawn_there_are_no_counts():
    data = draws_data(BARS, None)
    assert data["after"] == [] and data["p"] == list(P) and data["seed"] is None
