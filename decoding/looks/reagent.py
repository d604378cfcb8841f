"""What ReAGent sees: how much each token of the context made the models say what they said, from texts in which it was another."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Count, Share, Token

MOST = 64  # tokens whose part is asked for
LOGGED = 10
Kind = Literal["target", "draft", "contrast"]
Form = Literal["soft", "hard"]  # kept as often as they are important; the top fifth
Real = Annotated[float, Meta(ge=-1e9, le=1e9)]
Reals = Annotated[tuple[Real, ...], Meta(max_length=MOST)]
Window = Annotated[tuple[Token, ...], Meta(max_length=MOST)]


class Cause(msgspec.Struct, frozen=True):
    """Of one number that a model gave: how much each token of the text did for it."""

    kind: Kind  # "target": ln p(token); "draft": ln q(token); "contrast": ln p(rival) - ln p(token)
    before: Real  # the number itself, on the text as it stands
    effects: Reals  # per token of the text; nats that the number falls by when it is another, or of ReAGent the score of its steps
    spread: Reals  # standard deviation over draws, or over probes
    importance: Annotated[tuple[Share, ...], Meta(max_length=MOST)]  # non-negative, sums to 1
    agree: (
        Annotated[float, Meta(ge=-1.01, le=1.01)] | None
    )  # rank correlation of two halves of the draws; None before there are two


class Altered(msgspec.Struct, frozen=True):
    """A text of which some tokens were others, and what was said behind it."""

    tokens: Window  # all of it
    p: Share  # of the token
    q: Share | None
    rival: Share | None  # p of it
    rank: Count  # of the token in p, 1 is the highest


class Held(msgspec.Struct, frozen=True):
    """How much of the number is left, as a share of it, when only the important tokens are kept, or they alone are others."""

    form: Form
    sufficiency: Real
    comprehensiveness: Real
    random_sufficiency: Real  # of the same importances in any order
    random_comprehensiveness: Real


class ReagentLook(Look, frozen=True, kw_only=True, tag="reagent"):
    way: Annotated[str, Meta(max_length=40)] = ""
    text: Window = ()  # the end of the context
    earlier: Count = 0  # tokens before it, which are read and never altered
    swapped: Annotated[tuple[bool, ...], Meta(max_length=MOST)] = ()  # whether a token of it can be another
    token: Token = 0  # what is to be explained
    rival: Token | None = None  # what the target wrote in its place
    p: Share = 0.0  # at temperature 1, of the token behind the text as it stands
    q: Share | None = None
    rival_p: Share | None = None
    judged: tuple[Share, Share, Share] | None = None  # p, q and u that it was refused with, where there was a die
    enough: bool = True  # the models gave it enough for there to be something to explain
    causes: Annotated[tuple[Cause, ...], Meta(max_length=3)] = ()
    log: Annotated[tuple[Altered, ...], Meta(max_length=LOGGED)] = ()  # the last ones
    kept: Altered | None = None  # only the most important tokens were kept
    left: Annotated[tuple[Count, ...], Meta(max_length=MOST)] = ()  # those, as places of the text
    held: Annotated[tuple[Held, ...], Meta(max_length=2)] = ()
    passes: Count = 0  # altered texts that were read
    planned: Count = 0


LOOK = ReagentLook
