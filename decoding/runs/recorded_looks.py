"""The recorded looks that Lenses opens with: `python -m decoding.runs.recorded_looks` makes them anew.

Through every lens that smollm2 can serve one look, with the parameters it begins with, where the first visit of Step pauses: at a
rejection in the story of `decoding.runs.lesson_runs`. Making them needs smollm2 on this machine, reading them no model. Run it
whenever the story is made anew, or a lens sees something else.
"""

import argparse
import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from decoding.looks import Cursor, Look, decode_look, encode_look
from decoding.runs import lesson_runs, recorded_run
from decoding.runs.recorded_run import FAMILY, instructive
from decoding.trace import Trace

if TYPE_CHECKING:
    from decoding.models.family import Family

FOLDER = recorded_run.FOLDER / "looks"


def place(trace: Trace) -> Cursor:
    """Of the recorded run: the first guess that was turned down at the step to pause at."""
    step = instructive(trace) or 0
    return Cursor(step, next((i for i, node in enumerate(trace.steps[step].nodes) if node.verdict == "rejected"), None))


def read(lens: str) -> Look:
    """The look through a lens; OSError or ValueError if there is none, or if it is damaged."""
    try:
        return decode_look(gzip.decompress(file_of(lens).read_bytes()))
    except (EOFError, zlib.error) as error:
        raise ValueError(f"The recorded look {lens} is damaged: {error}") from error


def file_of(lens: str) -> Path:
    return FOLDER / f"{lens}.msgpack.gz"


# -- making them -------------------------------------------------------------------------------------------------------


def record(family: "Family", lens: str, trace: Trace) -> Look:
    """The last look of a lens."""
    from decoding.runs.lens_run import LensRun  # not at the top: a page that only shows a recording needs no torch

    *_, look = LensRun(family, lens, trace, *place(trace))
    return look


def main() -> None:
    from decoding.lenses import LENSES
    from decoding.models.family import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lenses", nargs="*", default=list(LENSES), help="which; all if none is named")
    options = parser.parse_args()
    family, trace = load(FAMILY, device="cpu"), lesson_runs.read("story")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for lens in options.lenses:
        try:
            look = record(family, lens, trace)
        except ValueError as error:  # it says why the family cannot serve it
            print(f"{lens}: {error}")
            continue
        file_of(lens).write_bytes(gzip.compress(encode_look(look), mtime=0))
        assert read(lens) == look
        print(f"{lens}: {file_of(lens).stat().st_size:,} bytes, {look.rows_read:,} rows, {look.ms:,.0f} ms")


if __name__ == "__main__":
    main()
