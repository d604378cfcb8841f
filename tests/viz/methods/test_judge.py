"""The view of Judge Decoding: numbers that agree with the trace, escaped text, traces of others, and the page."""

import msgspec
import pytest

import viz.methods.judge as judge
from decoding.score_names import JUDGE_DEVIATION, JUDGE_ONLY, JUDGE_SCORE
from decoding.trace import Step
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, row, step_of, trace_of


def captions(at) -> str:
    return " ".join(caption.value for caption in at.caption)


def said(score: float, verdict="accepted", alone: bool = False, token: int = 0, parent: int = -1, **more):
    """A node the judge scored; p / q is 0.4."""
    u = 0.9 if alone or verdict == "rejected" else 0.31
    scores = {JUDGE_SCORE: score, JUDGE_ONLY: float(alone), JUDGE_DEVIATION: 0.6 * (score > 0.5)}
    return node(token, parent, verdict, scores=scores, **({"u": u} | more))


def judged_step() -> Step:
    """Both, judge only, standard only, rejected, not judged."""
    nodes = [
        said(0.8),
        said(0.7, alone=True, token=2, parent=0),
        said(0.3, token=3, parent=1),
        said(0.2, "rejected", token=4, parent=2),
        said(0.9, "not judged", token=5, parent=3),
    ]
    rows = (row(), row((1, 2), (0.7, 0.2)), row(), row(), None, None)
    return step_of(nodes, (0, 1, 2), "correction", rows=rows)


def test_who_let_a_token_through():
    assert [judge.by_whom(n, 0.5) for n in judged_step().nodes[:4]] == ["both", "judge only", "standard only", "neither"]


def test_counters_add_up():
    total = judge.count([judged_step()], 0.5)
    assert (total.both, total.standard_only, total.judge_only, total.neither) == (1, 1, 1, 1)
    assert total.accepted == 3 and total.judged == 4 and total.accepted_standard == 1
    assert total.deviation == pytest.approx(1.2), "the not judged node does not count"
    assert judge.count_table(total)["count"].tolist() == [1, 1, 1, 1]
    words = judge.count_words(total)
    assert (
        "1 token that only the judge let through, of 3 accepted" in words
        and "4.00 tokens per step with the judge, 2.00 by" in words
    )
    assert judge.count_words(judge.count([], 0.5)) == "No step was taken yet."


def test_an_end_of_text_that_the_judge_liked_stays_rejected():
    step = step_of([said(0.9, "rejected")], (), "correction")
    assert judge.by_whom(step.nodes[0], 0.5) == "neither"
    assert judge.redecided([step], 0.1, own=0.5).per_step == 1.0
    assert judge.redecided([step_of([said(0.4, "rejected")], (), "correction")], 0.1, own=0.5).per_step == 2.0


def test_other_thresholds_on_the_stored_drafts():
    steps = [judged_step()]
    assert judge.redecided(steps, 0.5, 0.5).per_step == 4.0 and judge.redecided(steps, 1.0, 0.5).per_step == 2.0
    assert judge.redecided(steps, 0.1, 0.5).per_step == 6.0, "the rejected one passes, and the not judged one behind it"
    table = judge.threshold_table(steps, 0.5)
    per_step = table["tokens per step"].tolist()
    assert per_step == sorted(per_step, reverse=True) and table["threshold"].iloc[-1] == 1.0
    assert table.iloc[-1, 2] == 0.0
    assert judge.threshold_figure(steps, 0.5).layout.shapes[0].x0 == 0.5


@pytest.mark.parametrize("dark", [False, True])
def test_the_scores_figure(dark):
    step = judged_step()
    figure = judge.scores_figure(step, TOKEN_BYTES, 0.5, dark)
    scores, chances, alone = figure.data
    assert list(scores.y) == [0.8, 0.7, 0.3, 0.2, 0.9] and list(chances.y) == pytest.approx([0.4] * 5)
    assert list(alone.x) == [2] and figure.layout.shapes[0].y0 == 0.5
    assert judge.MARK in figure.layout.xaxis.ticktext[1] and "✗" in figure.layout.xaxis.ticktext[3]
    table = judge.scores_table(step, TOKEN_BYTES, 0.5)
    assert table["let through by"].tolist() == ["both", "judge only", "standard only", "neither", "not read"]
    assert table["standard rule"].tolist()[:2] == ["accepts", "refuses"] and table.iloc[1]["likeliest for the target"] == "␣little"
    assert "␣cat 0.70, standard 0.40, only the judge let it through" in judge.scores_alt(step, TOKEN_BYTES, 0.5)


def test_marked_text():
    trace = trace_of(chain(1, 2), judged_step())
    html = judge.marked_html(trace, 1)
    assert html.count("ds-judged") == 1 and "likeliest for the target: ␣little (0.70)" in html
    assert "ds-judged" not in judge.marked_html(trace, 0)
    table = judge.marked_table(trace, 1)
    assert table["token"].tolist() == ["␣cat"] and table["token no."].tolist() == [4] and table["its p"].tolist() == [0.7]


def test_a_token_that_the_end_cut_off_is_not_in_the_text():
    step = judged_step()
    cut = msgspec.structs.replace(step, path=(0,), tokens=step.tokens[:1], origins=step.origins[:1], ending="token limit")
    assert judge.let_through(trace_of(cut), 0) == {}


def test_what_a_model_wrote_is_escaped():
    step = judged_step()
    hostile = dict.fromkeys(TOKEN_BYTES, b"<script>$x$</script>") | HOSTILE
    html = judge.marked_html(trace_of(step, token_bytes=hostile), 0)
    assert "<script>" not in html and "&lt;script&gt;" in html
    drawn = judge.scores_figure(step, dict.fromkeys(TOKEN_BYTES, b"<b>$x$</b>"), 0.5).to_json()
    drawn = drawn.replace("\\u0026", "&").replace("\\u003c", "<")
    assert "&lt;b&gt;&#36;" in drawn and "<b>$x" not in drawn


def test_traces_of_others_do_not_break_the_view():
    """No scores, no rows, chosen nodes without q: less is shown, nothing is raised."""
    bare = step_of([node(0, -1, "accepted", q=None, u=None), node(1, 0, "rejected", q=None, u=None)], (0,), "correction")
    assert not judge.scored(bare) and not judge.scored(step_of())
    for step in (bare, step_of()):
        assert judge.scores_figure(step, TOKEN_BYTES, 0.5) and judge.count([step], 0.5) and judge.redecided([step], 0.5, 0.5)
        assert len(judge.scores_table(step, TOKEN_BYTES, 0.5)) == len(step.nodes)
        assert judge.marked_html(trace_of(step), 0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_step_page_draws_the_judge_and_the_run_without_it(temperature):
    settings = Settings(prompt="Once upon a time", method="judge", temperature=temperature, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "judge"
    assert "Expected deviation from the target so far" in captions(at)
    press(at, "judge_standard")
    assert not at.exception and "with the judge," in captions(at)
    at.run()
    assert "judge_standard" not in [button.key for button in at.button], "it is computed once, not with every rerun"
