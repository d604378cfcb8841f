"""The byte view along a text: what every next byte has, from the rows behind some of the ways to spell the text.

Phan et al., ICLR 2025, https://arxiv.org/abs/2410.09303, section 3: a token that reaches beyond the bytes says what the next one
is. `decoding.models.byte_view` finds the spellings of one text and asks which the tokenizer would ever write. Here a text grows,
and of whatever spellings were read the very probabilities of the token model are summed, those included that no tokenizer writes:
where a spelling ends whose row was not read, what follows is not known, and that share is said (LEAVE) and not left out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decoding.models.byte_view import Spelled, Tries
from decoding.sample import wide

OUTCOMES = 258  # 256 bytes, END, LEAVE


@dataclass(eq=False)
class Reached:
    """A spelling whose row was read."""

    start: int  # bytes that it spells
    weights: Tensor  # (vocab,) probability of the spelling and the next token; 0 where that is another one that was read


@dataclass(frozen=True, eq=False)
class Ways:
    """All that could be written where a text stands: k paths and the token behind each, in one line."""

    paths: tuple[Spelled, ...]
    tokens: tuple[np.ndarray, ...]  # behind each of the paths
    weights: Tensor  # (k,) probability
    symbols: Tensor  # (k,) what it has behind the text

    def at(self, index: int) -> tuple[Spelled, int]:
        """The path and the token at a place of the line."""
        for path, tokens in zip(self.paths, self.tokens, strict=True):
            if index < len(tokens):
                return path, int(tokens[index])
            index -= len(tokens)
        raise IndexError(index)


class Paths:
    """Spellings of the beginnings of one text, closed under beginnings, and their rows."""

    def __init__(self, tries: Tries) -> None:
        self.tries = tries
        self.reached: dict[Spelled, Reached] = {}

    def add(self, path: Spelled, row: Tensor) -> None:
        """A spelling, behind the one that it goes on from; (vocab,) its row. The empty one is the first."""
        if not path:
            self.reached[path] = Reached(0, wide(row).clone())
            return
        before = self.reached[path[:-1]]
        p = before.weights[path[-1]].clone()
        before.weights[path[-1]] = 0
        self.reached[path] = Reached(before.start + len(self.tries.pieces[path[-1]]), wide(row) * p)

    def ways(self, text: bytes, at: int) -> Ways:
        """What could be written behind the first `at` bytes of a text, by the spellings that reach no further."""
        paths = tuple(path for path, one in self.reached.items() if one.start <= at)
        tokens, weights, symbols = zip(*(self._ways(self.reached[path], text, at) for path in paths), strict=True)
        where = weights[0].device
        return Ways(paths, tokens, torch.cat(weights), torch.from_numpy(np.concatenate(symbols)).to(where))

    def _ways(self, one: Reached, text: bytes, at: int) -> tuple[np.ndarray, Tensor, np.ndarray]:
        if one.start == at:
            return np.arange(len(one.weights)), one.weights, self.tries.first
        tokens, symbols = self.tries.behind(text[one.start : at])
        return tokens, one.weights[torch.from_numpy(tokens).to(one.weights.device)], symbols

    def beyond(self, at: int) -> Tensor:
        """() the probability of the spellings that reach further."""
        totals = [one.weights.sum() for one in self.reached.values() if one.start > at]
        return torch.stack(totals).sum() if totals else next(iter(self.reached.values())).weights.new_zeros(())


def summed(ways: Ways) -> Tensor:
    """(258,) the probability of each symbol behind the text."""
    return ways.weights.new_zeros(OUTCOMES).index_add_(0, ways.symbols, ways.weights)


def closed(sequences: Iterable[Spelled]) -> Iterator[Spelled]:
    """The sequences and all of their beginnings, each behind its own.

    >>> list(closed([(5, 7), (6,)]))
    [(), (5,), (5, 7), (6,)]
    """
    found: dict[Spelled, None] = {(): None}
    for one in sequences:
        found |= dict.fromkeys(one[: i + 1] for i in range(len(one)))
    yield from found
