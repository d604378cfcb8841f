"""The byte view of a token model: the exact distribution of the next byte behind any text, also one that ends inside a token.

Phan et al., ICLR 2025, https://arxiv.org/abs/2410.09303. A text x is spelled by many token sequences whose text begins with x;
those that a tokenizer would ever write (the valid ones) and whose last token is the first to reach the end of x are its **cover**.
Their probabilities add up to P(x), and by the byte that each has behind x to the distribution of the next byte. A token model that
is just fed enc(x) leaves all but one of them out: where x ends inside a word that one may have next to no probability.

Departures, each measured in `tests/lenses/test_byte_level.py`: the search begins at the last pre-token of x (one earlier behind a
very short one, which may grow into a contraction), as no token crosses that border; a sequence counts as valid if some ending makes
the tokenizer write it (look-ahead rules make validity depend on what follows); what has very little probability is not checked, and
its share is said. Knows no page and no run.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from decoding.draft import Draft
from decoding.models.cache import TreeCache
from decoding.models.target import Target
from decoding.sample import Sampling

END = 256  # the symbol behind the 256 bytes: a mark such as the end of the text
SYMBOLS = 257
LEAVE = 257  # of a spelling whose last token ends where it is asked what follows
ENOUGH = 0.9999  # of the probability, until which sequences are checked
MOST = 4096  # that are checked
BATCH = 256  # that are checked at once
KNOWN = 200_000  # sequences whose validity is remembered
KNOWN_PREFIXES = 4096
PROBES = (b"", b"a", b"1", b" ", b"\n", b".")  # what may follow
SHORT = 3  # bytes of a last pre-token that may still join the one before it
REACH = 32  # bytes of the last word that are searched
PLAIN = Sampling(1.0)
FILLINGS = (0x80, 0xA9, 0xBF, 0x95, 0xA0, 0x8C)  # continuation bytes that complete a character

Spelled = tuple[int, ...]  # tokens behind the fixed ones


class Speller(Protocol):
    """A tokenizer, as far as the byte view must know it."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """Token -> its bytes; b"" for marks."""
        ...

    def encode(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Tokens of each text, which is whole characters."""
        ...

    def border(self, text: bytes) -> int:
        """The place in a text before which all tokens are settled, whatever follows."""
        ...


Rows = Callable[[Sequence[Spelled]], Tensor]  # k sequences -> (k, vocab) probabilities behind each


@dataclass(frozen=True, eq=False)
class Tries:
    """The tokens of a vocabulary by their bytes."""

    pieces: tuple[bytes, ...]
    order: tuple[int, ...]  # tokens that are text, by their bytes
    keys: tuple[bytes, ...]
    first: np.ndarray  # (vocab,) first byte of each, END for marks
    asked: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)  # what `behind` answered

    @classmethod
    def of(cls, pieces: Sequence[bytes]) -> "Tries":
        order = tuple(sorted((t for t, piece in enumerate(pieces) if piece), key=lambda t: (pieces[t], t)))
        first = np.array([piece[0] if piece else END for piece in pieces], dtype=np.int64)
        return cls(tuple(pieces), order, tuple(pieces[t] for t in order), first)

    def beginning(self, prefix: bytes) -> tuple[int, ...]:
        """The tokens whose bytes begin with these."""
        low = bisect_left(self.keys, prefix)
        high = low
        if prefix.rstrip(b"\xff"):
            cut = prefix.rstrip(b"\xff")
            high = bisect_left(self.keys, cut[:-1] + bytes([cut[-1] + 1]), low)
        else:
            high = len(self.keys)
        return tuple(t for t, key in zip(self.order[low:high], self.keys[low:high], strict=True) if key.startswith(prefix))

    def behind(self, prefix: bytes) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that begin so, and what each of them has behind that: a byte, or LEAVE if it ends there. (k,) each."""
        if len(self.asked) > KNOWN_PREFIXES:
            self.asked.clear()
        if prefix not in self.asked:
            tokens = self.beginning(prefix)
            rest = (self.pieces[t][len(prefix) : len(prefix) + 1] for t in tokens)
            self.asked[prefix] = np.array(tokens, np.int64), np.array([one[0] if one else LEAVE for one in rest], np.int64)
        return self.asked[prefix]


@dataclass(frozen=True)
class Member:
    """One sequence of a cover."""

    tokens: Spelled
    beyond: bytes  # of its last token, behind the text
    p: float  # of the sequence, given the fixed tokens


@dataclass(frozen=True, eq=False)
class ByteView:
    """What comes behind a text, byte by byte."""

    spelled: Spelled  # how the tokenizer spells the text
    members: tuple[Member, ...]  # of the cover, the likeliest first
    p: float  # of the text, given the fixed tokens: the sum over the cover
    exact: np.ndarray  # (257,) scaled to sum to 1
    plain: np.ndarray  # (257,) as if the text ended in a whole token
    healed: np.ndarray  # (257,) the last token taken back, and only those that begin like it allowed
    kept: float  # sum over the symbols before scaling, by p
    unchecked: float  # share of p that was not checked, and left out
    row_cut: float  # of the row behind `spelled`, the share of continuations that the tokenizer would never write

    @property
    def plain_error(self) -> float:
        """Total variation between the plain and the exact distribution."""
        return distance(self.plain, self.exact)

    @property
    def healed_error(self) -> float:
        return distance(self.healed, self.exact)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum() / 2)


@dataclass(frozen=True, eq=False)
class Cover:
    """What a tokenizer would write: the ways to spell some bytes, and whether a sequence is one of them."""

    speller: Speller
    tries: Tries
    known: dict[Spelled, bool] = field(default_factory=dict)  # valid
    spelt: dict[bytes, tuple[Spelled, ...]] = field(default_factory=dict)  # what `spellings` answered

    def spellings(self, word: bytes) -> tuple[Spelled, ...]:
        """The valid sequences that are exactly these bytes; the first is the tokenizer's own, if the bytes are whole characters."""
        if not word:
            return ((),)
        if len(self.spelt) > KNOWN_PREFIXES:
            self.spelt.clear()
        if word not in self.spelt:
            self.spelt[word] = self._spellings(word)
        return self.spelt[word]

    def _spellings(self, word: bytes) -> tuple[Spelled, ...]:
        texts = list(endings(word))
        found: dict[Spelled, None] = {}
        for tokens in self.speller.encode(texts):
            length = 0
            for i, token in enumerate(tokens):
                length += len(self.speller.pieces[token])
                if length == len(word):
                    found.setdefault(tuple(tokens[: i + 1]))
                if length >= len(word):
                    break
        return tuple(found)

    @classmethod
    def by(cls, speller: Speller) -> "Cover":
        return cls(speller, Tries.of(speller.pieces))

    def valid(self, sequences: Sequence[Spelled]) -> list[bool]:
        """Whether the tokenizer would ever begin a text like this."""
        if len(self.known) > KNOWN:
            self.known.clear()
        before = {tokens: self.known[tokens] for tokens in sequences if tokens in self.known}
        said: dict[Spelled, bool] = {tokens: False for tokens in sequences if tokens not in before}
        waiting = {tokens: endings(b"".join(self.speller.pieces[t] for t in tokens)) for tokens in said}
        while asked := {tokens: text for tokens, left in waiting.items() if (text := next(left, None)) is not None}:
            for tokens, own in zip(asked, self.speller.encode(list(asked.values())), strict=True):
                said[tokens] = tuple(own[: len(tokens)]) == tokens
            waiting = {tokens: waiting[tokens] for tokens in asked if not said[tokens]}
        self.known.update(said)
        return [said[tokens] if tokens in said else before[tokens] for tokens in sequences]


def endings(text: bytes) -> Iterator[bytes]:
    """The text with each of the PROBES behind it; one that ends inside a character with ways to complete that."""
    half = unfinished(text)
    if not half:
        try:
            text.decode()
        except UnicodeDecodeError:
            return
        yield from (text + probe for probe in PROBES)
        return
    for first in FILLINGS:
        filled = text + bytes([first, *[0x80] * (half - 1)])
        try:
            filled.decode()
        except UnicodeDecodeError:
            continue
        yield filled


def unfinished(text: bytes) -> int:
    """Bytes that are missing for the last character to be whole; 0 if it is, or never can be.

    >>> unfinished(b"a"), unfinished(b"\\xc3"), unfinished("€".encode()[:1])
    (0, 1, 2)
    """
    for back in range(1, min(4, len(text) + 1)):
        byte = text[-back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return max(0, size - back)
    return 0


# -- the view ----------------------------------------------------------------------------------------------------------


def lefts_of(cover: Cover, word: bytes, start: int) -> list[tuple[Spelled, int]]:
    """Valid spellings of every beginning of the word of at least `start` bytes, itself included, with their length in bytes."""
    return [(tokens, j) for j in range(start, len(word) + 1) for tokens in cover.spellings(word[:j])]


def view(cover: Cover, word: bytes, rows: Rows, start: int = 0) -> ByteView:
    """The byte view behind `word`, the bytes behind the fixed tokens.

    Args:
        start: a place in the word that no token crosses.

    Raises:
        ValueError: the word cannot be spelled.
    """
    lefts = lefts_of(cover, word, max(start, len(word) - REACH))
    spelled = next((tokens for tokens, j in lefts if j == len(word)), None)
    if spelled is None:
        raise ValueError(f"The tokenizer has no tokens for the bytes {word[-8:]!r}.")
    read = rows([tokens for tokens, _ in lefts])
    row_of = {tokens: read[i] for i, (tokens, _) in enumerate(lefts)}
    p_of = {tokens: along(tokens, row_of, rows) for tokens, _ in lefts}
    members, missed = longer(cover, word, lefts, row_of, p_of)
    exact = [Member(tokens, b"", p_of[tokens]) for tokens, j in lefts if j == len(word)]
    every = sorted([*members, *exact], key=lambda one: (-one.p, one.tokens))
    symbols, unchecked = np.zeros(SYMBOLS), missed
    for one in members:
        symbols[one.beyond[0]] += one.p
    row_cut = 0.0
    for one in exact:
        mine, cut, left_out = continued(cover, one.tokens, row_of[one.tokens])
        symbols += one.p * mine
        unchecked += one.p * left_out
        row_cut = cut if one.tokens == spelled else row_cut
    p = sum(one.p for one in every) + missed
    total = float(symbols.sum())
    scaled = symbols / total if total > 0 else plain_row(cover, row_of[spelled])
    return ByteView(
        spelled, tuple(every), p, scaled, plain_row(cover, row_of[spelled]), healed(cover, word, spelled, row_of, rows),
        total / p if p else 0.0, unchecked / p if p else 0.0, row_cut,
    )  # fmt: skip


def along(tokens: Spelled, row_of: Mapping[Spelled, Tensor], rows: Rows) -> float:
    """Probability of a sequence, given the fixed tokens."""
    p = 1.0
    for i, token in enumerate(tokens):
        row = row_of[tokens[:i]] if tokens[:i] in row_of else rows([tokens[:i]])[0]
        p *= float(row[token])
    return p


def longer(
    cover: Cover, word: bytes, lefts: Sequence[tuple[Spelled, int]], row_of: Mapping[Spelled, Tensor], p_of: Mapping[Spelled, float]
) -> tuple[list[Member], float]:
    """The members that reach beyond the word, and the probability of those that were not checked."""
    found: list[tuple[float, Spelled, bytes]] = []
    for tokens, j in lefts:
        if j == len(word) or p_of[tokens] <= 0:
            continue
        starting, rest = cover.tries.behind(word[j:])
        if beginning := starting[rest != LEAVE].tolist():
            ps = (row_of[tokens][torch.tensor(beginning, device=row_of[tokens].device)].double() * p_of[tokens]).tolist()
            pairs = zip(ps, beginning, strict=True)
            found += [(p, (*tokens, t), cover.tries.pieces[t][len(word) - j :]) for p, t in pairs if p > 0]
    found.sort(key=lambda one: (-one[0], one[1]))
    ps = np.array([p for p, _, _ in found])
    kept, missed = checked(cover, [tokens for _, tokens, _ in found], ps, sum(p_of[t] for t, j in lefts if j == len(word)))
    return [Member(tokens, beyond, p) for (p, tokens, beyond), good in zip(found, kept, strict=False) if good], missed


def checked(cover: Cover, sequences: Sequence[Spelled], ps: np.ndarray, known: float = 0.0) -> tuple[list[bool], float]:
    """Which of the first sequences, the likeliest ones, are valid, and the probability of all that were not checked.

    Args:
        known: probability beside these, of which ENOUGH is counted too.
    """
    kept: list[bool] = []
    good = known
    left = np.append(np.cumsum(ps[::-1])[::-1], 0.0)  # from here on
    while len(kept) < min(len(sequences), MOST) and left[len(kept)] > (1 - ENOUGH) * (good + left[len(kept)]):
        said = cover.valid(sequences[len(kept) : len(kept) + BATCH])
        good += float(ps[len(kept) : len(kept) + BATCH][said].sum())
        kept += said
    return kept, float(left[len(kept)])


def continued(cover: Cover, tokens: Spelled, row: Tensor) -> tuple[np.ndarray, float, float]:
    """The symbols behind an exact spelling, of which the next token begins; the share that is cut, as the tokenizer would never go
    on so; and the share that was not checked, which is left out."""
    values = row.double().cpu().numpy()
    symbols = np.zeros(SYMBOLS)
    marks = cover.tries.first == END
    symbols[END] = values[marks].sum()
    order = np.argsort(-values, kind="stable")
    order = order[~marks[order] & (values[order] > 0)]
    first = order[:MOST].tolist()
    kept, missed = checked(cover, [(*tokens, t) for t in first], values[order], float(symbols[END]))
    for t, good in zip(first, kept, strict=False):
        if good:
            symbols[cover.tries.first[t]] += values[t]
    return symbols, max(0.0, float(values.sum() - symbols.sum() - missed)), missed


def plain_row(cover: Cover, row: Tensor) -> np.ndarray:
    """(257,) the first bytes of a row of next tokens."""
    return np.bincount(cover.tries.first, weights=row.double().cpu().numpy(), minlength=SYMBOLS)


def healed(cover: Cover, word: bytes, spelled: Spelled, row_of: Mapping[Spelled, Tensor], rows: Rows) -> np.ndarray:
    """(257,) token healing: the last token is taken back and drawn again among those that begin with its bytes."""
    if not spelled:
        return plain_row(cover, row_of[spelled])
    left, last = spelled[:-1], spelled[-1]
    row = row_of[left] if left in row_of else rows([left])[0]
    values = row.double().cpu().numpy()
    symbols = values[last] * plain_row(cover, row_of[spelled])
    tokens, rest = cover.tries.behind(cover.tries.pieces[last])
    longer_ = rest != LEAVE
    symbols += np.bincount(rest[longer_], weights=values[tokens[longer_]], minlength=SYMBOLS)
    total = symbols.sum()
    return symbols / total if total > 0 else plain_row(cover, row_of[spelled])


# -- a target's rows ---------------------------------------------------------------------------------------------------


class TargetRows:
    """Rows of a target behind a fixed text and whatever is spelled behind that; each sequence is read once, many in one pass."""

    def __init__(self, target: Target, fixed: Sequence[int], sampling: Sampling = PLAIN) -> None:
        self.target, self.sampling = target, sampling
        self.cache: TreeCache = target.new_cache()
        self.fixed: tuple[int, ...] = ()
        self.read = 0  # tokens
        self.calls = 0  # of the model
        self.known: dict[Spelled, Tensor] = {}
        self.follow(fixed)

    def follow(self, fixed: Sequence[int]) -> None:
        """Go on behind another fixed text, at least one token; what it has in common with the one before is not read again."""
        for _ in self.following(fixed, max(1, len(fixed))):
            pass

    def following(self, fixed: Sequence[int], block: int) -> Iterator[None]:
        """The same, so many tokens at a time: whoever shares the target with others lets them come between."""
        before = self.fixed[: self.cache.committed]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, fixed[:-1], strict=False)))
        if same < self.cache.committed:
            self.cache.cut(same)
        for start in range(same, len(fixed) - 1, block):
            self.target.extend(self.cache, fixed[start : min(start + block, len(fixed) - 1)])
            self.calls += 1
            yield None
        self.read += len(fixed) - same
        self.fixed = tuple(fixed)
        self.known.clear()

    def __call__(self, sequences: Sequence[Spelled]) -> Tensor:
        """(k, vocab) probabilities behind the fixed tokens and each of the sequences."""
        new = [tokens for tokens in dict.fromkeys(sequences) if tokens not in self.known]
        if new:
            self._take(new)
        return torch.stack([self.known[tokens] for tokens in sequences])

    def _take(self, sequences: Sequence[Spelled]) -> None:
        """Read them as one tree below the fixed tokens."""
        place = tree_of(sequences)
        output = self.target.read(self.cache, self.fixed, spelled_tree(place), self.sampling)
        self.cache.keep(())
        self.calls += 1
        self.read += len(place) - 1
        self.known |= {path: output.probs[at + 1] for path, at in place.items()}


def tree_of(sequences: Iterable[Spelled]) -> dict[Spelled, int]:
    """Every beginning of every sequence, and its node in one tree; the empty one is the root, -1.

    >>> tree_of([(5, 7), (5, 8), (6,)])
    {(): -1, (5,): 0, (5, 7): 1, (5, 8): 2, (6,): 3}
    """
    place: dict[Spelled, int] = {(): -1}
    for path in (one[: i + 1] for one in sequences for i in range(len(one))):
        place.setdefault(path, len(place) - 1)
    return place


def spelled_tree(place: Mapping[Spelled, int]) -> Draft:
    """The tree of `tree_of` as a draft."""
    paths = [path for path in place if path]
    return Draft(tuple(path[-1] for path in paths), tuple(place[path[:-1]] for path in paths), source=("spelled",) * len(paths))
