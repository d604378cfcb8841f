"""What the lens of dynamic tokenization sees: which tokens of a text are merged when, and how far the target's next word moves."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Bits, Count, Share, Token, Word

MOST = 512  # tokens of a text
SHOWN = 8  # most probable tokens that are kept of a row
MOST_READ = 1024  # merged texts
MOST_WORDS = 64
RENUMBERED, ORIGINAL = "renumbered", "original"
MEAN, NETWORK = "mean", "network"  # what is read in place of a word


class Row(msgspec.Struct, frozen=True):
    """One of the most probable next tokens."""

    token: Token
    p: Share


class Read(msgspec.Struct, frozen=True):
    """What the target said behind the text with the first `merges` merges."""

    merges: Count
    way: Word  # MEAN or NETWORK: where the embeddings of merged words came from
    positions: Word  # RENUMBERED or ORIGINAL
    kl: Bits  # KL(p || p_m) in nats, p behind the text as it was
    same: bool  # both have the same most probable token
    top: Annotated[tuple[Row, ...], Meta(max_length=SHOWN)] = ()


class Alone(msgspec.Struct, frozen=True):
    """What it does to the row behind the text when this word alone is merged, wherever it occurs."""

    tokens: Annotated[tuple[Token, ...], Meta(max_length=MOST)]  # its pieces
    times: Count
    way: Word
    kl: Bits  # in nats


class DynamicTokenizationLook(Look, frozen=True, kw_only=True, tag="dynamic_tokenization"):
    tokens: Annotated[tuple[Token, ...], Meta(max_length=MOST)] = ()
    left_out: Count = 0  # tokens before them
    fused: Annotated[tuple[Count, ...], Meta(max_length=MOST)] = ()  # (n - 1,) the merge that takes this border away; 0: none
    positions: Word = RENUMBERED  # that the words alone are read with
    top: Annotated[tuple[Row, ...], Meta(max_length=SHOWN)] = ()  # behind the text as it is
    reads: Annotated[tuple[Read, ...], Meta(max_length=MOST_READ)] = ()
    words: Annotated[tuple[Alone, ...], Meta(max_length=2 * MOST_WORDS)] = ()


LOOK = DynamicTokenizationLook


def groups(fused: Sequence[int], merges: int) -> list[tuple[int, int]]:
    """The (first, behind the last) tokens of every group after so many merges.

    >>> groups((0, 1, 0, 1, 2, 0), 1), groups((0, 1, 0, 1, 2, 0), 2)
    ([(0, 1), (1, 3), (3, 5), (5, 6), (6, 7)], [(0, 1), (1, 3), (3, 6), (6, 7)])
    """
    borders = [i + 1 for i, number in enumerate(fused) if not 0 < number <= merges]
    return list(zip([0, *borders], [*borders, len(fused) + 1], strict=True))
