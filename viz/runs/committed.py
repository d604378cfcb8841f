"""Every committed token of a run in order: its position, its step, its origin, and the distributions it was chosen with.

Knows a trace and nothing of how it is shown. The prompt is not in it: `viz.step.text` has both, for the eye.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from decoding.trace import Row, Step, Trace


@dataclass(frozen=True)
class Committed:
    """One token of the text, and the distributions it was chosen with."""

    position: int  # in the committed text, from 0; the prompt does not count
    step: int  # index
    token: int
    origin: str
    row: Row | None  # None where recording was off


def committed(trace: Trace) -> Iterator[Committed]:
    """Every committed token, in order."""
    position = 0
    for number_, step in enumerate(trace.steps):
        for place, (token, origin) in enumerate(zip(step.tokens, step.origins, strict=True)):
            yield Committed(position, number_, token, origin, row_at(step, place))
            position += 1


def row_at(step: Step, place: int) -> Row | None:
    """The row that decided the token at `place` of `step.tokens`: behind the path so far."""
    index = step.path[place - 1] + 1 if place else 0
    return step.rows[index] if index < len(step.rows) else None
