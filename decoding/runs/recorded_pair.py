"""The two runs that Home plays on one clock: `python -m decoding.runs.recorded_pair` makes them anew, with smollm2.

One question, greedy: ordinary decoding, and prompt lookup, which guesses by copying from the question. Correcting a text repeats
most of it, so copying serves it well: tau is 3.1 here, and near 1 on most other questions (docs/benchmarks.md). The question was
chosen among four texts with mistakes in them, as the one where this model makes every correction and nothing else; that shows what
a refused guess is: the copied mistake.
"""

import gzip
from typing import TYPE_CHECKING

from decoding.runs.recorded_run import FAMILY, FOLDER, read_file, told
from decoding.trace import Trace, encode

if TYPE_CHECKING:
    from decoding.models.family import Family

ORDINARY, SPECULATIVE = "plain", "prompt_lookup"
FILES = {method: FOLDER / "pair" / f"{method}.msgpack.gz" for method in (ORDINARY, SPECULATIVE)}
TEXT = (
    "The sun is a star. It gives us lite and heat. The earth moves around the sun once evry year, and the moon moves around the "
    "earth once every month."
)
QUESTION = f"Correct the spelling and repeat the text: {TEXT}"
MOST = 60  # tokens


def read() -> tuple[Trace, Trace]:
    """The ordinary and the speculative run; OSError or ValueError if one is missing or damaged."""
    return read_file(FILES[ORDINARY]), read_file(FILES[SPECULATIVE])


def record(family: "Family", method: str) -> Trace:
    """The answer to the question, to its end."""
    from decoding.runs.run import Run  # not at the top: a page that only shows a recorded run needs no torch
    from decoding.sample import Sampling

    run = Run(family, method, {}, [{"role": "user", "content": QUESTION}], Sampling(0.0), 0, MOST)
    for _ in run:
        pass
    return run.trace


def main() -> None:
    from decoding.models.family import load

    family = load(FAMILY, device="cpu")
    for method, file in FILES.items():
        record(family, method)  # warms the machine up
        trace = record(family, method)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(encode(trace), mtime=0))
        print(f"{method}: {told(trace)}; {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
