"""The view of Future Token Prediction: numbers that agree with the trace, escaped text, traces of others, and the page."""

import pytest

import viz.methods.ftp as view
from decoding.models.heads import EMBEDDED
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN, ROOT_Q
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, row, step_of, trace_of


def read(token: int, parent: int, verdict: str, own: float, slots=(0.7, 0.3), known: float = 0.8):
    numbers = {OWN: own, JOINT: own / 2, ROOT_Q: known} | {f"slot {i}": x for i, x in enumerate(slots, 1)}
    return node(token, parent, verdict, q=None, u=None, source="decoder", scores=numbers)


def tree(known: float = 0.8):
    """1 is accepted, nothing below it; the most probable child of 1 is 3."""
    nodes = [
        read(0, -1, "rejected", 0.5, known=known),
        read(1, -1, "accepted", 0.3, known=known),
        read(2, 1, "rejected", 0.2, (0.1, 0.9), known),
        read(3, 1, "rejected", 0.6, (0.1, 0.9), known),
    ]
    return step_of(nodes, (1,), "correction", 7, rows=(row(), None, row((7, 2), (0.75, 0.25)), None, None))


def test_the_path_goes_on_with_the_most_probable_children():
    assert view.path_shown(tree()) == [1, 3] and view.path_shown(step_of()) == []
    shown = view.fan_html(tree(), TOKEN_BYTES)
    assert shown.count(">0.70<") == 1 and "0.90" in shown and "repeat(2," in shown
    assert "looks at vector 2 most, 0.90" in view.fan_alt(tree(), TOKEN_BYTES)
    assert view.fan_alt(step_of(), TOKEN_BYTES).endswith("Nothing was drafted.") and "repeat(0," in view.fan_html(
        step_of(), TOKEN_BYTES
    )


def test_the_meter_stands_beside_what_the_target_gave_the_root():
    """The root of step 2 is token 7, which the target gave 0.75 when it wrote it behind node 1."""
    trace = trace_of(tree(), tree(0.05), prompt_tokens=(0, 4))
    assert trace.root(0) == 4 and trace.root(1) == 7
    assert view.meter(trace.steps[1]) == 0.05 and view.meant(trace, 1) == 0.75 and view.meant(trace, 0) is None
    assert "decoder gives it 0.05, the target gave it 0.75" in view.meter_words(trace, 1)
    assert "it comes from the prompt" in view.meter_words(trace, 0)
    assert view.meter_html(trace, 1).count("ds-bars-group") == 2 and view.meter_html(trace, 0).count("ds-bars-group") == 1
    words = view.meter_run_words(trace.steps)
    assert "1.00 drafted tokens were accepted in 1 step with q at least 0.5" in words and "in 1 step with q below 0.5" in words
    assert view.meter_run_words(()) == "Nothing was drafted so far." and "Nothing" in view.meter_words(trace_of(step_of()), 0)


def test_levels():
    nothing = step_of([read(0, -1, "rejected", 0.5)], (), "correction")
    assert view.levels((tree(), nothing, step_of())) == [(1, 2, 1), (2, 1, 0)]
    figure = view.decay_figure((tree(), nothing))
    assert list(figure.data[0].text) == ["1/2", "0/1"] and list(figure.data[1].y) == pytest.approx([0.8, 0.64])
    assert view.decay_table((tree(), nothing))["share"].tolist() == [0.5, 0.0]
    assert "level 1: 1 of 2, weight 0.80" in view.decay_alt((tree(), nothing)) and "Nothing" in view.decay_alt(())


def test_the_table_has_a_row_per_node():
    table = view.slots_table(tree(), TOKEN_BYTES)
    assert table["level"].tolist() == [1, 1, 2, 2] and table["vector 2"].tolist() == [0.3, 0.3, 0.9, 0.9]
    assert view.slots_table(step_of(), TOKEN_BYTES).empty


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    trace = trace_of(step_of([read(token, -1, "accepted", 0.5)], (0,), "bonus"), token_bytes=HOSTILE, prompt_tokens=(token,))
    shown = view.fan_html(trace.steps[0], trace.token_bytes) + view.meter_html(trace, 0)
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))


def test_a_trace_of_another_kind():
    assert not view.has_slots(chain()) and view.has_slots(tree())


def test_the_numbers_are_those_of_a_run(llama):
    """The shares add up, the meter is a probability, and the target's row of the step before holds the root."""
    trace = Run(llama, "ftp", prompt="the cat sat on", sampling=Sampling(1.0), max_tokens=12)
    list(trace)
    for cursor, step in enumerate(trace.trace.steps):
        assert all(sum(view.shares(step, i)) == pytest.approx(1, abs=1e-4) for i in range(len(step.nodes)))
        assert 0 <= view.meter(step) <= 1 and view.has_slots(step)
        assert cursor == 0 or 0 < view.meant(trace.trace, cursor) <= 1


@pytest.mark.skipif(not (EMBEDDED / "ftp").is_dir(), reason="not trained yet")
def test_the_page():
    settings = Settings(prompt="Once upon a time", method="ftp", temperature=1.0, max_tokens=8)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "ftp"
    assert "One vector, many tokens" in " ".join(markdown.value for markdown in at.markdown)
    at.session_state["ftp_box"] = True
    at.run()
    assert not at.exception and any("Acceptance by level" in chart.proto.alt for chart in at.get("plotly_chart"))
