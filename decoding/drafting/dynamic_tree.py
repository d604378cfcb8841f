"""A draft tree of the paths that a drafter finds most probable as a whole, grown level by level on the device.

EAGLE-2 (Li et al. 2024, https://arxiv.org/abs/2406.16858, sections 4.1 and 4.2): the product of q down a path is a good estimate of
the chance that all of it is accepted. Expand the most probable nodes of the newest level, then keep the most probable nodes of all
levels. A parent is never worth less than its child and comes before it among equals, so what is kept is a tree. Several heads
draft this way. The tree is deterministic, not sampled: exact with `verify.match` alone.
"""

from collections.abc import Callable, Collection
from math import isnan

import torch
from torch import Tensor

from decoding.drafting.tree_builder import TreeBuilder
from decoding.score_names import JOINT, OWN
from decoding.verify import NotFinite

READ = "read"  # known of a node: its place among those that were handed to `extend`, -1 if it was not

Extend = Callable[[Tensor, Tensor], Tensor]
NEVER = float("-inf")  # in place of the joint probability of what must not be drafted


class Pool:
    """All candidates, level by level, as tensors on the device; the columns of a level are (candidates,) each."""

    def __init__(self, first: Tensor, fan_out: int) -> None:
        self.fan_out = min(fan_out, first.shape[-1])
        self.logits: list[Tensor] = []  # (m, vocab) each: behind the root, then behind what was expanded
        self.tokens, self.own, self.joint, self.parents = ([], [], [], [])
        self.rows: list[Tensor] = []  # of the logits it was picked from
        self.barred: list[Tensor] = []  # whether it must not be drafted
        self.expanded = [torch.empty(0, dtype=torch.long, device=first.device)]
        none = torch.full((1,), -1, device=first.device)
        self.add(first, first.new_zeros(1, dtype=torch.float), none)

    def add(self, scored: Tensor, above: Tensor, parents: Tensor) -> None:
        """The best children of nodes, from (m, vocab) logits behind them.

        Args:
            above: (m,) logarithms of their joint probabilities, NEVER for those that get no children.
            parents: (m,) these nodes among all candidates.
        """
        best = scored.float().log_softmax(-1).topk(self.fan_out)
        start = sum(map(len, self.logits))
        rows = torch.arange(start, start + len(scored), device=scored.device)
        self.logits.append(scored)
        self.tokens.append(best.indices.flatten())
        self.own.append(best.values.flatten())
        self.joint.append((above[:, None] + best.values).flatten())
        self.parents.append(parents.repeat_interleave(self.fan_out))
        self.rows.append(rows.repeat_interleave(self.fan_out))
        self.barred.append((above == NEVER).repeat_interleave(self.fan_out))

    def expand(self, extend: Extend, frontier: int, ends: Tensor) -> bool:
        """One more level, below the most probable nodes of the newest one; False where it has none but `ends`."""
        worth, tokens = self.joint[-1], self.tokens[-1]
        if len(ends):
            worth = worth.masked_fill(torch.isin(tokens, ends), NEVER)
            if len(ends) >= self.fan_out and not (worth > NEVER).any():  # with fewer ends a node has other children too
                return False
        chosen = worth.topk(min(frontier, len(worth))).indices
        nodes = chosen + sum(map(len, self.tokens[:-1]))
        self.add(extend(tokens[chosen], self.rows[-1][chosen] - 1), worth[chosen], nodes)
        self.expanded.append(nodes)
        return True

    def best(self, count: int) -> TreeBuilder:
        """The most probable `count` of all candidates."""
        worth, expanded = torch.cat(self.joint), torch.cat(self.expanded)
        kept = torch.zeros(len(worth), dtype=torch.bool, device=worth.device)
        kept[worth.sort(descending=True, stable=True).indices[:count]] = True  # of equals the shallower
        barred = torch.cat(self.barred)
        kept &= ~barred
        read = torch.full((len(worth),), -1, device=worth.device)
        read[expanded] = torch.arange(len(expanded), device=worth.device)
        tokens, parents, own = torch.cat(self.tokens), torch.cat(self.parents), torch.cat(self.own)
        columns = (tokens, parents, kept, barred, read, worth.exp(), own.exp())
        packed = torch.stack([column.double() for column in columns]).tolist()  # the one copy from the device
        places = torch.tensor([place for place, taken in enumerate(packed[2]) if taken], device=worth.device, dtype=torch.long)
        return gathered(packed, torch.cat(self.logits), torch.cat(self.rows)[places])


@torch.inference_mode()
def grow(
    first: Tensor,
    extend: Extend,
    *,
    nodes: int,
    fan_out: int,
    expansions: int,
    frontier: int | None = None,
    ends: Collection[int] = (),
) -> TreeBuilder:
    """Grow a tree below a root.

    Args:
        first: (1, vocab) logits behind the root.
        extend: (tokens, parents), both (m,) on the device -> (m, vocab) logits; parents are counted in the order in which nodes
            were handed to it, -1 for the root.
        nodes: at most so many are kept.
        fan_out: children of a node.
        expansions: calls of `extend`; the tree is one level deeper.
        frontier: nodes expanded per level; None: as many as `fan_out`.
        ends: tokens behind which nothing is drafted; a level of nothing else is the last.

    Returns:
        the kept nodes, level by level, with JOINT, OWN and READ; what was left out below them is `pruned`.
    """
    pool, last = Pool(first, fan_out), torch.tensor(list(ends), dtype=torch.long, device=first.device)
    for _ in range(expansions):
        if not pool.expand(extend, frontier or fan_out, last):
            break
    return pool.best(nodes)


def gathered(packed: list[list[float]], logits: Tensor, rows: Tensor) -> TreeBuilder:
    """Number the kept candidates anew. NotFinite if they have no order, so that a node may be kept without its parent."""
    tokens, parents, kept, barred, read, joint, own = packed
    if any(map(isnan, joint)):
        raise NotFinite("drafter")
    place = {-1: -1}
    for old, keep in enumerate(kept):
        if keep:
            place[old] = len(place) - 1
    inside = [i for i in place if i >= 0]
    outside = [i for i, keep in enumerate(kept) if not keep and not barred[i] and int(parents[i]) in place]
    return TreeBuilder(
        [int(tokens[i]) for i in inside],
        [place[int(parents[i])] for i in inside],
        {JOINT: [joint[i] for i in inside], OWN: [own[i] for i in inside], READ: [int(read[i]) for i in inside]},
        pruned=[(int(tokens[i]), place[int(parents[i])], joint[i]) for i in outside],
        logits=logits,
        rows=rows,
    )
