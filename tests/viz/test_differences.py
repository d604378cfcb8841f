"""Where texts part: near-ties, mismatches, and what cannot be compared."""

from math import log

import pytest

from tests.viz_samples import GREEDY, PLAINLY, TOKEN_BYTES, row, run, step_of
from viz.runs.differences import (
    difference_sentence,
    difference_table,
    first_difference,
    incomparable,
    reference,
)


def one_token(token, p, **more):
    """A plain step that commits a token, with the target's distribution."""
    return step_of(final_token=token, rows=(row((token, 1 - token), p),), **more)


def same_text(p, dtype="float32"):
    """Two greedy runs that part at their second token."""
    one = run(one_token(0, (0.9, 0.1)), one_token(0, p), sampling=GREEDY, dtype=dtype)
    other = run(one_token(0, (0.9, 0.1)), one_token(1, p), sampling=GREEDY, dtype=dtype)
    return one, other


def test_texts_that_agree_are_exact_as_far_as_both_go():
    longer = run(*PLAINLY.steps, *PLAINLY.steps, sampling=GREEDY)
    shorter = run(*PLAINLY.steps, sampling=GREEDY)
    assert first_difference(longer, shorter) is None
    assert difference_sentence(("a", longer), ("b", shorter)) == "b is exact: the first 4 tokens are those of a."


@pytest.mark.parametrize(
    ("p", "dtype", "verdict"),
    [
        ((0.5001, 0.4999), "float32", "near-tie"),
        ((0.52, 0.48), "float32", "mismatch"),
        ((0.52, 0.48), "bfloat16", "near-tie"),
        ((0.9, 0.1), "bfloat16", "mismatch"),
        ((1.0, 0.0), "float16", "mismatch"),
    ],
)
def test_near_tie_or_mismatch_goes_by_the_gap_and_the_precision(p, dtype, verdict):
    found = first_difference(*same_text(p, dtype))
    assert (found.position, found.tokens, found.steps, found.verdict) == (1, (0, 1), (1, 1), verdict)
    if p[1]:
        assert found.gaps[0] == pytest.approx(log(p[0]) - log(p[1]))


def test_a_third_token_is_no_near_tie():
    """The best two are tied, but the other run took neither."""
    tie = (row((0, 1, 2), (0.4, 0.4, 0.2)),)
    one = run(step_of(final_token=0, rows=tie), sampling=GREEDY)
    other = run(step_of(final_token=2, rows=tie), sampling=GREEDY)
    assert first_difference(one, other).verdict == "mismatch"


def test_without_recorded_rows_nothing_is_claimed():
    one, other = run(step_of(final_token=0), sampling=GREEDY), run(step_of(final_token=1), sampling=GREEDY)
    assert first_difference(one, other).verdict == "unknown"
    assert "not recorded" in difference_sentence(("a", one), ("b", other))


def test_sentences_carry_the_numbers():
    tie, real = (same_text(p) for p in ((0.5001, 0.4999), (0.9, 0.1)))
    said = difference_sentence(("Plain", tie[0]), ("Chain", tie[1]))
    assert said.startswith("Token 2 is the first that differs: Plain has ␣the, Chain has ␣little. A near-tie")
    assert "0.0004" in said and "0.001" in said
    assert "A mismatch: for the target the two are 2.20 apart" in difference_sentence(("a", real[0]), ("b", real[1]))


def test_what_cannot_be_compared_says_why():
    greedy = run(*PLAINLY.steps, sampling=GREEDY)
    assert incomparable(greedy, greedy) == ""
    assert "random" in incomparable(greedy, PLAINLY)
    assert "prompts" in incomparable(greedy, run(prompt_tokens=(9,), sampling=GREEDY))
    assert "families" in incomparable(greedy, run(family="x", sampling=GREEDY))
    assert "cannot be compared" in difference_sentence(("a", greedy), ("b", PLAINLY))


def test_runs_are_held_against_plain_decoding():
    one, other = same_text((0.5001, 0.4999))
    plain = run(*one.steps, method="plain", sampling=GREEDY)
    assert reference([("Other", other), ("Plain", plain), ("One", one)]) == 1 and reference([("x", one)]) == 0
    assert first_difference(plain, other).verdict == "near-tie" and first_difference(plain, one) is None


def test_both_distributions_stand_side_by_side():
    one, other = same_text((0.6, 0.4))
    table = difference_table(first_difference(one, other), TOKEN_BYTES)
    assert table.values.tolist() == [["␣the", 0, 0.6, 0.4, "first run"], ["␣little", 1, 0.4, 0.6, "second run"]]
