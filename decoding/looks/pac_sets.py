"""What the lens of prediction sets sees: a draft as a tree, what is kept at every budget, and drafts whose truth is known; and the
budget that keeps a promise.

Khakhar, Mell and Bastani 2023, https://arxiv.org/abs/2302.08703, section 3.3: of n drafts k may fail, where k is the largest number
that a binomial of n and epsilon stays at or below with a probability of at most delta. With probability 1 - delta over the n
drafts, a new one of the same kind then lies in its set with probability 1 - epsilon.
"""

from collections.abc import Sequence
from math import exp, lgamma, log, log1p
from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Count, Place, Share, Text, Token, Word

MOST_NODES, MOST_HELD = 512, 4096
Nats = Annotated[float, Meta(ge=0, le=1e4)]
Holds = Annotated[tuple[Nats, ...], Meta(max_length=MOST_HELD)]


class Part(msgspec.Struct, frozen=True):
    """A node of the tree."""

    parent: Place  # -1 for the root
    start: Count  # in bytes of the source
    end: Count
    cost: Nats
    kind: Word  # what it is, for hover


class Cut(msgspec.Struct, frozen=True):
    """What is kept from a budget on, up to the next."""

    budget: Nats
    kept: Annotated[bytes, Meta(max_length=MOST_NODES)]  # 1 or 0 for every node


class Drafted(msgspec.Struct, frozen=True):
    """One token that the drafter wrote."""

    token: Token
    q: Share
    agrees: bool  # so far the target would have written the same


class PacSetsLook(Look, frozen=True, kw_only=True, tag="pac_sets"):
    kind: Word = ""  # "text" or "code"
    source: Annotated[bytes, Meta(max_length=8192)] = b""  # what the tree is over; of code the line so far goes before the draft
    given: Count = 0  # bytes of it that stood there already
    drafted: Annotated[tuple[Drafted, ...], Meta(max_length=256)] = ()
    parts: Annotated[tuple[Part, ...], Meta(max_length=MOST_NODES)] = ()
    cuts: Annotated[tuple[Cut, ...], Meta(max_length=256)] = ()  # budgets rise, kept nodes become more
    runs: bool = True  # a hole takes the place of any number of neighbours
    ended: bool = False
    truth: Text = ""  # what the target writes there by itself
    holds: Nats = 0.0  # the largest budget at which that is in the set
    calibration: Holds = ()  # the same number of every draft that the budget is chosen on
    held_out: Holds = ()  # and of those it was never shown
    said: Text = ""  # what these are drafts of
    delta: Share = 0.05
    confidence: Share = 0.8  # that the picture opens with


LOOK = PacSetsLook


def most_failures(n: int, epsilon: float, delta: float) -> int | None:
    """How many of n drafts may fail; None if even none is too many, as n is too small.

    >>> [most_failures(n, 0.1, 0.05) for n in (28, 29, 100, 200, 500)]
    [None, 0, 4, 12, 38]
    """
    if not (0 < epsilon < 1 and 0 < n <= MOST_HELD):
        return None
    total, found = 0.0, None
    for h in range(n + 1):
        total += exp(lgamma(n + 1) - lgamma(h + 1) - lgamma(n - h + 1) + h * log(epsilon) + (n - h) * log1p(-epsilon))
        if total > delta:
            break
        found = h
    return found


def failures(holds: Sequence[float], budget: float) -> int:
    """How many drafts do not hold at a budget."""
    return sum(up_to < budget for up_to in holds)


def budget_for(holds: Sequence[float], epsilon: float, delta: float) -> float | None:
    """The largest budget at which few enough of these drafts fail; 0 makes everything a hole. None: there are too few of them.

    >>> budget_for([0.1] * 5 + [2.0] * 95, 0.1, 0.05), budget_for([0.1] * 4 + [2.0] * 96, 0.1, 0.05)
    (0.1, 2.0)
    """
    most = most_failures(len(holds), epsilon, delta)
    return None if most is None else sorted(holds)[min(most, len(holds) - 1)]
