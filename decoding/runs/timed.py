"""Measured times of several methods on one prompt: a warm-up apart, then round after round with the methods in turn.

A step's milliseconds never hold the loading of a model, but the first steps of a process are slow (kernels and buffers are made),
and a machine drifts. So every method first writes a few tokens that are not counted, and no method has its rounds in a row: what
slows the machine down for a while slows all of them. One number is no measurement: there are several, and whoever shows them says
the median and the ends (`viz.runs.timing`).
"""

from collections.abc import Callable, Sequence
from statistics import median_low

from decoding.runs.run import Run
from decoding.runs.turns import InTurns
from decoding.runs.worker import UNDER_WAY, next_of
from decoding.trace import Step, Trace

ROUNDS = 3
WARM = 8  # steps of the warm-up


class Timed(InTurns[Step]):
    """The runs of a measurement, one after the other: an iterator over their steps, as the worker wants it.

    Args:
        makers: what builds a run anew, one per method.
        rounds: times that each is run to its end.
    """

    def __init__(self, makers: Sequence[Callable[[], Run]], rounds: int = ROUNDS) -> None:
        self._makers = makers
        self._turns = [(i, None) for i in range(len(makers))] + [(i, turn) for turn in range(rounds) for i in range(len(makers))]
        self._run: Run | None = None
        self.rounds, self.count, self.done = rounds, 0, 0
        self._traces: list[list[Trace]] = [[] for _ in makers]
        self.ms: list[list[float]] = [[] for _ in makers]  # of all steps of a run, by method and round

    def __iter__(self) -> "Timed":
        return self

    def turn(self) -> Step | None:
        """As that of a run."""
        while not self.ended:
            method, turn = self._turns[self.done]
            run = self._run or self.prepare()
            step = None if turn is None and len(run.steps) >= WARM else next_of(run)
            if step is UNDER_WAY:
                return None
            if step is not None:
                self.count += 1
                return step
            self._note(method, turn, run)
        raise StopIteration

    @property
    def unready(self) -> bool:
        """Whether the next run has to be made first, with the models it needs."""
        return self._run is None and not self.ended

    def prepare(self) -> Run:
        """Make it; not on the worker's thread."""
        self._run = self._makers[self._turns[self.done][0]]()
        return self._run

    def _note(self, method: int, turn: int | None, run: Run) -> None:
        """A run is over; what the warm-up took is not kept."""
        if turn is not None:
            self.ms[method].append(sum(step.times.total for step in run.steps))
            self._traces[method].append(run.trace)
        run.let_go()
        self._run, self.done = None, self.done + 1

    @property
    def steps(self) -> range:
        """As many as were taken, those of the warm-up included."""
        return range(self.count)

    @property
    def ended(self) -> bool:
        return self.done >= len(self._turns)

    @property
    def held(self) -> list[Run | Trace]:
        """The runs that lie in memory."""
        return [*(trace for found in list(self._traces) for trace in found), *([] if self._run is None else [self._run])]

    @property
    def traces(self) -> list[Trace | None]:
        """Of every method the run that took the median of its times; None before its first round."""
        return [found[ms.index(median_low(ms))] if ms else None for found, ms in zip(self._traces, self.ms, strict=True)]

    @property
    def turns(self) -> int:
        """Runs there are to be, warm-ups included."""
        return len(self._turns)

    def let_go(self) -> None:
        """Drop the models; what was measured stays, and no step can follow."""
        if self._run is not None:
            self._run.let_go()
        self._run, self._makers, self.done = None, (), len(self._turns)
