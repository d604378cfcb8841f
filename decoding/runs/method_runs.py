"""What the cards of the page Methods show: `python -m decoding.runs.method_runs` makes it anew, with the embedded family.

Every method with its default parameters goes on from one prompt of each domain of the evaluation (`decoding.runs.evaluate`), at
temperature 0 and at temperature 1. Kept are the tokens and the target calls of these runs, added up, and one call of the runs at
temperature 1: the one that shows most of what the method does (`worth`). Neither depends on the machine; all of it is in one small
file, which is read without a model. tau over all 24 prompts of the evaluation is in docs/benchmarks.md.
"""

import argparse
import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from decoding.methods import METHODS
from decoding.trace import Step, Trace

if TYPE_CHECKING:
    from decoding.models.family import Family

FILE = Path(__file__).parent.parent / "embedded" / "method_runs.msgpack.gz"
FAMILY = "embedded"
DOMAINS = ("stories", "mathematics", "python")  # whose first prompt is taken
TEMPERATURES = (0.0, 1.0)
MOST = 64  # tokens of a run
CRISP = 40  # nodes of a tree that is still readable on a card
LARGEST = 2_000_000  # bytes

Whole = Annotated[int, Meta(ge=0, le=10**9)]


class Shown(msgspec.Struct, frozen=True):
    """What is kept of a method."""

    tokens: tuple[Whole, Whole]  # at TEMPERATURES, over all prompts
    calls: tuple[Whole, Whole]
    trace: Trace  # of one step, without the bars

    @property
    def taus(self) -> tuple[float, float]:
        """Tokens per target call at TEMPERATURES."""
        greedy, sampled = (tokens / max(calls, 1) for tokens, calls in zip(self.tokens, self.calls, strict=True))
        return greedy, sampled


def read() -> dict[str, Shown]:
    """Method -> what is kept of it; OSError or ValueError if the file is missing or damaged."""
    data = FILE.read_bytes()
    if len(data) > LARGEST:
        raise ValueError(f"{FILE.name} has {len(data):,} bytes; at most {LARGEST:,} are read.")
    try:
        return msgspec.msgpack.decode(gzip.decompress(data), type=dict[str, Shown])
    except (EOFError, zlib.error, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{FILE.name} is damaged: {error}") from error


# -- making it ---------------------------------------------------------------------------------------------------------


def worth(step: Step) -> tuple[bool, int, int]:
    """How much a step shows of its method: kept and refused guesses beside each other, on a tree that a card has room for, and
    then a long path."""
    verdicts = {node.verdict for node in step.nodes}
    return {"accepted", "rejected"} <= verdicts, -max(0, len(step.nodes) - CRISP), len(step.path)


def lean(trace: Trace, index: int) -> Trace:
    """One step of a trace by itself, behind the last token of the text before it; without its distributions."""
    step = trace.steps[index]
    before = trace.tokens_before(index)[-1:]
    used = {*before, *step.tokens, *(node.token for node in step.nodes)}
    token_bytes = {token: piece for token, piece in trace.token_bytes.items() if token in used}
    header = replace(trace.header, prompt="", prompt_tokens=before)
    return Trace(header, token_bytes, (replace(step, rows=(), grids={}, pruned=()),))


def runs(family: "Family", method: str, temperature: float) -> Iterable[Trace]:
    """One whole run per domain."""
    from decoding.runs.evaluate import PROMPTS  # not at the top: a page that only reads the file needs no torch
    from decoding.runs.run import Run
    from decoding.sample import Sampling

    for domain in DOMAINS:
        run = Run(family, method, {}, PROMPTS[domain][0], Sampling(temperature), 0, MOST)
        for _ in run:
            pass
        yield run.trace


def record(family: "Family", method: str) -> Shown:
    """All runs of a method."""
    made = [list(runs(family, method, temperature)) for temperature in TEMPERATURES]
    tokens = [sum(len(step.tokens) for trace in traces for step in trace.steps) for traces in made]
    calls = [sum(len(trace.steps) for trace in traces) for traces in made]
    _, trace, index = max(
        ((worth(step), trace, i) for trace in made[-1] for i, step in enumerate(trace.steps)), key=lambda found: found[0]
    )
    return Shown((tokens[0], tokens[1]), (calls[0], calls[1]), lean(trace, index))


def main() -> None:
    from decoding.models.family import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="keys of those to record; all if none is given")
    chosen = parser.parse_args().methods
    family = load(FAMILY, device="cpu")
    found = read() if chosen else {}
    for method in chosen or METHODS:
        found[method] = record(family, method)
        greedy, sampled = found[method].taus
        nodes = len(found[method].trace.steps[0].nodes)
        print(f"{method}: tau {greedy:.2f} at temperature 0, {sampled:.2f} at 1; {nodes} nodes shown")
    FILE.write_bytes(gzip.compress(msgspec.msgpack.encode({key: found[key] for key in METHODS if key in found}), mtime=0))
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
