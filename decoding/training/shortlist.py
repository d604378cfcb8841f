"""A target that scores a part of its vocabulary: with many tokens, most of what training costs is scores of tokens nobody writes.

The part holds the tokens that a pool writes most, those of the batch, and a random sample of all others that stands for them: the
logits of the sample are raised by the logarithm of how many tokens each of it stands for, so that the sum in a softmax is right on
average (sampled softmax; Jean et al. 2015, https://arxiv.org/abs/1412.2007, section 3). What is trained is measured on all tokens.
"""

from dataclasses import dataclass, field, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from decoding.models import layers
from decoding.models.target import Target

SMALL = 8192  # tokens of a vocabulary that is scored whole
FREQUENT, SAMPLED = 5120, 1536  # tokens of the part


@dataclass(frozen=True, eq=False)
class Shortlist(Target):
    """The same model, whose `score` has one column per token of `chosen`, in this order."""

    chosen: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))  # (part,) ascending
    raised: Tensor = field(default_factory=lambda: torch.empty(0))  # (part,) added to the logits
    weight: Tensor = field(default_factory=lambda: torch.empty(0))  # (part, width) rows of the language-model head
    bias: Tensor | None = None

    def score(self, hidden: Tensor) -> Tensor:
        """(..., width) states like those behind the final norm -> (..., part) float32 logits."""
        return F.linear(hidden.to(self.dtype), self.weight, self.bias).float() + self.raised

    def places(self, tokens: Tensor) -> Tensor:
        """Tokens -> their columns; those that have none, of which nothing is learned, get some column."""
        return torch.searchsorted(self.chosen, tokens).clamp(max=len(self.chosen) - 1)


def frequent(tokens: np.ndarray, vocab: int) -> np.ndarray:
    """The FREQUENT tokens that these hold most often."""
    return np.bincount(np.asarray(tokens).ravel(), minlength=vocab).argsort()[::-1][:FREQUENT].copy()


def shortlist(target: Target, usual: np.ndarray, tokens: Tensor, seed: int) -> Target:
    """The target with a part of its vocabulary; itself if that is small. The same sample for the same seed."""
    if target.vocab <= SMALL:
        return target
    known = torch.zeros(target.vocab, dtype=torch.bool)
    known[torch.from_numpy(usual)] = True
    known[tokens.flatten().cpu()] = True
    others = (~known).nonzero()[:, 0]
    if target.unused:
        others = others[~torch.isin(others, torch.tensor(target.unused))]
    picked = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[:SAMPLED]]
    raised = torch.zeros(target.vocab)
    raised[picked] = float(np.log(len(others) / max(1, len(picked))))
    chosen = torch.cat((known.nonzero()[:, 0], picked)).sort().values
    head, device = layers.unembedding(target.model), target.device
    rows = chosen.to(device)
    bias = None if head.bias is None else head.bias.detach()[rows]
    same = {part.name: getattr(target, part.name) for part in fields(Target)}
    return Shortlist(
        **same, chosen=rows, raised=raised[chosen].to(device), weight=head.weight.detach()[rows].contiguous(), bias=bias
    )
