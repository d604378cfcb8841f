"""The draft tree: everything once, where it belongs, in the look of its state."""

import html
import re
import time
from collections import Counter
from itertools import pairwise
from math import hypot

import plotly.graph_objects as go
import pytest

from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, grown, node, row, small_tree, step_of
from viz.step.boxes import HALF, ROOT, extent_of, final_index
from viz.step.tidy import tidy
from viz.step.tree import node_table, picked, tree_alt, tree_figure
from viz.style import LOOKS, text_color

RECYCLING = grown((8, 21, 25, 15, 8, 3), path=(1,), rejected=(0,))
WIDE = grown((16, 60, 80, 60, 40), path=(0, 16), rejected=(76, 77, 78))
STEPS = [chain(), chain(0), chain(5), small_tree(), step_of(), RECYCLING]


def trace_named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def places(figure):
    """customdata -> (x, y)."""
    nodes = trace_named(figure, "nodes")
    return dict(zip(nodes.customdata, zip(nodes.x, nodes.y, strict=True), strict=True))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("dark", [False, True])
def test_every_node_is_drawn_once_in_the_look_of_its_verdict(step, dark):
    figure = tree_figure(step, TOKEN_BYTES, dark=dark)
    nodes = trace_named(figure, "nodes")
    assert sorted(nodes.customdata) == [ROOT, *range(len(step.nodes)), final_index(step)]
    for i, color, symbol, ink in zip(nodes.customdata, nodes.marker.color, nodes.marker.symbol, nodes.textfont.color, strict=True):
        state = "prompt" if i == ROOT else step.origins[-1] if i == final_index(step) else step.nodes[i].verdict
        assert (color, symbol, ink) == (LOOKS[state].color, LOOKS[state].symbol, text_color(state, dark))
    assert sum(shape.path.count("M") for shape in figure.layout.shapes) == len(step.nodes) + 2


@pytest.mark.parametrize("step", [*STEPS, WIDE])
def test_plotly_accepts_what_is_drawn_without_asking_it(step):
    figure = tree_figure(step, TOKEN_BYTES, ROOT)
    assert go.Figure(figure.to_dict()).to_dict() == figure.to_dict()
    with pytest.raises(ValueError, match="colour"):
        go.Figure({"data": [trace | {"colour": 1} for trace in figure.to_dict()["data"]]})


def test_borders_are_dashed_by_state():
    shapes = tree_figure(small_tree(), TOKEN_BYTES).layout.shapes
    states = Counter(["prompt", *(node.verdict for node in small_tree().nodes), "correction"])
    assert {shape.name: shape.path.count("M") for shape in shapes} == states
    assert all(shape.line.dash == LOOKS[shape.name].dash for shape in shapes)


def test_states_differ_by_more_than_colour():
    assert len({look.symbol for look in LOOKS.values()}) == len(LOOKS)
    assert len({look.mark for look in LOOKS.values()}) == len(LOOKS)
    assert len({LOOKS[verdict].dash for verdict in ("accepted", "rejected", "not judged")}) == 3


def test_white_text_stands_on_blue_only():
    assert {state for state, look in LOOKS.items() if look.ink == "#FFFFFF"} == {"accepted"}


@pytest.mark.parametrize("step", STEPS)
def test_children_stand_right_of_their_parent_and_in_draw_order(step):
    at = places(tree_figure(step, TOKEN_BYTES))
    for i, node_ in enumerate(step.nodes):
        assert at[i][0] == at[node_.parent][0] + 1
    for parent in {node_.parent for node_ in step.nodes}:
        rows = [at[i][1] for i, node_ in enumerate(step.nodes) if node_.parent == parent]
        assert rows == sorted(rows)
    end = step.path[-1] if step.path else ROOT
    assert at[final_index(step)][0] == at[end][0] + 1
    assert all(at[final_index(step)][1] > at[i][1] for i, node_ in enumerate(step.nodes) if node_.parent == end)


@pytest.mark.parametrize("step", [*STEPS, WIDE])
def test_boxes_do_not_overlap(step):
    figure = tree_figure(step, TOKEN_BYTES)
    columns: dict[float, list[float]] = {}
    for x, y in places(figure).values():
        columns.setdefault(x, []).append(y)
    rows = [sorted(column) for column in columns.values()]
    assert all(b - a >= 1 - 1e-9 for column in rows for a, b in pairwise(column))
    bottom, top = figure.layout.yaxis.range
    assert all(top < y < bottom for column in rows for y in column)
    left, right = figure.layout.xaxis.range
    assert all(left < x < right - 0.8 for x in columns)
    row_px = (figure.layout.height - 52) / (bottom - top)
    assert trace_named(figure, "nodes").textfont.size <= row_px


def test_a_parent_is_level_with_its_first_child():
    column, row_ = tidy([-1, 0, 0, 0, 1, 1, 2])
    assert column == [0, 1, 1, 1, 2, 2, 2]
    assert row_ == pytest.approx([0, 0, 1.3, 2.3, 0, 1, 2.3])  # the third child is a leaf, and there is no fourth row


def test_the_root_and_a_chain_stay_on_the_first_row():
    assert {y for _, y in places(tree_figure(chain(5), TOKEN_BYTES)).values()} == {0}
    assert all(places(tree_figure(step, TOKEN_BYTES))[ROOT] == (-HALF, 0) for step in [*STEPS, WIDE])


def test_no_more_rows_than_the_fullest_column_needs():
    """25 nodes at depth 3; one row per leaf would be more than 60."""
    rows = max(y for _, y in places(tree_figure(RECYCLING, TOKEN_BYTES)).values())
    families = len({node_.parent for node_ in RECYCLING.nodes[29:54]})
    assert rows == pytest.approx(24 + (families - 1) * 0.3)


@pytest.mark.parametrize("step", STEPS)
def test_edges_do_not_cross(step):
    """Columns keep the order of the columns before them."""
    at = places(tree_figure(step, TOKEN_BYTES))
    by_column: dict[float, list[tuple[float, float]]] = {}
    for i, node_ in enumerate(step.nodes):
        by_column.setdefault(at[i][0], []).append((at[i][1], at[node_.parent][1]))
    for edges in by_column.values():
        parents = [parent for _, parent in sorted(edges)]
        assert parents == sorted(parents)


def test_edges_join_every_child_to_its_parent_and_ignore_the_mouse():
    figure = tree_figure(small_tree(), TOKEN_BYTES)
    edges = [trace for trace in figure.data if trace.name.endswith(" edges")]
    assert sum(list(trace.x).count(None) for trace in edges) == len(small_tree().nodes) + 1
    assert all(trace.hoverinfo == "skip" for trace in edges)
    assert trace_named(figure, "accepted edges").line.width > trace_named(figure, "rejected edges").line.width
    assert trace_named(figure, "rejected edges").line.dash == "dash"
    assert trace_named(figure, "not judged edges").line.dash == "dot"


@pytest.mark.parametrize("step", [chain(), small_tree(), RECYCLING])
def test_the_nearest_point_to_anywhere_in_a_box_is_its_own(step):
    """Plotly reports the nearest point, so a click near the end of a long box must not pick the next column."""
    figure = tree_figure(step, TOKEN_BYTES, width=680)
    (left, right), (bottom, top) = figure.layout.xaxis.range, figure.layout.yaxis.range
    across, down = 664 / (right - left), (figure.layout.height - 52) / (bottom - top)
    points = [
        (x, y, i)
        for trace in (trace_named(figure, "nodes"), trace_named(figure, "hits"))
        for x, y, i in zip(trace.x, trace.y, trace.customdata, strict=True)
    ]
    for i, (x, y) in places(figure).items():
        for along, off in [(0, 0), (0.3, 0.4), (0.7, -0.4), (0.9, 0.4), (1, 0)]:
            at = (x + along * 2 * HALF, y + off)
            assert i == min(points, key=lambda p: hypot((p[0] - at[0]) * across, (p[1] - at[1]) * down))[2]


def test_every_point_with_data_tells_which_node_it_is():
    figure = tree_figure(small_tree(), TOKEN_BYTES)
    hits, nodes = trace_named(figure, "hits"), trace_named(figure, "nodes")
    assert list(hits.customdata) == list(nodes.customdata) * 2
    assert picked([{"customdata": 3}]) == picked([{"customdata": [3]}]) == picked([{}, {"customdata": (3,)}]) == 3
    assert picked([]) is None and picked([{"x": 1}]) is None and picked([{"customdata": []}]) is None


@pytest.mark.parametrize("selected", [ROOT, 2, final_index(small_tree())])
def test_selection_adds_one_outline(selected):
    figure = tree_figure(small_tree(), TOKEN_BYTES, selected)
    assert len(figure.layout.shapes) == len(tree_figure(small_tree(), TOKEN_BYTES).layout.shapes) + 1
    assert places(figure) == places(tree_figure(small_tree(), TOKEN_BYTES))


def test_plain_decoding_is_root_and_final_token():
    figure = tree_figure(step_of(), TOKEN_BYTES, root=2)
    root, final = trace_named(figure, "nodes").text
    assert "␣cat" in root and "␣was" in final and "plain" in final
    assert "root" in trace_named(tree_figure(step_of(), TOKEN_BYTES), "nodes").text[0]


def test_no_final_token_where_the_text_ended_in_the_path():
    step = step_of((node(),), (0,), None, ending="end of text")
    assert sorted(places(tree_figure(step, TOKEN_BYTES))) == [ROOT, 0]
    assert tree_figure(step_of(final=None), TOKEN_BYTES).data  # not even a path


def test_the_picture_keeps_still():
    extent = extent_of(STEPS[:4])
    layouts = [tree_figure(step, TOKEN_BYTES, extent=extent).layout for step in STEPS[:4]]
    assert len({(each.height, each.xaxis.range, each.yaxis.range) for each in layouts}) == 1
    assert extent_of([]) == (6, 3)


def test_height_grows_with_the_tree_and_is_capped():
    heights = [tree_figure(step, TOKEN_BYTES).layout.height for step in (chain(), small_tree(), RECYCLING, WIDE)]
    assert heights == sorted(heights) and heights[0] < heights[2] <= 900


def test_hover_tells_everything():
    step = step_of((node(2, scores={"confidence": 0.75}, source="retrieved"),), (0,), "bonus")
    hover = trace_named(tree_figure(step, TOKEN_BYTES), "nodes").hovertext
    facts = ("␣cat", "✓ accepted", "= 0.155 &lt; 0.20", "p 0.20", "from retrieved", "confidence 0.75", "token id 2")
    assert all(fact in hover[1] for fact in facts)
    assert "bonus" in hover[2] and "␣was" in hover[2]


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_text_is_escaped_everywhere(token):
    evil = "<a href='javascript:x'>$y$</a>\u202e"
    first = node(token, source=evil, scores={evil: 1.0})
    step = step_of((first, node(token, 0, "rejected")), (0,), "correction", token, rows=(row(),) * 3)
    figure = tree_figure(step, HOSTILE, root=token)
    allowed = {"<br>", "<b>", "</b>", "</span>", '<span style="font-size:11.0px">'}
    for trace in figure.data:
        for text in (*(trace.text or ()), *(trace.hovertext or ()), trace.name):
            assert set(re.findall(r"<[^>]*>", text)) <= allowed
            assert "$" not in text and "\u202e" not in text and "\x00" not in text
    table = node_table(step, HOSTILE)
    cells = [str(cell) for cell in (*table.columns, *table.to_numpy().ravel(), tree_alt(step, HOSTILE))]
    assert all(cell.isprintable() for cell in cells)


def test_labels_survive_escaping():
    text = trace_named(tree_figure(step_of(final_token=101), HOSTILE, width=1200), "nodes").text[1]
    assert "<b>bold</b>" in html.unescape(text) and "<b>" not in text


@pytest.mark.parametrize("width", [400, 680, 900, 1400])
@pytest.mark.parametrize("step", [chain(), chain(12, 16), RECYCLING, WIDE])
def test_labels_fit_their_boxes(step, width):
    """At 0.6 em a letter; four letters are shown even where they do not fit."""
    figure = tree_figure(step, TOKEN_BYTES, width=width)
    nodes = trace_named(figure, "nodes")
    left, right = figure.layout.xaxis.range
    box_px = 2 * HALF * (width - 16) / (right - left)
    for text in nodes.text:
        line = html.unescape(text.split("<br>")[0])
        assert len(line) <= 6 or (len(line) + 0.5) * 0.6 * nodes.textfont.size <= box_px


@pytest.mark.parametrize("nodes", [128, 160])
def test_trees_of_usual_size_are_drawn_in_full(nodes):
    widths = (10, *(20,) * ((nodes - 10) // 20), (nodes - 10) % 20)
    step = grown(tuple(width for width in widths if width), path=(0,))
    assert len(step.nodes) == nodes
    assert len(places(tree_figure(step, TOKEN_BYTES))) == nodes + 2


def test_big_trees_fold_their_unread_branches():
    figure = tree_figure(WIDE, TOKEN_BYTES)
    at = places(figure)
    judged = {i for i, node_ in enumerate(WIDE.nodes) if node_.verdict != "not judged"}
    assert len(WIDE.nodes) == 256 and judged <= set(at) and len(at) < 160
    counts = [int(re.search(r"\+(\d+)", text)[1]) for text in trace_named(figure, "collapsed").text]
    assert sum(counts) + len(at) - 2 == 256
    assert trace_named(figure, "nodes").textfont.size >= 7.5


def test_a_folded_node_is_shown_when_selected():
    hidden = next(i for i in range(256) if i not in places(tree_figure(WIDE, TOKEN_BYTES)))
    at = places(tree_figure(WIDE, TOKEN_BYTES, selected=hidden))
    while hidden != ROOT:
        assert hidden in at
        hidden = WIDE.nodes[hidden].parent


def test_a_big_tree_is_drawn_quickly():
    start = time.process_time()
    tree_figure(WIDE, TOKEN_BYTES)
    assert time.process_time() - start < 2.0  # of processor time; generous, only a blow-up should fail


def test_very_deep_chains_do_not_recurse():
    deep = step_of([node(0, i - 1) for i in range(1500)], range(1500), "bonus")
    assert len(places(tree_figure(deep, TOKEN_BYTES))) == 1502


def test_alt_tells_the_story():
    assert tree_alt(small_tree(), TOKEN_BYTES) == (
        "Draft tree of 8 tokens, 4 deep. Accepted: ␣little ␣sat. Rejected: ␣the, ␣a, ␣mat. Never looked at: 3. Correction: ␣was."
    )
    assert tree_alt(step_of(), TOKEN_BYTES) == "Empty draft tree. Written by the target: ␣was."


def test_a_score_may_be_called_like_a_column():
    """The drafter's own factor at a chosen node, or whatever an imported trace calls its scores."""
    table = node_table(step_of((node(0, q=None, scores={"q": 0.25, "token": 1.0}),), (0,), "bonus"), TOKEN_BYTES)
    assert table["score q"][0] == 0.25 and table["score token"][0] == 1.0 and table["q"].isna()[0] and table.columns.is_unique


def test_table_has_one_row_per_node_and_a_column_per_score():
    step = step_of((node(0, scores={"a": 1.0}), node(1, 0, "rejected", q=None, scores={"b": 2.0})), (0,), "correction")
    table = node_table(step, TOKEN_BYTES)
    assert list(table["depth"]) == [1, 2] and list(table["token"]) == ["␣the", "␣little"]
    assert table["a"][0] == 1.0 and table["b"][1] == 2.0 and table["q"].isna()[1]
    assert list(node_table(step_of(), TOKEN_BYTES).columns)[:3] == ["node", "parent", "depth"]
