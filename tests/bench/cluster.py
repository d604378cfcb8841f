"""Benchmark, not a test: what a step costs on a machine of a cluster, beside the same step in this process.

    python -m tests.bench.cluster [--families embedded,smollm2] [--methods plain,speculative_sampling,eagle] [--rounds 5]
        [--tokens 48]

Starts a cluster of this machine alone, as `draftscope --cluster local` does. The same run is taken here and there in turns, so that
a machine whose speed drifts slows both alike. What passes from asking for a step until it is there, less the milliseconds that
its trace says the loop took, is the way; its least twentieth is what it takes on a calm machine. The processor time of this process
says how many steps an app can hand on, whatever else the machine does. Medians of all steps but the first of a run, which reads
the prompt. Beside them: bytes of a step, and what packing and unpacking it takes.
"""

import argparse
import os
from statistics import median
from time import perf_counter, process_time

from decoding.methods import METHODS
from decoding.models.family import Family, load
from decoding.runs.cluster import Cluster
from decoding.runs.evaluate import known
from decoding.runs.orders import Taken, decode, encode
from decoding.runs.run import Place, begin
from decoding.sample import Sampling

PROMPT = "Once upon a time there was a little girl who lived near the forest. One day she"
TIMES = ("a step here, ms", "there, ms", "the way, ms", "5 % within", "95 % within", "processor time here of one there, ms")
NAMES = ("family", "method", *TIMES, "kB", "packing, ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default="embedded,smollm2", help="names, parted by commas")
    parser.add_argument("--methods", type=known, default=["plain", "speculative_sampling", "eagle"], help="keys, parted by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    cluster = Cluster("local")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds of {options.tokens} tokens")
    print(f"| {' | '.join(NAMES)} |\n{'|---' * len(NAMES)}|")
    for name in options.families.split(","):
        models = (name, None, "auto", "auto")
        here, there = load(*models), cluster.families(models)[0]
        for method in options.methods:
            if not METHODS[method].missing(here):
                print(f"| {name} | {method} | {' | '.join(row(here, there, method, options))} |", flush=True)
    cluster.leave()


def row(here: Family, there: Place, method: str, options: argparse.Namespace) -> list[str]:
    """The numbers of one method, as they are printed."""
    found: dict[bool, list[tuple[float, float, float]]] = {False: [], True: []}
    packed: list[tuple[int, float]] = []
    for seed in range(options.rounds):
        for remote, place in ((False, here), (True, there)):
            run = begin(place, method, prompt=PROMPT, sampling=Sampling(1.0), seed=seed, max_tokens=options.tokens)
            found[remote] += timed(run)
        packed += [packing(Taken(step, {})) for step in run.steps]
    (own, *_), (other, _, spent) = (zip(*found[remote], strict=True) for remote in (False, True))
    ways = sorted(taken - loop for taken, loop, _ in found[True])
    within = [ways[int(share * len(ways))] for share in (0.05, 0.95)]
    sizes, seconds = zip(*packed, strict=True)
    numbers = (median(own), median(other), median(ways), *within, median(spent), median(sizes) / 1000, 1000 * median(seconds))
    return [f"{value:.2f}" for value in numbers]


def timed(run) -> list[tuple[float, float, float]]:
    """Of every step but the first: milliseconds until it was there, those of the loop, and those of a processor here."""
    found = []
    while True:
        began, spent = perf_counter(), process_time()
        if (step := next(run, None)) is None:
            return found[1:]
        found.append((1000 * (perf_counter() - began), step.times.total, 1000 * (process_time() - spent)))


def packing(step: Taken) -> tuple[int, float]:
    """Bytes of a step, and the seconds that packing and unpacking take."""
    began = perf_counter()
    data = encode(step)
    decode(data, Taken)
    return len(data), perf_counter() - began


if __name__ == "__main__":
    main()
