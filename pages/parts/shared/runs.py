"""The runs of a page: handed to the worker in one place, looked after by one controller, ended with the tab."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from threading import RLock
from time import monotonic
from typing import ClassVar, TypeVar
from weakref import WeakSet

import streamlit as st

from decoding.runs.worker import Job, Live, worker

POLL = 0.3  # seconds between two looks at the worker
PATIENCE = 0.15  # seconds a click waits for its step before the page turns to polling
LAG = 0.05  # seconds from a look until the browser waits for the next one
T = TypeVar("T")


@dataclass(eq=False)
class RunController:
    """What the controllers of the pages share: they ask the worker for runs, follow them, and stop them.

    A controller says which runs are its own (`lives`) and what it takes over of them (`sync`); the rest is the same for all.
    All methods return at once and may be called from callbacks.
    """

    problem: str = ""  # why what was asked for cannot be, in a sentence
    asked_at: float = 0.0
    lock: RLock = field(default_factory=RLock)
    poll: ClassVar[float] = POLL

    @property
    def lives(self) -> tuple[Live, ...]:
        """All runs that were asked for, the one that is waited for first at the front."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        return any(live.busy for live in self.lives)

    @property
    def waited_for(self) -> Live | None:
        """The run whose next step is due."""
        return next((live for live in self.lives if live.busy), None)

    @property
    def waited(self) -> float:
        """Seconds since the worker was asked."""
        return monotonic() - self.asked_at

    def in_line(self) -> str:
        """That others are served first, in a sentence; "" if they are not, or nobody could have noticed yet."""
        live = self.waited_for
        place = live.place if live is not None and live.state == "waiting" and self.waited > 1 else 0
        others = "step of another run comes" if place == 1 else "steps of other runs come"
        return f"In line: {place} {others} first." if place else ""

    def loading(self) -> str:
        """What is being loaded for the run that is waited for, and for how long."""
        live = self.waited_for
        now = live.progress if live is not None else None
        what = str(now) if now is not None else "Loading the models and reading the prompt"
        return f"{what[:1].upper()}{what[1:]} … {self.waited:.0f} s"

    def tick(self) -> float | None:
        """Seconds until the page should look again; None: nothing moves by itself."""
        return self.poll if self.busy else None

    def begin(self, device: str, make: Callable[[], Job], count: float = inf) -> Live | None:
        """Hand a job to the worker and have its steps up to number `count` taken; None, with the reason in `problem`, if there is
        no such device."""
        try:
            live = handed(device, make)
        except ValueError as error:
            self.problem = str(error)
            return None
        self.asked_at = monotonic()
        live.reach(count)
        return live

    def stop(self) -> None:
        """The step that is being taken is the last one."""
        for live in self.lives:
            live.pause()

    def close(self) -> None:
        """No run takes another step, ever."""
        for live in self.lives:
            live.close()

    def wait(self) -> None:
        """A short wait for what is due, so that most clicks paint once."""

    def sync(self) -> None:
        """Take over what the worker did since the last look."""
        raise NotImplementedError


# -- the tab -----------------------------------------------------------------------------------------------------------


class RunCleanup:
    """What dies with the tab: its claims on the worker, but not its traces."""

    def __init__(self) -> None:
        self.lives: WeakSet[Live] = WeakSet()  # a job that nobody looks at and no worker has in line needs no end

    def release(self) -> None:
        for live in list(self.lives):
            live.close()


@st.cache_resource(scope="session", show_spinner=False, on_release=RunCleanup.release)
def cleanup() -> RunCleanup:
    """This tab's."""
    return RunCleanup()


def handed(device: str, make: Callable[[], Job]) -> Live:
    """A job of the worker that serves the device, not begun yet. Every job of a page is made here, so that a closed tab ends it.

    Raises:
        ValueError: there is no such device.
    """
    from decoding.models.family import find_device

    live = worker(str(find_device(device))).live(make)
    cleanup().lives.add(live)
    return live


def of_tab(key: str, make: Callable[[], T]) -> T:
    """What this tab keeps under a name; made when it is first asked for."""
    if key not in st.session_state:
        st.session_state[key] = make()
    return st.session_state[key]


def timed(controller: RunController, every: float | None, draw: Callable[[], None]) -> None:
    """Follow the worker and draw, every so many seconds. The timer belongs to the fragment as the whole page defined it, so the
    page is run again as soon as the controller wants another one."""

    def once() -> None:
        controller.wait()
        controller.sync()
        if controller.tick() != every:
            st.rerun()
        draw()

    st.fragment(once, run_every=every)()
