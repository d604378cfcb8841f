"""Session: the run one browser tab looks at, and where in it. Views are functions of (trace, cursor); steps come from the worker.

One object in `st.session_state`, so that a script which is cut short can never leave half of it changed. A new run is
`coming` until its first step is there; until then, and for good if it fails, the run before it stays on the page.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import streamlit as st

from decoding.runs.worker import Live
from decoding.trace import Step, Trace
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.remembered import Remembered
from pages.parts.shared.resting import resting
from pages.parts.shared.runs import PATIENCE, RunController, of_tab, refusal
from pages.parts.shared.settings import Settings, settings_of
from pages.parts.shared.side_job import SideJobs
from viz.stepper.data import JUDGE, WRITE, opening

SESSION = "draftscope"  # in the session's state
OTHER_METHOD = "other method"  # the panel that asks for a step of it
AGAIN = "The run that stood here had to make room, so it was made again, up to where it stood."
UNSAID = 1.0  # seconds a step may take before the page says that it waits; a click waits as long, since drawing twice is dear


@dataclass(eq=False)
class Session(RunController, Remembered):
    """The controller of the Step page: one run, the one that is to take its place, and the cursor."""

    trace: Trace | None = None  # shown
    settings: Settings | None = None  # of the trace that is shown
    live: Live | None = None  # makes that trace; None for a recorded one
    coming: Live | None = None  # the run that takes its place once it has a step
    coming_settings: Settings | None = None
    coming_notes: tuple[str, ...] = ()  # what is to be said of it
    again: int = 0  # steps that it has to have before it is shown
    absent: Settings | None = None  # asked for last, and one of its models is not on this machine
    sides: SideJobs = field(default_factory=SideJobs)  # what panels ask beside the run
    runs: int = 0  # shown so far
    cursor: int = -1  # index of the step that is shown; -1 = the prompt
    phase: int = WRITE  # of that step
    node: int | None = None  # selected; None = the page's choice
    goal: float | None = None  # step the cursor is on its way to
    goal_node: int | None = None
    gave_way: tuple[Settings, int] | None = None  # a run that was let go of, and the step that is next in it: it can be made again
    failed: Live | None = None  # the last one that was said to have failed: it is said once
    kept: object = None  # what was kept of a run last (`keep.py`)
    linked: tuple[Settings, int, int | None] | None = None  # run, index of the step and node of a link that waits for a click

    def __post_init__(self) -> None:
        self.sides.group = self.group  # a run and what is asked about it are one

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def recorded(self) -> bool:
        """Whether the shown run was shipped with the app."""
        return self.trace is not None and self.live is None

    @property
    def replayed(self) -> tuple[Trace, ...]:
        """The shown run, if no run of this server holds its steps, and what panels asked for beside it."""
        own = self.trace is not None and self.recorded and not demo.is_shipped(self.trace)
        return (*([self.trace] if own else []), *self.sides.replayed)

    @property
    def count(self) -> int:
        return len(self.trace.steps) if self.trace else 0

    @property
    def step(self) -> Step | None:
        return self.trace.steps[self.cursor] if self.trace and 0 <= self.cursor < self.count else None

    @property
    def ended(self) -> bool:
        return bool(self.count and self.trace.steps[-1].ending)

    @property
    def at_end(self) -> bool:
        return self.cursor >= self.count - 1

    @property
    def root(self) -> int | None:
        """The last token before the step that is shown."""
        return None if self.trace is None else self.trace.root(self.cursor)

    @property
    def selected(self) -> int | None:
        """The node that is looked at: the one that was picked, else what teaches most."""
        step = self.step
        if step is None:
            return None
        return self.node if self.node is not None and -1 <= self.node <= len(step.nodes) else opening(step)

    @property
    def far(self) -> bool:
        """Whether more than the next step is waited for, or what has to be there first, so that it can be stopped; also behind the
        back of who looks elsewhere."""
        if self.coming is not None and self.coming.busy and self.waited > UNSAID:
            return True
        if self.goal is None:
            return self.ahead > 1
        return self.goal > self.cursor + 1 and self.waited_for is not None

    @property
    def ahead(self) -> float:
        """Steps that the shown run is still to take."""
        return self.live.wanted if self.live is not None and self.live.busy else 0

    @property
    def tokens(self) -> int:
        """Committed so far, without the prompt."""
        return sum(len(step.tokens) for step in self.trace.steps) if self.trace else 0

    @property
    def lives(self) -> tuple[Live, ...]:
        return tuple(live for live in (self.coming, self.live, *self.sides.lives) if live is not None)

    def tick(self) -> float | None:
        return self.rarer(self.poll) if self.busy or self.coming is not None else None

    def look(self) -> tuple:
        return *self.news(), self.far

    def news(self) -> tuple:
        asked = tuple(live.busy for live in self.sides.lives)
        told = self.problem, self.sides.problem, self.absent, self.notes, self.linked
        return self.runs, self.cursor, self.count, self.node, told, self.coming is None, asked

    # -- looking around -----------------------------------------------------------------------------------------------

    def go(self, cursor: int) -> None:
        """Look at a step that was taken; asks for nothing."""
        with self.lock:
            self.cursor = max(-1, min(cursor, self.count - 1))
            self.node = self.goal = self.goal_node = None
            self.phase = WRITE

    def pick(self, node: int | None) -> None:
        self.node = node if isinstance(node, int) else None

    def stand(self, cursor: int, phase: int, node: int | None) -> None:
        """The reader has moved, in the browser: what stands beside the stepper follows."""
        with self.lock:
            if cursor != self.cursor:
                self.go(cursor)
            self.phase, self.node = phase, node

    # -- going on -----------------------------------------------------------------------------------------------------

    @property
    def long(self) -> bool:
        return inf in (self.goal, self.ahead)

    def start(
        self, settings: Settings, goal: float = 0, node: int | None = None, again: int = 0, notes: tuple[str, ...] = ()
    ) -> None:
        """Make a new run and take its steps up to index `goal`; nothing changes if the settings cannot be.

        Args:
            notes: what is to be said of it as long as it is shown.
            again: steps that it has to have before it takes the place of the one that is shown: it is that one, made anew.
        """
        with self.lock:
            self.linked = None
            self.absent = settings if settings.to_fetch else None
            self.problem = "" if self.absent else refusal(settings)
            if self.absent or self.problem:
                return
            live = self.begin(settings.device, settings.maker(), max(goal, 0) + 1)  # a run is shown once it has a step
            if live is None:
                return
            self.drop_coming()
            if self.live is not None:
                self.live.pause()
            self.coming, self.coming_settings, self.coming_notes, self.again = live, settings, notes, again
            self.goal, self.goal_node, self.gave_way = goal, node, None

    def start_anew(self, wanted: Settings, goal: float = 0) -> None:
        """Make the run of the controls; one that was let go of comes as far as its reader was, and a step further."""
        lost, after = self.gave_way or (None, 0)
        if lost is not None and lost.same_run(wanted):
            self.start(wanted, max(goal, after), notes=(AGAIN,))
        else:
            self.start(wanted, goal)

    def drop_coming(self) -> None:
        if self.coming is not None:
            self.coming.close()
        self.coming = self.coming_settings = None

    def unsay(self) -> None:
        """Another press: what was said of the one before has been read."""
        self.problem = self.sides.problem = ""
        self.absent = None
        self.notes = tuple(note for note in self.notes if note != AGAIN)

    def advance(self, wanted: Settings) -> None:
        """Step: one step on; a new run if there is none or the controls say something else."""
        with self.lock:
            self.unsay()
            if self.coming is not None:
                return
            if self.trace is None or not self.settings.same_run(wanted):
                self.start_anew(wanted)
            elif not self.at_end:
                self.go(self.cursor + 1)
            elif not self.ended:
                self.ask(self.cursor + 1)

    def ask(self, goal: float) -> None:
        """Have steps up to index `goal` taken. A run that was closed or failed is made again: the same seed, the same steps."""
        if self.live is None or self.live.lost:
            self.start(self.settings, goal, again=self.count)
            return
        if self.resume(self.live, goal + 1):
            self.goal, self.node = goal, None

    def run_to_end(self, wanted: Settings) -> None:
        with self.lock:
            self.unsay()
            if self.trace is None or not self.settings.same_run(wanted):
                self.start_anew(wanted, inf)
            elif self.ended:
                self.go(self.count - 1)
            else:
                self.ask(inf)

    def reset(self) -> None:
        """Back to what a first visit finds."""
        with self.lock:
            self.unsay()
            self.notes = ()
            self.close()
            self.live = self.coming = self.coming_settings = None
            self.goal = self.goal_node = self.linked = self.gave_way = self.failed = None
            self.runs += 1
            self.open_recorded()

    def let_go(self, problem: str) -> None:
        with self.lock:
            if self.lives or self.replayed:
                own = None if self.recorded and demo.is_shipped(self.trace) else self.settings
                after = self.cursor if self.ended and self.at_end else self.cursor + 1
                self.reset()
                self.gave_way, self.problem = (own, after) if own is not None else None, problem

    def open_recorded(self) -> None:
        """Look at the recorded run, in front of the verdict that teaches most."""
        self.trace = demo.recorded()
        self.settings = settings_of(self.trace.header) if self.trace else None
        self.go(demo.pause_at())
        self.phase = JUDGE if self.step is not None else WRITE

    def close(self) -> None:
        super().close()
        self.sides.close()

    def answer(self) -> Trace | None:
        """The step of the other method, if it was asked at the step that is shown and has answered."""
        return self.sides.answer(OTHER_METHOD, (self.runs, self.cursor))

    # -- following the worker -------------------------------------------------------------------------------------------

    def wait(self) -> None:
        self.sides.wait()
        live = self.coming or self.live
        if live is not None and live.busy and not self.long:
            with resting():
                live.wait(PATIENCE if live is self.coming else UNSAID)

    def sync(self) -> None:
        with self.lock:
            self.adopt()
            if self.live is not None and self.live.count > self.count:
                self.trace = self.live.trace
            self.say_failed()
            self.sides.sync()
            self.follow()

    def say_failed(self) -> None:
        """That the shown run broke, once: what is said later, as why the next one cannot be, stands in its place."""
        live = self.live
        if live is None or live is self.failed or self.coming is not None or live.state != "failed":
            return
        self.failed, self.goal = live, None
        if live.problem:
            self.problem = live.problem

    def adopt(self) -> None:
        """The coming run takes the place of the one before as soon as it has a step; the same one made anew, when it is there."""
        new = self.coming
        if new is None:
            return
        if new.state == "failed":
            self.problem, self.goal = new.problem, None
            self.drop_coming()
        elif new.count > self.again or (new.count and new.state == "ended"):
            if self.live is not None:
                self.live.close()
            self.sides.close()  # what they were asked about is gone
            self.live, self.trace, self.settings = new, new.trace, self.coming_settings
            self.coming = self.coming_settings = self.failed = None
            self.runs += 1
            if not self.again:
                self.notes = self.coming_notes  # those of the run before were said of that one
                self.cursor, self.phase, self.node = 0, WRITE, None
        elif not new.busy:  # stopped before that
            self.drop_coming()
            self.goal = None

    def follow(self) -> None:
        """Move the cursor towards its goal as far as there are steps."""
        if self.goal is None or self.coming is not None or not self.count:
            return
        self.cursor, self.phase = int(min(self.goal, self.count - 1)), WRITE
        if self.goal <= self.count - 1:
            self.node, self.goal, self.goal_node = self.goal_node, None, None
        elif not (self.live is not None and self.live.busy):
            if self.goal != inf and self.ended:
                self.notes += (f"The run ends at step {self.count}; the step that was asked for is not there.",)
            self.goal = self.goal_node = None


def session() -> Session:
    """This tab's session; a first visit finds the recorded run, paused where something can be learned."""
    return of_tab(SESSION, first_visit)


def go_to_step(query: Mapping[str, str]) -> None:
    """From another page to Step, by a link, which is opened also where it was the last one that this tab has opened."""
    if (here := st.session_state.get(SESSION)) is not None:
        here.opened = ""
    st.switch_page("pages/1_Step.py", query_params=dict(query))


def first_visit() -> Session:
    made = Session()
    made.open_recorded()
    return made
