"""Sweep: one method run with several values of one parameter, one run after the other on the worker. Draws nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import TYPE_CHECKING

from decoding.limits import check_sweep
from decoding.runs.worker import Live
from decoding.sample import MAX_TEMPERATURE
from decoding.trace import Trace
from pages.parts.compare.race import Column, lives_of
from pages.parts.shared.runs import RunController
from pages.parts.shared.settings import Settings

if TYPE_CHECKING:
    from decoding.method import Method

TEMPERATURE = "temperature (sampling)"


@dataclass(frozen=True)
class Plan:
    """What to run."""

    base: Settings  # everything but the swept value
    parameter: str  # of the method, or TEMPERATURE
    label: str
    values: tuple[float, ...]
    seeds: int = 1  # runs per value

    @property
    def runs(self) -> list[tuple[float, Settings]]:
        """Value and settings of every run."""
        found = [(at, self.settings(at)) for at in self.values]
        return [(at, replace(one, seed=one.seed + i)) for at, one in found for i in range(self.seeds)]

    @property
    def problem(self) -> str:
        """What is wrong with it, as far as it can be told without a model; "" if nothing is."""
        try:
            check_sweep(len(self.values) * self.seeds)
        except ValueError as error:
            return str(error)
        return self.base.problem()

    def settings(self, at: float) -> Settings:
        if self.parameter == TEMPERATURE:
            return replace(self.base, temperature=at)
        return replace(self.base, params={**self.base.params, self.parameter: at})


@dataclass(eq=False)
class Sweep(RunController):
    """The controller of a sweep: its points and the runs behind them."""

    plan: Plan | None = None
    points: list[tuple[float, Column]] = field(default_factory=list)
    running: bool = False

    @property
    def lives(self) -> tuple[Live, ...]:
        return lives_of([column for _, column in self.points])

    @property
    def long(self) -> bool:
        return self.running

    def tick(self) -> float | None:
        return self.rarer(self.poll) if self.running else None

    def look(self) -> tuple:
        return self.running, self.done, self.plan, *(column.problem for _, column in self.points)

    @property
    def runs(self) -> list[tuple[float, Trace]]:
        """The finished ones."""
        return [(at, column.trace) for at, column in self.points if column.ended]

    @property
    def done(self) -> int:
        return sum(column.done for _, column in self.points)

    @property
    def now(self) -> tuple[float, Column] | None:
        """The point whose turn it is."""
        return next((point for point in self.points if not point[1].done), None)

    @property
    def missing(self) -> bool:
        """Whether there are runs to go on with: some were not begun, were stopped or have failed."""
        return not all(column.ended for _, column in self.points)

    def start(self, plan: Plan) -> None:
        """Make its runs; nothing happens if they cannot be, which the page says."""
        if plan.problem:
            return
        self.close()
        self.problem, self.plan, self.points = "", plan, [(at, Column(settings)) for at, settings in plan.runs]
        self.go_on()

    def go_on(self) -> None:
        """The runs that are missing."""
        for _, column in self.points:
            column.enter(self.group)
        self.running = True
        self.sync()

    def stop(self) -> None:
        self.running = False
        super().stop()

    def let_go(self, problem: str) -> None:
        if self.points:
            super().let_go(problem)
            self.points = []

    def sync(self) -> None:
        for _, column in self.points:
            column.look()
        if not self.running:
            return
        now = self.now  # read once: what stands still may be let go of meanwhile
        self.running = now is not None and not now[1].stuck
        if now is not None and self.running:
            now[1].ask(inf)
            self.running = not now[1].problem  # the others would be refused, too


def sweepable(method: Method) -> dict[str, tuple[str, float, float]]:
    """Parameter -> (label, low, high): every number among the method's parameters, and the temperature."""
    found = {
        f.name: (f.metadata["label"], type(f.default)(f.metadata["low"]), type(f.default)(f.metadata["high"]))
        for f in fields(method.params)
        if isinstance(f.default, (int, float)) and not isinstance(f.default, bool) and not f.metadata["choices"]
    }
    return found | {TEMPERATURE: ("Temperature", 0.0, MAX_TEMPERATURE)}


def spread(low: float, high: float, points: int) -> tuple[float, ...]:
    """So many values from low to high, evenly; whole numbers stay whole, and equal ones fall together.

    >>> spread(1, 8, 3), spread(1, 2, 5), spread(0.0, 1.0, 3)
    ((1, 4, 8), (1, 2), (0.0, 0.5, 1.0))
    """
    steps = max(1, points - 1)
    values = [low + (high - low) * i / steps for i in range(points)] if points > 1 else [low]
    whole = isinstance(low, int) and isinstance(high, int)
    return tuple(sorted({round(at) if whole else round(at, 4) for at in values}))
