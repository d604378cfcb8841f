"""Verdicts in words say what the numbers say, for every rule."""

import pytest

from decoding.methods import METHODS
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import JUDGE_ONLY, JUDGE_SCORE, TYPICAL_P, TYPICAL_THRESHOLD
from tests.viz_samples import TOKEN_BYTES, node, row, small_tree, step_of
from viz.verdicts import NARROW, Manner, in_words, percent
from viz.words import number

THE = "␣the"


def said(*nodes, path=(), final="correction", rows=(), of=-1, **more) -> str:
    step = step_of(nodes, path, final, rows=rows, **more)
    return in_words(step, len(nodes) + of, TOKEN_BYTES).replace(NARROW, " ")


def test_the_die_decides():
    assert said(node(u=0.31, q=0.5, p=0.2), path=(0,), final="bonus") == (
        f"The small model was 50 % sure of {THE}; the large one gives it 20 %. The die says 0.31, below 0.40: kept."
    )
    assert said(node(verdict="rejected", u=0.9, q=0.5, p=0.2)) == (
        f"The small model was 50 % sure of {THE}; the large one gives it 20 %. The die says 0.90, above 0.40: refused. "
        "The large model writes ␣was."
    )


def test_tokens_and_probabilities_are_said_as_they_are_wanted():
    step = step_of([node(verdict="rejected", u=0.9, q=0.5, p=0.2)], (), "correction")
    words = in_words(step, 0, TOKEN_BYTES, Manner(lambda token, _: f"[{token}]", lambda share: number(share, 2)))
    assert words == (
        "The small model was 0.50 sure of [0]; the large one gives it 0.20. The die says 0.90, above 0.40: refused. "
        "The large model writes [7]."
    )


def test_close_numbers_get_as_many_digits_as_it_takes():
    assert "says 0.4001, just above 0.40:" in said(node(verdict="rejected", u=0.4001, q=0.5, p=0.2))


def test_where_the_die_does_not_matter():
    assert said(node(u=0.99, q=0.5, p=0.6), path=(0,), final="bonus").endswith("no less: kept, whatever the die says.")
    assert "refused, whatever the die says." in said(
        node(verdict="rejected", u=0.1, q=0.5, p=0.0), node(1, u=0.1, q=0.4, p=0.3), of=-2
    )


def test_a_chosen_guess():
    assert said(node(u=0.31, q=None, p=0.4), path=(0,), final="bonus").startswith(
        f"The small model chose {THE} outright; the large one"
    )
    assert said(node(u=0.31, q=None, p=0.4, source="prompt"), path=(0,), final="bonus").startswith(
        f"The drafter chose {THE} outright; the large model gives it 40 %."
    )


def test_what_elder_siblings_used_up_is_said_and_the_last_one_names_the_correction():
    elder, last = node(0, verdict="rejected", u=0.9, q=0.8, p=0.3), node(1, verdict="rejected", u=0.68, q=0.7, p=0.1)
    assert "writes" not in said(elder, last, of=-2) and "used up" not in said(elder, last, of=-2)
    assert "less what the guesses refused before it have used up, gives it 10 %" in said(elder, last)
    assert said(elder, last).endswith("The large model writes ␣was.")


def test_a_target_that_draws_first():
    nodes = (node(0, verdict="rejected", u=None, p=0.3), node(2, u=None, p=0.6))
    more = {"path": (1,), "final": "bonus", "rows": (row(sampled=2), row(), row())}
    assert said(*nodes, of=-2, **more) == f"The large model, which gives {THE} 30 %, drew ␣cat here: refused."
    assert said(*nodes, **more) == "The large model drew ␣cat, to which it gives 60 %, and the guess was the same: kept."


def test_greedy():
    assert said(node(0, p=1.0, q=1.0, u=0.3), path=(0,), final="bonus") == f"{THE} is the large model's favourite here too: kept."
    assert said(node(0, verdict="rejected", p=0.0, q=None, u=0.3)) == (
        f"{THE} is not the large model's favourite here; that is ␣was: refused."
    )


def test_rules_of_their_own():
    enough = {TYPICAL_P: 0.2, TYPICAL_THRESHOLD: 0.09}
    assert (
        said(node(scores=enough), path=(0,), final="bonus")
        == f"The large model gives {THE} 20 %; more than 9 % is enough here: kept."
    )
    assert "another path is longer: refused" in said(node(verdict="rejected", scores=enough))
    judged = node(u=0.9, q=0.5, p=0.2, scores={JUDGE_ONLY: 1.0, JUDGE_SCORE: 0.93})
    assert "the judge finds it right all the same, with a score of 0.93: kept." in said(judged, path=(0,), final="bonus")
    strange = node(verdict="accepted", u=0.9, q=0.5, p=0.2)
    assert said(strange, path=(0,), final="bonus").startswith("The method has a rule of its own here")


def test_what_nobody_judged_says_why():
    step = small_tree()
    assert in_words(step, 2, TOKEN_BYTES).endswith("a sibling was accepted.")


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.094, "9.4 %"), (0.0996, "10 %"), (0.09, "9 %"), (0.5, "50 %"), (0.994, "99 %"), (0.9951, "99.51 %"),
        (0.99999, "nearly 100 %"), (0.0009, "less than 0.1 %"),
    ],
)  # fmt: skip
def test_percent(share, words):
    assert percent(share) == words.replace(" %", f"{NARROW}%")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("key", list(METHODS))
def test_every_verdict_of_every_method_has_its_words(key, temperature, llama):
    run = Run(llama, key, {}, "the cat and the cat", Sampling(temperature), max_tokens=12)
    for step in run:
        for index, one in enumerate(step.nodes):
            words = in_words(step, index, run.token_bytes)
            assert words.endswith(".") and len(words) < 300
            assert (": kept" in words) == (one.verdict == "accepted") and (": refused" in words) == (one.verdict == "rejected")
