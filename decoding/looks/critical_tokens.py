"""What the critical-token lens sees: p and q of every token of a text, their contrast for several beta, which guesses were
contested, and how texts go on with a token and without it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Count, Place, Share, Text, Token, Word

BETAS = tuple(i / 4 for i in range(9))  # of the slider: 0 to 2
USUAL = 4  # the index of the paper's beta, 1
SURE, FAR = 0.3, 0.1  # a guess is contested if q is above the first and p / q below the second
MOST = 1024  # tokens of the text
Nats = Annotated[float, Meta(ge=-1e9, le=1e9)]
Each = Annotated[tuple[Share, ...], Meta(max_length=len(BETAS))]


class Scored(msgspec.Struct, frozen=True):
    """One token of the text; all at temperature 1."""

    token: Token
    p: Nats  # natural logarithm
    q: Nats
    z: Nats  # ln of sum p^2 / q, which is 0 where the two agree
    overlap: Share  # sum of min(p, q)
    contrast: Each  # the paper's score of the token, for every beta
    refused: bool  # a guess at this place was turned down


class Pair(msgspec.Struct, frozen=True):
    """Guesses that were turned down for the same token."""

    token: Token  # drafted
    rival: Token  # written
    count: Count
    ratio: Nats  # mean of ln p - ln q of the guess
    contested: Count


class Choice(msgspec.Struct, frozen=True):
    """One token that could stand at the place of the cursor."""

    token: Token
    p: Nats
    q: Nats


class Rollouts(msgspec.Struct, frozen=True):
    """How the target goes on from one side of the fork."""

    token: Token | None  # that every text begins with; None: one that was drawn without the accused token, anew for each text
    texts: Annotated[tuple[Text, ...], Meta(max_length=64)]
    told: Count  # texts in which there was something to check
    right: Count
    likelihood: Nats  # mean of ln p over all tokens behind the first


class CriticalLook(Look, frozen=True, kw_only=True, tag="critical_tokens"):
    text: Annotated[tuple[Scored, ...], Meta(max_length=MOST)] = ()
    total: Count = 0  # tokens that there are to score
    at: Place = -1  # of `text`; the cursor; -1 if it stands elsewhere
    choices: Annotated[tuple[Choice, ...], Meta(max_length=32)] = ()  # at the cursor, by p; then the favourites of q
    norms: Annotated[
        tuple[Nats, ...], Meta(max_length=len(BETAS))
    ] = ()  # ln of what the contrast there is divided by, for every beta
    token: Token | None = None  # at the cursor: what is accused
    rival: Token | None = None  # what the target wrote in its place
    judged: Count = 0  # guesses of the run
    contested: Count = 0
    pairs: Annotated[tuple[Pair, ...], Meta(max_length=20)] = ()
    answer: Word = ""  # that a text must end with to be right; "": its sums must hold
    forks: Annotated[tuple[Rollouts, ...], Meta(max_length=2)] = ()  # with the accused token, without it


LOOK = CriticalLook
