"""The view of SpecDec++: numbers that agree with the trace, escaped text, traces of others, and the page."""

import msgspec
import pytest

import viz.methods.specdec_pp as specdec
from decoding.score_names import PREDICTED
from decoding.trace import Step
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import TOKEN_BYTES, chain, node, step_of


def predicted(*values: float | None, accepted: int = 2) -> Step:
    """A chain whose nodes carry these predictions; p and q of the samples give a chance of 0.4."""
    step = chain(accepted, len(values))
    nodes = [
        msgspec.structs.replace(node, scores={} if value is None else {PREDICTED: value})
        for node, value in zip(step.nodes, values, strict=True)
    ]
    return msgspec.structs.replace(step, nodes=tuple(nodes))


def captions(at) -> str:
    return " ".join(caption.value for caption in at.caption)


def test_predictions_multiply_and_the_last_has_none():
    found = specdec.guesses(predicted(0.9, 0.5, None))
    assert [guess.predicted for guess in found] == [0.9, 0.5, None]
    assert [guess.product for guess in found] == [0.9, pytest.approx(0.45), None]
    assert [guess.actual for guess in found] == pytest.approx([0.4] * 3)


@pytest.mark.parametrize(
    "values, words",
    [
        ((0.9, 0.2, None), "behind 3 tokens: the predicted chance of a rejection was 0.82, above 0.70."),
        ((0.1, None), "behind 2 tokens: the predicted chance of a rejection was 0.90, above 0.70."),
        ((0.9, 0.9, 0.9, None), "that is the longest draft"),
        ((0.9, None), "the text or the context ends there"),
        ((None,), "behind 1 token: the text or the context ends there"),
    ],
)
def test_why_drafting_stopped(values, words):
    assert words in specdec.stop_words(predicted(*values, accepted=1), 0.7, 2, 4)


def test_a_shortest_draft_that_was_waited_for_is_mentioned():
    words = specdec.stop_words(predicted(0.1, 0.9, None), 0.7, 3, 20)
    assert "it was so earlier, but that is the shortest draft" in words
    assert "earlier" not in specdec.stop_words(predicted(0.9, 0.1, None), 0.7, 3, 20)
    assert specdec.stop_words(step_of(), 0.7, 2, 4) == "Nothing was drafted."


@pytest.mark.parametrize("dark", [False, True])
def test_the_figure_holds_bars_product_and_threshold(dark):
    figure = specdec.acceptance_figure(predicted(0.9, 0.5, None), TOKEN_BYTES, 0.7, dark)
    head, actual, product = figure.data
    assert list(head.y) == [0.9, 0.5, None] and list(actual.y) == pytest.approx([0.4] * 3)
    assert list(product.y) == [1.0, 0.9, pytest.approx(0.45), None] and figure.layout.shapes[0].y0 == pytest.approx(0.3)
    assert head.marker.pattern.shape != actual.marker.pattern.shape, "not told apart by colour alone"


def test_the_twins_say_the_same():
    step = predicted(0.9, 0.5, None)
    table = specdec.acceptance_table(step, TOKEN_BYTES)
    assert table["predicted"].tolist()[:2] == [0.9, 0.5] and table["verdict"].tolist() == ["accepted", "accepted", "rejected"]
    alt = specdec.acceptance_alt(step, TOKEN_BYTES)
    assert "␣the predicted 0.90, actual 0.40, accepted" in alt and "predicted nothing" in alt


def test_reliability_counts_judged_predictions_only():
    steps = [predicted(0.95, 0.91, 0.15, 0.99, None, accepted=2), predicted(None, None, accepted=1)]
    found = specdec.bins(steps)
    assert [(round(b.low, 1), b.count, b.accepted) for b in found] == [(0.1, 1, 0.0), (0.9, 2, 1.0)]
    assert found[1].predicted == pytest.approx(0.93) and found[1].chance == pytest.approx(0.4)
    assert sum(b.count for b in specdec.bins(steps, plain=True)) == 3
    table = specdec.reliability_table(steps)
    assert table["judged tokens"].tolist() == [1, 2]
    assert "3 judged tokens: predicted 0.67 on average" in specdec.reliability_words(steps)
    assert "accepted were 0.667" in specdec.reliability_words(steps)


def test_with_the_weight_taken_out_constant_predictions_lie_on_the_diagonal():
    for chance in (0.1, 0.5, 0.9):
        assert specdec.unweighted(chance / (chance + 6 * (1 - chance))) == pytest.approx(chance)


def test_nothing_yet():
    assert specdec.reliability_words([]) == "No token with a prediction was judged yet."
    assert specdec.waste_words([]) == "Nothing was drafted yet."
    assert len(specdec.reliability_figure([]).data) == 3 and specdec.reliability_table([]).empty
    assert specdec.waste_words([predicted(0.9, 0.5, None)]) == (
        "So far 3 tokens were drafted in 1 step (3 to 3 each), 1 of them in vain."
    )


def test_what_a_model_wrote_is_escaped():
    token_bytes = dict.fromkeys(TOKEN_BYTES, b"<b>$x$</b>")
    drawn = specdec.acceptance_figure(predicted(0.9, 0.5, None), token_bytes, 0.7).to_json()
    drawn = drawn.replace("\\u0026", "&").replace("\\u003c", "<")
    assert "&lt;b&gt;&#36;" in drawn and "<b>$x" not in drawn


def test_traces_of_others_do_not_break_the_view():
    """No scores, no rows, chosen nodes without q: less is shown, nothing is raised."""
    bare = step_of([node(0, -1, "accepted", q=None, u=None), node(1, 0, "rejected", q=None, u=None)], (0,), "correction")
    assert specdec.guesses(bare)[0].actual is None
    for step in (bare, step_of()):
        assert specdec.acceptance_figure(step, TOKEN_BYTES, 0.7) and specdec.acceptance_alt(step, TOKEN_BYTES)
        assert specdec.stop_words(step, 0.7, 2, 20) and specdec.reliability_words([step])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_step_page_draws_specdec(temperature):
    settings = Settings(prompt="Once upon a time", method="specdec_pp", temperature=temperature, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "specdec_pp"
    assert "Drafting stopped behind" in captions(at) and "in vain" in captions(at)
