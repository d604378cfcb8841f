"""The rank of the target's favourite in the drafter's list: what a trace can tell, and what it cannot."""

import json

import pytest

from decoding.record import TOP
from tests.viz_samples import FRAME, at, chain, node, runs, step_of, trace_of
from viz.drafter.judgements import KEPT, judgements
from viz.drafter.ranks import ABSENT, NONE, list_words, rank_alt, rank_figure, rank_words, ranks


def test_a_trace_keeps_as_many_as_the_pictures_believe():
    assert KEPT == TOP


def place(q, tokens=(0, 1, 2, 3, 4), guess=1):
    """One refused guess; the target likes token 0 best."""
    row = at(tokens, (0.6, 0.1, 0.1, 0.1, 0.1)[: len(tokens)], q, None if q is None else 0.5, None if q is None else 1.0)
    return step_of([node(guess, -1, "rejected")], (), "correction", final_token=0, rows=(row, None))


def found(*steps):
    return judgements(runs(trace_of(*steps)))


@pytest.mark.parametrize(
    ("q", "rank", "column"),
    [
        ((0.9, 0.05, 0.05, 0.0, 0.0), 1, "1st"),
        ((0.2, 0.5, 0.1, 0.1, 0.1), 2, "2nd"),
        ((0.1, 0.3, 0.3, 0.2, 0.1), 4, "3rd to 4th"),
        ((0.0, 0.4, 0.3, 0.2, 0.1), None, ABSENT),  # it gives the favourite nothing
    ],
)
def test_ranks_follow_from_q(q, rank, column):
    frame = found(place(q))
    assert frame["wanted rank"].tolist() == [rank] if rank else frame["wanted rank"].isna().all()
    assert ranks(frame)[column].tolist() == [1] and ranks(frame)["places"].tolist() == [1]


def test_a_favourite_behind_the_kept_ones_is_not_ranked():
    tokens = tuple(range(10))
    row = at(tokens, (0.91, *[0.01] * 9), (0.001, *[0.111] * 9), 0.1, 3.0)
    frame = found(step_of([node(1, -1, "rejected")], (), "correction", final_token=0, rows=(row, None)))
    assert frame["wanted rank"].isna().all() and "not in its list in 1" in rank_words(frame)


def test_without_a_distribution_the_guesses_are_the_list():
    row = at((0, 1), (0.6, 0.4))
    nodes = [node(1, -1, "rejected", q=None), node(0, -1, "accepted", q=None)]
    frame = found(step_of(nodes, (1,), "bonus", rows=(row, None, row)))
    assert frame["wanted guess"].tolist() == [2, 2] and ranks(frame)["2nd"].tolist() == [1]
    assert "guesses" in list_words(frame) and "likeliest" not in list_words(frame)
    assert "likeliest" in list_words(FRAME)
    assert "guesses" in list_words(found(place(None), place((1.0, 0, 0, 0, 0)))) and list_words(found()) == ""


def test_nothing_recorded_is_said():
    frame = found(chain(3))
    assert rank_words(frame) == NONE and rank_figure(frame).layout.annotations and NONE in rank_alt(frame)


def test_shares_of_a_depth_add_up_and_counts_are_in_words():
    figure = rank_figure(FRAME, dark=True)
    assert sum(sum(bar.y) for bar in figure.data) == pytest.approx(2)  # depths 1 and 2
    assert "depth 1: 1st 2" in rank_alt(FRAME)
    assert json.dumps(figure.to_plotly_json(), default=list)
