"""The recorded study that Drafter opens with: `python -m decoding.runs.recorded_study` makes it anew.

Twelve questions, of four domains, put to smollm2 with its draft model: speculative sampling with the sampling of the other recorded
runs, question n with the seed n. They were written before any answer was seen, and none was exchanged: what the page says of the
drafter is what there is. Making it needs smollm2 on this machine, reading it needs no model. Run it whenever what ships for smollm2
changes.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from decoding.runs import recorded_run
from decoding.runs.prompts import Prompt
from decoding.runs.recorded_run import FAMILY, TEMPERATURE, TOP_P, read_file, told
from decoding.trace import Trace, encode

if TYPE_CHECKING:
    from decoding.models.family import Family

FOLDER = recorded_run.FOLDER / "study"
METHOD, PARAMS = "speculative_sampling", {"length": 4}
MOST = 64  # tokens of an answer
QUESTIONS = {
    "story": (
        "Tell me a short story about a goat that wanted to see the sea.",
        "Write the beginning of a tale about two brothers and a locked door.",
        "Describe an old house at the end of a village street.",
    ),
    "mathematics": (
        "A baker sells 12 rolls in the morning and 9 in the afternoon. How many is that?",
        "What is the area of a rectangle that is 7 wide and 4 high?",
        "A train takes 3 hours for 180 miles. How fast does it go?",
    ),
    "python": (
        "Write a Python function that counts the vowels in a word.",
        "Write a Python function that returns the largest number in a list.",
        "Explain what a for loop does in Python.",
    ),
    "fact": (
        "Why is the sky blue?",
        "Name three animals that sleep in winter.",
        "What does the heart do?",
    ),
}  # fmt: skip
PROMPTS = tuple(Prompt(question, domain) for domain, questions in QUESTIONS.items() for question in questions)


class Recording:
    """The runs of the study by number, opened as those of a store are."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        self._traces = tuple(traces)

    def open(self, trace: int) -> Trace:
        """The run of a prompt, both counted from 0."""
        return self._traces[trace]

    @property
    def runs(self) -> list[tuple[int, int, str, Trace]]:
        """(prompt, number of the run, domain, trace) of every prompt: those of `decoding.runs.study.results`."""
        return [(i, i, prompt.domain, trace) for i, (prompt, trace) in enumerate(zip(PROMPTS, self._traces, strict=True))]


def read() -> Recording:
    """The study; OSError or ValueError if a run is missing or damaged."""
    return Recording([read_file(file_of(number)) for number in range(len(PROMPTS))])


def file_of(number: int) -> Path:
    return FOLDER / f"{number:02}.msgpack.gz"


# -- making it ---------------------------------------------------------------------------------------------------------


def record(family: "Family", number: int) -> Trace:
    """One run, to its end."""
    from decoding.runs.run import Run  # not at the top: a page that only shows a recording needs no torch
    from decoding.sample import Sampling

    messages = [{"role": "user", "content": PROMPTS[number].text}]
    run = Run(family, METHOD, PARAMS, messages, Sampling(TEMPERATURE, top_p=TOP_P), number, MOST)
    for _ in run:
        pass
    return run.trace


def main() -> None:
    from decoding.models.family import load

    family = load(FAMILY, device="cpu")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number, prompt in enumerate(PROMPTS):
        trace = record(family, number)
        file_of(number).write_bytes(gzip.compress(encode(trace), mtime=0))
        assert read_file(file_of(number)) == trace
        print(f"{prompt.text}\n{told(trace)}\n")


if __name__ == "__main__":
    main()
