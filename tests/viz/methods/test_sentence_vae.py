"""The view of SentenceVAE: clocks that agree with the trace, escaped text, traces of others, and the page with its side jobs."""

import math

import pytest

import viz.methods.sentence_vae as view
from decoding.models.heads import EMBEDDED
from decoding.score_names import JOINT, OWN, SENTENCE_SO_FAR, VECTOR_AGE, WITHOUT_VECTOR
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.conftest import PATIENCE
from tests.pages.test_step import errors, press
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, step_of, trace_of


def read(token: int, parent: int, verdict: str, own: float, without: float):
    scores = {OWN: own, JOINT: own, WITHOUT_VECTOR: without}
    return node(token, parent, verdict, q=None, u=None, source="decoder", scores=scores)


def call(so_far: float, age: float, kept: int = 1, final: int = 7):
    """A call behind so many tokens of the sentence, in which `kept` of two drafted tokens were accepted; two small passes."""
    verdicts = ["accepted"] * kept + ["rejected"] * (kept < 2) + ["not judged"] * (1 - kept)
    nodes = [read(i, i - 1, verdict, 0.4, 0.1) for i, verdict in enumerate(verdicts[:2])]
    facts = {SENTENCE_SO_FAR: so_far, VECTOR_AGE: age}
    return step_of(nodes, range(kept), "bonus" if kept == 2 else "correction", final, facts=facts)


# the prompt has 4 tokens, 3 of them of the open sentence, which two calls finish; the last of their tokens begins the next one
TRACE = trace_of(call(3, 1), call(5, 3, 2), call(1, 1), call(3, 3, 0), prompt_tokens=(4, 0, 1, 2))


def test_a_sentence_has_its_calls_and_its_passes():
    first, second = view.spoken(TRACE, 3)
    assert (first.start, first.stop, first.calls, first.passes, first.over) == (1, 8, 2, 4, True)
    assert (second.start, second.stop, second.calls, second.passes, second.over) == (8, 12, 2, 4, False)
    assert [one.stop for one in view.spoken(TRACE, 0)] == [6] and view.spoken(trace_of(), -1) == []
    words = view.clocks_words(TRACE, 3)
    assert "1 sentence was finished, of 7.00 tokens" in words and "2.00 calls of the target and 4.00 small passes" in words
    assert "No sentence was finished" in view.clocks_words(TRACE, 1)
    table = view.clocks_table(TRACE, 3)
    assert table["tokens"].tolist() == [7, 4] and table["finished"].tolist() == ["yes", "no"]
    shown = view.clocks_html(TRACE, 3)
    assert shown.count("●●</span> 2 calls") == 2 and shown.count("4 small") == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e9, None])
def test_numbers_that_cannot_be_do_no_harm(value):
    facts = {} if value is None else {SENTENCE_SO_FAR: value, VECTOR_AGE: value}
    odd = trace_of(step_of(facts=facts), call(2, 1), step_of(facts=facts))
    assert [one.calls for one in view.spoken(odd, 2)] == [3] or [one.calls for one in view.spoken(odd, 2)] == [1, 2]
    assert view.clocks_html(odd, 2) and view.ages(odd.steps[:1]) == [] and "No vector" in view.ages_words(odd.steps[:1])


def test_what_the_vector_did_for_the_path():
    """Two words, each four times as likely: sixteen times together."""
    step = call(5, 3, 2)
    assert view.gain(step, [0, 1]) == pytest.approx(16)
    assert view.vector_words(step) == "The 2 words of this path are together 16.00 times as likely with the vector as without."
    shown = view.vector_html(step, TOKEN_BYTES)
    assert shown.count("ds-bars-group") == 2 and "0.40" in shown and "0.10 without" in shown
    one = step_of([read(1, -1, "rejected", 0.2, 0.2)], (), "correction")
    assert view.vector_words(one) == "The word of this path is as likely as with no vector."
    broken = step_of([read(1, -1, "rejected", math.nan, 0.0)], (), "correction")
    assert "Nothing was drafted" in view.vector_words(broken) and "Nothing" in view.vector_words(step_of())
    assert view.vector_table(step, TOKEN_BYTES)["q without the vector"].tolist() == [0.1, 0.1]
    assert view.has_vector(step) and not view.has_vector(chain())


def test_how_long_a_vector_lasts():
    assert view.ages(TRACE.steps) == [("1", 2, 1.0), ("2 to 3", 2, 1.0)]
    figure = view.ages_figure(TRACE.steps)
    assert list(figure.data[0].y) == [1.0, 1.0] and list(figure.data[0].text) == ["1.00 in 2 calls"] * 2
    words = view.ages_words(TRACE.steps)
    assert "in tokens, 1: 1.00 in 2 calls; 2 to 3: 1.00" in words and "on average 4.00 times as likely" in words
    assert view.ages_table(TRACE.steps)["calls"].tolist() == [2, 2]


def test_wrong_tokens_are_marked():
    found = [((0, 1, 2, 8), (0, 1, 2, 8), (0, 3, 2), 0.5)]
    shown = view.given_back_html(found, TOKEN_BYTES)
    assert shown.count("ds-sv-wrong") == 1 and shown.count("ds-sv-gap") == 1 and "✗ sat" in shown
    assert "4 right" in shown and "2 right, 0.50 alike" in shown
    words = view.given_back_words(found)
    assert "Of 4 tokens in 1 sentence the decoder gives back 4 (100 %)" in words and "2 (50 %)" in words
    assert view.given_back_words([]) == "The text has no whole sentence yet."
    assert view.given_back_table(found, TOKEN_BYTES)["foretold right"].tolist() == [2]


def test_alone_it_is_measured_by_the_target():
    found = [((0, 1), (0.5, 0.001), 2), ((8,), (0.25,), 1)]
    shown = view.alone_html(found, TOKEN_BYTES)
    assert shown.count("ds-sv-wrong") == 1 and "✗ little" in shown
    words = view.alone_words(found, 2, 5)
    assert "3 tokens in 2 calls of the target, one per sentence, and 3 small passes; the run above took 2 calls for 5." in words
    nats = -(math.log(0.5) + math.log(0.001) + math.log(0.25)) / 3
    assert "given 1 of the tokens less than 1 %" in words and f"{nats:.2f} nats" in words
    assert view.alone_words([], 1, 1) == "It wrote nothing." and view.alone_table(found, TOKEN_BYTES)["tokens"].tolist() == [2, 1]


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    step = step_of([read(token, -1, "accepted", 0.5, 0.1)], (0,), "bonus", facts={SENTENCE_SO_FAR: 1, VECTOR_AGE: 1})
    trace = trace_of(step, token_bytes=HOSTILE, prompt_tokens=(token,))
    shown = view.clocks_html(trace, 0) + view.vector_html(step, trace.token_bytes)
    shown += view.given_back_html([((token, 1), (1, token), (token,), 0.1)], trace.token_bytes)
    shown += view.alone_html([((token,), (0.001,), 1)], trace.token_bytes)
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))


@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.skipif(not (EMBEDDED / "sentence_vae").is_dir(), reason="not trained yet")
def test_the_page_and_what_it_asks_the_worker():
    settings = Settings(prompt="Once upon a time there was a girl. She", method="sentence_vae", temperature=0.0, max_tokens=24)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at)
    said = " ".join(markdown.value for markdown in at.markdown)
    assert "Two clocks" in said and "What the vector says" in said
    at.session_state["sentence_vae_box"] = True
    for panel, words in (("sentence_vae_ask", "the decoder gives back"), ("sentence_vae_alone_ask", "Nobody checked it")):
        key = next(button.key for button in at.button if button.key.startswith(f"{panel}_"))
        at = press(at, key)
        assert not at.exception and not errors(at)
        assert any(words in caption.value.replace("\\", "") for caption in at.caption)
        assert not any(button.key.startswith(f"{panel}_") for button in at.button)
    assert any("age of the vector" in chart.proto.alt for chart in at.get("plotly_chart"))
