"""How often a drafted token is kept, by group: intervals, counts, order, several drafters."""

import pytest

from tests.viz_samples import FRAME, TREES, chain, runs, trace_of
from viz.drafter.acceptance import BY, HOW_TO_READ, acceptance, acceptance_alt, acceptance_figure, acceptance_table, wilson
from viz.drafter.judgements import judgements


def test_wilson_knows_small_numbers():
    assert wilson(0, 0) == (0, 1) and wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == pytest.approx(1)
    low, high = wilson(50, 100)
    assert low == pytest.approx(0.4038, abs=1e-4) and high == pytest.approx(0.5962, abs=1e-4)


def test_acceptance_counts_by_depth():
    table = acceptance(TREES, "depth")
    assert table[["depth", "judged", "accepted"]].values.tolist()[:2] == [["1", 4, 3], ["2", 3, 3]]
    assert (table["low"] <= table["alpha"]).all() and (table["alpha"] <= table["high"] + 1e-9).all()


def test_depths_stand_in_order_of_number():
    frame = judgements(runs(trace_of(chain(12, 12))))
    assert acceptance(frame, "depth")["depth"].tolist() == [str(i) for i in range(1, 13)]


@pytest.mark.parametrize("by", BY)
def test_every_group_has_a_figure_a_table_a_sentence(by):
    assert by in HOW_TO_READ
    figure = acceptance_figure(FRAME, by)
    assert sum(acceptance_table(FRAME, by)["judged"]) == 4
    assert len(figure.data[0].x) == len(acceptance_table(FRAME, by))
    assert "2 of 4" in acceptance_alt(FRAME, by) or by in ("depth", "class", "position")


def test_two_drafters_share_the_places_and_differ_in_pattern():
    longer = judgements(runs(trace_of(chain(7, 7))))
    figure = acceptance_figure({"One": FRAME, "Two": longer}, "depth")
    assert [list(bar.x) for bar in figure.data] == [[0, 1], list(range(7))]
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 2
    assert acceptance_table({"One": FRAME, "Two": longer}, "depth")["drafter"].tolist() == ["One"] * 2 + ["Two"] * 7
