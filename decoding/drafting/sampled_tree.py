"""A tree of fixed shape whose siblings are drawn, one after the other, from what a drafter says behind their parent.

Drawn with replacement: SpecInfer, Miao et al. 2024, https://arxiv.org/abs/2305.09781. Without, the elder siblings taken out of q:
Yang et al. 2024, https://arxiv.org/abs/2401.06706, EAGLE, Li et al. 2024, https://arxiv.org/abs/2401.15077, and Sequoia, Chen et
al. 2024, https://arxiv.org/abs/2402.12374, section 3.2, which also says how to go on when q is used up. Nothing is ranked or left
out afterwards, so `verify.recursive_rejection` is exact for it. At temperature 0 q is one-hot and would offer a single child; the
best tokens are chosen there, for `verify.match`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from decoding.drafting.dynamic_tree import READ
from decoding.drafting.tree_builder import TreeBuilder, products
from decoding.sample import Sampling, draw, without
from decoding.score_names import JOINT, OWN

Extend = Callable[[Tensor, list[int]], Tensor]


def uniform(shape: Sequence[int]) -> list[list[int]]:
    """The counts of a tree in which all nodes of a level have as many children.

    >>> uniform((3, 2))
    [[3], [2, 2, 2]]
    """
    counts, nodes = [], 1
    for k in shape:
        counts.append([k] * nodes)
        nodes *= k
    return counts


@torch.inference_mode()
def draw_tree(
    first: Tensor,
    extend: Extend,
    counts: Sequence[Sequence[int]],
    *,
    sampling: Sampling,
    rng: Generator,
    replacement: bool = False,
) -> TreeBuilder:
    """Draw a tree below the root: level by level, siblings together in the order in which they were drawn.

    Args:
        first: (1, vocab) logits behind the root.
        extend: (m,) tokens on the device and their parents -> (m, vocab) logits; parents are counted in the order in which nodes
            were handed to it, -1 for the root. Nodes without children are not.
        counts: level by level how many children each node has, at most the vocabulary; the first level is the root.
        rng: a CPU generator.
        replacement: siblings may be the same token.

    Returns:
        nodes with READ and, whatever their elder siblings were, OWN and JOINT; with `q`, or at temperature 0 with
        `draft_probabilities`.
    """
    parents: list[int] = []
    place = {-1: -1}  # of every node that was handed to `extend`
    start, newest, logits = -1, torch.empty(0), first  # the first node of the level, its tokens, what is said behind them
    tokens, own, q, draft_probability_rows = [], [], [], []
    for widths in counts:
        inner = [i for i, k in enumerate(widths) if k]  # nodes of the level that get children
        if parents:
            logits = extend(newest[inner], [place[parents[start + i]] for i in inner])
            place |= {start + i: number for number, i in enumerate(inner, len(place) - 1)}
        believed = logits.softmax(-1) if sampling.greedy else sampling.probabilities(logits)
        rows = torch.tensor([row for row, i in enumerate(inner) for _ in range(widths[i])], device=first.device)
        scored = logits if sampling.greedy else believed
        newest, from_q = siblings(scored, [widths[i] for i in inner], sampling.greedy, rng, replacement)
        before, start = start, len(parents)
        parents += [before + i for i in inner for _ in range(widths[i])]
        tokens.append(newest)
        own.append(believed[rows, newest])
        q.append(from_q)
        draft_probability_rows.append(believed[rows] if sampling.greedy else None)
    drafted, owned = torch.stack((torch.cat(tokens).double(), torch.cat(own).double())).tolist()  # the one copy from the device
    whole = torch.cat(draft_probability_rows if sampling.greedy else q)
    return TreeBuilder(
        list(map(int, drafted)),
        parents,
        {OWN: owned, JOINT: products(parents, owned), READ: [place.get(node, -1) for node in range(len(parents))]},
        "deterministic" if sampling.greedy else "sampled" if replacement else "sampled without replacement",
        q=None if sampling.greedy else whole,
        draft_probabilities=whole if sampling.greedy else None,
    )


def siblings(
    scored: Tensor, widths: Sequence[int], greedy: bool, rng: Generator, replacement: bool
) -> tuple[Tensor, Tensor | None]:
    """The children of a level: their tokens, row after row in draw order, and (children, vocab) the q of each.

    Args:
        scored: (rows, vocab) q, or logits if greedy.
        widths: children of every row, at least one.
    """
    most = max(widths)
    wanted = [row * most + rank for row, k in enumerate(widths) for rank in range(k)]
    index = torch.tensor(wanted, device=scored.device)
    if greedy:
        return scored.topk(most).indices.flatten()[index], None
    uniforms = torch.rand(most, len(scored), generator=rng).to(scored.device)
    tokens, rows, q = [], [], scored
    for u in uniforms:
        tokens.append(draw(q, u))
        rows.append(q)
        if not replacement:
            q = refill(without(q, tokens[-1]), tokens)
    return torch.stack(tokens, 1).flatten()[index], torch.stack(rows, 1).flatten(0, 1)[index]


def refill(q: Tensor, sampled: list[Tensor]) -> Tensor:
    """Rows of `q` (rows, vocab) that are used up go on uniformly over the tokens that were not `drawn` yet."""
    unseen = torch.ones_like(q).scatter_(1, torch.stack(sampled, 1), 0.0)
    return torch.where(q.isnan().any(-1, keepdim=True), unseen / unseen.sum(-1, keepdim=True), q)
