"""The recorded comparison that Compare opens with: `python -m decoding.runs.recorded_comparison` makes it anew.

The question of the recorded runs (`decoding.runs.recorded_run`), answered by four methods at temperature 0, where every lossless
method must write the same text: the traces of the rounds with the median time, and the times of all rounds, measured behind a
warm-up with the methods in turn (`decoding.runs.timed`). It is made with smollm2, which has to be on this machine; reading it needs
no model. Run it whenever what ships for smollm2 changes, on a machine that does nothing else: the times are those of that machine.
"""

import argparse
import gzip
import os
import zlib
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from decoding.runs import recorded_run
from decoding.runs.recorded_run import FAMILY, MOST, QUESTION, told
from decoding.trace import Trace, decode_trace, encode

if TYPE_CHECKING:
    from decoding.models.family import Family
    from decoding.runs.timed import Timed

METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "speculative_sampling": {"length": 4},
    "multi_candidate": {},
    "eagle": {"nodes": 12},
}
TIMES = "times.json"
LARGEST = 100_000  # bytes of the file of times


class Times(msgspec.Struct, frozen=True):
    """What the rounds took, in milliseconds by method, and where and when."""

    ms: dict[str, tuple[float, ...]]
    made: str  # the day
    cores: int
    load: float  # of the machine when the rounds began, in processes that wanted a core


def folder() -> Path:
    return recorded_run.FOLDER / "greedy"


def read(method: str) -> Trace:
    """A trace of the comparison; OSError or ValueError if it is missing or damaged."""
    try:
        return decode_trace(gzip.decompress((folder() / f"{method}.msgpack.gz").read_bytes()))
    except (EOFError, zlib.error) as error:
        raise ValueError(f"The recorded comparison is damaged at {method}: {error}") from error


def times() -> Times:
    """What the rounds took; OSError or ValueError if the file is missing or damaged."""
    data = (folder() / TIMES).read_bytes()
    if len(data) > LARGEST:
        raise ValueError(f"The times of the recorded comparison have {len(data):,} bytes; at most {LARGEST:,} are read.")
    try:
        return msgspec.json.decode(data, type=Times)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"The times of the recorded comparison are damaged: {error}") from error


# -- making it ---------------------------------------------------------------------------------------------------------


def measured(family: "Family", rounds: int, most: int = MOST) -> "Timed":
    """All rounds, to their ends."""
    from decoding.runs.run import Run  # not at the top: a page that only shows a recording needs no torch
    from decoding.runs.timed import Timed
    from decoding.sample import Sampling

    messages = [{"role": "user", "content": QUESTION}]
    makers = [
        lambda method=method, params=params: Run(family, method, params, messages, Sampling(0.0), 0, most)
        for method, params in METHODS.items()
    ]
    timed = Timed(makers, rounds)
    for _ in timed:
        print(f"\rrun {timed.done + 1} of {timed.turns}, {timed.count} calls", end="", flush=True)
    return timed


def main() -> None:
    from decoding.models.family import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    busy = os.getloadavg()[0]
    timed = measured(load(FAMILY, device="cpu"), options.rounds)
    traces = {method: trace for method, trace in zip(METHODS, timed.traces, strict=True) if trace is not None}
    folder().mkdir(parents=True, exist_ok=True)
    for method, trace in traces.items():
        (folder() / f"{method}.msgpack.gz").write_bytes(gzip.compress(encode(trace), mtime=0))
        assert read(method) == trace
        print(f"\n{method}: {told(trace)}")
    found = Times(
        {method: tuple(round(ms, 1) for ms in taken) for method, taken in zip(METHODS, timed.ms, strict=True)},
        date.today().isoformat(),
        os.cpu_count() or 1,
        round(busy, 1),
    )
    (folder() / TIMES).write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    print(found)


if __name__ == "__main__":
    main()
