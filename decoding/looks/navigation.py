"""What the key-space lens sees: ranked tokens with the clusters of their keys, and how close refused guesses came."""

from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Count, Place, Share, Text, Token, Tokens, Word

Real = Annotated[float, Meta(ge=-1e9, le=1e9)]
Cosine = Annotated[float, Meta(ge=-1.01, le=1.01)]
NEAR = 20  # neighbours that count as near


class Ranked(msgspec.Struct, frozen=True):
    """One token of the list at the place, by p."""

    token: Token
    p: Share  # at temperature 1
    cluster: Count  # of its key
    inherited: Real  # part of its centred logit that lies along the winner's key
    own: Real  # the rest: both sum to the logit less the mean key's
    own_rank: Count  # among all tokens, by `own` alone; 1 is the highest


class Spot(msgspec.Struct, frozen=True):
    """A key around the pick, projected."""

    token: Token
    cosine: Cosine  # to the pick's key, both centred
    x: Real
    y: Real
    cluster: Count


class Miss(msgspec.Struct, frozen=True):
    """A drafted token, and what the target wrote instead."""

    step: Place
    node: Place
    token: Token
    pick: Token
    cosine: Cosine
    rank: Count  # of the token among the pick's neighbours; 1 is the nearest
    same: bool  # cluster
    chance: Share  # that a token taken blindly would be called near

    @property
    def near(self) -> bool:
        """Near miss: one of the nearest neighbours, or of the same cluster."""
        return self.same or 1 <= self.rank <= NEAR


class Sibling(msgspec.Struct, frozen=True):
    """A token drafted at the same place of the tree."""

    token: Token
    cluster: Count


class Round(msgspec.Struct, frozen=True):
    """One round of ICN: the row that the answers so far lead to, and what was taken from it."""

    found: Count  # answers in the prompt
    tokens: Annotated[tuple[Token, ...], Meta(max_length=16)]  # the top of the row
    p: Annotated[tuple[Share, ...], Meta(max_length=16)]
    entropy: Real  # of the row, in nats
    along: Real  # mean dot product of the query and the explored keys, centred; 0 before the first
    answers: Annotated[tuple[Text, ...], Meta(max_length=8)]


class NavigationLook(Look, frozen=True, kw_only=True, tag="navigation"):
    ranked: Annotated[tuple[Ranked, ...], Meta(max_length=256)] = ()
    top: Count = 0  # so many of them are the winners
    share: Share = 0.0  # of the others whose cluster is one of the winners'
    base: Share = 0.0  # of all tokens but the winners: what chance would give
    key_driven: Share = 0.0  # of the others: inherited more than own, and not listed by `own` alone
    clusters: Count = 0  # of the key table
    guess: Miss | None = None  # at the cursor, if a token was drafted there that the target did not write
    pick: Token = 0  # the middle of the map: what the target wrote, or its most probable token
    spots: Annotated[tuple[Spot, ...], Meta(max_length=64)] = ()  # the first is the pick
    siblings: Annotated[tuple[Sibling, ...], Meta(max_length=64)] = ()
    misses: Annotated[tuple[Miss, ...], Meta(max_length=512)] = ()  # over the run
    things: Word = ""  # that ICN asked for
    plain: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()  # answers in the order of the first row alone
    rounds: Annotated[tuple[Round, ...], Meta(max_length=8)] = ()
    explored: Tokens = ()  # first tokens that ICN took


LOOK = NavigationLook
