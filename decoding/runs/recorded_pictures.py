"""The recorded pictures of a page that has no model: `python -m decoding.runs.recorded_pictures` makes them anew.

One digit with one seed, drawn by plain decoding, by Jacobi and by speculative Jacobi decoding, whose window is filled from
above. The digit and the seed are chosen by who looked at a few: each picture shows the digit, and speculative Jacobi needs
as many calls as in the median of SEEDS seeds, which the program prints, so that the run is a usual one.
"""

import argparse
import gzip
import zlib
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from decoding.trace import Trace, decode_trace, encode

if TYPE_CHECKING:
    from decoding.models.family import Family

FOLDER = Path(__file__).parent.parent / "digits" / "recorded"
FAMILY, PROMPT, PIXELS = "digits", "digit3", 64
FIRST = "speculative_jacobi"
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "jacobi": {"window": 16, "fill": "above"},
    FIRST: {"window": 16, "fill": "above"},
}
SEED, SEEDS = 9, 12


def read(method: str) -> Trace:
    """A recorded picture; OSError or ValueError if it is missing or damaged."""
    try:
        return decode_trace(gzip.decompress(file_of(method).read_bytes()))
    except (EOFError, zlib.error) as error:
        raise ValueError(f"The recorded picture of {method} is damaged: {error}") from error


def file_of(method: str) -> Path:
    return FOLDER / f"{method}.msgpack.gz"


def record(family: "Family", method: str, seed: int) -> Trace:
    """A whole picture."""
    from decoding.runs.run import Run  # not at the top: a page that only shows a recorded run needs no torch
    from decoding.sample import Sampling

    run = Run(family, method, METHODS[method], PROMPT, Sampling(1.0), seed, PIXELS)
    for _ in run:
        pass
    return run.trace


def told(trace: Trace) -> str:
    """How many calls a picture took, and what it looks like in letters."""
    pixels = [token for step in trace.steps for token in step.tokens]
    rows = ("".join(" .:-=+*#"[token] * 2 for token in pixels[start : start + 8]) for start in range(0, PIXELS, 8))
    return f"{trace.header.method}, seed {trace.header.seed}: {len(trace.steps)} calls\n" + "\n".join(rows)


def main() -> None:
    from decoding.models.family import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--look", action="store_true", help="print what the first seeds bring, and keep nothing")
    options = parser.parse_args()
    family = load(FAMILY, device="cpu")
    if options.look:
        tried = [record(family, FIRST, seed) for seed in range(SEEDS)]
        print(*map(told, tried), sep="\n")
        print(f"median: {median(len(trace.steps) for trace in tried):g} calls")
        return
    FOLDER.mkdir(exist_ok=True)
    for method in METHODS:
        trace = record(family, method, options.seed)
        file_of(method).write_bytes(gzip.compress(encode(trace), mtime=0))
        assert read(method) == trace
        print(told(trace), f"{file_of(method).stat().st_size:,} bytes", sep="\n")


if __name__ == "__main__":
    main()
