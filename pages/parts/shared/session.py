"""Session: the run one browser tab looks at, and where in it. Views are functions of (trace, cursor); steps come from the worker.

One object in `st.session_state`, so that a script which is cut short can never leave half of it changed. A new run is
`coming` until its first step is there; until then, and for good if it fails, the run before it stays on the page.
"""

from dataclasses import dataclass, field
from math import inf
from threading import RLock
from time import monotonic
from typing import Any

import streamlit as st

from decoding.runs.worker import Live, worker
from decoding.trace import Step, Trace
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.settings import Settings, settings_of
from viz.step.boxes import extent_of, final_index, has_final

PATIENCE = 0.15  # seconds a click waits for its step before the page turns to polling
POLL = 0.3
LAG = 0.05  # seconds from a look until the browser waits for the next one
MOST = (9, 8)  # columns and rows that are reserved for trees to come


@dataclass(eq=False)
class Session:
    """All methods return at once and may be called from callbacks."""

    trace: Trace | None = None  # shown
    settings: Settings | None = None  # of the trace that is shown
    live: Live | None = None  # makes that trace; None for a recorded one
    coming: Live | None = None  # the run that takes its place once it has a step
    coming_settings: Settings | None = None
    runs: int = 0  # shown so far
    asked_at: float = 0.0
    cursor: int = -1  # index of the step that is shown; -1 = the prompt
    node: int | None = None  # selected; None = the page's choice
    goal: float | None = None  # step the cursor is on its way to
    goal_node: int | None = None
    playing: bool = False
    moved_at: float = 0.0
    pace: float = 1.0
    problem: str = ""
    notes: tuple[str, ...] = ()
    plain: Live | None = None  # the measured baseline
    plain_of: Settings | None = None
    other: Live | None = None  # one step of another method
    other_at: tuple[int, int] = (0, 0)  # run and step that it was asked at
    measured: tuple[Trace | None, int, tuple[int, float]] = (None, 0, (0, 0))  # for `extent`
    boxes: dict[str, tuple[Any, int]] = field(default_factory=dict)  # box -> what it shows, and which box it is
    timer: float | None = None  # seconds between looks, as the page was last set up
    sampled: tuple = ()
    sampled_at: float = 0.0
    draw_seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)  # of the controls, kept from page to page
    opened: str = ""  # the link this session has opened
    lock: RLock = field(default_factory=RLock)

    # -- what is shown ------------------------------------------------------------------------------------------------

    @property
    def recorded(self) -> bool:
        """Whether the shown run was shipped with the app."""
        return self.trace is not None and self.live is None

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
        """The node to inspect: the one that was picked, else the first rejected, the last accepted, the final token."""
        step = self.step
        if step is None:
            return None
        last = final_index(step) if has_final(step) else len(step.nodes) - 1
        if self.node is not None and -1 <= self.node <= last:
            return self.node
        rejected = [i for i, node in enumerate(step.nodes) if node.verdict == "rejected"]
        return rejected[0] if rejected else step.path[-1] if step.path else last

    @property
    def lives(self) -> tuple[Live | None, ...]:
        """All runs that this tab has asked for, the one that is waited for first at the front."""
        return self.coming, self.live, self.plain, self.other

    @property
    def busy(self) -> bool:
        return any(live is not None and live.busy for live in self.lives)

    @property
    def waited_for(self) -> Live | None:
        """The run whose next step is due."""
        return next((live for live in self.lives if live is not None and live.busy), None)

    def tick(self) -> float | None:
        """Seconds until the page should look again; None: nothing moves by itself."""
        if self.playing:
            return self.pace - LAG
        return POLL if self.busy or self.coming is not None else None

    def extent(self) -> tuple[int, float]:
        """Columns and rows to reserve, so that the picture keeps still: they hold every tree of the shown run but the giants, which
        would leave the small ones a speck in an empty field. Only steps that are new since the last look are measured."""
        trace, count, (columns, rows) = self.measured
        if trace is None or self.trace.header is not trace.header or count > self.count:
            count, columns, rows = 0, *extent_of(())
        wider, higher = extent_of(self.trace.steps[count:])
        wider, higher = min(wider, MOST[0]), min(higher, MOST[1])
        self.measured = (self.trace, self.count, (max(columns, wider), max(rows, higher)))
        return self.measured[2]

    def box(self, name: str, shows: Any) -> str:
        """Key of a box that shows `shows`: another box whenever the page, not the visitor, changed what it shows.

        A box that the page sets goes wrong: a click that comes before the browser has the new value sends the old one along,
        which counts as a change of the box.
        """
        before, number = self.boxes.get(name, (shows, 0))
        self.boxes[name] = (shows, number + (before != shows))
        return f"{name}.{self.boxes[name][1]}"

    def box_says(self, name: str, value: Any) -> None:
        """The visitor chose `value` in the box."""
        self.boxes[name] = (value, self.boxes[name][1])

    def look(self) -> tuple:
        """What a drawing of the page depends on, beside the controls."""
        waiting = self.waited_for is not None and self.goal is not None
        asked = tuple(live and live.state for live in (self.plain, self.other))
        return self.runs, self.cursor, self.count, self.problem, self.notes, self.playing, waiting, asked

    def was_sampled(self, seconds: float) -> None:
        self.sampled, self.sampled_at, self.draw_seconds = self.look(), monotonic(), seconds

    def due(self) -> bool:
        """Whether the page should be drawn again: there is something new, and a slow machine has had time to breathe."""
        if self.tick() != self.timer:
            return True
        return self.look() != self.sampled and monotonic() - self.sampled_at > 2 * self.draw_seconds

    # -- looking around -----------------------------------------------------------------------------------------------

    def go(self, cursor: int) -> None:
        """Look at a step that was taken; asks for nothing."""
        with self.lock:
            self.cursor = max(-1, min(cursor, self.count - 1))
            self.node = self.goal = self.goal_node = None
            self.moved_at = monotonic()

    def pick(self, node: int | None) -> None:
        self.node = node if isinstance(node, int) else None

    def back(self) -> None:
        self.playing = False
        self.go(self.cursor - 1)

    def forward(self) -> None:
        self.playing = False
        self.go(self.cursor + 1)

    # -- going on -----------------------------------------------------------------------------------------------------

    def start(self, settings: Settings, goal: float = 0, node: int | None = None) -> None:
        """Make a new run and take its steps up to index `goal`; nothing changes if the settings cannot be."""
        with self.lock:
            self.playing = False
            self.problem = settings.problem()
            if self.problem:
                return
            try:
                live = worker(device_of(settings.device)).live(settings.maker())
            except ValueError as error:
                self.problem = str(error)
                return
            self.drop_coming()
            if self.live is not None:
                self.live.pause()
            self.coming, self.coming_settings = live, settings
            self.goal, self.goal_node, self.asked_at = goal, node, monotonic()
            hold(self)
            live.ask(goal + 1)

    def drop_coming(self) -> None:
        if self.coming is not None:
            self.coming.close()
        self.coming = self.coming_settings = None

    def advance(self, wanted: Settings) -> None:
        """Step: one step on; a new run if there is none or the controls say something else."""
        with self.lock:
            self.problem = ""
            if self.coming is not None:
                return
            if self.trace is None or not self.settings.same_run(wanted):
                self.start(wanted)
            elif not self.at_end:
                self.go(self.cursor + 1)
            elif not self.ended:
                self.ask(self.cursor + 1)

    def ask(self, goal: float) -> None:
        """Have steps up to index `goal` taken. A run that was closed or failed is made again: the same seed, the same steps."""
        if self.live is None or self.live.state in ("closed", "failed"):
            self.start(self.settings, goal)
            return
        self.goal, self.node, self.asked_at = goal, None, monotonic()
        self.live.ask(goal + 1 - self.live.count)

    def run_to_end(self, wanted: Settings) -> None:
        with self.lock:
            self.playing, self.problem = False, ""
            if self.trace is None or not self.settings.same_run(wanted):
                self.start(wanted, inf)
            elif self.ended:
                self.go(self.count - 1)
            else:
                self.ask(inf)

    def stop(self) -> None:
        """The step that is being taken is the last one."""
        with self.lock:
            self.playing = False
            for live in self.lives:
                if live is not None:
                    live.pause()

    def toggle_play(self, wanted: Settings) -> None:
        with self.lock:
            if self.playing:
                self.stop()
                return
            self.problem = ""
            if self.trace is None or not self.settings.same_run(wanted):
                self.start(wanted)
            self.playing, self.moved_at = not self.problem, monotonic()

    def reset(self) -> None:
        """Back to the prompt; the run is made again when the next step is asked for."""
        with self.lock:
            self.playing, self.problem, self.notes = False, "", ()
            self.drop_coming()
            if self.live is not None:
                self.live.close()
            self.trace = self.settings = self.live = None
            self.cursor, self.node, self.goal = -1, None, None

    def measure_plain(self) -> None:
        """Decode the same prompt without a draft, as far as the shown run went, for a measured comparison."""
        with self.lock:
            if self.trace is None or self.settings is None:
                return
            tokens = sum(len(step.tokens) for step in self.trace.steps)
            settings = plain_settings(self.settings, tokens)
            if self.plain is not None:
                self.plain.close()
            self.plain = worker(device_of(settings.device)).live(settings.maker())
            self.plain_of, self.asked_at = self.settings, monotonic()
            hold(self)
            self.plain.ask(inf)

    def ask_another(self, settings: Settings, context: tuple[int, ...]) -> None:
        """Have one step of another method taken behind the tokens `context`; what is shown stays."""
        with self.lock:
            if self.other is not None:
                self.other.close()
            try:
                self.other = worker(device_of(settings.device)).live(settings.maker(context))
            except ValueError as error:
                self.problem = str(error)
                return
            self.other_at, self.asked_at = (self.runs, self.cursor), monotonic()
            hold(self)
            self.other.ask(1)

    def answer(self) -> Trace | None:
        """The step of the other method, if it was asked at the step that is shown and has answered."""
        there = self.other is not None and self.other_at == (self.runs, self.cursor) and self.other.count
        return self.other.trace if there else None

    # -- following the worker -------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """A short wait for a step that is due, so that most clicks paint once."""
        live = self.other if self.other is not None and self.other.busy else self.coming or self.live
        if live is not None and live.busy and not self.playing and self.goal != inf:
            live.wait(PATIENCE)

    def sync(self) -> None:
        """Take over what the worker did since the last look."""
        with self.lock:
            self.adopt()
            if self.live is not None and self.live.count > self.count:
                self.trace = self.live.trace
            if self.live is not None and self.live.state == "failed" and self.live.problem:
                self.problem, self.playing, self.goal = self.live.problem, False, None
            if self.plain is not None and self.plain.state == "failed":
                self.problem, self.plain = f"Plain decoding: {self.plain.problem}", None
            if self.other is not None and self.other.state == "failed":
                self.problem, self.other = f"The other method: {self.other.problem}", None
            self.follow()
            self.play()

    def adopt(self) -> None:
        """The coming run takes the place of the one before as soon as it has a step."""
        new = self.coming
        if new is None:
            return
        if new.state == "failed":
            self.problem, self.goal, self.playing = new.problem, None, False
            self.drop_coming()
        elif new.count:
            if self.live is not None:
                self.live.close()
            self.live, self.trace, self.settings = new, new.trace, self.coming_settings
            self.coming = self.coming_settings = None
            self.cursor, self.node, self.runs = 0, None, self.runs + 1
        elif not new.busy:  # stopped before its first step
            self.drop_coming()
            self.goal = None

    def follow(self) -> None:
        """Move the cursor towards its goal as far as there are steps."""
        if self.goal is None or self.coming is not None or not self.count:
            return
        self.cursor = int(min(self.goal, self.count - 1))
        if self.goal <= self.count - 1:
            self.node, self.goal, self.goal_node = self.goal_node, None, None
        elif not (self.live is not None and self.live.busy):
            if self.goal != inf and self.ended:
                self.notes += (f"The run ends at step {self.count}; the step that was asked for is not there.",)
            self.goal = self.goal_node = None
        self.moved_at = monotonic()

    def play(self) -> None:
        """One step on when its time has come; a click in between does not count as time."""
        if not self.playing or self.goal is not None or self.coming is not None:
            return
        if monotonic() - self.moved_at < 0.8 * self.pace:
            return
        if not self.at_end:
            self.cursor, self.node, self.moved_at = self.cursor + 1, None, monotonic()
        gone = self.live is not None and self.live.state in ("closed", "failed")
        if self.at_end and (self.ended or gone):
            self.playing = False
        elif self.count - 1 - self.cursor < 2 and not self.ended and self.live is not None:
            self.live.ask(1)  # the worker runs one step ahead


def plain_settings(settings: Settings, tokens: int) -> Settings:
    from dataclasses import replace

    return replace(settings, method="plain", params={}, max_tokens=max(1, min(tokens, settings.max_tokens)))


def device_of(device: str) -> str:
    """The name of the worker that serves a device; ValueError if there is none such."""
    from decoding.models.family import find_device

    return str(find_device(device))


def session() -> Session:
    """This tab's session; a first visit finds the recorded run, paused where something can be learned."""
    if "draftscope" not in st.session_state:
        trace = demo.recorded()
        new = Session(trace=trace, settings=settings_of(trace.header) if trace else None, cursor=demo.pause_at())
        st.session_state["draftscope"] = new
    return st.session_state["draftscope"]


class RunCleanup:
    """What dies with the tab: its claims on the worker, but not its trace."""

    def __init__(self) -> None:
        self.lives: list[Live] = []

    def release(self) -> None:
        for live in self.lives:
            live.close()


@st.cache_resource(scope="session", show_spinner=False, on_release=RunCleanup.release)
def holder() -> RunCleanup:
    return RunCleanup()


def hold(owner: Session) -> None:
    """See to it that a closed tab frees the worker."""
    holder().lives[:] = [live for live in owner.lives if live is not None]
