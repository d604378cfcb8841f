"""What the hyperfitting lens sees: what a target and its hyperfitted twin write behind one prompt, and how each takes to each draft
model."""

from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Bits, Count, Share, Token, Word

MOST = 400  # tokens of a text


class Written(msgspec.Struct, frozen=True):
    """One token that a target wrote."""

    token: Token
    entropy: Bits  # of its p at temperature 1, in nats
    top: Share  # the largest p at temperature 1
    copied: bool = False  # stands in a piece of text that the twin learned by heart, with seven or more of its neighbours


class Text(msgspec.Struct, frozen=True):
    """What one target wrote at one temperature."""

    target: Word
    temperature: Annotated[float, Meta(ge=0, le=2)]  # that the tokens were drawn at
    tokens: Annotated[tuple[Written, ...], Meta(max_length=MOST)]


class Acceptance(msgspec.Struct, frozen=True):
    """How a target takes one drafted token at every place of a text of its own."""

    target: Word
    draft: Word
    temperature: Annotated[float, Meta(ge=0, le=2)]
    expected: Share  # sum_v min(p, q), the mean over places
    measured: Share  # share of the drafted tokens that were accepted
    error: Share  # standard error of `measured`
    drafted: Count
    copied: Share | None = None  # `expected` over the places whose token is copied alone; None: there is none


class HyperfittingLook(Look, frozen=True, kw_only=True, tag="hyperfitting"):
    length: Count = 0  # tokens that every text will have
    pieces: Count = 0  # that the twin learned by heart
    piece: Count = 0  # tokens of each
    texts: Annotated[tuple[Text, ...], Meta(max_length=4)] = ()
    pairs: Annotated[tuple[Acceptance, ...], Meta(max_length=8)] = ()


LOOK = HyperfittingLook
