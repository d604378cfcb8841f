"""A draft tree of the paths that a drafter finds most probable as a whole, grown level by level on the device.

EAGLE-2 (Li et al. 2024, https://arxiv.org/abs/2406.16858, sections 4.1 and 4.2): the product of q down a path is a good estimate of
the chance that all of it is accepted. Expand the most probable nodes of the newest level, then keep the most probable nodes of all
levels. A parent is never worth less than its child and comes before it among equals, so what is kept is a tree. Several heads
draft this way. The tree is deterministic, not sampled: exact with `verify.match` alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.draft import Draft
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN

Extend = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Grown:
    """The nodes that were kept, parents first, and those that were not."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...]  # -1 = child of the root
    rows: Tensor  # (n,) on the device: which read logits node i was picked from
    logits: Tensor  # (reads + 1, vocab): behind the root, then behind every node that was expanded
    read: tuple[int, ...]  # (n,) the place of node i among the expanded ones, -1 if it was not
    joint: Tensor  # (n,) product of q, on the CPU
    own: Tensor  # (n,) its last factor
    pruned: tuple[tuple[int, int, float], ...]  # token, parent among the kept nodes (or -1), joint; only below kept nodes

    def draft(self, source: str, shown: Sampling, calls: int) -> Draft:
        """As a draft; draft probabilities under the sampling that is shown."""
        return Draft(
            self.tokens,
            self.parents,
            draft_probabilities=shown.probabilities(self.logits.float())[self.rows],
            source=(source,) * len(self.tokens),
            scores={JOINT: self.joint, OWN: self.own},
            calls=calls,
            pruned=self.pruned,
        )


@torch.inference_mode()
def grow(first: Tensor, extend: Extend, *, nodes: int, fan_out: int, expansions: int, frontier: int | None = None) -> Grown:
    """Grow a tree below a root.

    Args:
        first: (1, vocab) logits behind the root.
        extend: (tokens, parents), both (m,) on the device -> (m, vocab) logits; parents are counted in the order in which nodes
            were handed to it, -1 for the root.
        nodes: at most so many are kept.
        fan_out: children of a node.
        expansions: calls of `extend`; the tree is one level deeper.
        frontier: nodes expanded per level; None: as many as `fan_out`.
    """
    device, frontier = first.device, frontier or fan_out
    fan_out = min(fan_out, first.shape[-1])
    best = first.float().log_softmax(-1).topk(fan_out)
    none = torch.full((fan_out,), -1, device=device)
    tokens, own, joint = [best.indices[0]], [best.values[0]], [best.values[0]]
    parents, rows, reads = [none], [none + 1], []  # of every candidate: its parent among them, its row of logits
    logits = [first]
    level = torch.arange(fan_out, device=device)  # candidates of the newest level
    read_of_parent = none  # (level,) places of their parents among the expanded ones
    total = fan_out
    for _ in range(expansions):
        chosen = joint[-1].topk(min(frontier, len(level))).indices
        expanded, read_before = level[chosen], sum(map(len, reads))
        found = extend(tokens[-1][chosen], read_of_parent[chosen])
        reads.append(expanded)
        logits.append(found)
        best = found.float().log_softmax(-1).topk(fan_out)  # (m, fan_out)
        places = torch.arange(read_before, read_before + len(chosen), device=device)
        tokens.append(best.indices.flatten())
        own.append(best.values.flatten())
        joint.append((joint[-1][chosen, None] + best.values).flatten())
        parents.append(expanded.repeat_interleave(fan_out))
        rows.append((places + 1).repeat_interleave(fan_out))
        read_of_parent = places.repeat_interleave(fan_out)
        level = torch.arange(total, total + len(tokens[-1]), device=device)
        total += len(level)
    read = torch.full((total,), -1, device=device)
    if reads:
        expanded = torch.cat(reads)
        read[expanded] = torch.arange(len(expanded), device=device)
    worth = torch.cat(joint)
    kept = torch.zeros(total, dtype=torch.bool, device=device)
    kept[worth.sort(descending=True, stable=True).indices[:nodes]] = True  # of equals the shallower
    columns = [torch.cat(tokens), torch.cat(parents), kept, read, worth.exp(), torch.cat(own).exp()]
    packed = torch.stack([column.double() for column in columns]).tolist()  # the one copy from the device
    return gathered(packed, torch.cat(rows)[kept], torch.cat(logits))


def gathered(packed: list[list[float]], rows: Tensor, logits: Tensor) -> Grown:
    """Number the kept candidates anew."""
    tokens, parents, kept, read, joint, own = packed
    place = {-1: -1}
    for old, keep in enumerate(kept):
        if keep:
            place[old] = len(place) - 1
    inside = [i for i in place if i >= 0]
    outside = [i for i, keep in enumerate(kept) if not keep and int(parents[i]) in place]
    return Grown(
        tuple(int(tokens[i]) for i in inside),
        tuple(place[int(parents[i])] for i in inside),
        rows,
        logits,
        tuple(int(read[i]) for i in inside),
        torch.tensor([joint[i] for i in inside]),
        torch.tensor([own[i] for i in inside]),
        tuple((int(tokens[i]), place[int(parents[i])], joint[i]) for i in outside),
    )
