"""Strips by output position: cells, blocks of steps, where texts part, the window."""

import pytest

from tests.viz_samples import DRAFTED, RUNS
from viz.runs.alignment import align, aligned_alt, aligned_figure


def test_align_says_which_step_brought_each_token():
    table = align([("Chain", DRAFTED)])
    assert table["position"].tolist() == list(range(1, 11))
    assert table["step"].tolist() == [1] * 4 + [2] * 6
    assert table["origin"].tolist()[3:5] == ["correction", "accepted"]


def test_strip_has_a_cell_for_each_token_and_marks_where_texts_part():
    figure = aligned_figure(RUNS)
    cells = next(trace for trace in figure.data if trace.name == "tokens")
    assert len(cells.x) == 14 and list(cells.customdata[4]) == [1, 0]
    assert any("≠ differs from Plain" in (trace.name or "") for trace in figure.data)
    assert "Chain: 10 tokens in 2 steps, differs from Plain at token 4" in aligned_alt(RUNS)


def test_blocks_of_a_step_stand_apart_from_the_next():
    figure = aligned_figure([("Chain", DRAFTED)])
    accepted = next(trace for trace in figure.data if "accepted" in (trace.name or ""))
    edges = [x for x in accepted.x if x is not None]
    assert edges[0] == pytest.approx(0.6) and edges[5] == pytest.approx(1.5)  # a gap before the step, none inside


def test_the_window_cuts():
    cells = next(trace for trace in aligned_figure([("Chain", DRAFTED)], start=4, count=3).data if trace.name == "tokens")
    assert list(cells.x) == [5, 6, 7]
    assert aligned_figure(RUNS, start=99).layout.annotations[0].text == "No token was committed here yet."
