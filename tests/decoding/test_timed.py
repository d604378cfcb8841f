"""Measuring in rounds: the warm-up apart, the methods in turn, and what is kept of it."""

import pytest

from decoding.runs.run import Run
from decoding.runs.timed import WARM, Timed
from decoding.sample import Sampling


@pytest.fixture
def order():
    return []


@pytest.fixture
def makers(embedded, order):
    def maker(method, tokens):
        def make():
            order.append(method)
            return Run(embedded, method, {}, "Once upon a time", Sampling(0.0), 0, tokens)

        return make

    return [maker("plain", WARM + 4), maker("prompt_lookup", WARM + 4)]


def test_methods_take_turns_behind_a_warm_up(makers, order):
    timed = Timed(makers, rounds=3)
    steps = list(timed)
    assert order == ["plain", "prompt_lookup"] * 4 and timed.ended and timed.turns == 8
    assert len(steps) == timed.count == len(timed.steps)
    assert [sum(step.times.total for step in trace.steps) for trace in timed.traces] == [sorted(ms)[1] for ms in timed.ms]
    assert [len(rounds) for rounds in timed.ms] == [3, 3] and all(ms > 0 for rounds in timed.ms for ms in rounds)


def test_the_warm_up_is_not_counted_and_no_longer_than_it_has_to_be(makers):
    timed = Timed(makers, rounds=1)
    list(timed)
    plain, other = timed.traces
    assert timed.count == WARM + len(plain.steps) + min(WARM, len(other.steps)) + len(other.steps)
    assert timed.ms[0] == [sum(step.times.total for step in plain.steps)]
    assert plain.text_bytes() == other.text_bytes() and plain.steps[-1].ending


def test_what_was_let_go_takes_no_further_step(makers):
    timed = Timed(makers)
    next(timed)
    timed.let_go()
    assert timed.ended and next(timed, None) is None and not timed.unready


def test_a_run_is_made_beside_the_line(makers, order):
    """The worker asks whether the next run has to be made first, as it does of a study."""
    timed = Timed(makers, rounds=1)
    assert timed.unready
    timed.prepare()
    assert not timed.unready and order == ["plain"] and next(timed) is not None and order == ["plain"]
