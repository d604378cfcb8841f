"""Prompt lookup: copy what followed an earlier occurrence of the last few tokens.

Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding (no paper). Departures, all of them parameters: the latest
match is preferred to the first (which is often boilerplate), and a copy that reaches the end of the context may go on copying
from itself, so that periodic text drafts `length` tokens. As in transformers, a copy shorter than `length` is allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from decoding.draft import EMPTY, Draft, chain
from decoding.method import Drafter, Method, param
from decoding.verify import match


@dataclass(frozen=True)
class Params:
    ngram: int = param(
        3, "Longest n-gram", "Tokens at the end of the text that are looked for; shorter ones if needed.", low=1, high=8
    )
    length: int = param(10, "Copy length", "Tokens to copy behind the match.", low=1, high=64)
    which: str = param(
        "latest",
        "Which match",
        "Where several match: the last one in the text or the first.",
        choices=("latest", "first"),
    )
    overlap: bool = param(True, "Copy from the copy", "At the end of the text go on with the copied tokens themselves.")


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


class PromptLookup(Drafter):
    def __init__(self, params: Params, ends: frozenset[int]) -> None:
        self.params = params
        self.ends = ends

    def propose(self, tokens, rng) -> Draft:
        found = find(tokens, self.params.ngram, self.params.which)
        if found is None:
            return EMPTY
        copy = copied(tokens, found[1], self.params.length, self.params.overlap)
        stop = next((i for i, token in enumerate(copy) if token in self.ends), len(copy))
        return chain(copy[:stop], f"copied from token {found[1]}")


METHOD = Method(
    key="prompt_lookup",
    title="Prompt lookup",
    paper="https://github.com/apoorvumang/prompt-lookup-decoding",
    authors="Saxena 2023",
    year=2023,
    group="copies",
    line="Finds the last words further up in the text and copies what followed them.",
    idea=(
        "Text repeats itself. Find where the last few tokens stood before and draft what followed there: no draft model, no "
        "training, no cost."
    ),
    algorithm=(
        "Take the last n tokens, for n from the longest n-gram down to 1.",
        "Look for the same n tokens earlier in the text; take the tokens behind them as a chain.",
        "The target reads the chain in one call, draws its own token at every position and keeps the draft while they agree.",
    ),
    lossless="The draft is a function of the text and is only ever compared with what the target draws itself.",
    params=Params,
    build=lambda family, params, sampling: (PromptLookup(params, family.target.ends), match),
)
