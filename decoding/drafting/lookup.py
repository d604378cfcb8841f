"""Lookup: a chain copied from the text itself, from behind an earlier occurrence of its last few tokens. Several methods draft so.

Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding (no paper).
"""

from collections.abc import Sequence

from decoding.draft import EMPTY, Draft, chain
from decoding.method import Drafter

LATEST, FIRST = "latest", "first"


def find(tokens: Sequence[int], ngram: int, which: str) -> tuple[int, int] | None:
    """(start, end) of the earlier occurrence of the longest suffix of at most `ngram` tokens, or None.

    >>> find([1, 2, 3, 9, 1, 2, 4, 1, 2], 3, "first"), find([1, 2, 3, 9, 1, 2, 4, 1, 2], 3, "latest")
    ((0, 2), (4, 6))
    """
    for n in range(min(ngram, len(tokens) - 1), 0, -1):
        suffix = tuple(tokens[-n:])
        starts = range(len(tokens) - n)  # the last start, len - n, is the suffix itself
        for start in starts if which == "first" else reversed(starts):
            if tokens[start] == suffix[0] and tuple(tokens[start : start + n]) == suffix:
                return start, start + n
    return None


def copied(tokens: Sequence[int], start: int, length: int, overlap: bool) -> list[int]:
    """At most `length` tokens from `start` on, past the end of the text only with `overlap`.

    >>> copied([5, 5, 5, 5], 3, 4, True), copied([5, 5, 5, 5], 3, 4, False)
    ([5, 5, 5, 5], [5])
    """
    copy: list[int] = []
    for place in range(start, start + length):
        if place < len(tokens):
            copy.append(tokens[place])
        elif overlap:
            copy.append(copy[place - len(tokens)])
        else:
            break
    return copy


class Lookup(Drafter):
    """Copies what followed.

    Args:
        ends: end-of-text tokens, which are not copied.
        ngram: tokens at the end of the text that are looked for; shorter ones if needed.
        length: tokens to copy, at most.
        which: where several match, LATEST or FIRST.
        overlap: a copy that reaches the end of the text goes on with its own tokens.
    """

    def __init__(self, ends: frozenset[int], ngram: int = 3, length: int = 10, which: str = LATEST, overlap: bool = True) -> None:
        self.ends, self.ngram, self.length, self.which, self.overlap = ends, ngram, length, which, overlap

    def propose(self, tokens, rng) -> Draft:
        found = find(tokens, self.ngram, self.which)
        if found is None:
            return EMPTY
        copy = copied(tokens, found[1], self.length, self.overlap)
        stop = next((i for i, token in enumerate(copy) if token in self.ends), len(copy))
        return chain(copy[:stop], f"copied from token {found[1]}")
