"""Lens: a way of looking at one position, or at the text, of a run that is not decoding itself.

A lens is one file in `decoding.lenses` that ends in `LENS = Lens(...)`. It is given a family, a trace and a cursor, and yields
looks (`decoding.looks`): each replaces the one before, the last is what was found. It leaves the run, the weights and every cache
as they are. Its parameters are made and checked like those of a method.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Generator as Yields
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from decoding.looks import Cursor, Look
from decoding.method import Requirement, checked_params
from decoding.trace import Step, Trace

BLOCK = 64  # rows that are read between two looks


@dataclass(frozen=True)
class Place:
    """The position that a cursor stands for; all of it is read from the trace."""

    context: tuple[int, ...]  # the committed text, and the ancestors of the node
    token: int | None  # what was drafted or written there; None: nothing yet
    rival: int | None  # what was written there instead of the node's token; None: nothing was


def place_of(trace: Trace, cursor: Cursor) -> Place:
    """Where a cursor stands.

    Raises:
        ValueError: the trace has no such step, or the step no such node.
    """
    step, node = cursor
    if step == -1:
        return Place(trace.header.prompt_tokens, next(iter(trace.steps[0].tokens), None) if trace.steps else None, None)
    if not 0 <= step < len(trace.steps):
        raise ValueError(f"The run has {len(trace.steps):,} steps; step {step + 1:,} is none of them.")
    before, done = trace.tokens_before(step), trace.steps[step]
    if node is None or node == -1:
        return Place(before, done.tokens[0], None)
    if not 0 <= node <= len(done.nodes):
        raise ValueError(f"Step {step + 1:,} has {len(done.nodes):,} drafted tokens; node {node:,} is none of them.")
    if node == len(done.nodes):
        return Place(before + done.tokens[:-1], done.tokens[-1], None)
    above = ancestors(done, node)
    token, written = done.nodes[node].token, written_at(done, above)
    return Place(before + tuple(done.nodes[i].token for i in above), token, written if written != token else None)


def ancestors(step: Step, node: int) -> tuple[int, ...]:
    """The nodes above one, from the root's child down."""
    found: list[int] = []
    while (node := step.nodes[node].parent) >= 0:
        found.append(node)
    return tuple(reversed(found))


def written_at(step: Step, above: tuple[int, ...]) -> int | None:
    """What the step wrote behind these nodes; None if the text does not go through them, or ended there."""
    depth = len(above)
    return step.tokens[depth] if step.path[:depth] == above and depth < len(step.tokens) else None


@dataclass(frozen=True)
class Cost:
    """What a look takes, said before it begins."""

    rows: int  # that the target reads
    words: str = ""  # what else, as a sentence


def nothing(family: Any) -> str:
    return ""


@dataclass(frozen=True)
class Lens:
    """Everything a page, a script or a test asks of a lens."""

    key: str
    title: str
    paper: str  # address
    authors: str  # and venue
    year: int
    scope: str  # a key of `decoding.lenses.SCOPES`: what it looks at
    asks: str  # the question, for its card
    idea: str  # one or two sentences
    reading: str  # how to read the picture, in a sentence
    checks: str  # the identity that the picture can be held against, in a sentence
    params: type
    # (family, trace, cursor, parameters); under 0.3 s between two. None: nothing is to be seen yet, others may come between
    look: Callable[[Any, Trace, Cursor, Any], Iterator[Look | None]]
    cost: Callable[[Trace, Cursor, Any], Cost]  # (trace, cursor, parameters); nothing is loaded for it
    ours: str = ""  # what departs from the paper, in sentences
    requirements: tuple[Requirement, ...] = ()  # what a family must have, asked in this order; a page asks before it is loaded
    lacks: Callable[[Any], str] = nothing  # why a loaded family cannot serve it, as a sentence; "" if it can

    def missing(self, family: Any) -> str:
        """Why this family cannot serve the lens, or ""; the family may be a stand-in (`decoding.models.requirements`)."""
        return next((reason for one in self.requirements if (reason := one.lacking(self, family))), "")

    def checked(self, values: Mapping[str, Any]) -> Any:
        """The lens's parameters, defaults filled in; ValueError as for a method."""
        return checked_params(self.title, self.params, values)


def read_rows(target: Any, tokens: Sequence[int], block: int = BLOCK) -> Iterator[Tensor]:
    """What the target says behind every token of a text, in blocks of (up to `block`, vocab) logits, each soon after the other; in
    a cache of its own."""
    cache = target.new_cache()
    for start in range(0, len(tokens), block):
        yield target.extend(cache, tokens[start : start + block], every_row=True)


def read_on(target: Any, tokens: Sequence[int], block: int = BLOCK) -> Yields[None, None, Tensor]:
    """(vocab,) logits behind the last token of a text, which is read block by block; for `yield from`."""
    last = torch.empty(0)
    for rows in read_rows(target, tokens, block):
        last = rows[-1]
        yield None
    return last


def dice(trace: Trace, cursor: Cursor, lens: str) -> Generator:
    """The randomness of a look: the same place of the same run through the same lens has the same."""
    said = f"{trace.header.seed} {cursor.step} {cursor.node} {lens}"
    return Generator().manual_seed(int.from_bytes(hashlib.sha256(said.encode()).digest()[:7], "big"))
