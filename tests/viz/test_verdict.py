"""The verdict on a drafter: every line follows from numbers that can be counted by hand, and few of them say nothing."""

import numpy as np
import pandas as pd
import pytest

from tests.viz_samples import FRAME, at, chain, node, runs, step_of, trace_of
from viz.drafter.judgements import judgements
from viz.drafter.verdict import CELL, FEW, GAP, LOST, MOST, verdict


def places(n, right, **columns):
    """So many places with one guess each, the first `right` of them kept; at places of their own."""
    usual = {"class": "word start", "entropy": 0.2, "confidence": np.nan, "target p": np.nan, "luck": False, "wanted rank": np.nan}
    frame = pd.concat([FRAME.head(1)] * n, ignore_index=True).assign(**usual | columns)
    kept = [True] * right + [False] * (n - right)
    return frame.assign(accepted=kept, right=kept, overlap=np.nan)


def joined(*parts):
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(step=range(len(frame)))


def test_few_places_get_no_verdict():
    assert verdict(joined(places(FEW - 1, 10))) == (f"Too little to judge by: {FEW - 1} places, a verdict takes {FEW}.",)
    assert "Too little" not in verdict(joined(places(FEW, 10)))[0]
    assert "0 places" in verdict(judgements([]))[0]


def test_a_drafter_that_never_lost():
    assert verdict(joined(places(60, 60))) == ("It lost nowhere: one of its guesses was right in all of 60 places.",)


def test_the_kind_of_place_that_loses_most_is_named_with_its_numbers():
    bad, good = places(60, 20), places(200, 180, **{"class": "inside a word"})
    assert "It loses most on word starts where the target is sure: right in 20 of 60 such places, in 180 of 200 others." in verdict(
        joined(bad, good)
    )


def test_the_larger_loss_is_named_not_the_rarer_worse_one():
    rare, common = places(20, 2, **{"class": "digit"}), places(100, 40)
    assert "on word starts" in verdict(joined(rare, common, places(300, 285, **{"class": "punctuation"})))[0]


@pytest.mark.parametrize("entropy, words", [(0.99, "sure"), (1.0, "could go on in several ways"), (np.nan, "word starts: right")])
def test_sure_means_less_than_a_bit(entropy, words):
    bad, good = places(60, 10, entropy=entropy), places(200, 190, **{"class": "digit"})
    assert words in verdict(joined(bad, good))[0]


def test_kinds_that_are_alike_or_too_rare_are_not_blamed():
    alike = joined(places(60, 30), places(60, 32, **{"class": "digit"}))
    assert any("No kind of place stands out among 120" in line for line in verdict(alike))
    rare = joined(places(CELL - 1, 0), places(200, 190, **{"class": "digit"}))
    assert not any("loses most" in line for line in verdict(rare))


@pytest.mark.parametrize(
    ("q", "p", "said"),
    [(0.83, 0.62, "too high by 0.21"), (0.5, 0.7, "too low by 0.20"), (0.6, 0.6 - GAP + 0.001, "about right")],
)
def test_confidence_is_held_against_the_target(q, p, said):
    lines = verdict(joined(places(80, 40, confidence=q, **{"target p": p})))
    assert any(said in line and f"{q:.2f} on average, the target {p:.2f}" in line for line in lines)


def test_a_gap_within_its_error_is_no_finding():
    wild = [1.0, 0.0] * 30
    lines = verdict(joined(places(60, 30, confidence=np.array(wild) * 1.0, **{"target p": np.array(wild[::-1]) * 0.86})))
    assert any("about right" in line for line in lines)


def test_confidence_needs_probabilities():
    assert any("it has no probabilities" in line for line in verdict(joined(places(80, 40))))
    some = joined(places(80, 40), places(10, 5, confidence=0.9, **{"target p": 0.1}))
    assert any("only 10 first guesses had" in line for line in verdict(some))


def test_luck_is_counted_once_per_lost_place():
    fair, unlucky = places(100, 80), places(10, 0, luck=True)
    assert any("Luck explains 10 of 30 lost places, 33%" in line for line in verdict(joined(fair, unlucky)))
    assert any("Luck explains little: 2 of 42" in line for line in verdict(joined(places(100, 60), places(2, 0, luck=True))))
    assert any("too few to say" in line for line in verdict(joined(places(60, 60 - LOST + 3), places(2, 0, luck=True))))
    assert not any("uck" in line for line in verdict(joined(places(100, 60))))  # greedy: no draw decides


def test_luck_does_not_blame_the_kind_of_place_it_fell_on():
    bad, good = places(60, 0, luck=True), places(200, 190, **{"class": "digit"})
    assert not any("loses most" in line for line in verdict(joined(bad, good)))


def test_a_wider_tree_is_advised_where_the_favourite_was_near_and_not_where_it_was_absent():
    near = joined(places(100, 60, **{"wanted rank": 3.0})).assign(overlap=0.5)
    absent = joined(places(100, 60)).assign(overlap=0.5)
    assert any("second to fourth choice" in line and "40 of 40" in line for line in verdict(near))
    assert any("8 guesses would miss it" in line for line in verdict(absent))
    assert not any(
        "choice" in line or "likeliest" in line for line in verdict(joined(places(100, 60)))
    )  # no distribution, no advice


def test_at_most_three_lines_what_was_found_first():
    frame = joined(
        places(60, 10, confidence=0.9, **{"target p": 0.5}),
        places(200, 190, confidence=0.9, **{"class": "digit", "target p": 0.5}),
        places(30, 0, luck=True, **{"class": "digit"}),
    ).assign(overlap=0.5)
    lines = verdict(frame)
    assert len(lines) == MOST and "loses most" in lines[0] and "too high" in lines[1] and "Luck explains" in lines[2]
    found = verdict(joined(places(60, 30, confidence=0.9, **{"target p": 0.5})))
    assert "too high" in found[0] and "No kind of place" in found[1]


# -- what the table says of luck -----------------------------------------------------------------------------------------


def guess(p, u=0.9, token=0, verdict_="rejected", sampled=None):
    row = at((0, 1), (0.7, 0.3), (0.9, 0.1), 0.8, 0.2)
    row = row if sampled is None else type(row)(row.tokens, row.p, row.q, row.residual, 1.0, 0.8, 0.2, sampled)
    nodes = [node(token, -1, verdict_, p=p, u=u)]
    return step_of(nodes, (0,) if verdict_ == "accepted" else (), "correction", final_token=1, rows=(row, None))


@pytest.mark.parametrize(
    ("step", "luck"),
    [
        (guess(0.7), True),
        (guess(0.7, token=1), False),  # not the favourite
        (guess(0.0), False),  # nothing was left for it: no draw would have kept it
        (guess(1.0), False),  # a rule of its own turned it down
        (guess(0.7, u=None), False),  # nothing was drawn
        (guess(0.7, u=None, sampled=1), True),  # the target drew another
        (guess(0.7, verdict_="accepted"), False),
    ],
)
def test_bad_luck_is_the_favourite_turned_down_by_the_draw(step, luck):
    assert judgements(runs(trace_of(step)))["luck"].tolist() == [luck]


def test_without_rows_nothing_is_called_luck():
    assert not judgements(runs(trace_of(chain(3))))["luck"].any()
