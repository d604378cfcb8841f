"""The tree of the most probable paths: the worked example, brute force, and what its nodes say of themselves."""

from itertools import combinations

import pytest
import torch

from decoding.drafting.dynamic_tree import READ, grow
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN

NOTHING = 1e-9


def example(tokens, parents):
    """Behind a (token 0): a1 .5, a2 .4; behind b (token 1): b1 .9, b2 .05."""
    table = torch.full((2, 6), NOTHING)
    table[0, 2], table[0, 3], table[0, 0] = 0.5, 0.4, 0.1
    table[1, 4], table[1, 5], table[1, 0] = 0.9, 0.05, 0.04
    assert parents.tolist() == [-1, -1]
    return table[tokens].log()


def test_the_worked_example():
    """EAGLE-2: joints a .6, b .3, a1 .30, b1 .27, a2 .24, b2 .015; four nodes keep {a, b, a1, b1}."""
    first = torch.tensor([[0.6, 0.3, NOTHING, NOTHING, NOTHING, 0.1]]).log()
    found = grow(first, example, nodes=4, fan_out=2, expansions=1)
    assert found.tokens == [0, 1, 2, 4] and found.parents == [-1, -1, 0, 1]
    assert found[JOINT] == pytest.approx([0.6, 0.3, 0.30, 0.27 / 0.99], abs=1e-4)
    assert found[OWN] == pytest.approx([0.6, 0.3, 0.5, 0.9 / 0.99], abs=1e-4)
    assert found[READ] == [0, 1, -1, -1]
    assert [(token, parent) for token, parent, _ in found.pruned] == [(3, 0), (5, 1)]
    assert [score for *_, score in found.pruned] == pytest.approx([0.24, 0.015], abs=1e-3)
    draft = found.draft("head", draft_probabilities=found.believed(Sampling()), calls=2)
    assert torch.allclose(draft.draft_probabilities[3], torch.tensor([0.04, 0, 0, 0, 0.9, 0.05]) / 0.99, atol=1e-4)


class Random:
    """A drafter that says something else behind every path, and remembers what it was asked."""

    def __init__(self, seed: int, vocab: int) -> None:
        self.vocab, self.seed = vocab, seed
        self.paths: list[tuple[int, ...]] = []

    def logits(self, path: tuple[int, ...]) -> torch.Tensor:
        rng = torch.Generator().manual_seed(hash((self.seed, *path)) % 2**31)
        return 2 * torch.randn(self.vocab, generator=rng)

    def __call__(self, tokens, parents):
        known = [(), *self.paths]
        new = [(*known[parent + 1], token) for token, parent in zip(tokens.tolist(), parents.tolist(), strict=True)]
        self.paths += new
        return torch.stack([self.logits(path) for path in new])


@pytest.mark.parametrize("seed", range(12))
def test_no_other_tree_of_the_pool_is_worth_more(seed):
    """Brute force over all sets of that size closed under parents; and every row of logits is that of the node's parent."""
    nodes, drafter = 1 + seed % 5, Random(seed, 3)
    found = grow(drafter.logits(())[None], drafter, nodes=nodes, fan_out=2, expansions=2)
    pool: set[tuple[int, ...]] = set()
    joint = {(): 1.0}
    for path in [(), *drafter.paths]:
        q = drafter.logits(path).softmax(-1)
        for token in q.topk(2).indices.tolist():
            pool.add((*path, token))
            joint[(*path, token)] = joint[path] * float(q[token])
    closed = [
        chosen for chosen in combinations(sorted(pool), nodes) if all(len(path) == 1 or path[:-1] in chosen for path in chosen)
    ]
    best = max(sum(joint[path] for path in chosen) for chosen in closed)
    assert sum(found[JOINT]) == pytest.approx(best, rel=1e-5) and len(found.tokens) == nodes
    paths: list[tuple[int, ...]] = []
    for token, parent in zip(found.tokens, found.parents, strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    assert len(set(paths)) == nodes
    for i, path in enumerate(paths):
        assert found[JOINT][i] == pytest.approx(joint[path], rel=1e-5)
        assert torch.equal(found.logits[found.rows[i]], drafter.logits(path[:-1]))
        assert found[READ][i] == (drafter.paths.index(path) if path in drafter.paths else -1)
    below = [(*(paths[parent] if parent >= 0 else ()), token) for token, parent, _ in found.pruned]
    assert set(below) == {path for path in pool if path not in paths and (len(path) == 1 or path[:-1] in paths)}


def test_one_node_and_no_expansion():
    found = grow(torch.tensor([[0.0, 3.0, 1.0]]), example, nodes=1, fan_out=2, expansions=0)
    assert found.tokens == [1] and found.parents == [-1] and len(found.pruned) == 1


def test_nothing_is_drafted_behind_an_end():
    """Token 0 ends a text: it is a leaf, and where a level holds nothing else it is the last; others are not moved by that."""
    drafter = Random(3, 4)
    free = grow(drafter.logits(())[None], drafter, nodes=40, fan_out=4, expansions=2, frontier=4)
    bound = grow(drafter.logits(())[None], Random(3, 4), nodes=40, fan_out=4, expansions=2, frontier=4, ends={0})
    assert 0 in bound.tokens and any(free.tokens[parent] == 0 for parent in free.parents if parent >= 0)
    assert not any(bound.tokens[parent] == 0 for parent in bound.parents if parent >= 0)
    assert not any(parent >= 0 and bound.tokens[parent] == 0 for _, parent, _ in bound.pruned)
    sure = torch.tensor([[9.0, 0, 0, 0]])
    alone = grow(sure, Random(3, 4), nodes=9, fan_out=1, expansions=5, ends={0})
    assert alone.tokens == [0] and not alone.pruned
