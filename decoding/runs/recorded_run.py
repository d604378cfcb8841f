"""The recorded run that a page shows on its first visit: `python -m decoding.runs.recorded_run` makes it anew with the embedded
family.

Run it whenever the weights change. It tries seeds until a run has an instructive rejection: a step that keeps at least one
drafted token and then rejects one by a die that clearly lies on the wrong side.
"""

import argparse
from pathlib import Path

from decoding.trace import Step, Trace, decode_trace, encode

FILE = Path(__file__).parent.parent / "embedded" / "first-run.msgpack"
PROMPT = "Once upon a time there was a little"
SETTINGS = {"method": "speculative_sampling", "params": {"length": 4}, "max_tokens": 48}
TEMPERATURE = 0.8


def instructive(trace: Trace) -> int | None:
    """Index of the step to pause at: the most instructive rejection, not the very first step if there is a choice."""
    lessons = [(lesson(step), -abs(i - 3), i) for i, step in enumerate(trace.steps)]
    best, _, index = max(lessons, default=(0.0, 0, 0))
    return index if best > 0 else None


def lesson(step: Step) -> float:
    """How well a step shows a rejection: accepted tokens first, then one whose die is well above p / q; 0 if it shows none."""
    rejected = [
        (node.p, node.u * node.q - node.p) for node in step.nodes if node.verdict == "rejected" and node.u is not None and node.q
    ]
    if not rejected or not step.path or step.origins[-1] != "correction":
        return 0.0
    p, margin = rejected[0]
    return margin + 0.1 * min(len(step.path), 3) if p > 0.02 and margin > 0.05 else 0.01


def record(seeds: int = 60) -> Trace:
    """The run whose best rejection teaches most."""
    from decoding.models.family import load  # not at the top: a page that only shows the recorded run needs no torch
    from decoding.runs.run import Run
    from decoding.sample import Sampling

    family = load()
    traces = []
    for seed in range(seeds):
        run = Run(family, prompt=PROMPT, sampling=Sampling(TEMPERATURE), seed=seed, **SETTINGS)
        for _ in run:
            pass
        traces.append(run.trace)
    return max(traces, key=lambda trace: max(map(lesson, trace.steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=60, help="runs to choose from")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    trace = record(options.seeds)
    options.out.write_bytes(encode(trace))
    assert decode_trace(options.out.read_bytes()) == trace
    print(f"{options.out}: seed {trace.header.seed}, {len(trace.steps)} steps, pause at step {(instructive(trace) or 0) + 1}")


if __name__ == "__main__":
    main()
