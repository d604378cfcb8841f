"""How much memory a recorded step takes: the bound that a public server states for a visitor's runs."""

import sys
from pathlib import Path

import msgspec
import pytest

from decoding.limits import PUBLIC
from decoding.methods import METHODS
from decoding.record import TOP
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Node, Row, Step, Times
from pages.parts.shared.weight import of_step, weight

HOSTING = Path(__file__).parent.parent.parent / "docs" / "hosting.md"


def size(thing: object, seen: set[int]) -> int:
    """Bytes of plain data in memory, what it shares with others counted once."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    parts: list = []
    if isinstance(thing, dict):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, (tuple, list)):
        parts = list(thing)
    elif isinstance(thing, msgspec.Struct):
        parts = [getattr(thing, name) for name in thing.__struct_fields__]
    return sys.getsizeof(thing) + sum(size(part, seen) for part in parts)


@pytest.mark.parametrize("key", METHODS)
def test_steps_of_any_method_take_no_more_than_they_are_weighed(embedded, key):
    if reason := METHODS[key].missing(embedded):
        pytest.skip(reason)
    run = Run(embedded, key, prompt="Once upon a time", sampling=Sampling(1.0), max_tokens=12, ignore_end=True)
    steps = tuple(run)
    assert size(steps, set()) <= weight(run) <= 6 * size(steps, set())


def largest() -> Step:
    """A chain, so that every node has a row; rows whose likeliest tokens under p and q differ; no number twice."""
    fresh = iter(range(1000, 10**9))
    number = lambda: next(fresh) / 10**9  # noqa: E731

    def row() -> Row:
        numbers = lambda: tuple(number() for _ in range(2 * TOP + 2))  # noqa: E731
        tokens = tuple(next(fresh) for _ in range(2 * TOP + 2))
        return Row(tokens, numbers(), numbers(), numbers(), number(), number(), number(), None)

    def node(i: int) -> Node:
        scores = {name: number() for name in ("confidence", "entropy", "estimate", "margin", "score", "age")}
        return Node(next(fresh), i - 1, number(), number(), number(), "rejected", "draft model", scores)

    nodes = tuple(node(i) for i in range(PUBLIC.nodes))
    rows = tuple(row() for _ in range(PUBLIC.nodes + 1))
    return Step(nodes, rows, (), (5,), ("correction",), 1, Times(1.5, 2.5, 3.5, 4.5), "")


def test_the_largest_step_takes_no_more():
    step = largest()
    assert size(step, set()) <= of_step(step)


def test_the_bound_is_stated():
    """Of all runs of a visitor; the largest that the other limits allow alone is within it."""
    rules = PUBLIC
    said = [rules.held, rules.held_near, rules.whole.held.most]
    assert "{} MB of recorded steps per visitor, {} of one address, {} of all".format(
        *(n // 2**20 for n in said)
    ) in HOSTING.read_text("utf-8")
    assert PUBLIC.tokens * of_step(largest()) <= PUBLIC.held
