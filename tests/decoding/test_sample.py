"""From logits to probabilities: temperature, then top-k, then top-p, and what happens at the edges of each."""

import math

import pytest
import torch

from decoding.sample import Sampling

P = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
LOGITS = P.log()


def shown(sampling: Sampling, logits=LOGITS) -> list[float]:
    return sampling.probabilities(logits)[0].tolist()


def test_no_processor_leaves_the_softmax():
    assert shown(Sampling()) == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_temperature_is_a_power():
    squared = [p * p / 0.3 for p in P[0].tolist()]
    assert shown(Sampling(temperature=0.5)) == pytest.approx(squared)


def test_top_k_keeps_k_and_ties_with_the_last():
    assert shown(Sampling(top_k=2)) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    tied = torch.tensor([[2.0, 1.0, 1.0, 0.0]])
    assert [p > 0 for p in shown(Sampling(top_k=2), tied)] == [True, True, True, False]
    assert shown(Sampling(top_k=9)) == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("top_p, kept", [(0.05, 1), (0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.95, 4), (1.0, 4)])
def test_top_p_keeps_the_token_that_crosses_the_limit(top_p, kept):
    found = shown(Sampling(top_p=top_p))
    assert [p > 0 for p in found] == [True] * kept + [False] * (4 - kept)
    assert sum(found) == pytest.approx(1)


def test_top_p_ties_go_to_the_lowest_ids():
    assert [p > 0 for p in shown(Sampling(top_p=0.5), torch.zeros(1, 4))] == [True, True, False, False]


def test_temperature_comes_before_top_p():
    """At temperature 0.5 the first token alone reaches 0.5 (it has 0.53); at 1 it does not."""
    assert [p > 0 for p in shown(Sampling(temperature=0.5, top_p=0.5))] == [True, False, False, False]


def test_top_k_comes_before_top_p():
    """Among the best two the first has 4/7, which reaches 0.5; among all four it has 0.4 and does not."""
    assert [p > 0 for p in shown(Sampling(top_k=2, top_p=0.5))] == [True, False, False, False]


def test_greedy_is_the_lowest_id_of_the_best():
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [5.0, 5.0, 5.0, 5.0]])
    assert Sampling(temperature=0).probabilities(logits).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_rows_do_not_touch_each_other():
    rows = torch.cat((LOGITS, LOGITS.flip(1)))
    for sampling in (Sampling(0.7, top_k=3, top_p=0.8), Sampling(0)):
        together = sampling.probabilities(rows)
        assert torch.equal(together[:1], sampling.probabilities(rows[:1]))
        assert torch.equal(together[1:], sampling.probabilities(rows[1:]))


OUTSIDE = {"temperature": (-0.1, 2.1, math.nan, math.inf), "top_k": (-1,), "top_p": (0.0, 1.01, math.nan)}


@pytest.mark.parametrize("setting, value", [(name, value) for name, values in OUTSIDE.items() for value in values])
def test_settings_out_of_range_are_refused_with_their_value(setting, value):
    with pytest.raises(ValueError, match=f"it is {value}"):
        Sampling(**{setting: value})
