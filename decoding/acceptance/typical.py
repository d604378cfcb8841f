"""Typical acceptance, pure: a node passes if the target finds its token plausible enough. Not lossless at temperatures above 0.

Cai et al. 2024, https://arxiv.org/abs/2401.10774, section 2.3.1: token c behind row u passes if p_u(c) > min(epsilon, delta
exp(-H(p_u))), H in nats, p after temperature, top-k and top-p. Kept is the longest path all of whose nodes pass, of several the one
with the largest sum of log p; behind it the target draws. Nothing here asks how often a token was drafted, so a token that always
stands in the tree is always taken: at p = (0.6, 0.4) with both drafted the text is token 0 for ever, a distance of 0.4 from p. At
temperature 0 p is one-hot, the threshold lies below 1, and only what the target would write itself passes.

Departure: the released code picks the token behind the path by arg-max at any temperature; here it is drawn from p.
"""

import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput
from decoding.sample import draw
from decoding.score_names import TYPICAL_P, TYPICAL_THRESHOLD
from decoding.verify import Accept, Verification, copied, walk


def typical(epsilon: float, delta: float) -> Accept:
    """The rule, for any draft.

    Args:
        epsilon: no token above this probability is refused (0 to 1; 0.09 in the released code).
        delta: share of exp(-entropy) that a token must reach otherwise (0 to 1; 0.3).
    """

    def rule(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
        n, probs = len(draft), output.probs
        rows = torch.tensor(draft.parents, device=probs.device, dtype=torch.long) + 1
        tokens = torch.tensor(draft.tokens, device=probs.device, dtype=torch.long)
        finals = draw(probs, u[n : n + 1].to(probs.device).expand(n + 1))
        limits = thresholds(probs, epsilon, delta)[rows]
        numbers = copied(output, probs[rows, tokens], limits, finals.to(probs.dtype))
        p, limit = tuple(numbers[:n]), numbers[n : 2 * n]
        best = set(longest(draft, [a > b for a, b in zip(p, limit, strict=True)], p))
        path, verdicts = walk(draft, best.__contains__)
        none, end = (None,) * n, path[-1] + 1 if path else 0
        scores = tuple({TYPICAL_P: a, TYPICAL_THRESHOLD: b} for a, b in zip(p, limit, strict=True))
        return Verification(path, verdicts, p, none, none, int(numbers[2 * n + end]), probs, {}, scores)

    return rule


def thresholds(probs: Tensor, epsilon: float, delta: float) -> Tensor:
    """(rows, vocab) probabilities -> (rows,) min(epsilon, delta exp(-H)).

    >>> thresholds(torch.tensor([[0.25] * 4, [0.5, 0.3, 0.15, 0.05]]), 0.09, 0.3).tolist()
    [0.07500000298023224, 0.09000000357627869]
    """
    entropy = torch.special.entr(probs).sum(-1)
    return (delta * torch.exp(-entropy)).clamp(max=epsilon)


def longest(draft: Draft, passes: list[bool], p: tuple[float, ...]) -> tuple[int, ...]:
    """The longest path of nodes that all pass; of several the most probable, then the first. () if no child of the root passes."""
    product: dict[int, float] = {-1: 1.0}  # of the nodes that are reached; products order as sums of logarithms do
    for node, parent in enumerate(draft.parents):
        if passes[node] and parent in product:
            product[node] = product[parent] * p[node]
    reached = [node for node in product if node >= 0]
    best = max(reached, key=lambda node: (draft.depths[node], product[node], -node), default=-1)
    return draft.path_to(best)
