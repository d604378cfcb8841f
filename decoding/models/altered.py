"""A text that was read once, and what a model says behind it where some of its last tokens are others.

Only what stands behind the first other token is read again: its rows see the rows of the text before that, and each other, but
nothing of the text that they replace. As many altered texts as fit into a block are read in one pass.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from decoding.models.target import Target

BLOCK = 64  # rows of a pass, unless one altered text has more


class AlteredTexts:
    """One text of a model, read by `begin`, whose last `window` tokens may be altered."""

    def __init__(self, target: Target, tokens: Sequence[int], window: int) -> None:
        """
        Args:
            tokens: at most the model's context; at least `window`, which is at least 1.
        """
        self.target, self.tokens, self.window = target, tuple(tokens), window
        self.text = torch.tensor(self.tokens[len(self.tokens) - window :])
        self.cache = target.new_cache()
        self.rows = 0  # read so far

    def begin(self) -> Iterator[Tensor]:
        """Read the text; (up to BLOCK, vocab) logits behind its tokens, block by block."""
        for start in range(0, len(self.tokens), BLOCK):
            part = self.tokens[start : start + BLOCK]
            self.rows += len(part)
            yield self.target.extend(self.cache, part, every_row=True)

    def blocks(self, texts: Tensor) -> Iterator[Tensor]:
        """(n, window) altered texts, parted so that each part takes about a BLOCK of rows; in their order."""
        start, rows = 0, 0
        for i, first in enumerate(self.firsts(texts)):
            if rows and rows + self.window - first > BLOCK:
                yield texts[start:i]
                start, rows = i, 0
            rows += self.window - first
        if len(texts):
            yield texts[start:]

    def firsts(self, texts: Tensor) -> list[int]:
        """(n, window) -> where each parts from the text; the last place where it does not: that token is read again."""
        other = texts != self.text
        return torch.where(other.any(1), other.int().argmax(1), self.window - 1).tolist()

    def read(self, texts: Tensor) -> Tensor:
        """(n, window) altered texts, all in one pass -> (n, vocab) logits behind each; nothing of it stays in the cache."""
        firsts = self.firsts(texts)
        lengths = [self.window - first for first in firsts]
        rows, ends = sum(lengths), np.cumsum(lengths)
        visible = np.zeros((rows, self.window + rows), dtype=bool)
        for first, end, length in zip(firsts, ends, lengths, strict=True):
            own = slice(end - length, end)
            visible[own, :first] = True
            visible[own, self.window + end - length : self.window + end] = np.tri(length, dtype=bool)
        ids = torch.cat([text[first:] for text, first in zip(texts, firsts, strict=True)])
        before = len(self.tokens) - self.window
        positions = [before + place for first in firsts for place in range(first, self.window)]
        logits, _ = self.target.forward(self.cache, ids.to(self.target.device), positions, visible)
        self.cache.keep(())
        self.rows += rows
        return logits[torch.as_tensor(ends - 1, device=logits.device)]
