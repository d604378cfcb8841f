"""What the byte-level lens sees: the next byte three ways, the cover of the text, and how wrong the plain way is along its end."""

from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Count, Piece, Share, Tokens

MOST_COVERS = 12
Symbols = Annotated[tuple[Share, ...], Meta(max_length=257)]  # bytes 0 to 255, then the end of the text


class Covered(msgspec.Struct, frozen=True):
    """One way to spell the text, whose last token may reach beyond it."""

    tokens: Tokens  # behind the settled ones
    beyond: Piece  # the bytes of the last token behind the text
    share: Share  # of the probability of the text


class Reading(msgspec.Struct, frozen=True):
    """How far off the other two ways are behind one more byte of the text."""

    text: Piece  # that byte, or half of a character
    plain: Share  # total variation to the exact distribution
    healed: Share
    covers: Count


class ByteLook(Look, frozen=True, kw_only=True, tag="byte_level"):
    text: Annotated[bytes, Meta(max_length=4096)] = b""  # its end
    word: Annotated[bytes, Meta(max_length=256)] = b""  # the part of it that may be spelled in several ways
    spelled: Tokens = ()  # how the tokenizer spells that part
    covers: Annotated[tuple[Covered, ...], Meta(max_length=MOST_COVERS)] = ()  # the likeliest
    members: Count = 0  # of the cover, as far as they were checked
    plain: Symbols = ()
    healed: Symbols = ()
    exact: Symbols = ()
    second: Symbols = ()  # of a second model, which may have other tokens; () if none was asked
    share: Share = 0.0  # that the second model has in the mixture
    plain_error: Share = 0.0  # total variation
    healed_error: Share = 0.0
    kept: Share = 0.0  # sum over the symbols before scaling, by P(text)
    unchecked: Share = 0.0  # of P(text)
    row_cut: Share = 0.0  # of what the target says behind its tokens, the share that its tokenizer would never write
    meter: Annotated[tuple[Reading, ...], Meta(max_length=64)] = ()


LOOK = ByteLook
