"""Token Recycling's table, read back from the tree by hand."""

from msgspec.structs import replace

from decoding.score_names import RANK
from tests.viz_samples import HOSTILE, node, step_of, trace_of
from viz.methods import silence
from viz.methods.token_recycling import table_frame, table_html, walked
from viz.step.boxes import ROOT


def recycled(tokens=(2, 3, 4, 5), **more):
    """The root has candidates 1 and 3, the first of them 1 and 2."""
    places = [(-1, 0, "rejected"), (-1, 2, "accepted"), (1, 0, "rejected"), (1, 1, "not judged")]
    nodes = [
        replace(node(token, parent, verdict), scores={RANK: float(rank)}, q=None)
        for token, (parent, rank, verdict) in zip(tokens, places, strict=True)
    ]
    return trace_of(step_of(nodes, (1,), "correction"), method="token_recycling", max_tokens=64, **more)


def test_a_row_holds_the_children_of_a_node_by_rank():
    trace = recycled()
    assert walked(trace.steps[0]) == {ROOT: {0: 0, 2: 1}, 1: {0: 2, 1: 3}}
    frame = table_frame(trace, 0)
    names = frame.to_numpy().tolist()
    assert len(names) == 2 and names[0][2] == "" and names[0][1] != names[0][3] != "" and all(not cell for cell in names[1][3:])
    drawn = table_html(trace, 0)
    assert drawn.count("<tr>") == 3 and drawn.count("✓") == 1 and drawn.count("✗") == 2


def test_without_ranks_there_is_no_table():
    trace = recycled()
    bare = replace(trace.steps[0], nodes=tuple(replace(n, scores={RANK: 1e9}) for n in trace.steps[0].nodes))
    assert table_html(replace(trace, steps=(bare,)), 0) == "" and table_frame(replace(trace, steps=(bare,)), 0).empty


def test_tokens_are_escaped():
    drawn = table_html(recycled(tokens=(100, 101, 102, 103), token_bytes=HOSTILE), 0)
    assert "&lt;" in drawn and "<sc" not in drawn and "<b>" not in drawn


def test_a_row_that_was_never_written_is_the_reason():
    silent = trace_of(step_of(), method="token_recycling", max_tokens=64)
    assert "its row of the table is empty" in silence(silent, 0)
