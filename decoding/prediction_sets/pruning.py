"""Which nodes of a tree are kept for a budget: as many as possible, by an exact dynamic programme.

Khakhar, Mell and Bastani 2023, https://arxiv.org/abs/2302.08703, section 3: the kept costs sum to at most the budget, a kept node's
parent is kept, there are at most so many holes, and a node that is cut at a budget is cut at every smaller one. They solve all
budgets jointly with a MaxSMT solver. Here the budgets are taken from the largest down, each solved exactly among the nodes that the
one before kept, which makes the sets nested; the sum over all budgets may be less than that of the joint optimum.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from decoding.prediction_sets.trees import Tree

SLACK = 1e-9


class Best(NamedTuple):
    """The cheapest way to keep so many nodes."""

    cost: float
    kept: int  # a bit per node


Front = dict[int, Best]  # how many nodes are kept -> the cheapest way
Sequences = dict[tuple[int, bool], Front]  # (holes, whether the last child was cut) -> front


def best_kept(tree: Tree, costs: Sequence[float], budget: float, holes: int, allowed: int | None = None) -> int:
    """The nodes to keep, a bit each; among equally many the cheapest.

    Args:
        costs: of each node.
        holes: at most so many.
        allowed: nodes that may be kept; None: all.
    """
    front = merged(node_fronts(tree, costs, 0, holes, (1 << len(tree)) - 1 if allowed is None else allowed).values())
    fitting = [(count, -best.cost, best.kept) for count, best in front.items() if best.cost <= budget + SLACK]
    return max(fitting)[2] if fitting else 0


def node_fronts(tree: Tree, costs: Sequence[float], node: int, holes: int, allowed: int) -> dict[int, Front]:
    """Holes -> front of the subtree of a node; the node itself may be a hole."""
    found: dict[int, Front] = {1: {0: Best(0.0, 0)}}
    if not allowed >> node & 1:
        return found
    states: Sequences = {(0, False): {1: Best(costs[node], 1 << node)}}
    for child in tree.children[node]:
        below = node_fronts(tree, costs, child, holes, allowed)
        states = with_child(states, below, holes, tree.runs)
    for (used, _), front in states.items():
        found[used] = merged([found.get(used, {}), front])
    return {used: front for used, front in found.items() if used <= holes}


def with_child(states: Sequences, below: dict[int, Front], holes: int, runs: bool) -> Sequences:
    """What a node's children may be, with one more of them. Where holes take runs, cut neighbours are one hole."""
    found: Sequences = {}
    for (used, cut), front in states.items():
        for more, fronts in below.items():
            for count, best in fronts.items():
                is_cut = count == 0
                total = used + (0 if is_cut and cut and runs else more)
                if total > holes:
                    continue
                mine = found.setdefault((total, is_cut), {})
                for had, before in front.items():
                    keep(mine, had + count, Best(before.cost + best.cost, before.kept | best.kept))
    return found


def keep(front: Front, count: int, best: Best) -> None:
    """Note a way to keep so many nodes if it is the cheapest so far."""
    known = front.get(count)
    if known is None or (best.cost, best.kept) < known:
        front[count] = best


def merged(fronts: Iterable[Front]) -> Front:
    found: Front = {}
    for front in fronts:
        for count, best in front.items():
            keep(found, count, best)
    return found


def nested(tree: Tree, costs: Sequence[float], budgets: Sequence[float], holes: int) -> list[int]:
    """The kept nodes at every budget, a bit each; the budgets rise, and so do the sets."""
    allowed, found = best_kept(tree, costs, budgets[-1], holes), []
    for budget in reversed(budgets):
        if sum(costs[i] for i in range(len(tree)) if allowed >> i & 1) > budget + SLACK:
            allowed = best_kept(tree, costs, budget, holes, allowed)
        found.append(allowed)
    return found[::-1]


def as_flags(kept: int, count: int) -> list[bool]:
    """
    >>> as_flags(5, 3)
    [True, False, True]
    """
    return [bool(kept >> i & 1) for i in range(count)]
