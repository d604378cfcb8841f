"""The view of Kangaroo: reasons that fit the numbers, ladders with the right rungs, escaped text, other traces, and the page."""

import pytest

import viz.kangaroo as view
from decoding.loop import Run
from decoding.sample import Sampling
from pages.parts import address
from pages.parts.settings import Settings
from tests.test_pages import errors, press, state
from tests.test_pages import opened as page_opened
from tests.viz_samples import HOSTILE, PIECES, chain, node, step_of


def drafted(confidences=(0.9, 0.8, 0.5), accepted: int = 1, stop: int = view.UNSURE, layers=(2, 12), tokens=(0, 1, 2)):
    """A chain of which the first `accepted` are kept."""
    verdicts = ["accepted"] * accepted + ["rejected", "unread", "unread"]
    nodes = []
    for i, (confidence, token) in enumerate(zip(confidences, tokens, strict=False)):
        scores = {view.CONFIDENCE: confidence, view.EXIT: float(layers[0]), view.DEPTH: float(layers[1])}
        scores |= {view.STOP: float(stop)} if i == len(confidences) - 1 else {}
        nodes.append(node(token, i - 1, verdicts[i], source="adapter", scores=scores))
    return step_of(nodes, range(accepted), "bonus" if accepted == len(nodes) else "correction")


def test_the_reason_and_the_right_moment():
    words = view.stop_words(drafted(), 0.6, PIECES)
    assert words == (
        "Drafting stopped behind 3 tokens: the confidence of ␣cat was 0.50, not above 0.60. "
        "The first one turned down is ␣little at 0.80; 1 behind it was drafted in vain."
    )
    assert "the longest draft" in view.stop_words(drafted(stop=view.FULL), 0.6, PIECES)
    assert "the text ends there" in view.stop_words(drafted(stop=view.ENDED), 0.6, PIECES)
    assert "might have brought more" in view.stop_words(drafted((0.9,), 1), 0.6, PIECES)
    assert "behind 1 token:" in view.stop_words(drafted((0.9,), 0), 0.6, PIECES)
    assert "nothing behind it" in view.stop_words(drafted((0.9,), 0), 0.6, PIECES)


def test_bars_and_their_words():
    figure = view.confidence_figure(drafted(), PIECES, 0.6)
    assert list(figure.data[0].y) == [0.9, 0.8, 0.5] and figure.layout.shapes[0].y0 == 0.6
    assert view.confidence_alt(drafted(), PIECES, 0.6).endswith("␣the 0.90 accepted; ␣little 0.80 rejected; ␣cat 0.50 unread.")
    assert view.tokens_table(drafted(), PIECES)["verdict"].tolist() == ["✓ accepted", "✗ rejected", "unread"]


def test_every_ladder_has_all_rungs_and_the_last_no_adapter():
    """Twelve layers and an adapter for the root and three tokens; long ladders are drawn in two parts."""
    shown = view.ladder_html(drafted(), PIECES)
    rung, adapter = "display:block;height:0.5rem", "border:1px dotted"
    assert shown.count(rung) == 4 * 13 and shown.count(adapter) == 1 and "layers 3 to 12" in shown and "layers 1 to 2" in shown
    assert view.ladder_html(drafted(layers=(2, 80)), PIECES).count(rung) == 4 * 3
    assert "no layer is left" in view.ladder_html(drafted(layers=(2, 2)), PIECES)
    assert "went once through all 12 layers: through the first 2" in view.ladder_alt(drafted())
    assert view.cost_words(drafted()).startswith("4 rows × 12 layers = 48 passes, 8 of them one token at a time, and 3 through")
    assert "2 tokens of this step take 24" in view.cost_words(drafted())


def test_over_the_run():
    steps = (drafted(), drafted((0.95, 0.1), 2), drafted((0.3,), 0, view.FULL))
    assert [(b.low, b.judged, b.accepted) for b in view.bins(steps)] == [(0.0, 1, 1), (0.2, 1, 0), (0.8, 3, 2)]
    assert list(view.worth_figure(steps).data[0].text) == ["1/1", "0/1", "2/3"]
    assert "0.8 to 1.0: 2 of 3" in view.worth_alt(steps) and "Nothing was judged" in view.worth_alt(())
    assert view.reasons_words(steps).startswith("Why the drafter stopped so far: 2 times it was not sure enough; 1 time it had")
    assert view.lengths_table(steps)["share of the steps"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert view.lengths_table(()).empty and view.reasons_words(()).startswith("Nothing")


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    step = drafted(tokens=(token,) * 3)
    figure = view.confidence_figure(step, HOSTILE, 0.6)
    shown = view.ladder_html(step, HOSTILE) + "".join(figure.layout.xaxis.ticktext) + "".join(figure.data[0].hovertext)
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))
    assert len(view.tokens_table(step, HOSTILE)) == 3 and view.stop_words(step, 0.6, HOSTILE)


def test_traces_of_another_kind():
    wrong = [chain(), step_of(), drafted(layers=(3, 2)), drafted(layers=(0, 2)), drafted((float("nan"),), 0), drafted((7.0,), 0)]
    for step in wrong:
        assert view.depths_of(step) is None and view.cost_words(step) == ""
    assert view.bins(wrong) == [] and view.depths_of(drafted()) == view.Depths(2, 12)


def test_the_numbers_are_those_of_a_run(embedded):
    run = Run(embedded, "kangaroo", {"threshold": 0.3}, "Once upon a time there was", Sampling(1.0), max_tokens=40)
    steps = list(run)
    judged = [node for step in steps for node in step.nodes if node.verdict != "unread"]
    assert sum(b.judged for b in view.bins(steps)) == len(judged) and view.depths_of(steps[0]) == view.Depths(2, 12)
    assert sum(b.accepted for b in view.bins(steps)) == sum(node.verdict == "accepted" for node in judged) > 0
    for step in steps:
        assert "Drafting stopped" in view.stop_words(step, 0.3, run.pieces)


def test_the_page():
    settings = Settings(prompt="Once upon a time", method="kangaroo", params={}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "kangaroo"
    shown = " ".join(markdown.value for markdown in at.markdown)
    assert "How sure the first layers were" in shown and "Every layer reads every token once" in shown
    at.session_state["kangaroo_box"] = True
    at.run()
    assert not at.exception and any("by confidence" in chart.proto.alt for chart in at.get("plotly_chart"))
