"""The view of Clover, and what it shares: guesses behind one parent, rules that cut, records along the text, the page."""

import msgspec
import pytest

import viz.methods.clover as view
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import JOINT, MOVED, OWN
from decoding.trace import Pruned
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, row, step_of, trace_of
from viz.methods.shared import head_bars as depths

PARAMS = {"nodes": 8, "heads": 2, "top_p": 0.8, "ratio": 0.25}


def offered(token: int, parent: int, verdict: str, head: int, q: float, joint: float, **gates):
    scores = {OWN: q, JOINT: joint, MOVED: 0.1 * head} | gates
    return node(token, parent, verdict, q=None, u=None, source=f"head {head}", scores=scores)


def tree(tokens=(0, 1, 2, 3, 2), **more):
    """Head 1 offers 0 and 1; head 2 offers 2 and 3 behind 0, and 2 behind 1; 1 and the 2 behind it are accepted."""
    near, far = {"gate 1": 0.5, "gate 2": -0.25}, {"gate 1": -1.0, "gate 2": 0.0}
    nodes = [
        offered(tokens[0], -1, "rejected", 1, 0.5, 0.5, **near),
        offered(tokens[1], -1, "accepted", 1, 0.35, 0.35, **near),
        offered(tokens[2], 0, "not judged", 2, 0.6, 0.3, **near),
        offered(tokens[3], 0, "not judged", 2, 0.2, 0.1, **near),
        offered(tokens[4], 1, "accepted", 2, 0.9, 0.315, **far),
    ]
    pruned = (Pruned(5, -1, 0.1), Pruned(6, 0, 0.05), Pruned(7, 1, 0.035), Pruned(4, 0, 0.04))
    rows = (
        row((1, 0), (0.7, 0.3), (0.35, 0.5)),
        row((2, 3), (0.1, 0.9), (0.6, 0.2)),
        row((2, 3), (0.8, 0.2), (0.9, 0.05)),
        *(None,) * 2,
        row((7,), (1.0,)),
    )
    return step_of(nodes, (1, 4), "bonus", rows=rows, pruned=pruned, **more)


def test_what_a_head_offered_belongs_to_one_parent():
    behind_first = depths.offers(tree(), 0)
    assert [(g.token, round(g.probability, 3), g.verdict) for g in behind_first] == [
        (2, 0.6, "not judged"),
        (3, 0.2, "not judged"),
        (6, 0.1, ""),
        (4, 0.08, ""),
    ]
    assert [g.rank for g in behind_first] == [1, 2, 3, 4] and [g.why for g in behind_first][:3] == ["", "", "left out"]
    assert [(g.token, round(g.probability, 3)) for g in depths.offers(tree(), 1)] == [(2, 0.9), (7, 0.1)]
    assert depths.line(tree()) == [-1, 1] and depths.line(step_of()) == []


def test_every_candidate_that_was_cut_is_told_by_which_rule():
    reasons = {at: [g.why for g in view.reasons(depths.offers(tree(), at), PARAMS) if g.why] for at in (-1, 0, 1)}
    assert reasons == {-1: ["sum of 0.8 reached"], 0: ["sum of 0.8 reached"] * 2, 1: ["sum of 0.8 reached"]}
    loose = PARAMS | {"top_p": 1.0}
    assert [g.why for g in view.reasons(depths.offers(tree(), 0), loose)][2:] == ["under 0.25 of the best"] * 2
    free = PARAMS | {"top_p": 1.0, "ratio": 0.1}
    assert [g.why for g in view.reasons(depths.offers(tree(), 0), free)][2:] == ["budget spent"] * 2


def test_the_pictures_and_their_words():
    shown = view.guesses_html(trace_of(tree(), params=PARAMS), 0)
    assert "head 1, behind the root" in shown and "head 2, behind ␣little" in shown and "behind ␣the" not in shown
    assert shown.count("ds-bars-now") == 2 and "-1.00" in shown and "+0.50" in shown and "sum of 0.8 reached" in shown
    assert "Gates of the cell" in shown and view.gates(tree(), 1) == [-1.0, 0.0] and view.moved(tree(), 1) == pytest.approx(0.2)
    both = view.pair_html(tree(), PARAMS, TOKEN_BYTES)
    assert "head 2, behind ␣little" in both and "head 2, behind ␣the" in both and "One head behind two tokens." in both
    assert view.pair(tree()) == (1, 0), "the accepted one first"
    assert view.shared(tree(), 1, 0) == pytest.approx(0.6 + 0.05)
    assert "share a probability of 0.65" in view.shared_words(tree(), TOKEN_BYTES)
    bare = msgspec.structs.replace(tree(), rows=())
    assert view.shared(bare, 1, 0) is None and view.shared_words(bare, TOKEN_BYTES).startswith("Head 2 behind ␣little")
    assert view.pair_html(step_of(), PARAMS, TOKEN_BYTES) == "" and view.shared_words(step_of(), TOKEN_BYTES).startswith("No head")
    assert "Nothing was drafted" in depths.line_alt(step_of(), TOKEN_BYTES)


def test_the_budget():
    table = view.budget_table(tree(), PARAMS)
    assert table["head"].tolist() == [1, 2] and table["nodes kept"].tolist() == [2, 3] and table["budget left"].tolist() == [6, 3]
    assert table["parents"].tolist() == [1, 2] and table["cut by the sum"].tolist() == [1, 3]
    assert view.budget_table(step_of(), PARAMS).empty


def test_records_follow_what_was_written():
    """Step 1 writes 1, 2, 7: head 1's best was 0, head 2's best behind 1 was 2. Step 2 holds nothing that is written."""
    second = step_of([offered(5, -1, "rejected", 1, 0.9, 0.9), offered(3, 0, "not judged", 2, 0.4, 0.36)], (), "correction", 0)
    found = depths.records((tree(), second))
    assert [(r.head, r.asked, r.top, r.any, r.accepted) for r in found] == [(1, 2, 0, 1, 1), (2, 1, 1, 1, 1)]
    assert depths.records((tree(), second, chain()))[0].asked == 2, "a trace of another kind counts nothing"
    table = depths.records_table(found)
    assert table["one of its tokens right"].tolist() == [0.5, 1.0]
    figure = depths.records_figure(found, shown=("top", "any"))
    assert [list(bar.text) for bar in figure.data] == [["0/2", "1/1"], ["1/2", "1/1"]]
    assert "head 2: best right 1, any right 1" in depths.records_alt(found)
    assert depths.records(()) == [] and depths.records_alt([]).endswith("No head has guessed yet.")


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    step = tree((token, token, token, 3, token))
    shown = view.guesses_html(trace_of(step, params=PARAMS, token_bytes=HOSTILE), 0) + view.pair_html(step, PARAMS, HOSTILE)
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))


def test_a_trace_of_another_kind():
    assert depths.has_numbers(tree()) and not depths.has_numbers(chain()) and depths.has_numbers(step_of())
    assert view.gates_html(chain(), -1) == "" and view.moved(chain(), 0) is None


def test_the_numbers_are_those_of_a_run(embedded):
    run = Run(embedded, "clover", prompt="Once upon a time there was", sampling=Sampling(0), max_tokens=30)
    steps = list(run)
    for step in steps:
        if not step.nodes:
            continue
        assert depths.line(step)[1 : len(step.path) + 1] == list(step.path)[: len(depths.line(step)) - 1]
        for parent in {one.parent for one in step.nodes}:
            found = view.reasons(depths.offers(step, parent), run.header.params)
            assert sum(g.probability for g in found) <= 1 + 1e-4 and len({g.token for g in found}) == len(found)
            assert [g.probability for g in found] == sorted((g.probability for g in found), reverse=True), (
                "what is kept is the best"
            )
        assert view.budget_table(step, run.header.params)["budget left"].iloc[-1] == 24 - len(step.nodes)
    accepted = [len(step.path) for step in steps]
    assert [r.accepted for r in depths.records(steps)][0] == pytest.approx(sum(n > 0 for n in accepted), abs=1)


def test_the_page():
    settings = Settings(prompt="Once upon a time", method="clover", temperature=1.0, max_tokens=12)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "clover"
    shown = " ".join(markdown.value for markdown in at.markdown)
    assert "The heads, each behind the token it was told" in shown
    at.session_state["clover_box"] = True
    at.run()
    assert not at.exception and any("How often every head" in chart.proto.alt for chart in at.get("plotly_chart"))
