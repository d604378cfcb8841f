"""From logits to probabilities, and from probabilities and uniforms to tokens. The same transform serves p and q.

Torch is imported where a tensor is made: the settings of a page are checked before it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from decoding.checks import Quoted

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEMPERATURE = 2.0
MAX_GUIDANCE = 10.0
COLDEST = 1e-30  # divides float32 without leaving its range


@dataclass(frozen=True)
class Sampling:
    """What stands between a model's logits and the distribution we sample: guidance, then temperature, then top-k, then top-p.

    Guidance makes another target of that of an image family (`decoding.models.guided_target`); what is made of logits here comes
    behind it, so `probabilities` knows nothing of it.

    Raises:
        ValueError: temperature outside 0 to 2, top_k below 0, top_p outside (0, 1], guidance outside 0 to 10.
    """

    temperature: float = 1.0  # 0 = greedy
    top_k: int = 0  # 0 = off
    top_p: float = 1.0  # 1 = off
    guidance: float = 1.0  # 1 = off

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "guidance"):
            if not isinstance(getattr(self, name), int | float):
                raise Quoted(f"{name} must be a number; it is {getattr(self, name)!r}.")
        if not 0 <= self.temperature <= MAX_TEMPERATURE:
            raise ValueError(f"The temperature must lie between 0 and {MAX_TEMPERATURE:g}; it is {self.temperature}.")
        if type(self.top_k) is not int or self.top_k < 0:
            raise ValueError(f"Top-k must be 0 (off) or a number of tokens; it is {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Top-p must lie above 0 and not above 1 (off); it is {self.top_p}.")
        if not 0 <= self.guidance <= MAX_GUIDANCE:
            raise ValueError(f"The guidance scale must lie between 0 and {MAX_GUIDANCE:g}, 1 is off; it is {self.guidance}.")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def probabilities(self, logits: Tensor) -> Tensor:
        """(rows, vocab) logits -> (rows, vocab) probabilities of the same dtype; one-hot at the arg-max when greedy.

        Greedy ties go to the lowest id. The token that carries the cumulative probability over top-p stays in.
        """
        if self.greedy:
            best = logits.argmax(-1, keepdim=True)
            return logits.new_zeros(logits.shape).scatter_(-1, best, 1.0)
        # from the best one down, so that a temperature next to 0 makes the others vanish and not the best one overflow
        logits = (logits - logits.amax(-1, keepdim=True)) / max(self.temperature, COLDEST)
        if 0 < self.top_k < logits.shape[-1]:
            logits = keep_top_k(logits, self.top_k)
        probs = logits.softmax(-1)
        return keep_top_p(probs, self.top_p) if self.top_p < 1 else probs


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """(rows, vocab) logits with everything below the k-th best at minus infinity; ties with the k-th stay."""
    kth = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < kth, float("-inf"))


def keep_top_p(probs: Tensor, top_p: float) -> Tensor:
    """(rows, vocab) probabilities cut to the smallest set that reaches `top_p`, renormalised."""
    ordered, index = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= top_p, 0.0)
    kept[..., 0] = ordered[..., 0]  # the likeliest stays, however small top_p is
    return probs.new_zeros(probs.shape).scatter_(-1, index, kept / kept.sum(-1, keepdim=True))


def wide(values: Tensor) -> Tensor:
    """In float64; Apple's GPUs have none."""
    return values if values.device.type == "mps" else values.double()


def draw(probs: Tensor, u: Tensor) -> Tensor:
    """One token per row by inverting the cumulative distribution.

    Args:
        probs: (rows, vocab), need not sum to 1.
        u: (rows,) uniforms in [0, 1).

    Returns:
        (rows,) token ids; never one of probability 0. Of a row that is not finite the last one, which nobody may rely on.
    """
    import torch

    # In float32 the running sum over a large vocabulary is off by more than the rarest tokens weigh.
    wide = torch.float32 if probs.device.type == "mps" else torch.float64
    cumulative = probs.cumsum(-1, dtype=wide)
    goal = u.to(wide).unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, goal, right=True).squeeze(-1).clamp_(max=probs.shape[-1] - 1)


def without(probs: Tensor, tokens: Tensor) -> Tensor:
    """(rows, vocab) `probs` after one drawn token per row, (rows,), is taken out, renormalised.

    A row with nothing left becomes NaN: the caller knows which tokens were drawn and goes on over the others.
    """
    left = probs.scatter(-1, tokens.unsqueeze(-1), 0.0)
    return left / left.sum(-1, keepdim=True)
