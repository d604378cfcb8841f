"""How much tokens matter, estimated by swapping them: one after the other, or random sets of them as ReAGent does. Knows no model:
it is handed a function of altered texts.

Zhao and Shan, 2024, https://arxiv.org/abs/2402.00794; what departs is said in `decoding.lenses.reagent`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

PROBES = 5  # runs of ReAGent side by side
Values = Callable[[Tensor], Tensor]  # (n, window) altered texts -> (n, kinds) numbers in nats
Blocks = Callable[[Tensor], Iterator[Tensor]]  # (n, window) -> parts of it, in their order


@dataclass(frozen=True)
class Others:
    """What may stand in the place of a token."""

    places: Tensor  # (places,) of the window, ascending
    tokens: Tensor  # (places, others)
    weights: Tensor  # (places, others) > 0

    def draw(self, n: int, rng: Generator) -> Tensor:
        """(n, places) tokens."""
        return self.tokens.gather(1, torch.multinomial(self.weights, n, replacement=True, generator=rng)).T

    def altered(self, text: Tensor, swapped: Tensor, rng: Generator) -> Tensor:
        """(n, window) texts in which the tokens at the (n, places) `swapped` places are others."""
        texts = text.repeat(len(swapped), 1)
        texts[:, self.places] = torch.where(swapped, self.draw(len(swapped), rng), text[self.places])
        return texts


class Estimate(NamedTuple):
    """Of every kind of number and every place that can be swapped."""

    effects: Tensor  # (kinds, places)
    spread: Tensor  # (kinds, places)
    importance: Tensor  # (kinds, places), sums to 1 over places
    halves: tuple[Tensor, Tensor] | None  # (kinds, places) of the even and of the odd draws; None before both have all places


def leave_one_out(
    values: Values, blocks: Blocks, text: Tensor, others: Others, before: Tensor, draws: int, rng: Generator
) -> Iterator[Estimate]:
    """Every token swapped alone, from left to right, and again with other tokens: nats that the numbers fall by.

    Args:
        before: (kinds,) the numbers on the text as it stands.
    """
    count = len(others.places)
    seen = torch.full((draws, len(before), count), torch.nan, dtype=torch.double)
    for draw in range(draws):
        start = 0
        for block in blocks(others.altered(text, torch.eye(count, dtype=torch.bool), rng)):
            seen[draw, :, start : start + len(block)] = (before - values(block)).T
            start += len(block)
            yield estimate_of(seen)


def estimate_of(seen: Tensor) -> Estimate:
    """(draws, kinds, places) effects, NaN where there is none yet."""
    halves = seen[0::2].nanmean(0), seen[1::2].nanmean(0)
    mean = seen.nanmean(0).nan_to_num(0)
    spread = (seen - mean).square().nanmean(0).sqrt().nan_to_num(0)
    whole = not bool(halves[1].isnan().any())
    return Estimate(mean, spread, shares(mean), halves if whole else None)


def shares(effects: Tensor) -> Tensor:
    """(kinds, places) what speaks for the number as shares of 1; alike where nothing does."""
    positive = effects.clamp(min=0)
    total = positive.sum(-1, keepdim=True)
    return torch.where(total > 0, positive / total.clamp(min=1e-12), 1 / effects.shape[-1])


def reagent(
    values: Values,
    blocks: Blocks,
    text: Tensor,
    others: Others,
    before: Tensor,
    kinds: Sequence[str],
    steps: int,
    share: float,
    rng: Generator,
) -> Iterator[Estimate]:
    """ReAGent's scores per step: a random set is swapped, gains 2 artanh of the fall of the number, and the rest loses it.

    Args:
        before: (kinds,) the numbers on the text as it stands, in nats.
        kinds: "contrast" for a difference of logarithms; all others are logarithms of probabilities.
        share: r, how often a token is swapped.
    """
    count = len(others.places)
    score = torch.zeros(PROBES, len(before), count, dtype=torch.double)
    halves = torch.zeros(2, len(before), count, dtype=torch.double)
    for step in range(steps):
        swapped = torch.rand(PROBES, count, generator=rng) < share
        start = 0
        for block in blocks(others.altered(text, swapped, rng)):
            probes = slice(start, start + len(block))
            gain = gains(fall(before, values(block), kinds), swapped[probes])
            score[probes] += gain
            halves[step % 2] += gain.sum(0) / PROBES
            start += len(block)
            parts = (halves[0].clone(), halves[1].clone()) if step else None
            yield Estimate(score.mean(0) / (step + 1), score.std(0) / (step + 1), score.softmax(-1).mean(0), parts)


def fall(before: Tensor, after: Tensor, kinds: Sequence[str]) -> Tensor:
    """(n, kinds) Delta in (-1, 1): of a probability its difference; of the contrast what makes its gain the change itself."""
    contrast = torch.tensor([kind == "contrast" for kind in kinds])
    return torch.where(contrast, ((before - after) / 2).tanh(), before.exp() - after.exp())


def gains(delta: Tensor, swapped: Tensor) -> Tensor:
    """(n, kinds), (n, places) -> (n, kinds, places): logit(0.5 + 0.5 delta) for what was swapped, its negative for the rest."""
    gain = 2 * delta.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
    return torch.where(swapped[:, None], gain[..., None], -gain[..., None])


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, of two rows of (places,); 0 where there is nothing to rank."""
    ranks = torch.stack((ranked(one), ranked(other)))
    ranks = ranks - ranks.mean(1, keepdim=True)
    size = ranks.square().sum(1).prod().sqrt()
    return float(ranks.prod(0).sum() / size) if size > 0 else 0.0


def ranked(values: Tensor) -> Tensor:
    """(places,) ranks; equal ones share the mean of theirs."""
    return ((values[:, None] > values).sum(1) + (values[:, None] >= values).sum(1)).double()
