"""A dead drafter is lossless too: on fixed prompts every method must commit a few tokens per target call.

The floors are modest. They belong to the embedded weights: raise them when those get better, never gate on seconds.
"""

import pytest

from decoding.methods import METHODS
from decoding.models.family import Family
from decoding.sample import Sampling
from tests.toys import run_steps

PROMPTS = {
    "story": "Once upon a time there was a little girl named Lily. She had a red ball and",
    "fairy tale": "There was once a poor woodcutter who lived with his wife and three daughters in a hut",
    "mathematics": "Question: Tom has 3 boxes with 12 apples each. He gives 8 to Ann. How many are left?\nAnswer:",
}
REPETITIVE = (
    "The bear ate the red apple. The fox ate the red apple. The dog ate the red apple. The cat ate",
    "ha ha ha ha ha ha ha ha ha ha ha ha ha",
    "1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2,",
)
FLOORS = {
    "plain": 1.0,
    "lazyllm": 1.0,  # nobody drafts for it unless one asks
    "speculative_sampling": 1.8,
    "multi_candidate": 1.9,
    "dyspec": 1.9,
    "prompt_lookup": 1.05,
    "token_recycling": 1.5,
    "spectr": 1.8,
    "s2d": 1.7,
    "specdec_pp": 1.7,
    "judge": 2.0,
    "medusa": 1.85,
    "clover": 2.3,
    "chimera": 3.0,
    "kangaroo": 1.5,
    "falcon": 2.9,
    "ppd": 1.3,
    "ftp": 2.5,
    "sentence_vae": 1.8,
    "eagle": 3.1,
}
OTHERWISE = 1.05  # a method without a floor of its own
TOKENS, LONGER = 20, 32  # of a run; of one whose rate of acceptance is measured
SHORT = {
    "speculative_sampling": {"length": 2},
    "multi_candidate": {"shape": "2-1"},
    "kangaroo": {"length": 2, "threshold": 0.0},
}


def tau(family: Family, key: str, prompts, sampling: Sampling) -> float:
    """Tokens per target call over all prompts."""
    steps = tokens = 0
    for prompt in prompts:
        run = run_steps(family, key, family.tokenizer(prompt)["input_ids"], sampling=sampling, max_tokens=TOKENS)
        steps += len(run)
        tokens += sum(len(step.tokens) for step in run)
    return tokens / steps


@pytest.mark.parametrize("key", METHODS)
def test_tau_stays_above_its_floor(embedded, key):
    if reason := METHODS[key].missing(embedded):
        pytest.skip(reason)
    found = tau(embedded, key, PROMPTS.values(), Sampling(0))
    assert found >= FLOORS.get(key, OTHERWISE)
    assert key != "plain" or found == 1


def test_every_floor_belongs_to_a_method():
    assert set(FLOORS) <= set(METHODS)


def test_prompt_lookup_on_a_text_that_repeats_itself(embedded):
    assert tau(embedded, "prompt_lookup", REPETITIVE, Sampling(0)) >= 2


@pytest.mark.parametrize("key, params", SHORT.items())
def test_alpha_measured_two_ways(embedded, key, params):
    """The acceptance rate of first children equals the mean overlap of p and q, within three standard errors."""
    accepted, overlaps = 0, []
    for prompt in PROMPTS.values():
        ids = embedded.tokenizer(prompt)["input_ids"]
        for step in run_steps(embedded, key, ids, sampling=Sampling(1.0), max_tokens=LONGER, recorded=True, **params):
            for row in (0, *(i + 1 for i in step.path)):
                eldest = next((node for node in step.nodes if node.parent == row - 1), None)
                if eldest is not None and eldest.verdict != "not judged":
                    accepted += eldest.verdict == "accepted"
                    overlaps.append(step.rows[row].overlap)
    alpha = sum(overlaps) / len(overlaps)
    error = sum(a * (1 - a) for a in overlaps) ** 0.5 / len(overlaps)
    assert len(overlaps) > 40
    assert abs(accepted / len(overlaps) - alpha) < 3 * error
