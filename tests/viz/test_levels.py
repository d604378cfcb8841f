"""Levels of a draft: a level of several guesses counts once, and the sentence below the bars is true for what was measured."""

import pytest

from tests.viz_samples import TREES, chain, node, runs, small_tree, step_of, trace_of
from viz.drafter.acceptance import acceptance
from viz.drafter.judgements import filtered, judgements
from viz.drafter.levels import FED, branches, by_depth, depth_alt, depth_figure, depth_table, depth_words, levels


def table(*steps):
    return judgements(runs(trace_of(*steps)))


def test_a_level_counts_once_and_is_right_with_one_right_guess():
    frame = table(small_tree())  # depth 1: refused, then kept; depth 2: kept; depth 3: two refused
    assert levels(frame)[["depth", "judged", "accepted"]].values.tolist() == [[1, 2, True], [2, 1, True], [3, 2, False]]
    assert by_depth(frame)["alpha"].tolist() == [1, 1, 0]
    assert acceptance(frame, "depth")["alpha"].tolist() == [0.5, 1, 0]  # which counts the refused sibling
    assert branches(frame) and not branches(table(chain(3)))


def test_a_filter_does_not_make_a_right_level_wrong():
    """The guess that was kept may be of another class than the one that passes."""
    frame = table(small_tree())
    refused = frame[~frame["accepted"] & (frame["depth"] == 1)]
    assert levels(refused)["accepted"].tolist() == [True]
    assert levels(filtered(frame, depth=(9, 9))).empty


def test_several_guesses_bring_a_second_bar_and_the_counts_stand_in_the_table():
    figure = depth_figure(TREES)
    assert [bar.name for bar in figure.data] == ["one guess of the level was right", "accepted / judged"]
    assert len(depth_figure(table(chain(3))).data) == 1
    two = depth_table({"A": TREES, "B": table(chain(3))})
    assert set(two["drafter"]) == {"A", "B"} and {"levels", "one right", "guesses judged"} <= set(two)
    assert "depth 1: 1 of 1" in depth_alt(table(chain(3))) and "nothing judged" in depth_alt(judgements([]))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([chain(1, 2)] * 70 + [chain(2, 2)] * 30, "It falls with depth: 100 of 100 levels at depth 1 (100%), 30 of 100"),
        ([chain(1, 2)] * 5 + [chain(2, 2)] * 60, "No clear change with depth: 65 of 65 levels at depth 1"),
        ([chain(0, 2)] * 60 + [chain(2, 2)] * 40, "It rises with depth: 40 of 100 levels at depth 1 (40%), 40 of 40"),
        ([chain(1, 3)] * 70 + [chain(3, 3)] * 40, "It falls with depth"),
        ([chain(5)] * (FED - 1), "Too few levels"),
    ],
)
def test_the_sentence_says_what_was_measured(steps, said):
    words = depth_words(table(*steps))
    assert words.startswith(said)
    assert ("then rises again: 40 of 40 levels at depth 3" in words) == (steps[0] == chain(1, 3))


def test_a_depth_with_few_levels_is_not_spoken_of():
    frame = table(*[chain(2, 3)] * FED, chain(3, 3))
    assert "depth 3" in depth_words(frame)
    frame = table(*[chain(1, 2)] * FED, *[chain(3, 3)] * (FED - 1))
    assert "depth 3" not in depth_words(frame)


def test_siblings_are_explained_only_where_there_are_some():
    tree = step_of([node(0, -1, "rejected"), node(1)], (1,), "bonus")
    assert "refused sibling" not in depth_words(table(*[chain(5)] * 30))
    assert "refused sibling" in depth_words(table(*[chain(5)] * 30, tree))
