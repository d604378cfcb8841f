"""What a finished comparison found, in words: who got most out of a target call, and who was the fastest by the clock.

Only runs of the same work are compared, plain decoding among them; the clock is that of the machine the runs were made on. What was
measured several times is told with its ends, and what the ends leave open is not called faster.
"""

from collections.abc import Mapping, Sequence

from decoding.trace import Trace
from viz.runs.compare import duration, work
from viz.runs.lines import Runs, pairs
from viz.runs.tally import tally
from viz.runs.timing import Spread, speedup, spread_words
from viz.tokens import plain

LEVEL = 0.005  # of a speed-up: what would be written as 1.00
HERE = "on this machine"


def winner_words(runs: Runs, rounds: Mapping[str, Sequence[float]] | None = None, where: str = HERE) -> str:
    """One or two sentences; "" while a run goes on, without plain decoding, or where the work differs.

    Args:
        rounds: milliseconds of every round by name, where they were measured several times in turn; else a run is one measurement.
        where: on which machine.
    """
    listed = pairs(runs)
    base = next((trace for _, trace in listed if trace.is_plain), None)
    others = {label: trace for label, trace in listed if not trace.is_plain}
    if base is None or not others or any(work(trace) != work(base) for trace in others.values()):
        return ""
    if not all(trace.steps and trace.steps[-1].ending for _, trace in listed):
        return ""
    totals = {label: tally(trace.steps) for label, trace in others.items()}
    best = max(totals, key=lambda label: totals[label].tau or 0)
    taken = {plain(label, 48): tuple(ms) for label, ms in (rounds or {}).items()}
    name = next(label for label, trace in listed if trace is base)
    speeds = {label: speed for label, trace in others.items() if (speed := speed_of(label, trace, name, base, taken)) is not None}
    return f"{most(best, others[best], base)}{clock(best, speeds, where)}"


def speed_of(label: str, trace: Trace, name: str, base: Trace, rounds: Mapping[str, Sequence[float]]) -> Spread | None:
    ms = rounds.get(label) or (duration(trace),)
    return speedup(ms, tally(trace.steps).tokens, rounds.get(name) or (duration(base),), tally(base.steps).tokens)


def most(best: str, trace: Trace, base: Trace) -> str:
    """Against plain decoding of the same text, or of its own length."""
    calls, tokens = len(trace.steps), tally(trace.steps).tokens
    if calls >= tokens:
        return "No method saved a target call."
    if tokens == tally(base.steps).tokens:
        return f"{best} needed {calls:,} target calls for what plain decoding took {len(base.steps):,}."
    return f"{best} got most out of a target call: {tokens:,} tokens from {calls:,}; plain decoding gets one from each."


def clock(best: str, speeds: Mapping[str, Spread], where: str) -> str:
    """The same by measured time."""
    if not speeds:
        return ""
    fastest = max(speeds, key=lambda label: speeds[label].median)
    speed = speeds[fastest]
    if speed.rounds == 1:
        return once(best, fastest, speed.median)
    if speed.high < 1 + LEVEL:
        return f" By the clock plain decoding was not beaten {where}: {fastest}, the next, came to {spread_words(speed)} its speed."
    if speed.low <= 1:
        return f" By the clock {fastest} came to {spread_words(speed)} the speed of plain decoding {where}: not told apart."
    that = "that was" if fastest == best else f"{fastest} was the fastest,"
    return f" By the clock {that} {spread_words(speed)} the speed of plain decoding, {where}."


def once(best: str, fastest: str, speed: float) -> str:
    """Every run taken once: no more is known."""
    if speed < 1 + LEVEL:
        return " By the clock plain decoding was not beaten in these runs, each measured once."
    if fastest == best:
        return f" By the clock that was {speed:.2f} times as fast, measured once."
    return f" By the clock {fastest} was the fastest, {speed:.2f} times plain decoding, measured once."
