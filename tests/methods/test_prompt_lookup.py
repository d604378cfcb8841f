"""Prompt lookup against the examples of its specification and against the class of transformers itself."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from decoding.drafting.lookup import Lookup, copied, find
from decoding.methods.prompt_lookup import METHOD
from tests.toys import cycle, run_steps, toy_family

LIKE_TRANSFORMERS = {"ngram": 3, "length": 10, "which": "first", "overlap": False}
END = 0


def drafted(tokens: list[int], ends=frozenset(), **params) -> list[int]:
    return list(Lookup(ends, **asdict(METHOD.checked(params))).propose(tokens, None).tokens)


def theirs(tokens: list[int]) -> list[int]:
    generator = PromptLookupCandidateGenerator(
        eos_token_id=torch.tensor([END]),
        num_output_tokens=LIKE_TRANSFORMERS["length"],
        max_matching_ngram_size=LIKE_TRANSFORMERS["ngram"],
        max_length=10_000,
    )
    return generator.get_candidates(torch.tensor([tokens]))[0][0, len(tokens) :].tolist()


EXAMPLES = [
    ([1, 2, 3, 4, 1, 2], [3, 4, 1, 2]),
    ([1, 2, 3, 9, 1, 2, 4, 1, 2], [3, 9, 1, 2, 4, 1, 2]),
    ([5, 5, 5, 5], [5]),
    ([1, 2, END, 7, 8, 1, 2], []),
    ([*range(1, 14), 1, 2, 3], list(range(4, 14))),
    ([1, 2, 3], []),
    ([1], []),
]


@pytest.mark.parametrize("tokens, copy", EXAMPLES)
def test_the_variant_of_transformers(tokens, copy):
    assert drafted(tokens, frozenset({END}), **LIKE_TRANSFORMERS) == copy == theirs(tokens)


def test_random_texts_against_transformers():
    """Few different tokens, so that nearly every text has a match; none ends, because there transformers gives up."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(300):
        tokens = rng.integers(1, 6, rng.integers(1, 30)).tolist()
        ours = drafted(tokens, frozenset({END}), **LIKE_TRANSFORMERS)
        assert ours == theirs(tokens), tokens
        found += bool(ours)
    assert found > 200


def test_latest_match_and_overlap():
    tokens = [1, 2, 3, 9, 1, 2, 4, 1, 2]
    assert drafted(tokens, which="latest", overlap=False) == [4, 1, 2]
    assert drafted(tokens, which="latest", overlap=True, length=7) == [4, 1, 2, 4, 1, 2, 4]
    assert drafted([5, 5, 5, 5], overlap=True, length=4) == [5, 5, 5, 5]
    assert drafted([7, 8, 7, 8], overlap=True, length=5) == [7, 8, 7, 8, 7]


def test_the_longest_match_wins_over_a_later_one():
    """[1, 2, 3] stands at the front; a later [3] alone is followed by something else."""
    tokens = [1, 2, 3, 50, 9, 3, 60, 1, 2, 3]
    assert drafted(tokens, ngram=3, overlap=False)[:1] == [50]
    assert drafted(tokens, ngram=1, overlap=False)[:1] == [60]


def test_the_suffix_does_not_match_itself():
    assert find([4, 5, 6], 3, "latest") is None and find([4], 3, "first") is None and find([], 3, "first") is None


def test_length_is_a_limit():
    for length in (1, 3, 64):
        assert len(copied([1, 2, 1, 2], 2, length, True)) == length
        assert copied([1, 2, 1, 2], 2, length, False) == [1, 2][:length]


def test_end_of_text_cuts_the_copy():
    assert drafted([1, 2, 3, END, 1, 2], frozenset({END}), overlap=False) == [3]


def test_periodic_text_is_drafted_in_full():
    """With overlap a cycle that was seen once gives `length` tokens and the bonus."""
    family = toy_family(cycle(12))
    steps = run_steps(family, "prompt_lookup", [0, *range(1, 12), 0], max_tokens=55, length=10)
    assert [len(step.tokens) for step in steps] == [11] * 5
    bare = run_steps(family, "prompt_lookup", [0], max_tokens=30, length=10)
    assert [len(step.tokens) for step in bare][:12] == [1] * 12


def test_where_the_copy_came_from_is_said():
    draft = Lookup(frozenset()).propose([1, 2, 3, 1, 2], None)
    assert set(draft.source) == {"copied from token 2"} and draft.how == "deterministic" and draft.q is None
