"""The view of Medusa: numbers that agree with the trace, escaped text, traces of others, and the page."""

import msgspec
import pytest

import viz.methods.medusa as view
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import HEAD_PROBABILITY, RANK, TREE_VALUE, TYPICAL_P, TYPICAL_THRESHOLD
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, row, step_of
from viz.methods.shared.misfits import p_behind_parent
from viz.words import judgement


def offered(token: int, parent: int, verdict: str, head: int, rank: int, probability: float, **scores):
    numbers = {HEAD_PROBABILITY: probability, RANK: float(rank), TREE_VALUE: 0.1} | scores
    return node(token, parent, verdict, q=None, u=None, source=f"head {head}", scores=numbers)


def tree(**scores):
    """Head 1 offers 0 and 1, head 2 offers 2 below either; 1 and the 2 below it are accepted."""
    nodes = [
        offered(0, -1, "rejected", 1, 1, 0.5, **scores),
        offered(1, -1, "accepted", 1, 2, 0.3, **scores),
        offered(2, 0, "not judged", 2, 1, 0.6, **scores),
        offered(2, 1, "accepted", 2, 1, 0.6, **scores),
    ]
    rows = (row((1, 0), (0.7, 0.3)), row((2, 3), (0.0001, 0.9999)), row((2, 3), (0.8, 0.2)), None, row((7, 3), (0.8, 0.2)))
    return step_of(nodes, (1, 3), "bonus", rows=rows)


def test_a_token_at_several_places_is_one_guess_of_its_head():
    one, two = view.guesses(tree())
    assert [(g.token, g.rank, g.verdict, g.places) for g in one] == [(0, 1, "rejected", 1), (1, 2, "accepted", 1)]
    assert [(g.token, g.rank, g.verdict, g.places) for g in two] == [(2, 1, "accepted", 2)]
    assert view.guesses(step_of()) == []


def test_an_accepted_token_is_shown_however_low_its_rank():
    nodes = [offered(i % 12, -1, "accepted" if i == 9 else "rejected", 1, i + 1, 0.5 / (i + 1)) for i in range(10)]
    shown = view.heads_html(step_of(nodes, (9,), "bonus"), TOKEN_BYTES)
    assert shown.count('"ds-bars-group"') == 7 and "and 3 more" in shown and shown.count("ds-bars-now") == 1


def test_guesses_that_do_not_belong_together():
    """Head 2 gives token 2 a probability of 0.6; behind token 0 the target gives it 0.0001, behind token 1 0.8."""
    assert view.torn(tree()) == [2]
    words = view.torn_words(tree(), TOKEN_BYTES)
    assert words.startswith("1 node does not fit") and "the target gives ␣cat 0.0001, the head 0.60" in words
    assert p_behind_parent(tree(), 3) == 0.8 and p_behind_parent(msgspec.structs.replace(tree(), rows=()), 3) is None
    assert view.torn_words(step_of(), TOKEN_BYTES).startswith("No head")


def test_right_is_judged_by_what_was_written_in_the_end():
    """Step 1 writes 1, 2, 7; step 2 guesses 5 at head 1 (written: 0) and 3 at head 2, which step 3 writes."""
    second = step_of([offered(5, -1, "rejected", 1, 1, 0.4), offered(3, 0, "not judged", 2, 1, 0.4)], (), "correction", 0)
    third = step_of([offered(3, -1, "accepted", 1, 1, 0.9)], (0,), "bonus", 9)
    found = view.records((tree(), second, third))
    assert [(r.head, r.asked, r.top, r.any, r.accepted) for r in found] == [(1, 3, 1, 2, 2), (2, 2, 2, 2, 1)]
    cut = view.records((tree(), second))
    assert [(r.head, r.asked) for r in cut] == [(1, 2), (2, 1)], "a guess beyond the text is not judged yet"
    table = view.records_table((tree(), second, third))
    assert table["best token right"].tolist() == pytest.approx([1 / 3, 1.0]) and table["steps"].tolist() == [3, 2]
    figure = view.records_figure((tree(), second, third))
    assert [list(bar.text) for bar in figure.data] == [["1/3", "2/2"], ["2/3", "2/2"], ["2/3", "1/2"]]
    assert "head 2: best right 2, any right 2, accepted 1 of 2" in view.records_alt((tree(), second, third))
    assert view.records_alt(()).endswith("No head has guessed yet.") and view.records_table(()).empty


def test_the_table_has_a_row_per_node():
    table = view.heads_table(tree(), TOKEN_BYTES)
    assert table["head"].tolist() == [1, 1, 2, 2] and table["rank"].tolist() == [1, 2, 1, 1]
    assert table["p behind the parent"].tolist() == [0.3, 0.7, 0.0001, 0.8] and "threshold" not in table
    typical = tree(**{TYPICAL_P: 0.2, TYPICAL_THRESHOLD: 0.09})
    assert view.heads_table(typical, TOKEN_BYTES)["threshold"].tolist() == [0.09] * 4
    assert view.typical_words(typical).startswith("Typical acceptance: 4 of 4 nodes") and view.typical_words(tree()) == ""


def test_words_of_typical_acceptance():
    scores = {TYPICAL_P: 0.2, TYPICAL_THRESHOLD: 0.09}
    kept, lost = (offered(0, -1, verdict, 1, 1, 0.5, **scores) for verdict in ("accepted", "rejected"))
    assert judgement(kept) == "p 0.20 > threshold 0.09: accepted"
    assert judgement(lost) == "p 0.20 > threshold 0.09, but it is not on the longest path: rejected"
    low = offered(0, -1, "rejected", 1, 1, 0.5, **{TYPICAL_P: 0.01, TYPICAL_THRESHOLD: 0.09})
    assert judgement(low) == "p 0.01 ≤ threshold 0.09: rejected"


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    nodes = [offered(token, -1, "accepted", 1, 1, 0.5), offered(token, 0, "rejected", 2, 1, 0.5)]
    step = step_of(nodes, (0,), "correction", rows=(None, row((3,), (1.0,)), None))
    shown = view.heads_html(step, HOSTILE)
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))
    assert "does not fit" in view.torn_words(step, HOSTILE) and len(view.heads_table(step, HOSTILE)) == 2


def test_a_trace_of_another_kind():
    assert not view.has_heads(chain()) and view.has_heads(tree())
    assert view.records((chain(), chain())) == []


def test_the_numbers_are_those_of_a_run(embedded):
    """Against the trace itself: accepted nodes per depth, and the committed text."""
    run = Run(embedded, "medusa", prompt="Once upon a time there was", sampling=Sampling(0), max_tokens=40)
    steps = list(run)
    for record in view.records(steps):
        accepted = [len(step.path) >= record.head for step in steps]
        assert sum(accepted) - 1 <= record.accepted <= sum(accepted) + 1, "but for what the limit cut"
        assert record.top <= record.any <= record.asked and record.accepted <= record.any
    assert view.records(steps)[0].accepted > 0
    for step in steps:
        for i, one in enumerate(step.nodes):
            assert (
                0 < one.scores[HEAD_PROBABILITY] <= 1 and p_behind_parent(step, i) is not None or step.rows[one.parent + 1] is None
            )


@pytest.mark.parametrize("rule", ["exact", "typical"])
def test_the_page(rule):
    settings = Settings(prompt="Once upon a time", method="medusa", params={"rule": rule}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.params["rule"] == rule
    shown = " ".join(markdown.value for markdown in at.markdown)
    assert "The heads, side by side" in shown and ("not lossless" in shown) == (rule == "typical")
    at.session_state["medusa_box"] = True
    at.run()
    assert not at.exception and any("How often every head" in chart.proto.alt for chart in at.get("plotly_chart"))
