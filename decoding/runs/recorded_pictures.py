"""The picture that Home plays on one clock: `python -m decoding.runs.recorded_pictures` makes it anew, with digits.

One digit, greedy, so that both runs draw the same picture pixel by pixel: plain decoding, and speculative Jacobi decoding whose
window is filled from above. The program prints how many calls every digit needs; the one that is kept needs as many as their
median.
"""

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
ORDINARY, SPECULATIVE = "plain", "speculative_jacobi"
METHODS: dict[str, dict[str, Any]] = {ORDINARY: {}, SPECULATIVE: {"window": 16, "fill": "above"}}
INK = " .:-=+*#"  # of the greys, from paper to ink


def read() -> tuple[Trace, Trace]:
    """The ordinary and the speculative run; OSError or ValueError if one is missing or damaged."""
    return read_file(ORDINARY), read_file(SPECULATIVE)


def read_file(method: str) -> Trace:
    try:
        return decode_trace(gzip.decompress(file_of(method).read_bytes()))
    except (EOFError, zlib.error) as error:
        raise ValueError(f"The recorded picture of {method} is damaged: {error}") from error


def file_of(method: str) -> Path:
    return FOLDER / f"{method}.msgpack.gz"


def record(family: "Family", method: str, prompt: str = PROMPT) -> Trace:
    """A whole picture."""
    from decoding.runs.run import Run  # not at the top: a page that only shows a recorded run needs no torch
    from decoding.sample import Sampling

    run = Run(family, method, METHODS[method], prompt, Sampling(0.0), 0, PIXELS)
    for _ in run:
        pass
    return run.trace


def told(trace: Trace) -> str:
    """How many calls a picture took, and what it looks like in letters."""
    pixels = [token for step in trace.steps for token in step.tokens]
    rows = ("".join(INK[token] * 2 for token in pixels[start : start + 8]) for start in range(0, PIXELS, 8))
    return f"{trace.header.prompt}, {trace.header.method}: {len(trace.steps)} calls\n" + "\n".join(rows)


def main() -> None:
    from decoding.models.family import load

    family = load(FAMILY, device="cpu")
    calls = {f"digit{digit}": len(record(family, SPECULATIVE, f"digit{digit}").steps) for digit in range(10)}
    print(f"calls: {calls}, median {median(calls.values()):g}")
    FOLDER.mkdir(exist_ok=True)
    for method in METHODS:
        trace = record(family, method)
        file_of(method).write_bytes(gzip.compress(encode(trace), mtime=0))
        print(told(trace), f"{file_of(method).stat().st_size:,} bytes", sep="\n")


if __name__ == "__main__":
    main()
