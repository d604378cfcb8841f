"""GuidedTarget: an image family's target, driven away from what it draws when it is told nothing (classifier-free guidance).

Ho and Salimans 2021, https://arxiv.org/abs/2207.12598; for tokens, as Speculative Jacobi decoding uses it (Teng et al. 2025,
https://arxiv.org/abs/2410.01699): every row of logits is u + s (c - u), where c is said behind the words of the prompt and u behind
a prompt that leaves all of them open. That comes before temperature, top-k and top-p, so it is **another law p**, and every method
is exact for it as it is for any other: drafts are judged by guided rows, and corrections are drawn from them.

It stands where the loop asks for a `Target`; nothing in the loop knows of it. A call reads the root and the draft twice, with a
cache each: behind the words, and behind the open prompt, which the same pixels follow. Both together count as one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput
from decoding.models.target import Target
from decoding.models.wrapped_target import WrappedTarget
from decoding.sample import Sampling


class TwoCaches:
    """The loop's cache of a guided target: the same pixels behind the words that were said, and behind none."""

    def __init__(self, target: Target) -> None:
        self.told, self.untold = target.new_cache(), target.new_cache()

    def keep(self, rows: Sequence[int]) -> None:
        rows = list(rows)
        self.told.keep(rows)
        self.untold.keep(rows)


@dataclass(frozen=True, eq=False)
class GuidedTarget(WrappedTarget):
    """A target, guided.

    Args:
        scale: s; 1 would be the target itself, 0 the one that is told nothing.
        untold: the token ids of the prompt that leaves everything open, as many as every prompt has.
    """

    scale: float
    untold: tuple[int, ...]

    def new_cache(self) -> TwoCaches:
        return TwoCaches(self.target)

    def extend_with_hidden(
        self, cache: TwoCaches, tokens: Sequence[int], aux_hidden_layers: Sequence[int] = (), *, every_row: bool = False
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Read and commit tokens of the text; the states, if any are wanted, are those behind the words."""
        before = cache.told.length
        told, hidden = self.target.extend_with_hidden(cache.told, tokens, aux_hidden_layers, every_row=every_row)
        untold = self.target.extend(cache.untold, self.left_open(tokens, before), every_row=every_row)
        return guided(told, untold, self.scale), hidden

    def read(
        self, cache: TwoCaches, tokens: Sequence[int], draft: Draft, sampling: Sampling, aux_hidden_layers: Sequence[int] = ()
    ) -> TargetOutput:
        """Read the root and every node of the draft, both ways."""
        told = self.target.read(cache.told, tokens, draft, sampling, aux_hidden_layers)
        untold = self.target.read(cache.untold, self.left_open(tokens, 0), draft, sampling)
        logits = guided(told.logits, untold.logits, self.scale)
        return TargetOutput(logits, sampling.probabilities(logits), told.hidden)

    def left_open(self, tokens: Sequence[int], before: int) -> list[int]:
        """The same tokens, which follow `before` others, with the open prompt in the place of the words."""
        return [*self.untold[before : before + len(tokens)], *tokens[max(len(self.untold) - before, 0) :]]


def guided(told: Tensor, untold: Tensor, scale: float) -> Tensor:
    """(..., vocab) logits behind the words and behind none -> u + s (c - u); ids that no token has stay at minus infinity.

    >>> told, untold = torch.tensor([1.0, 0.0, -torch.inf]), torch.tensor([0.5, 1.0, -torch.inf])
    >>> guided(told, untold, 2.0).tolist(), guided(told, untold, 1.0).tolist()
    ([1.5, -1.0, -inf], [1.0, 0.0, -inf])
    """
    return torch.where(told == -torch.inf, told, untold + scale * (told - untold))
