"""SpecTr's transport problem itself, solved at one position over the tokens the trace kept, to set the other rules beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, factorial

import networkx
from networkx.algorithms.flow import shortest_augmenting_path

from decoding.trace import Row

SETS = 3100  # of guesses, at most, in the transport problem
GUESSES = 64  # beyond which the number of their orders, and what it is multiplied with, leave what a float can hold
UNITS = 2**52  # a probability of 1 as a capacity: whole numbers flow without rounding


@dataclass(frozen=True)
class Transport:
    """The optimum over a few tokens and all others taken as one, found in two ways."""

    tokens: int  # kept apart
    sets: int  # of guesses
    solved: float  # as a flow
    read: float  # from the sorted tokens


def transport(row: Row, k: int) -> Transport:
    """Solve the transport problem with membership cost for k independent guesses, over as many tokens as fit.

    The guesses are independent, so only which tokens occur how often matters: it is a flow from sets of guesses to their members.
    At most all of the set's probability leaves it, and at most p arrives at a token.

    Raises:
        ValueError: the row has no q, or there are more guesses than can be told apart in numbers.
    """
    if row.q is None or not row.tokens:
        raise ValueError("Nothing was drawn from a distribution here: there is no transport problem.")
    if k > GUESSES:
        raise ValueError(f"The transport problem is solved for at most {GUESSES} guesses; there are {k:,}.")
    p, q = together(row, k)
    sets = list(combinations_with_replacement(range(len(p)), k))
    return Transport(len(p) - 1, len(sets), largest_flow(p, q, sets), best(p, q, k))


def together(row: Row, k: int) -> tuple[list[float], list[float]]:
    """p and q of the likeliest tokens, the last entry all others; so many that there are at most SETS sets of k guesses."""
    room = max(v for v in range(2, len(row.tokens) + 2) if comb(v + k - 1, k) <= SETS or v == 2)
    order = sorted(range(len(row.tokens)), key=lambda i: -max(row.p[i], row.q[i]))[: room - 1]
    p, q = ([values[i] for i in order] for values in (row.p, row.q))
    return [*p, max(0.0, 1 - sum(p))], [*q, max(0.0, 1 - sum(q))]


def largest_flow(p: Sequence[float], q: Sequence[float], sets: Sequence[tuple[int, ...]]) -> float:
    """The largest probability that the output is one of the guesses: what can flow from the sets to their members."""
    graph = networkx.DiGraph()
    for guesses in sets:
        graph.add_edge("all", guesses, capacity=round(chance_of(guesses, q) * UNITS))
        graph.add_edges_from((guesses, token) for token in set(guesses))  # without a capacity: whatever comes may go on
    for token, chance in enumerate(p):
        graph.add_edge(token, "output", capacity=round(chance * UNITS))
    return networkx.maximum_flow_value(graph, "all", "output", flow_func=shortest_augmenting_path) / UNITS


def chance_of(guesses: tuple[int, ...], q: Sequence[float]) -> float:
    """Probability that k independent draws give this set, in any order.

    >>> chance_of((0, 1), [0.5, 0.5]), chance_of((0, 0), [0.5, 0.5])
    (0.5, 0.25)
    """
    chance = float(factorial(len(guesses)))
    for token in set(guesses):
        count = guesses.count(token)
        chance *= q[token] ** count / factorial(count)
    return chance


def best(p: Sequence[float], q: Sequence[float], k: int) -> float:
    """The optimum without a flow: the least p(H) + 1 - q(H)^k over the tokens H of the smallest p / q."""
    order = sorted(range(len(p)), key=lambda i: p[i] / q[i] if q[i] > 0 else float("inf"))
    least, of_p, of_q = 1.0, 0.0, 0.0
    for i in order:
        of_p, of_q = of_p + p[i], of_q + q[i]
        least = min(least, of_p + 1 - min(1.0, of_q) ** k)
    return least
