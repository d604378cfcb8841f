"""The view of Chimera: the tokens that a slot reads, the two parts of a logit, escaped text, and the page."""

import msgspec
import pytest

import viz.methods.chimera as view
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import FROM_H, FROM_O, JOINT, OWN
from decoding.trace import Pruned
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, step_of, trace_of
from viz.methods.shared import head_bars as depths

BEFORE = (8, 9, 10, 11)


def offered(token: int, parent: int, verdict: str, head: int, q: float, joint: float, h: float, o: float):
    scores = {OWN: q, JOINT: joint, FROM_H: h, FROM_O: o}
    return node(token, parent, verdict, q=None, u=None, source=f"head {head}", scores=scores)


def tree(tokens=(0, 1, 2)):
    """Behind the root h would put 1 first; o brings 0 to the front, and it is accepted."""
    nodes = [
        offered(tokens[0], -1, "accepted", 1, 0.6, 0.6, 1.0, 5.0),
        offered(tokens[1], -1, "not judged", 1, 0.3, 0.3, 4.0, 1.0),
        offered(tokens[2], 0, "rejected", 2, 0.5, 0.3, 2.0, 2.0),
    ]
    return step_of(nodes, (0,), "correction", pruned=(Pruned(5, 0, 0.12),))


def test_the_three_tokens_that_a_slot_reads():
    assert view.trigram(tree(), -1, BEFORE) == [9, 10, 11] and view.trigram(tree(), 0, BEFORE) == [10, 11, 0]
    assert view.trigram(tree(), 2, BEFORE) == [11, 0, 2] and view.trigram(tree(), -1, [4, 5]) == [4, 4, 5]
    assert view.trigram(tree(), -1, []) == []
    shown = view.window_html(tree(), 0, BEFORE, TOKEN_BYTES)
    assert shown.count("<span") == 3 and shown.count("text-decoration:underline") == 1


def test_the_heads_down_one_path():
    shown = view.guesses_html(trace_of(tree(), prompt_tokens=BEFORE), 0)
    assert "head 1, behind the root" in shown and "head 2, behind ␣the" in shown and "left out" in shown
    assert "Read: head 1" in shown and "0.20" in shown, "the candidate that was left out, by its own factor"


def test_a_logit_is_the_sum_of_two_parts():
    assert view.split(tree(), -1) == [(0, 0.0, 4.0), (1, 3.0, 0.0)], "more than the least of them"
    assert view.turned(tree(), -1) == (0, 1) and view.turned(tree(), 0) is None and view.turned(tree(), 2) is None
    words = view.turned_words(tree(), TOKEN_BYTES)
    assert words.startswith("At 1 of 2 heads") and "behind the root, head 1 would have put ␣little first" in words
    assert view.turned_words(step_of(), TOKEN_BYTES).startswith("Of these tokens")
    shown = view.split_html(tree(), TOKEN_BYTES)
    assert shown.count("--w:100.00%") == 1 and shown.count("--w:75.00%") == 1 and "What h and what o give" in shown
    table = view.split_table(tree(), TOKEN_BYTES)
    assert table["logit from h"].tolist() == [1.0, 4.0, 2.0] and table["below"].tolist() == ["the root", "the root", "␣the"]


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    step = tree((token, token, token))
    shown = view.guesses_html(trace_of(step, prompt_tokens=(token,) * 3, token_bytes=HOSTILE), 0) + view.split_html(step, HOSTILE)
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))
    assert len(view.split_table(step, HOSTILE)) == 3 and view.turned_words(step, HOSTILE)


def test_a_trace_of_another_kind():
    assert view.has_split(tree()) and not view.has_split(chain()) and view.has_split(step_of())
    without = msgspec.structs.replace(tree().nodes[0], scores={OWN: 0.5, JOINT: 0.5})
    step = step_of([without], (0,), "bonus")
    assert depths.has_numbers(step) and not view.has_split(step) and "behind the root" in view.guesses_html(trace_of(step), 0)


def test_the_numbers_are_those_of_a_run(embedded):
    """Differences of logits are those of log probabilities: among siblings the two parts must explain q."""
    run = Run(embedded, "chimera", prompt="Once upon a time there was", sampling=Sampling(0), max_tokens=30)
    for step in run:
        for parent in {one.parent for one in step.nodes}:
            siblings = [one for one in step.nodes if one.parent == parent]
            sums = [one.scores[FROM_H] + one.scores[FROM_O] for one in siblings]
            for one, total in zip(siblings, sums, strict=True):
                ratio = siblings[0].scores[OWN] / one.scores[OWN]
                assert ratio == pytest.approx(2.718281828 ** (sums[0] - total), rel=1e-2)
            assert sums == sorted(sums, reverse=True)


def test_the_page():
    settings = Settings(prompt="Once upon a time", method="chimera", temperature=1.0, max_tokens=12)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "chimera"
    shown = " ".join(markdown.value for markdown in at.markdown)
    assert "The heads, and the three tokens" in shown and "What the target knew" in shown
    at.session_state["chimera_box"] = True
    at.run()
    assert not at.exception and any("How often every head" in chart.proto.alt for chart in at.get("plotly_chart"))
