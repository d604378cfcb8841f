"""The view of EAGLE: numbers that agree with the trace, the line between kept and left out, names that keep apart, escaped text,
and the page."""

from itertools import combinations

import msgspec
import pytest

import viz.methods.eagle as view
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN
from decoding.trace import Pruned
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, row, step_of


def scored(token: int, parent: int, verdict: str, joint: float, own: float):
    scores = {JOINT: joint, OWN: own}
    return node(token, parent, verdict, q=None, u=None, source="dynamic tree", scores=scores)


def tree(pruned=((3, 0, 0.24), (4, 1, 0.015))):
    """EAGLE-2's example: a .6, b .3, a1 .30, b1 .27 are kept, a2 .24 and b2 .015 are not; b and b1 are accepted."""
    nodes = [
        scored(0, -1, "rejected", 0.6, 0.6),
        scored(1, -1, "accepted", 0.3, 0.3),
        scored(2, 0, "not judged", 0.3, 0.5),
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
    assert [place.state for place in places] == ["rejected", "accepted", "not judged", "accepted", "left out", "left out"]
    assert [place.depth for place in places] == [1, 1, 2, 2, 2, 2] and len({(p.x, p.depth) for p in places}) == 6
    assert all(abs(place.x - place.depth) < 0.5 for place in places)
    with_, without = (view.cut_figure(tree(), TOKEN_BYTES, left_out) for left_out in (True, False))
    names = [[trace.name for trace in figure.data if trace.showlegend is not False] for figure in (with_, without)]
    layers = ["not judged", "rejected", "accepted", "cut at 0.27"]
    assert names == [["left out", *layers], layers]
    line = next(trace for trace in with_.data if trace.name == "cut at 0.27")
    assert set(line.y) == {0.27}
    assert view.cut_figure(step_of(), TOKEN_BYTES).data


def crowd(count: int, verdict: str = "not judged"):
    """So many alike children of the root."""
    return step_of([scored(i % 12, -1, verdict, 0.08 - 0.0005 * i, 0.08) for i in range(count)], (), "correction")


def thicket():
    """Ten children of the root with 24 children each, from the top of the picture to its bottom; one in the middle is accepted."""
    above = [scored(10, -1, "accepted" if i == 4 else "rejected", 0.1, 0.1) for i in range(10)]
    nodes = [scored(i % 12, i // 24, "accepted" if i == 108 else "not judged", 0.1 * 0.7 ** (i % 24), 0.1) for i in range(240)]
    return step_of([*above, *nodes], (4, 118), "bonus")


def long():
    """A chain of eight with long names; at its first depth several lie close to the edge."""
    nodes = [scored(10, i - 1 if i else -1, "accepted", 0.9**i, 0.9) for i in range(8)]
    return step_of([*nodes, *(scored(10, -1, "not judged", 0.5, 0.5) for _ in range(3))], range(8), "bonus")


def spots(found):
    """(left, top) px of every node, by the geometry of a narrow page."""
    (left, right), (low, high) = view.frame(found)
    height = view.HEIGHT - view.MARGIN["t"] - view.MARGIN["b"]
    return [
        ((place.x - left) / (right - left) * view.WIDTH, (high - view.log10(place.y)) / (high - low) * height) for place in found
    ]


def boxes_of(found, token_bytes):
    """Place -> what its name covers."""
    size = {i: len(view.name(place.token, token_bytes, 7)) * view.LETTER for i, place in enumerate(found) if place.name}
    return {i: dict(view.around(*spots(found)[i], width))[found[i].name] for i, width in size.items()}


@pytest.mark.parametrize("step", [crowd(30, "rejected"), crowd(30), crowd(3), tree(), thicket(), long()])
def test_names_keep_apart(step):
    """From each other and from the edge; and from every node but for accepted ones."""
    found = view.named(view.places(step, True), TOKEN_BYTES)
    boxes = boxes_of(found, TOKEN_BYTES)
    assert boxes and not any(view.overlap(one, other) for one, other in combinations(boxes.values(), 2))
    assert all(view.inside(box, view.HEIGHT - view.MARGIN["t"] - view.MARGIN["b"]) for box in boxes.values())
    assert all(not place.name for place in found if place.state == "left out")
    kept = [spot for spot, place in zip(spots(found), found, strict=True) if place.state != "left out"]
    nodes = [(x - 5, y - 5, x + 5, y + 5) for x, y in kept]
    for i, box in boxes.items():
        assert found[i].state == "accepted" or not any(view.overlap(box, node) for node in nodes)


def test_of_a_crowd_fewer_are_named_and_of_unread_ones_three():
    named = [place.name for place in view.named(view.places(crowd(30, "rejected"), True), TOKEN_BYTES)]
    assert 5 < sum(map(bool, named)) < 30 and len(set(named)) > 2, "they stand on several sides"
    assert sum(bool(place.name) for place in view.named(view.places(crowd(30), True), TOKEN_BYTES)) <= view.NAMED
    assert all(place.name for place in view.named(view.places(tree(), True), TOKEN_BYTES) if place.state != "left out")


def test_what_was_accepted_is_named_in_any_crowd():
    found = view.named(view.places(thicket(), True), TOKEN_BYTES)
    box = boxes_of(found, TOKEN_BYTES)[118]
    assert sum(view.overlap(box, (x - 5, y - 5, x + 5, y + 5)) for x, y in spots(found)) > 0, "there was no better place"


def test_boxes_overlap_where_they_share_a_point():
    """Two by two, one to the right of, below, and inside of the other."""
    box = (0, 0, 10, 10)
    assert [view.overlap(box, other) for other in ((9, 9, 12, 12), (10, 0, 12, 10), (0, 10, 5, 12), (4, 4, 5, 5))] == [
        True, False, False, True]  # fmt: skip


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.5, 1.5])
def test_numbers_that_cannot_be_are_not_drawn(wrong):
    assert not view.has_confidence(step_of([scored(0, -1, "accepted", wrong, 0.5)], (0,)))
    assert not view.has_confidence(step_of([scored(0, -1, "accepted", 0.5, wrong)], (0,)))
    step = tree(((3, 0, wrong), (4, 1, 0.015)))
    assert [candidate.token for candidate in view.left_out(step)] == [4] and view.cut(step) == 0.27
    assert len(view.joints_table(step, TOKEN_BYTES)) == 5 and "Of 5 candidates" in view.cut_words(step)
    assert len(view.places(step, True)) == 5


def sampled():
    """The example as it would be if its tokens had been drawn."""
    nodes = [msgspec.structs.replace(one, q=0.5, u=0.5, source="sampled tree") for one in tree().nodes]
    return msgspec.structs.replace(tree(()), nodes=tuple(nodes))


def test_drawn_tokens_are_no_matter_of_confidence():
    assert view.is_sampled(sampled()) and not view.is_sampled(tree()) and not view.is_sampled(step_of())
    assert "drawn from q" in view.cut_words(sampled()) and view.cut_words(sampled()).endswith("2 of 4 were accepted.")
    assert all(frame.empty for frame in view.confidence((sampled(),)).values())
    assert view.forecast_words((sampled(),)).startswith("Drawn tokens are not foretold")


def test_bars_and_tables_hold_both_scores():
    shown = view.joints_html(tree(), TOKEN_BYTES)
    assert shown.count('"ds-bars-group"') == 4 and shown.count("ds-bars-now") == 2
    assert "q 0.60" in shown and "p 0.56" in shown
    frame = view.joints_table(tree(), TOKEN_BYTES)
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
        assert line is not None and all(node.scores[JOINT] >= line for node in step.nodes)
        for one, theirs in zip(step.nodes, view.target_joint(step), strict=True):
            assert one.parent < 0 or one.scores[JOINT] <= step.nodes[one.parent].scores[JOINT] * (1 + 1e-6)
            assert theirs is None or 0 <= theirs <= 1 + 1e-5
        assert len(view.joints_table(step, run.trace.token_bytes)) == len(step.nodes) + len(step.pruned)
    paths = next(iter(view.confidence(steps).values()))
    assert paths["accepted"].sum() == sum(node.verdict == "accepted" for step in steps for node in step.nodes)


@pytest.mark.parametrize("tree", ["dynamic", "static", "sampled"])
def test_the_page(tree):
    settings = Settings(prompt="Once upon a time", method="eagle", params={"tree": tree}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.params["tree"] == tree
    assert "What was worth drafting" in " ".join(markdown.value for markdown in at.markdown)
    assert any("The target's layers in the state" in caption.value for caption in at.caption)
    at.session_state["eagle_box"] = at.session_state["eagle_drift_box"] = True
    at.session_state["eagle_left_out"] = False
    at.run()
    alts = " ".join(chart.proto.alt for chart in at.get("plotly_chart"))
    assert not at.exception and ("Accepted among the judged" in alts) == (tree != "sampled")
    assert any("Drawn tokens are not foretold" in caption.value for caption in at.caption) == (tree == "sampled")
    assert "Acceptance by depth, and how like the true states" in alts
