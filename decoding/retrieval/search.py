"""Retrieval: where the last tokens of a text stood before, in a datastore and in the text itself, and what followed there.

The methods on a datastore share it. Both places are searched as if they were one text: the longest suffix that stands in either
counts, and the occurrences of both are added up. The suffix where it stands at the end of the text is no occurrence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from decoding.drafting.tree_builder import TreeBuilder
from decoding.models.family import Family
from decoding.retrieval.datastore import EMPTY, Datastore, of_tokens, separator_of
from decoding.retrieval.default_datastore import of_family
from decoding.score_names import MATCHED, OCCURRENCES, WEIGHT

WHERE = ("both", "datastore", "text so far")
NONE = np.zeros(0, dtype=np.int64)


class Text:
    """The text so far, indexed as it grows: for every place, how many tokens up to there equal those at the end.

    One token costs one pass over the text. Nothing matches across a separator.

    >>> text = Text(0); text.add([1, 2, 3, 1, 2]); text.matched.tolist()
    [0, 2, 0, 0]
    """

    def __init__(self, separator: int) -> None:
        self.separator = separator
        self.tokens = NONE
        self.matched = NONE  # (len - 1,) of every place but the last

    def add(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            if len(self.tokens):
                longer = np.concatenate(([0], self.matched)) + 1
                self.matched = np.where((self.tokens == token) & (token != self.separator), longer, 0)
            self.tokens = np.append(self.tokens, token)

    def longest(self, most: int) -> int:
        return min(most, int(self.matched.max(initial=0)))

    def ends(self, n: int) -> np.ndarray:
        """(k,) the places right behind the earlier occurrences of the last n tokens; every place for none."""
        return np.flatnonzero(self.matched >= n) + 1 if n else np.arange(len(self.tokens))


@dataclass(frozen=True, eq=False)
class Match:
    """All occurrences of an n-gram."""

    n: int
    low: int  # `suffixes[low:high]` of the datastore
    high: int
    ends: np.ndarray  # (k,) the places in the text right behind it

    @property
    def count(self) -> int:
        return self.high - self.low + len(self.ends)


@dataclass(frozen=True, eq=False)
class Next:
    """The different tokens that follow the occurrences of an n-gram, ascending."""

    tokens: list[int]
    counts: list[int]

    @property
    def total(self) -> int:
        return sum(self.counts)


@dataclass
class Sources:
    """A datastore and the text so far; either may be left out.

    `ends` are the tokens that end a text: a separator is proposed as one of these or not at all.
    """

    store: Datastore
    ends: frozenset[int]
    with_text: bool = True
    text: Text = field(init=False)

    def __post_init__(self) -> None:
        self.text = Text(self.store.separator)

    def follow(self, tokens: Sequence[int]) -> None:
        """Take in what was added to the text since the last call."""
        self.text.add(tokens[len(self.text.tokens) :])

    def longest(self, most: int) -> Match:
        """The longest suffix of at most `most` tokens that occurs anywhere, with all its occurrences; of length 0 if none does."""
        context = self.text.tokens[max(0, len(self.text.tokens) - most) :].tolist()
        stored = self.store.longest(context, most)
        n = max(stored, self.text.longest(most) if self.with_text else 0)
        low, high = self.store.range(context[len(context) - n :]) if n == stored else (0, 0)
        return Match(n, low, high, self.text.ends(n) if self.with_text else NONE)

    def next(self, match: Match) -> Next:
        """The tokens behind the occurrences of a match, with their counts; their shares are the infini-gram distribution."""
        tokens, counts = self.store.following(match.low, match.high, match.n)
        here = self.text.tokens[match.ends[match.ends < len(self.text.tokens)]].tolist() if len(match.ends) else []
        if not here and self.store.separator in self.ends:
            return Next(tokens, counts)
        both = dict(zip(tokens, counts, strict=True))
        for token in here:
            both[token] = both.get(token, 0) + 1
        if self.store.separator not in self.ends:
            both.pop(self.store.separator, None)
        return Next(sorted(both), [both[token] for token in sorted(both)])

    def longer(self, match: Match, token: int) -> Match:
        """The occurrences that go on with `token`."""
        low, high = self.store.narrowed(match.low, match.high, match.n, token)
        if not len(match.ends):
            return Match(match.n + 1, low, high, NONE)
        ends = match.ends[match.ends < len(self.text.tokens)]
        return Match(match.n + 1, low, high, ends[self.text.tokens[ends] == token] + 1)

    def continuations(self, match: Match, length: int, most: int) -> list[list[int]]:
        """The next `length` tokens, fewer at the end of a document or of the text, behind at most `most` occurrences that lie
        evenly over all of them in suffix order; themselves in lexical order."""
        places = np.linspace(0, match.count - 1, min(most, match.count)).round().astype(np.int64)
        stored = places[places < match.high - match.low] + match.low
        starts = self.store.suffixes[stored].astype(np.int64) + match.n
        ends = match.ends[places[len(stored) :] - (match.high - match.low)]
        found = [*rows(self.store.tokens, starts, length), *rows(self.text.tokens, ends, length)]
        return sorted(cut for row in found if (cut := self._to_end(row)))

    def _to_end(self, row: list[int]) -> list[int]:
        """A continuation up to the end of its document, the end token included."""
        for i, token in enumerate(row):
            if token in self.ends or token == self.store.separator:
                return row[: i + (token in self.ends)]
        return row


def rows(tokens: np.ndarray, starts: np.ndarray, length: int) -> list[list[int]]:
    """`length` tokens from each of `starts` on, fewer at the end."""
    if not len(starts):
        return []
    grid = starts[:, None] + np.arange(length)
    found = tokens[np.minimum(grid, len(tokens) - 1)].tolist()
    lengths = (len(tokens) - starts).clip(0, length).tolist()
    return [row[:n] for row, n in zip(found, lengths, strict=True)]


def sources_of(family: Family, where: str) -> Sources:
    """What a method on a datastore searches; `where` is one of WHERE. The store is built if it is not there yet. It holds texts, so
    of an image family only the picture so far is searched.

    Raises:
        ValueError: an image family is to be looked up in the datastore alone.
    """
    if family.raster is not None and where == "datastore":
        raise ValueError(f"The datastore holds texts, and {family.name} draws pictures: let it look in the text so far.")
    if where == "text so far" or family.raster is not None:
        store = EMPTY if family.tokenizer is None else of_tokens([], separator_of(family.tokenizer))
    else:
        store = of_family(family)
    return Sources(store, family.target.ends, with_text=where != "datastore")


# -- tries -------------------------------------------------------------------------------------------------------------


def trie_of(continuations: Sequence[Sequence[int]]) -> TreeBuilder:
    """Continuations that share their beginnings; the "weight" of a node counts those through it. They are inserted in lexical
    order, so that nodes of the same depth are too.

    >>> trie = trie_of([(1, 2), (1, 2), (1, 3), (4,)]); trie.tokens, trie.parents, trie["weight"]
    ([1, 2, 3, 4], [-1, 0, 0, -1], [3, 2, 1, 1])
    """
    trie = TreeBuilder()
    for row in continuations:
        at = -1
        for token in row:
            below = trie.child(at, token)
            at = trie.add(token, at, weight=0) if below is None else below
            trie[WEIGHT][at] += 1
    return trie


def heaviest(trie: TreeBuilder, count: int) -> TreeBuilder:
    """The `count` heaviest nodes; of equally heavy ones the shallower, then the one with the lower token ids."""
    weights = trie[WEIGHT]
    order = sorted(range(len(trie)), key=lambda i: (-weights[i], trie.depths[i], i))
    return trie.keep(order[:count])


def said_of(found: Match, nodes: int) -> dict[str, Tensor]:
    """Scores that all nodes share: how long the match was, and how often it occurs."""
    matched, occurrences = torch.full((nodes,), float(found.n)), torch.full((nodes,), float(found.count), dtype=torch.float64)
    return {MATCHED: matched, OCCURRENCES: occurrences}
