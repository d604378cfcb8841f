"""What a finished comparison found, in words: who got most out of a target call, and who was the fastest by the clock.

Only runs of the same work are compared, plain decoding among them; the clock is that of the machine the runs were made on.
"""

from viz.runs.compare import measured_speedup, work
from viz.runs.lines import Runs, pairs
from viz.runs.tally import tally

LEVEL = 0.005  # of a speed-up: what would be written as 1.00


def winner_words(runs: Runs) -> str:
    """One or two sentences; "" while a run goes on, without plain decoding, or where the work differs."""
    listed = pairs(runs)
    base = next((trace for _, trace in listed if trace.is_plain), None)
    others = {label: trace for label, trace in listed if not trace.is_plain}
    if base is None or not others or any(work(trace) != work(base) for trace in others.values()):
        return ""
    if not all(trace.steps and trace.steps[-1].ending for _, trace in listed):
        return ""
    totals = {label: tally(trace.steps) for label, trace in others.items()}
    best = max(totals, key=lambda label: totals[label].tau or 0)
    speeds = {label: speed for label, total in totals.items() if (speed := measured_speedup(total, base)) is not None}
    return f"{most(best, totals[best].target_calls, totals[best].tokens)}{clock(best, speeds)}"


def most(best: str, calls: int, tokens: int) -> str:
    if calls >= tokens:
        return "No method saved a target call."
    return f"{best} got most out of a target call: {tokens:,} tokens from {calls:,}; plain decoding gets one from each."


def clock(best: str, speeds: dict[str, float]) -> str:
    """The same by measured time, every run taken once."""
    if not speeds:
        return ""
    fastest = max(speeds, key=lambda label: speeds[label])
    if speeds[fastest] < 1 + LEVEL:
        return " By the clock plain decoding was not beaten in these runs, each measured once."
    if fastest == best:
        return f" By the clock that was {speeds[best]:.2f} times as fast, measured once."
    return f" By the clock {fastest} was the fastest, {speeds[fastest]:.2f} times plain decoding, measured once."
