"""PPD: probes that nobody sees, positions and masks, the machine of states, and prompt tokens trained for another target."""

import json
from contextlib import nullcontext
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from decoding import heads as door
from decoding.cache import TreeCache
from decoding.draft import Draft, Probes
from decoding.loop import decode
from decoding.methods import METHODS, ppd
from decoding.methods.ppd import Params, Prompts, best_budget, fresh, shapes, trained
from decoding.probe_trees import Machine, ProbeTree, endings, machine, stationary, thinned
from decoding.sample import Sampling
from decoding.target import Target
from decoding.training.recipes import RECIPES
from decoding.training.recipes import ppd as recipe
from decoding.training.states import Batch, states
from tests import toys
from tests.test_lossless_statistics import LIMIT, counted, expected, misfit
from tests.toys import CONTEXT, GREEDY, VOCAB, causal_lm, reading_of, run_steps, tokens_of

PROMPT = (7, 70, 170, 7, 70)
RECIPE = RECIPES["ppd"]
RANKS = ((0.4, 0.2, 0.1, 0.05), (0.3, 0.15, 0.1, 0.05), (0.2, 0.1, 0.05, 0.02))
KINDS = ("llama", "gpt2", "gpt_neox", "phi")


def target_of(kind: str = "llama", **more) -> Target:
    return Target(causal_lm(kind, **more), VOCAB, CONTEXT)


def embedded(target: Target, tokens) -> torch.Tensor:
    return target.embedded(target.ids(tokens))


def read_with(target: Target, tokens, draft: Draft):
    cache = TreeCache()
    if len(tokens) > 1:
        target.extend(cache, tokens[:-1])
    return target.read(cache, tokens, draft, GREEDY), cache


TREE = Draft((3, 4, 5, 6), (-1, -1, 0, 2), source=("test",) * 4)


def probed(draft: Draft, width: int, members: int = 1) -> Draft:
    """Three probes below every node and the root."""
    hung = [(node, d, j) for node in range(-1, len(draft)) for j in range(members) for d in (1, 2, 3)]
    torch.manual_seed(0)
    vectors = torch.randn(3, members, width)
    rows = torch.stack([vectors[d - 1, j] for _, d, j in hung])
    return replace(draft, probes=Probes(rows, *(tuple(column) for column in zip(*hung, strict=True))))


# -- the pass ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, attention", [*((kind, "sdpa") for kind in KINDS), ("llama", "eager")])
def test_no_node_sees_a_probe(kind, attention):
    target = target_of(kind, attention=attention)
    plain, _ = read_with(target, PROMPT, TREE)
    reading, cache = read_with(target, PROMPT, probed(TREE, 32))
    assert (plain.logits - reading.logits).abs().max() < 1e-4 * plain.logits.std()
    assert reading.probs.shape == plain.probs.shape and reading.probes.shape == (15, VOCAB) and plain.probes is None
    cache.keep([0, 1, 3])
    assert cache.length == cache.committed == len(PROMPT) + 2, "no row of a probe is left"


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_that_is_the_true_token_says_what_its_row_says(kind):
    """With the embeddings of the tokens that follow in place of E: positions and masks one off would show."""
    target, ahead = target_of(kind), (9, 10, 11)
    draft = probed(TREE, 32)
    oracle = embedded(target, [ahead[d - 1] for d in draft.probes.distances])
    reading, _ = read_with(target, PROMPT, replace(draft, probes=replace(draft.probes, embeddings=oracle)))
    for row, (node, distance) in enumerate(zip(draft.probes.nodes, draft.probes.distances, strict=True)):
        path = [TREE.tokens[i] for i in TREE.path_to(node)]
        texts = [[*PROMPT, *path, *ahead[:d]] for d in (distance, distance - 1)]
        right, before = (target.extend(TreeCache(), text)[0] for text in texts)
        assert (reading.probes[row] - right).abs().max() < 1e-3 < 1e-2 < (reading.probes[row] - before).abs().max()


def test_members_of_an_ensemble_do_not_see_each_other():
    target, draft = target_of(), probed(TREE, 32, members=2)
    changed = draft.probes.embeddings.clone()
    first = [(d, j) == (1, 1) for d, j in zip(draft.probes.distances, draft.probes.members, strict=True)]
    changed[torch.tensor(first)] += 1
    before, after = (read_with(target, PROMPT, replace(draft, probes=replace(draft.probes, embeddings=e)))[0].probes
                     for e in (draft.probes.embeddings, changed))  # fmt: skip
    moved = (before - after).abs().amax(-1) > 1e-3
    assert moved.tolist() == [member == 1 for member in draft.probes.members]


# -- training ----------------------------------------------------------------------------------------------------------


def batch_of(target: Target, tokens: torch.Tensor, seed: int = 0) -> Batch:
    found = states(target, tokens, (target.last_hidden,))
    return Batch(tokens, torch.ones_like(tokens, dtype=torch.bool), found, seed)


@pytest.mark.parametrize("kind, members", [("llama", 1), ("gpt2", 1), ("qwen3", 2)])
def test_training_reads_what_drafting_reads(kind, members, monkeypatch):
    """Many chains in one pass against a pass per place with the probes below the root, as in a run."""
    monkeypatch.setattr(recipe, "quick", lambda device: nullcontext())
    target = target_of(kind)
    made = fresh(target, 3, members)
    made.embed.data += 0.3 * torch.randn(made.embed.shape, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(VOCAB, (2, 24), generator=torch.Generator().manual_seed(2))
    places = torch.tensor([0, 5, 6, 19])
    with torch.inference_mode():
        cache = recipe.read(target, tokens)
        logits = target.score(recipe.said(made, target, cache, places))
        again = target.score(recipe.said(made, target, cache, places))
        whole = list(recipe.predict(made, target, batch_of(target, tokens)))
    assert (logits - again).abs().max() < 1e-4, "the cache was left as it was"
    hung = [(-1, d, j) for j in range(members) for d in (1, 2, 3)]
    below = Probes(torch.stack([made.embed[d - 1, j] for _, d, j in hung]).detach(), *map(tuple, zip(*hung, strict=True)))
    for row, (number, place) in product(range(2), enumerate(places.tolist())):
        reading, _ = read_with(target, tokens[row, : place + 1].tolist(), Draft((), (), probes=below))
        expected = reading.probes.unflatten(0, (members, 3)).mean(0)
        assert (logits[row, number] - expected).abs().max() < 1e-3
        assert max((whole[k][row, place] - expected[k]).abs().max() for k in range(3)) < 1e-3
