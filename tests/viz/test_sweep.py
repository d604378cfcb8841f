"""One parameter swept: equal values added up, the best one starred, numbers and words."""

import pytest

from tests.viz_samples import chain, node, run, step_of
from viz.runs.sweep import sweep_alt, sweep_figure, sweep_table


def test_sweep_adds_up_equal_values_and_stars_the_best():
    points = [(5, run(chain(5))), (2, run(step_of())), (5, run(chain(3)))]
    table = sweep_table(points, "length", c=0.1)
    assert table["length"].tolist() == [2, 5] and table["tau"].tolist() == [1, 5]
    assert table["modelled speed-up"].tolist() == pytest.approx([1, 5 / 1.5])
    assert table["best"].tolist() == [False, True]
    assert sweep_alt(points, "length", 0.1).endswith("Best: 5 with 3.33.")


def test_the_best_moves_with_the_cost():
    points = [(1, run(step_of([node(0)], (0,), "bonus"))), (5, run(chain(5)))]
    assert sweep_table(points, c=0)["best"].tolist() == [False, True]
    assert sweep_table(points, c=10)["best"].tolist() == [True, False]


def test_sweep_draws_numbers_as_lines_and_words_as_points():
    numbers = sweep_figure([(2, run(chain(2))), (4, run(chain(4)))], "length")
    words = sweep_figure([("a", run(chain(2))), (True, run(chain(4)))], "kind")
    assert [line.mode for line in numbers.data] == ["lines+markers"] * 2
    assert [line.mode for line in words.data] == ["markers"] * 2
    assert [list(line.marker.symbol).count("star") for line in numbers.data] == [1, 1]
