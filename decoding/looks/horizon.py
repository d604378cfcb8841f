"""What the horizon lens sees: how much of a sentence or of an answer was still to come along a text, as four readers foretold it,
how likely its end was, and what a cap on drafts would have spared."""

from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Count, Place, Share, Token, Word

MOST = 1024  # tokens of a text
MOST_CALLS = 1024


class At(msgspec.Struct, frozen=True):
    """One token of the text, and what stands behind it."""

    token: Token
    t: Count  # the how-manieth of its unit
    left: Count | None  # tokens of the unit that came behind it; None: it did not end
    position: Share  # that is still to come, by counting alone
    state: Share  # by a layer's state
    both: Share  # by the two together
    head: Share  # by the trained head
    end: Share  # probability that the end comes next, at temperature 1


class Call(msgspec.Struct, frozen=True):
    """One call of the run, and its draft under a cap."""

    at: Place  # index in the text of the token that it drafted behind; -1: before the text
    drafted: Count  # tokens
    deepest: Count  # of them below each other
    accepted: Count
    cap: Count | None  # how deep it should have drafted; None: nothing was known yet
    spared: Count  # drafted tokens below the cap that were not kept
    lost: Count  # that were
    past: Count  # drafted behind the end of the unit


class Held(msgspec.Struct, frozen=True):
    """How a reader does on text that it never saw."""

    reader: Word
    off: Share  # mean absolute error
    beyond: Annotated[float, Meta(ge=-1, le=1)]  # rank correlation with the tokens left, of what the position does not explain
    next: Share  # how well it tells that the end comes next (AUC)


class HorizonLook(Look, frozen=True, kw_only=True, tag="horizon"):
    unit: Word = ""  # "sentence" or "answer"
    by: Word = ""  # the reader that is spoken of, and that the cap follows
    layer: Count = 0  # whose state is read
    slack: Count = 0  # tokens that the cap leaves beyond the estimate
    said: Word = ""  # what the readers learned from
    text: Annotated[tuple[At, ...], Meta(max_length=MOST)] = ()
    at: Place = -1  # index in the text of the token in front of the cursor; -1: it stands before the text
    calls: Annotated[tuple[Call, ...], Meta(max_length=MOST_CALLS)] = ()
    held: Annotated[tuple[Held, ...], Meta(max_length=8)] = ()


LOOK = HorizonLook
