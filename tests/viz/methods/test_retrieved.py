"""Pictures of retrieval: sources by shape and colour, and marks around the match."""

import pytest

from tests.viz_samples import HOSTILE, TOKEN_BYTES, node, step_of
from viz.methods.shared.retrieved import (
    KINDS,
    Occurrence,
    context_html,
    match_figure,
    match_of,
    match_table,
    occurrence_html,
    occurrence_table,
    source_alt,
    source_figure,
    source_table,
)


def fused_step(path=(0, 2), final="correction"):
    """Root: a cat (both), a dog (drafted); below the cat: sat (retrieved), was (drafted)."""
    parents, sources = (-1, -1, 0, 0), ("both", "draft model", "retrieved", "draft model")
    weights = (8.0, 0.0, 1.0, 0.0)
    nodes = [
        node(i, parent, "accepted" if i in path else "not judged", q=None, u=None, source=source, scores=scores(weights[i]))
        for i, (parent, source) in enumerate(zip(parents, sources, strict=True))
    ]
    return step_of(nodes, path, final)


def scores(weight: float) -> dict[str, float]:
    return {"weight": weight, "draft value": 0.25, "matched": 3.0, "occurrences": 12.0}


def nodes_of(figure):
    return next(trace for trace in figure.data if trace.name == "nodes")


def test_sources_differ_by_colour_and_by_shape():
    assert len({kind.color for kind in KINDS.values()}) == len({kind.symbol for kind in KINDS.values()}) == 3
    points = nodes_of(source_figure(fused_step(), TOKEN_BYTES))
    assert list(points.marker.symbol[1:5]) == ["diamond", "circle-open", "square", "circle-open"]  # filled: in the text
    assert list(points.marker.color[1:4]) == [KINDS[kind].color for kind in ("both", "draft model", "retrieved")]


def test_an_edge_is_as_wide_as_its_share_of_the_occurrences():
    lines = {trace.line.color: trace.line.width for trace in source_figure(fused_step(), TOKEN_BYTES).data if trace.mode == "lines"}
    assert lines[KINDS["both"].color] > lines[KINDS["retrieved"].color]


@pytest.mark.parametrize("dark", [False, True])
def test_every_node_is_drawn_once_with_its_table_line(dark):
    step = fused_step()
    assert len(nodes_of(source_figure(step, TOKEN_BYTES, dark)).x) == len(step.nodes) + 2  # the root and the correction
    table = source_table(step, TOKEN_BYTES)
    assert list(table["source"]) == ["both", "draft model", "retrieved", "draft model"] and len(table) == 4
    assert list(table["occurrences"]) == [8.0, 0.0, 1.0, 0.0] and "draft model's product of q" in table
    assert "4 nodes" in source_alt(step) and "Accepted: 2" in source_alt(step)
    assert source_alt(step_of()) == "Nothing was drafted in this step." and len(source_table(step_of(), TOKEN_BYTES)) == 0


def test_sources_of_other_methods_are_retrieved():
    """A node whose source says something else still has a look."""
    step = step_of([node(1, source="copied from token 3")], (0,), "bonus")
    assert list(source_table(step, TOKEN_BYTES)["source"]) == ["retrieved"]


def test_the_match_is_marked_in_the_text():
    html = context_html([0, 1, 2, 3], 2, TOKEN_BYTES)
    assert html.index("little") < html.index("⟦") < html.index("cat") < html.index("sat") < html.index("⟧")
    assert "⟦" not in context_html([0, 1], 0, TOKEN_BYTES)
    assert "…" in context_html([0] * 99, 2, TOKEN_BYTES)


def test_hostile_tokens_stay_text():
    tokens, token_bytes = list(HOSTILE), TOKEN_BYTES | HOSTILE
    place = Occurrence("<b>x</b>", tuple(HOSTILE.values()), (b"<script>",), tuple(HOSTILE.values()))
    for html in (context_html(tokens, 3, token_bytes), occurrence_html([place])):
        assert "<script" not in html and "<a href" not in html and "<b>" not in html
    step = step_of([node(token, source="<i>") for token in HOSTILE])
    points = nodes_of(source_figure(step, token_bytes))
    assert not any("<script" in text or "<b>" in text for text in (*points.text, *points.hovertext))


def test_occurrences_and_their_table():
    place = Occurrence("a.py", (b"x",), (b" cat", b" sat"), (b"\xc3", b"\xa9"))
    assert "⟦ cat sat⟧</span>é" in occurrence_html([place]) and occurrence_html([]) == ""
    assert occurrence_table([place]).iloc[0].tolist() == ["a.py", "x", "␣cat␣sat", "é"]


def test_matches_of_a_run():
    steps = [fused_step(), step_of(), fused_step((), "correction")]
    assert match_of(steps[0]) == (3, 12) and match_of(steps[1]) is None
    table = match_table(steps)
    assert list(table["tokens matched"]) == [3, 0, 3] and list(table["tokens accepted"]) == [2, 0, 0]
    figure = match_figure(steps, 1)
    assert [list(bar.y) for bar in figure.data] == [[3, 0, 3], [2, 0, 0]]
