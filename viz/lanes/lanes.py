"""Two or more runs of one question as lanes on one clock: the data that lanes.js plays, and the same in words.

The clock ticks once per target call, whatever the call reads: that is what is counted, and what does not depend on a machine. All
of it was recorded. Of a draft tree a lane shows the line that was judged: the kept guesses and the first refused one, and what
hangs below them.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypedDict

from decoding.trace import Node, Step, Trace
from viz.stepper import assets
from viz.tokens import full

FOLDER = Path(__file__).parent
LONGEST = 12  # guesses shown of one call


class Call(TypedDict):
    """One call of a lane."""

    guesses: list[list[str]]  # [token with every character visible, verdict]
    more: int  # guesses of this call beside the line
    tokens: list[list[str]]  # [token, origin] of what it wrote


class Lane(TypedDict):
    """One run."""

    name: str
    how: str
    calls: list[Call]


@cache
def script() -> str:
    """An ECMAScript module whose default export plays lanes: `({data, parentElement})`."""
    return "\n".join([(assets.FOLDER / "base.js").read_text("utf-8"), (FOLDER / "lanes.js").read_text("utf-8")])


@cache
def style() -> str:
    return assets.style() + (FOLDER / "lanes.css").read_text("utf-8")


def lanes(named: Sequence[tuple[str, str, Trace]]) -> list[Lane]:
    """What is played, of (name, how it works, run)."""
    return [{"name": name, "how": how, "calls": calls(trace)} for name, how, trace in named]


def calls(trace: Trace) -> list[Call]:
    """Every call of a run; the marks of a tokenizer, such as the end of a turn, are no text and are left out."""
    special = set(trace.header.special_tokens)
    return [call(step, trace.token_bytes, special) for step in trace.steps]


def call(step: Step, token_bytes: Mapping[int, bytes], special: set[int]) -> Call:
    line = [node for node in line_of(step) if node.token not in special]
    return {
        "guesses": [[written(node.token, token_bytes), node.verdict] for node in line[:LONGEST]],
        "more": len(step.nodes) - len(line[:LONGEST]),
        "tokens": [
            [written(token, token_bytes), origin]
            for token, origin in zip(step.tokens, step.origins, strict=True)
            if token not in special
        ],
    }


def line_of(step: Step) -> list[Node]:
    """From the root down: the kept child, else the one judged first, else the eldest."""
    line: list[Node] = []
    above = -1
    while children := [(i, node) for i, node in enumerate(step.nodes) if node.parent == above]:
        above, node = min(children, key=lambda child: (RANK[child[1].verdict], child[0]))
        line.append(node)
    return line


RANK = {"accepted": 0, "rejected": 1, "not judged": 2}


def written(token: int, token_bytes: Mapping[int, bytes]) -> str:
    return full(token_bytes[token]) if token in token_bytes else f"#{token}"


def result(ordinary: Trace, speculative: Trace) -> str:
    """What came of it, in a sentence; plain text.

    Raises:
        ValueError: the texts differ, so that the calls cannot be compared.
    """
    return in_fewer_calls(ordinary, speculative, "tokens", "the large model")


def in_fewer_calls(ordinary: Trace, speculative: Trace, things: str, model: str) -> str:
    """The same of whatever the tokens are; ValueError as `result`."""
    texts = [[token for step in trace.steps for token in step.tokens] for trace in (ordinary, speculative)]
    if texts[0] != texts[1]:
        raise ValueError(f"The two runs did not write the same {things}.")
    return f"The same {len(texts[0])} {things}: {len(ordinary.steps)} calls of {model}, or {len(speculative.steps)}."
