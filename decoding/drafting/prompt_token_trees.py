"""Trees of guesses with prompt tokens below their nodes: how deep the next tree may be follows from where acceptance ends in this
one.

Chen et al. 2024, https://arxiv.org/abs/2405.18628, section 4 (dynamic sparse tree, hardware-aware size). A tree of state s has
paths of s guesses at most; the number of prompt tokens below the node where acceptance ends is the next state. More prompt tokens
in one tree mean deeper trees later, and fewer guesses now.

Departure: in the released search a step in which nothing is accepted counts as a step of its own that yields nothing. There is no
such step: acceptance that ends at the root is an outcome like any other, and leads to the state with all prompt tokens at once.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import numpy as np

from decoding.drafting.static_tree import Path, parents_of, sparse_tree, worth

FIRST = 6  # guesses in state 1
COUNTS = 5  # numbers of guesses that are tried for each of the other states
Ranks = tuple[tuple[float, ...], ...]  # [k][i]: how often rank i of prompt token k + 1 is right


@dataclass(frozen=True)
class ProbeTree:
    """The tree of one state."""

    paths: tuple[Path, ...]  # parents first
    values: tuple[float, ...]  # the chance that all of a path is right
    prompt_tokens: tuple[int, ...]  # below every node

    @cached_property
    def parents(self) -> tuple[int, ...]:
        return parents_of(self.paths)

    @cached_property
    def ends(self) -> np.ndarray:
        """(n + 1,) the chance that acceptance ends at the root, at node 0, 1, ..."""
        return endings(self.parents, self.values)

    @property
    def accepted(self) -> float:
        """Guesses that are accepted in the mean."""
        return sum(self.values)

    def rows(self, members: int = 1) -> int:
        """Nodes and what hangs below them."""
        return len(self.paths) + members * sum(self.prompt_tokens)


@dataclass(frozen=True)
class Machine:
    """The trees of all states, and what they should yield."""

    trees: tuple[ProbeTree, ...]  # of state 0 (no guesses), 1, ..., m
    members: int = 1

    @property
    def most(self) -> int:
        """Prompt tokens below the root, and the deepest state."""
        return len(self.trees) - 1

    @cached_property
    def stationary(self) -> np.ndarray:
        """(m + 1,) how often every state is met in the long run."""
        return stationary(self.trees)

    @cached_property
    def tokens(self) -> float:
        """Tokens per step: one, and those that are accepted in the mean over all states."""
        return 1 + sum(share * tree.accepted for share, tree in zip(self.stationary, self.trees, strict=True))


def endings(parents: Sequence[int], values: Sequence[float]) -> np.ndarray:
    """(n + 1,) the chance that acceptance ends at the root, node 0, 1, ...: its own value without its children's."""
    left = np.array([1.0, *values])
    for parent, value in zip(parents, values, strict=True):
        left[parent + 1] -= value
    return left


def stationary(trees: Sequence[ProbeTree]) -> np.ndarray:
    """(m + 1,) shares of the states in the long run. From the root the way leads to state m."""
    moves = np.zeros((len(trees), len(trees)))
    for state, tree in enumerate(trees):
        for prompt_tokens, chance in zip((len(trees) - 1, *tree.prompt_tokens), tree.ends, strict=True):
            moves[state, prompt_tokens] += chance
    balance = np.vstack((moves.T - np.eye(len(trees)), np.ones(len(trees))))
    found = np.linalg.lstsq(balance, np.array([0.0] * len(trees) + [1.0]), rcond=None)[0]
    return found.clip(min=0) / found.clip(min=0).sum()


@cache
def machine(ranks: Ranks, budget: int, members: int = 1) -> Machine:
    """The best machine found whose passes read at most `budget` rows: the root, its prompt tokens, and the tree with its own.

    Args:
        ranks: one row per prompt token; fewer are used where the budget is too small for all of them below the root.
        members: rows per prompt token.
    """
    most = min(len(ranks), max(0, (budget - 1) // members))
    limit = budget - 1 - most * members
    largest = limit // (1 + members)  # guesses that leave room for one prompt token each
    nothing = ProbeTree((), (), ())
    if not most or not largest:
        return Machine((nothing,) * (most + 1), members)
    low = max(1, limit // (most * members + 1))
    tried = sorted({round(count) for count in np.linspace(min(low, largest), largest, COUNTS)})
    choices = product((min(FIRST, largest),), *[tried] * (most - 1))
    found = (Machine((nothing, *grown(ranks[:most], counts, limit, members)), members) for counts in choices)
    return max(found, key=lambda one: one.tokens)


def grown(ranks: Ranks, counts: Sequence[int], limit: int, members: int) -> list[ProbeTree]:
    """The trees of state 1, 2, ... with so many guesses each, in `limit` rows each."""
    paths = [sparse_tree(ranks[:state], count) for state, count in enumerate(counts, 1)]
    values = [tuple(worth(ranks, path) for path in tree) for tree in paths]
    gains = np.diff([0.0, *map(sum, values)])  # of being in state k instead of k - 1, for k = 1, 2, ...
    made = []
    for tree, own in zip(paths, values, strict=True):
        ends = ProbeTree(tree, own, ()).ends[1:]
        made.append(ProbeTree(tree, own, thinned(ends, gains, (limit - len(tree)) // members)))
    return made


def thinned(ends: Sequence[float], gains: Sequence[float], room: int) -> tuple[int, ...]:
    """(n,) prompt tokens below every node: all of them, less those that are missed least, one by one, until `room` are left.

    Args:
        ends: (n,) the chance that acceptance ends at a node.
        gains: (m,) what the k-th prompt token below it adds to the next step.
    """
    prompt_tokens = [len(gains)] * len(ends)
    waiting = [(end * gains[-1], node) for node, end in enumerate(ends) if len(gains) > 1]
    heapq.heapify(waiting)
    while sum(prompt_tokens) > room and waiting:
        _, node = heapq.heappop(waiting)
        prompt_tokens[node] -= 1
        if prompt_tokens[node] > 1:
            heapq.heappush(waiting, (ends[node] * gains[prompt_tokens[node] - 1], node))
    return tuple(prompt_tokens)
