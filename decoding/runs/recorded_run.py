"""The recorded runs that the pages open with: `python -m decoding.runs.recorded_run` makes them anew.

They are made with smollm2, which has to be on this machine (`draftscope fetch smollm2`); reading them needs no model. It is one
question of a chat, answered by six methods with one seed; lessons point at them. Step opens with the story of
`decoding.runs.lesson_runs`. Run it whenever what ships for smollm2 changes.

How they are chosen. The question by a person who read some answers about facts, a description and a program: asked for a small
function, this model says something right and readable in 60 to 110 tokens and stops; on facts it goes on for longer, and at top-p 1
most descriptions made no sense, so top-p is 0.9. The seed by this program: among the answers that EAGLE ends by itself with enough
tokens, the one with the most tokens per target call, a quarter as many on top if a step shows one word turned down for another
(`lesson`). So tau is a fortunate one; usual ones are in docs/benchmarks.md. Whoever runs it reads the answers, which it prints, and
takes another seed with `--seed` if one makes no sense.
"""

import argparse
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.trace import Step, Trace, decode_trace, encode

if TYPE_CHECKING:
    from decoding.models.family import Family

FOLDER = Path(__file__).parent.parent / "embedded" / "smollm2" / "recorded"
FAMILY = "smollm2"
QUESTION = "Write a Python function that reverses a string."
FIRST = "eagle"  # whose answer chooses the seed
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "speculative_sampling": {"length": 4},
    "multi_candidate": {},
    FIRST: {"nodes": 12, "tree": "sampled"},
    "medusa": {},
    "token_recycling": {"nodes": 24},
}
TEMPERATURE, TOP_P = 0.8, 0.9
LEAST, MOST = 60, 110  # tokens of an answer
PLAUSIBLE = 0.1  # of p: a guess that the target could have written as well
FORM_WORDS = {b"the", b"and", b"that", b"this", b"for", b"with", b"was", b"had", b"has", b"his", b"her", b"you", b"all", b"not"}


def read(method: str) -> Trace:
    """A recorded run; OSError or ValueError if it is missing or damaged."""
    return read_file(file_of(method))


def read_file(file: Path) -> Trace:
    """The run in a file of this program; OSError or ValueError if it is missing or damaged."""
    try:
        return decode_trace(gzip.decompress(file.read_bytes()))
    except (EOFError, zlib.error) as error:
        raise ValueError(f"The recorded run {file.name} is damaged: {error}") from error


def file_of(method: str) -> Path:
    return FOLDER / f"{method}.msgpack.gz"


# -- where to pause ----------------------------------------------------------------------------------------------------


def instructive(trace: Trace) -> int | None:
    """Index of the step to pause at: the most instructive rejection, not the very first step if there is a choice."""
    lessons = [(lesson(step, trace.token_bytes), -abs(i - 3), i) for i, step in enumerate(trace.steps)]
    best, _, index = max(lessons, default=(0.0, 0, 0))
    return index if best > 0 else None


def lesson(step: Step, token_bytes: dict[int, bytes]) -> float:
    """How well a step shows a rejection; 0 if it shows none. The words decide: a word turned down for a word, rather one that says
    something; then how near to its border the die fell, and whether guesses were kept before."""
    refused = next((node for node in step.nodes if node.verdict == "rejected"), None)
    if refused is None or refused.u is None or not refused.q or step.origins[-1] != "correction":
        return 0.0
    if refused.p <= PLAUSIBLE or refused.u * refused.q <= refused.p:
        return 0.01
    pieces = [token_bytes.get(token, b"") for token in (refused.token, step.tokens[-1])]
    words, telling = all(map(is_word, pieces)), pieces[1].strip().lower() not in FORM_WORDS
    near = 1 - abs(refused.u - refused.p / refused.q)
    return words * (1 + 0.5 * telling) + 0.6 * near + 0.1 * min(len(step.path), 3)


def is_word(piece: bytes) -> bool:
    """
    >>> is_word(b" it"), is_word(b"ing"), is_word(b" a"), is_word(b".")
    (True, False, False, False)
    """
    return len(piece) > 2 and piece[:1] == b" " and piece[1:].isalpha()


# -- making them -------------------------------------------------------------------------------------------------------


def record(family: "Family", method: str, seed: int, most: int = MOST) -> Trace:
    """A whole run, of at most so many tokens."""
    from decoding.runs.run import Run  # not at the top: a page that only shows a recorded run needs no torch
    from decoding.sample import Sampling

    messages = [{"role": "user", "content": QUESTION}]
    run = Run(family, method, METHODS[method], messages, Sampling(TEMPERATURE, top_p=TOP_P), seed, most)
    for _ in run:
        pass
    return run.trace


def tokens(trace: Trace) -> int:
    return sum(len(step.tokens) for step in trace.steps)


def worth(trace: Trace) -> float:
    """Tokens per target call, and a quarter as many on top if a step shows one word turned down for another."""
    best = max(lesson(step, trace.token_bytes) for step in trace.steps)
    return tokens(trace) / len(trace.steps) * (1.25 if best > 1 else 1.0)


def candidates(family: "Family", seeds: int) -> Iterator[Trace]:
    """EAGLE's runs whose answers end and are long enough."""
    for seed in range(seeds):
        trace = record(family, FIRST, seed)
        print(f"seed {seed}: worth {worth(trace):.2f}, {told(trace)}", flush=True)
        if trace.steps[-1].ending == "end of text" and tokens(trace) >= LEAST:
            yield trace


def all_of(family: "Family", seed: int) -> dict[str, Trace]:
    """The run of every method with one seed, behind a short one that warms the machine up for the measured times."""
    found = {}
    for method in METHODS:
        record(family, method, seed, 8)
        found[method] = record(family, method, seed)
        print(f"{method}, seed {seed}: {told(found[method])}", flush=True)
    return found


def best_of(family: "Family", seeds: int) -> int:
    """The seed that is worth most; ValueError if no answer suits."""
    found = max(candidates(family, seeds), key=worth, default=None)
    if found is None:
        raise ValueError(f"Of {seeds} seeds none brings an answer of {LEAST} tokens that ends by itself; try more with --seeds.")
    return found.header.seed


def told(trace: Trace) -> str:
    """How long a run is, and what it says."""
    count = tokens(trace)
    return (
        f"{count} tokens, {len(trace.steps)} calls, {trace.steps[-1].ending}, tau {count / len(trace.steps):.2f}: {trace.answer!r}"
    )


def main() -> None:
    from decoding.models.family import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=24, help="runs of EAGLE to choose from")
    parser.add_argument("--seed", type=int, help="take this one")
    options = parser.parse_args()
    family = load(FAMILY, device="cpu")
    traces = all_of(family, best_of(family, options.seeds) if options.seed is None else options.seed)
    FOLDER.mkdir(exist_ok=True)
    for method, trace in traces.items():
        file_of(method).write_bytes(gzip.compress(encode(trace), mtime=0))
        assert read(method) == trace
        print(f"{file_of(method).name}: {file_of(method).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
