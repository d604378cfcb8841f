"""The view of EAGLE: numbers that agree with the trace, the line between kept and left out, escaped text, and the page."""

import msgspec
import pytest

import viz.eagle as view
from decoding.loop import Run
from decoding.sample import Sampling
from decoding.trace import Pruned
from pages.parts import address
from pages.parts.settings import Settings
from tests.test_pages import errors, press, state
from tests.test_pages import opened as page_opened
from tests.viz_samples import HOSTILE, PIECES, chain, node, row, step_of


def scored(token: int, parent: int, verdict: str, joint: float, own: float):
    scores = {view.JOINT: joint, view.OWN: own}
    return node(token, parent, verdict, q=None, u=None, source="dynamic tree", scores=scores)


def tree(pruned=((3, 0, 0.24), (4, 1, 0.015))):
    """EAGLE-2's example: a .6, b .3, a1 .30, b1 .27 are kept, a2 .24 and b2 .015 are not; b and b1 are accepted."""
    nodes = [
        scored(0, -1, "rejected", 0.6, 0.6),
        scored(1, -1, "accepted", 0.3, 0.3),
        scored(2, 0, "unread", 0.3, 0.5),
        scored(5, 1, "accepted", 0.27, 0.9),
    ]
    rows = (row((1, 0), (0.7, 0.3)), row((2, 3), (0.25, 0.75)), row((5, 3), (0.8, 0.2)), None, row((7, 3), (0.8, 0.2)))
    return step_of(nodes, (1, 3), "bonus", rows=rows, pruned=tuple(Pruned(*candidate) for candidate in pruned))


def test_the_line_lies_at_the_least_probable_node_that_was_kept():
    assert view.cut(tree()) == 0.27
    assert view.cut(tree(())) is None, "nothing was left out"
    assert view.cut(tree(((3, 0, 0.5),))) is None, "no ranking: something more probable was left out"
    assert view.cut(step_of()) is None
    assert "Of 6 candidates in sight the 4 most probable were submitted; the line lies at 0.27." in view.cut_words(tree())
    assert "sum to 1.47" in view.cut_words(tree()) and "; 2 were." in view.cut_words(tree())
    assert "same at every step" in view.cut_words(tree(()))


def test_the_targets_joint_is_the_product_down_the_path():
    assert view.target_joint(tree()) == pytest.approx([0.3, 0.7, 0.3 * 0.25, 0.7 * 0.8])
    assert view.target_joint(msgspec.structs.replace(tree(), rows=())) == [None] * 4


def test_the_second_layer_can_be_switched_off():
    places = view.places(tree(), True)
    assert [place.state for place in places] == ["rejected", "accepted", "unread", "accepted", "left out", "left out"]
    assert [place.depth for place in places] == [1, 1, 2, 2, 2, 2] and len({(p.x, p.depth) for p in places}) == 6
    assert all(abs(place.x - place.depth) < 0.5 for place in places)
    with_, without = (view.cut_figure(tree(), PIECES, left_out) for left_out in (True, False))
    names = [[trace.name for trace in figure.data if trace.showlegend is not False] for figure in (with_, without)]
    layers = ["unread", "rejected", "accepted", "cut at 0.27"]
    assert names == [["left out", *layers], layers]
    line = next(trace for trace in with_.data if trace.name == "cut at 0.27")
    assert set(line.y) == {0.27}
    assert view.cut_figure(step_of(), PIECES).data


def test_bars_and_tables_hold_both_scores():
    shown = view.joints_html(tree(), PIECES)
    assert shown.count('"ds-bars-group"') == 4 and shown.count("ds-bars-now") == 2
    assert "q 0.60" in shown and "p 0.56" in shown
    frame = view.joints_table(tree(), PIECES)
    assert list(frame["joint q"]) == [0.6, 0.3, 0.3, 0.27, 0.24, 0.015] and list(frame["verdict"])[-2:] == ["left out"] * 2
    assert list(frame["depth"]) == [1, 1, 2, 2, 2, 2] and frame["target's joint"].isna().sum() == 2


def test_confidence_counts_what_was_judged():
    frames = view.confidence((tree(), chain()))
    paths, tokens = frames.values()
    assert list(paths["accepted"]) == [False, True, False, True] and list(paths["confidence"]) == [0.6, 0.3, 0.3, 0.27]
    assert list(tokens["confidence"]) == [0.6, 0.3, 0.9] and list(tokens["accepted"]) == [False, True, True]
    assert "1.47 a step so far, and 2.00 were" in view.forecast_words((tree(), chain()))
    assert view.forecast_words(()) == "Nothing was drafted so far."


def test_a_trace_of_another_kind():
    assert not view.has_confidence(chain()) and view.has_confidence(tree())


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_tokens_are_escaped(token):
    step = step_of([scored(token, -1, "accepted", 0.5, 0.5)], (0,), "bonus", pruned=(Pruned(token, 0, 0.1),))
    figure = view.cut_figure(step, HOSTILE)
    said = view.joints_html(step, HOSTILE) + str([trace.hovertext for trace in figure.data]) + str([t.text for t in figure.data])
    said = said.replace("<b>" + said.partition("<b>")[2].partition("</b>")[0] + "</b>", "")  # our own, around the name
    assert not any(tag in said for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))
    assert view.cut_alt(step, HOSTILE) and view.joints_alt(step, HOSTILE) and len(view.joints_table(step, HOSTILE)) == 2


def test_the_numbers_are_those_of_a_run(embedded):
    """Kept nodes lie on or above the line and candidates on or below it; joints fall down every path."""
    run = Run(embedded, "eagle", prompt="Once upon a time there was", sampling=Sampling(0), max_tokens=30)
    steps = [step for step in run if step.nodes]
    assert steps
    for step in steps:
        line = view.cut(step)
        assert line is not None and all(node.scores[view.JOINT] >= line for node in step.nodes)
        for one, theirs in zip(step.nodes, view.target_joint(step), strict=True):
            assert one.parent < 0 or one.scores[view.JOINT] <= step.nodes[one.parent].scores[view.JOINT] * (1 + 1e-6)
            assert theirs is None or 0 <= theirs <= 1 + 1e-5
        assert len(view.joints_table(step, run.trace.pieces)) == len(step.nodes) + len(step.pruned)
    paths = next(iter(view.confidence(steps).values()))
    assert paths["accepted"].sum() == sum(node.verdict == "accepted" for step in steps for node in step.nodes)


@pytest.mark.parametrize("tree", ["dynamic", "static"])
def test_the_page(tree):
    settings = Settings(prompt="Once upon a time", method="eagle", params={"tree": tree}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.params["tree"] == tree
    assert "What was worth drafting" in " ".join(markdown.value for markdown in at.markdown)
    at.session_state["eagle_box"] = True
    at.session_state["eagle_left_out"] = False
    at.run()
    assert not at.exception and any("Accepted among the judged" in chart.proto.alt for chart in at.get("plotly_chart"))
