"""The small tree: every node once, marks by shape, text as plain text."""

import pytest

from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, grown, node, step_of
from tests.viz_samples import small_tree as tree
from viz.step.small_tree import HEIGHT, small_tree
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
