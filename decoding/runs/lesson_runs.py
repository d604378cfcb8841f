"""The recorded runs of the lessons: `python -m decoding.runs.lesson_runs` makes them anew, beside those of `recorded_run`.

They are made with smollm2, which has to be on this machine; reading them needs no model. Greedy runs of one question by every kind
of drafter write the same text, so that their calls can be counted against each other; a second question is one whose answer repeats
it. Two more are about when guessing does not pay: a high temperature, and a draft model that learned from children's stories and
knows nothing of programs. The questions were chosen by reading the answers. All seeds are the same but that of the story,
which the first lessons are about: the first one in whose run a word is turned down for another word by a die that falls near.
"""

import argparse
import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.runs import recorded_run
from decoding.runs.recorded_run import FAMILY, QUESTION, told
from decoding.trace import Trace, decode_trace, encode

if TYPE_CHECKING:
    from decoding.models.family import Family

FOLDER = recorded_run.FOLDER / "lessons"
COPY = (
    "Correct the spelling and write the whole text again: The fox saw a crow with a piece of cheese in her beak. The fox sayd to "
    "the crow that her feathers were beautiful. The crow opened her beak to sing, and the cheese fell to the ground."
)
STORY = "Tell me a short story about a child who finds a little dog."
SEED = 1  # that of the recorded runs
MOST = 80  # tokens of an answer


@dataclass(frozen=True)
class Wanted:
    """A run to record."""

    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    question: str = QUESTION
    temperature: float = 0.0
    top_p: float = 1.0
    draft: str | None = None  # the draft model, if it is not the family's own
    seed: int = SEED


CHAIN = {"length": 4}
WARM = recorded_run.TEMPERATURE, recorded_run.TOP_P
RUNS: dict[str, Wanted] = {
    "story_plain": Wanted("plain", {}, STORY, *WARM),
    "story": Wanted("speculative_sampling", CHAIN, STORY, *WARM, seed=2),
    "greedy_plain": Wanted("plain"),
    "greedy_copy": Wanted("prompt_lookup"),
    "greedy_small": Wanted("speculative_sampling", CHAIN),
    "greedy_heads": Wanted("eagle"),
    "greedy_self": Wanted("kangaroo"),
    "fix_plain": Wanted("plain", question=COPY),
    "fix_copy": Wanted("prompt_lookup", question=COPY),
    "fix_small": Wanted("speculative_sampling", CHAIN, COPY),
    "fix_heads": Wanted("eagle", question=COPY),
    "fix_self": Wanted("kangaroo", question=COPY),
    "hot": Wanted("speculative_sampling", CHAIN, temperature=1.5),
    "stranger": Wanted("universal_assisted", CHAIN, QUESTION, *WARM, draft="embedded"),
}


def read(name: str) -> Trace:
    """A recorded run by its name here, or by its method if it is one of `recorded_run`.

    Raises:
        OSError, ValueError: it is missing, or damaged.
    """
    if name in recorded_run.METHODS:
        return recorded_run.read(name)
    try:
        return decode_trace(gzip.decompress(file_of(name).read_bytes()))
    except (EOFError, zlib.error) as error:
        raise ValueError(f"The recorded run {name} is damaged: {error}") from error


def file_of(name: str) -> Path:
    return FOLDER / f"{name}.msgpack.gz"


def record(family: "Family", wanted: Wanted, most: int = MOST) -> Trace:
    """A whole run, of at most so many tokens."""
    from decoding.runs.run import Run  # not at the top: a page that only shows a recorded run needs no torch
    from decoding.sample import Sampling

    messages = [{"role": "user", "content": wanted.question}]
    sampling = Sampling(wanted.temperature, top_p=wanted.top_p)
    run = Run(family, wanted.method, dict(wanted.params), messages, sampling, wanted.seed, most)
    for _ in run:
        pass
    return run.trace


def main() -> None:
    from decoding.models.family import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of the runs to make; all if none is given")
    names = parser.parse_args().names or list(RUNS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    families: dict[str | None, Any] = {}
    for name in names:
        wanted = RUNS[name]
        if wanted.draft not in families:
            families[wanted.draft] = load(FAMILY, wanted.draft, device="cpu")
        record(families[wanted.draft], wanted, 8)  # warms up, for the times
        trace = record(families[wanted.draft], wanted)
        file_of(name).write_bytes(gzip.compress(encode(trace), mtime=0))
        assert read(name) == trace
        print(f"{name}: {told(trace)}, {file_of(name).stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
