"""Committed tokens, and the rows they were chosen with."""

from tests.viz_samples import chain, node, row, run, step_of
from viz.runs.committed import committed


def test_committed_names_the_row_that_decided_each_token():
    rows = tuple(row((i,), (1.0,)) for i in range(4))
    nodes = [node(4), node(5, -1, "rejected"), node(6, 0)]
    step = step_of(nodes, (0, 2), "bonus", rows=rows)
    assert [at.row.tokens[0] for at in committed(run(step))] == [0, 1, 3]
    assert [at.row for at in committed(run(chain()))] == [None] * 4
