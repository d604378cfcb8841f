"""Race: several runs of one prompt side by side, and where in them the page looks.

One object per browser tab. Steps come from the worker, one at a time. Record first, view second: what the columns show
is a function of their traces and of one position for all, counted in target calls or, in a race,
in milliseconds of the recorded steps.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from decoding.limits import Refused
from decoding.methods import METHODS
from decoding.runs.failures import told
from decoding.runs.worker import Live
from decoding.trace import Step, Trace
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.remembered import Remembered
from pages.parts.shared.resting import resting
from pages.parts.shared.runs import LAG, PATIENCE, RunController, handed, of_tab, reach, refusal
from pages.parts.shared.settings import Settings
from viz.runs.compare import duration, until

if TYPE_CHECKING:
    from decoding.runs.timed import Timed
    from pages.parts.shared.keep import Kept

LEAST, MOST = 2, 6  # columns
QUICKEST = 0.25  # seconds between two looks
AGAIN = "The runs that stood here had to make room, so the same ones are made again."
FIRST = tuple(key for key in ("plain", "speculative_sampling", "prompt_lookup", "token_recycling") if key in METHODS)

Mode = Literal["lock-step", "race", "end"]


@dataclass(eq=False)
class Column:
    """One column: what was asked for, who takes its steps, and what is there."""

    settings: Settings
    live: Live | None = None
    trace: Trace | None = None
    problem: str = ""
    kept: "Kept | None" = None  # how far it was kept, if it was
    rounds: tuple[float, ...] = ()  # milliseconds of every round, if it was measured several times in turn with the others

    @property
    def count(self) -> int:
        return len(self.trace.steps) if self.trace else 0

    @property
    def ended(self) -> bool:
        return bool(self.count and self.trace.steps[-1].ending)

    @property
    def done(self) -> bool:
        """No more steps will come."""
        return self.ended or bool(self.problem)

    @property
    def busy(self) -> bool:
        return self.live is not None and self.live.busy

    @property
    def stuck(self) -> bool:
        """Steps are missing and nobody takes them: the tab was thought closed."""
        return not self.done and (self.live is None or self.live.state == "closed")

    def look(self) -> None:
        """Take over what the worker did since the last look."""
        if self.live is None:
            return
        if self.live.count > self.count:
            self.trace = self.live.trace
        if self.live.state == "failed":
            self.problem = self.live.problem

    def enter(self, group: Hashable = None) -> None:
        """Be ready to run, as one of a group: what was closed or failed is made anew, and takes the same steps."""
        if self.ended:
            return
        if self.live is not None and not self.live.lost:
            self.problem = ""
            return
        self.problem = refusal(self.settings)
        try:
            self.live = None if self.problem else handed(self.settings.device, self.settings.maker(), group)
        except ValueError as error:
            self.problem = told(error)

    def ask(self, goal: float) -> None:
        """Have its steps up to number `goal` taken, or say why not."""
        if self.live is not None and not self.done and goal > self.count:
            try:
                reach(self.live, goal)
            except Refused as error:
                self.problem = told(error)

    def close(self) -> None:
        if self.live is not None:
            self.live.close()


def lives_of(columns: Sequence[Column]) -> tuple[Live, ...]:
    """Who takes their steps."""
    return tuple(column.live for column in columns if column.live is not None)


@dataclass(eq=False)
class Race(RunController, Remembered):
    """The controller of the columns, and the position they are shown at."""

    columns: tuple[Column, ...] = ()
    mode: Mode = "lock-step"
    calls: int = 0  # target calls shown, unless it is a race
    clock: float = 0.0  # milliseconds shown, in a race
    goal: float | None = None  # target calls that are on their way
    then: Literal["", "step", "play"] = ""  # what follows when a race is recorded
    playing: bool = False
    moved_at: float = 0.0
    pace: float = 0.5  # seconds per step while playing
    slow: float = 2.0  # seconds of the page per second of the runs
    slots: list[int] = field(default_factory=lambda: list(range(len(FIRST))))  # the columns that the controls speak of
    charted: Any = None  # what the charts show, and since when
    charted_at: float = 0.0
    visited: bool = False
    timing: Live | None = None  # a measurement of all columns, in rounds
    timed: tuple[Column, ...] = ()  # the columns that it was begun for
    gave_way: bool = False  # whether the steps of the columns were let go of, and are made again when more are wanted
    absent: Settings | None = None  # asked for last, and one of its models is not on this machine

    @property
    def replayed(self) -> tuple[Trace, ...]:
        """The runs of columns that no job holds: they were measured."""
        traces = [column.trace for column in self.columns if column.trace is not None and column.live is None]
        return tuple(trace for trace in traces if not demo.is_shipped(trace))

    # -- what is shown ------------------------------------------------------------------------------------------------

    def shown(self, column: Column) -> int:
        """Steps of this column that the page shows."""
        if self.mode == "race":
            return until(column.trace, self.clock) if column.trace else 0
        return min(self.calls, column.count)

    def step_of(self, column: Column) -> Step | None:
        """The last step shown of this column."""
        shown = self.shown(column)
        return column.trace.steps[shown - 1] if shown else None

    def part(self, column: Column) -> Trace | None:
        """The trace as far as it is shown."""
        if column.trace is None:
            return None
        return msgspec.structs.replace(column.trace, steps=column.trace.steps[: self.shown(column)])

    def matches(self, wanted: Sequence[Settings]) -> bool:
        """Whether the runs are those the controls speak of."""
        return len(wanted) == len(self.columns) and all(
            column.settings.same_run(settings) for column, settings in zip(self.columns, wanted, strict=True)
        )

    @property
    def longest(self) -> float:
        """Milliseconds of the slowest run, as far as it went."""
        return max((duration(e.trace) for e in self.columns if e.trace), default=0.0)

    @property
    def recorded(self) -> bool:
        return bool(self.columns) and all(column.done for column in self.columns)

    @property
    def at_end(self) -> bool:
        """Nothing more to show, now or later."""
        if not self.recorded:
            return False
        return self.clock >= self.longest if self.mode == "race" else self.calls >= max(e.count for e in self.columns)

    @property
    def at_start(self) -> bool:
        return self.clock <= 0 if self.mode == "race" else self.calls <= 0

    @property
    def lives(self) -> tuple[Live, ...]:
        return (*(() if self.timing is None else (self.timing,)), *lives_of(self.columns))

    @property
    def measuring(self) -> "Timed | None":
        """The measurement that goes on."""
        return self.timing.run if self.timing is not None and self.timing.busy else None

    @property
    def under_measurement(self) -> bool:
        """Whether the columns are being measured: nothing else begins before that is over, since they would be others then."""
        return self.timing is not None and self.timing.busy

    @property
    def long(self) -> bool:
        return self.goal == inf

    @property
    def moving(self) -> bool:
        return self.playing or self.goal is not None or self.busy

    def tick(self) -> float | None:
        if self.playing:
            return QUICKEST if self.mode == "race" else max(QUICKEST, self.pace) - LAG
        return self.rarer(self.poll) if self.moving else None

    def look(self) -> tuple:
        columns = ((self.shown(e), e.count == 0, e.busy, e.busy and e.live.held, e.problem) for e in self.columns)
        timing = None if self.timing is None else (self.timing.state, self.timing.count)
        place = self.mode, self.calls, self.clock, self.goal
        return *place, self.playing, self.moving, self.absent, self.notes, self.problem, timing, *columns

    # -- what the buttons do ------------------------------------------------------------------------------------------

    def prepare(self, wanted: Sequence[Settings]) -> bool:
        """Let the columns be those that are wanted; a run that is wanted still is kept. False if none can run, or if their model
        has to be fetched first: then the columns stay as they are."""
        self.take_measured()
        self.absent = next((settings for settings in wanted if settings.to_fetch), None)
        if self.absent is not None and self.recorded and self.matches(wanted):
            self.absent = None  # all is there to be shown
        if self.absent is not None:
            return False
        self.notes = (AGAIN,) if self.gave_way and self.matches(wanted) else ()
        self.gave_way = False
        if not self.matches(wanted):
            old = list(self.columns)
            found = []
            for settings in wanted:
                same = next((e for e in old if e.settings.same_run(settings)), None)
                if same is not None:
                    old.remove(same)
                found.append(same or Column(settings))
            for column in old:
                column.close()
            if not any(column.count for column in found):
                self.calls, self.clock = 0, 0.0
            self.columns = tuple(found)
        for column in self.columns:
            column.enter(self.group)
        self.problem, self.asked_at = "", monotonic()
        return not all(column.problem for column in self.columns)

    def step(self, wanted: Sequence[Settings]) -> None:
        """One target call more in every column, or to the next moment at which one of them finished a step."""
        with self.lock:
            if self.under_measurement:
                return
            self.playing = False
            if self.goal is not None or not self.prepare(wanted):
                return
            if self.mode != "race":
                self.reach(self.calls + 1)
            elif self.recorded:
                self.clock = min((at for at in self.events() if at > self.clock), default=self.clock)
            else:
                self.goal, self.then = inf, "step"
            self.follow()

    def play(self, wanted: Sequence[Settings]) -> None:
        """Lock-step: step after step. Race: record one run after the other, then replay. End: all steps."""
        with self.lock:
            if self.moving or not self.prepare(wanted):
                return
            if self.mode == "end":
                self.reach(inf)
            elif self.mode == "race" and not self.recorded:
                self.goal, self.then = inf, "play"
            else:
                if self.at_end:
                    self.calls, self.clock = 0, 0.0
                self.playing, self.moved_at = True, 0.0 if self.mode == "lock-step" else monotonic()
            self.sync()

    def measure(self, wanted: Sequence[Settings]) -> None:
        """Run all columns several times in turn, behind a warm-up; their texts and times take the place of what is there."""
        with self.lock:
            if self.moving or not self.prepare(wanted):
                return
            self.timed = tuple(column for column in self.columns if not column.problem)
            makers = [column.settings.maker() for column in self.timed]
            for column in self.columns:
                column.close()
            self.timing = self.begin(wanted[0].device, lambda: timed(makers))

    def back(self) -> None:
        with self.lock:
            self.stop()
            if self.mode == "race":
                self.clock = max((at for at in self.events() if at < self.clock), default=0.0)
            else:
                self.calls = max(0, self.calls - 1)

    def stop(self) -> None:
        with self.lock:
            self.playing, self.goal, self.then = False, None, ""
            super().stop()

    def reset(self) -> None:
        """Back to the prompt; the runs are forgotten."""
        with self.lock:
            self.stop()
            self.close()
            self.columns, self.calls, self.clock, self.timing, self.timed = (), 0, 0.0, None, ()
            self.gave_way = False
            self.notes, self.problem, self.absent = (), "", None

    def let_go(self, problem: str) -> None:
        """Forget all steps; the columns and their place stay, for whoever goes on has them made again up to there."""
        with self.lock:
            if self.lives or self.replayed:
                asked, calls = [column.settings for column in self.columns], self.calls
                self.reset()
                self.columns, self.calls, self.gave_way = tuple(map(Column, asked)), calls, bool(asked)
                self.charted, self.problem = None, problem

    def turn_to(self, mode: Mode) -> None:
        """Another mode, at the place that is shown."""
        with self.lock:
            self.stop()
            shown = [(e, self.shown(e)) for e in self.columns if e.trace]
            if mode == "race":
                self.clock = max((sum(s.times.total for s in e.trace.steps[:k]) for e, k in shown), default=0.0)
            else:
                self.calls = max((k for _, k in shown), default=0)
            self.mode = mode

    def events(self) -> list[float]:
        """The milliseconds at which any column finished a step."""
        return [at for e in self.columns if e.trace for at in accumulate(step.times.total for step in e.trace.steps)]

    def reach(self, goal: float) -> None:
        self.goal = goal
        for column in self.columns:
            column.ask(goal)

    # -- following the worker -----------------------------------------------------------------------------------------

    def wait(self) -> None:
        if self.goal in (None, inf) or self.playing:
            return
        until_then = monotonic() + PATIENCE
        for live in self.lives:
            if live.busy and monotonic() < until_then:
                with resting():
                    live.wait(until_then - monotonic())

    def sync(self) -> None:
        with self.lock:
            self.take_measured()
            for column in self.columns:
                column.look()
            self.follow()
            if self.playing and self.mode == "race":
                self.run_clock()
            elif self.playing:
                self.walk()

    def take_measured(self) -> None:
        """Take over what a measurement that has ended found; of one that was stopped nothing."""
        if self.timing is None or self.timing.busy:
            return
        if self.timing.state == "failed":
            self.problem = self.timing.problem
        elif self.timing.state == "ended":
            found = self.timing.run
            for column, trace, ms in zip(self.timed, found.traces, found.ms, strict=True):
                column.live, column.trace, column.rounds, column.kept = None, trace, tuple(ms), None  # others, with other times
            self.calls, self.clock = max((column.count for column in self.columns), default=0), self.longest
        self.timing.close()
        self.timing, self.timed = None, ()

    def follow(self) -> None:
        """Move the position towards its goal as far as there are steps."""
        if self.goal is None:
            return
        if any(column.stuck for column in self.columns):
            self.stop()
            return
        if self.mode == "race":
            self.record()
            return
        most = max((column.count for column in self.columns), default=0)
        if self.goal == inf:
            self.calls = most
        elif min((e.count for e in self.columns if not e.done), default=inf) >= self.goal:
            self.calls = int(min(self.goal, most))
        else:
            return
        if self.recorded or self.goal < inf:
            self.goal, self.moved_at = None, monotonic()

    def record(self) -> None:
        """One run after the other to its end; then what was waited for."""
        running = next((column for column in self.columns if not column.done), None)
        if running is not None:
            running.ask(inf)
            return
        then, self.goal, self.then, self.clock = self.then, None, "", 0.0
        if then == "step":
            self.clock = min(self.events(), default=0.0)
        elif then == "play":
            self.playing, self.moved_at = True, monotonic()

    def run_clock(self) -> None:
        """The clock of a race goes on, slowed down."""
        now = monotonic()
        self.clock = min(self.longest, self.clock + 1000 * (now - self.moved_at) / self.slow)
        self.moved_at = now
        self.playing = not self.at_end

    def walk(self) -> None:
        """One step on when its time has come; the worker runs one step ahead."""
        if self.at_end:
            self.playing = False
        elif self.goal is None and monotonic() - self.moved_at >= 0.8 * max(QUICKEST, self.pace):
            self.reach(self.calls + 1)
            for column in self.columns:
                column.ask(self.calls + 2)
            self.follow()


def timed(makers: Sequence[Callable[[], Any]]) -> "Timed":
    """A measurement; it is made where torch is there already."""
    from decoding.runs.timed import Timed

    return Timed(makers)


def names(wanted: Sequence[Settings]) -> list[str]:
    """A name per column: the title of its method, and what tells it from others of the same method."""
    found = [METHODS[settings.method].title for settings in wanted]
    for i, settings in enumerate(wanted):
        others = [other for j, other in enumerate(wanted) if j != i and other.method == settings.method]
        mine = settings.full_params
        differing = [name for name in mine if any(other.full_params[name] != mine[name] for other in others)]
        if differing:
            found[i] += " (" + ", ".join(f"{name} {shown_value(mine[name])}" for name in differing) + ")"
    return [name if found.index(name) == i else f"{name} #{i + 1}" for i, name in enumerate(found)]


def shown_value(value: Any) -> str:
    """
    >>> shown_value(0.30000001), shown_value(True), shown_value(5)
    ('0.3', 'on', '5')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def race() -> Race:
    """This tab's comparison."""
    return of_tab("draftscope_race", Race)
