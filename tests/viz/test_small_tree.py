"""The small tree: every node once, marks by shape, text as plain text."""

from xml.etree.ElementTree import fromstring

import pytest

from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, grown, node, step_of, trace_of
from tests.viz_samples import small_tree as tree
from viz.step.small_tree import HEIGHT, small_tree, small_tree_svg
from viz.style import LOOKS


def titled(elements):
    return [e["title"] for e in elements if "title" in e]


def test_every_node_the_root_and_the_final_token_are_drawn_once():
    step = tree()
    assert len(titled(small_tree(step, TOKEN_BYTES, root=1))) == len(step.nodes) + 2


def test_states_differ_by_shape_and_not_by_colour_alone():
    elements = [e for e in small_tree(tree(), TOKEN_BYTES) if "title" in e]
    states = ("accepted", "rejected", "not judged")
    filled = {state: e for e in elements[1:] for state in states if e["title"].split(", p ")[0].endswith(state)}
    assert filled["accepted"]["fill"] == LOOKS["accepted"].color
    assert filled["rejected"]["fill"] == filled["not judged"]["fill"] == "transparent"
    assert "a" in filled["not judged"]["d"] and "L" in filled["rejected"]["d"]  # circle, cross


def test_plain_decoding_has_a_root_and_a_token():
    assert len(titled(small_tree(step_of(), TOKEN_BYTES))) == 2


@pytest.mark.parametrize("step", [chain(3, 8), grown((8, 21, 25, 10), (0, 8, 29, 54)), tree()])
@pytest.mark.parametrize("width", [260, 350, 520])
def test_everything_lies_on_the_canvas(step, width):
    for e in small_tree(step, TOKEN_BYTES, width=width):
        if e["tag"] == "text":
            assert e["x"] >= 0 and e["x"] + 6.1 * len(e["text"]) <= width + 8 and 6 <= e["y"] <= HEIGHT


def test_labels_name_what_went_into_the_text():
    step = chain(2, 4)
    shown = [e["text"] for e in small_tree(step, TOKEN_BYTES, width=900) if e["tag"] == "text"]
    assert len(shown) == 3  # two accepted, one correction


def test_hostile_tokens_stay_plain_text():
    step = step_of([node(100), node(107, 0)], (0, 1), "bonus", 108)
    elements = small_tree(step, TOKEN_BYTES | HOSTILE, width=900)
    assert all(
        set(e)
        <= {
            "tag",
            "d",
            "x",
            "y",
            "fill",
            "stroke",
            "stroke-width",
            "stroke-dasharray",
            "font-size",
            "font-family",
            "text",
            "title",
        }
        for e in elements
    )
    assert any("<" in title for title in titled(elements))  # not escaped: the page writes it with textContent


def test_the_svg_is_the_tree_and_escapes_every_token():
    step = step_of([node(100), node(107, 0)], (0, 1), "bonus", 108)
    trace = trace_of(step, token_bytes=HOSTILE)
    drawn = small_tree_svg(trace, 0)
    root = fromstring(drawn)  # well formed: nothing of a token became markup
    assert not any("script" in element.tag for element in root.iter()) and "<script" not in drawn
    assert len([e for e in root.iter() if e.tag == "title"]) == len(step.nodes) + 2
    assert {e.tag for e in root.iter()} == {"svg", "path", "title", "text"}


def test_below_a_chain_no_room_is_kept():
    flat, wide = (small_tree_svg(trace_of(step), 0) for step in (chain(3, 8), tree()))
    height = lambda drawn: float(fromstring(drawn).get("viewBox").split()[3])  # noqa: E731
    assert height(flat) < height(wide) <= HEIGHT + 4
