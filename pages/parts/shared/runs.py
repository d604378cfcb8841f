"""The runs of a page: handed to the worker in one place, looked after by one controller, ended with the tab."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from threading import Lock, RLock, Thread
from time import monotonic, sleep
from typing import ClassVar, Protocol, TypeVar
from weakref import WeakSet

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from decoding.limits import Refused, check_jobs, limits
from decoding.runs.failures import told
from decoding.runs.log import log
from decoding.runs.worker import Job, Live, worker
from pages.parts.shared import visitor

POLL = 0.3  # seconds between two looks at the worker
PATIENCE = 0.15  # seconds a click waits for its step before the page turns to polling
LOOK = 2.0  # seconds between two looks which tabs are gone
LAG = 0.05  # seconds from a look until the browser waits for the next one
T = TypeVar("T")


class Refusable(Protocol):
    """What may be refused: settings."""

    def problem(self) -> str: ...


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
            self.problem = told(error)
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

    def __init__(self, tab: str = "", visitor: str = "") -> None:
        self.tab = tab  # id of Streamlit's session; "" outside of a page
        self.visitor = visitor  # of a public server
        self.lives: WeakSet[Live] = WeakSet()  # a job that nobody looks at and no worker has in line needs no end

    @property
    def busy(self) -> int:
        return sum(live.busy for live in list(self.lives))

    def release(self) -> None:
        for live in list(self.lives):
            live.close()


class Tabs:
    """All tabs that have jobs. A thread looks which are gone, because what Streamlit says of a closed tab (`on_release`) it says of
    all tabs as soon as one of them clears the caches."""

    def __init__(self, is_there: Callable[[str], bool], every: float = LOOK) -> None:
        self._is_there, self._every = is_there, every
        self._tabs: dict[str, RunCleanup] = {}
        self._lock = Lock()
        self._thread: Thread | None = None

    def tab(self, tab: str, visitor: str) -> RunCleanup:
        with self._lock:
            found = self._tabs.setdefault(tab, RunCleanup(tab, visitor))
            found.visitor = visitor
            if self._thread is None:
                self._thread = Thread(target=self._watch, name="draftscope-tabs", daemon=True)
                self._thread.start()
            return found

    def busy(self, visitor: str | None = None) -> int:
        """Jobs that are at work or in line: of one visitor, or of all."""
        return sum(tab.busy for tab in list(self._tabs.values()) if visitor in (None, tab.visitor))

    def look(self) -> None:
        """End the jobs of tabs that are gone."""
        for tab in [tab for tab in list(self._tabs.values()) if not self._is_there(tab.tab)]:
            with self._lock:
                self._tabs.pop(tab.tab, None)
            tab.release()

    def _watch(self) -> None:
        while True:
            sleep(self._every)
            try:
                self.look()
            except Exception as error:  # the thread goes on, or closed tabs would work for ever
                told(error)


def is_there(tab: str) -> bool:
    """Whether a browser is connected to this session, or there is no server that could tell."""
    return not runtime.exists() or runtime.get_instance().is_active_session(tab)


tabs = Tabs(is_there)


def cleanup() -> RunCleanup:
    """This tab's."""
    context = get_script_run_ctx()
    return tabs.tab(context.session_id if context is not None else "", visitor.key() if limits().public else "")


def handed(device: str, make: Callable[[], Job]) -> Live:
    """A job of the worker that serves the device, not begun yet. Every job of a page is made here, so that a closed tab ends it.

    Raises:
        ValueError: there is no such device, or the visitor or all visitors have as many at work as this server allows.
    """
    from decoding.models.family import find_device

    if limits().public and device != "auto":
        raise Refused(f"This demo chooses the device itself; “{device[:20]}” was asked for.")
    tab = cleanup()
    check_jobs(tabs.busy(tab.visitor), tabs.busy())
    live = worker(str(find_device(device))).live(noted(make))
    tab.lives.add(live)
    return live


def refusal(settings: Refusable) -> str:
    """Why a run with these settings cannot be, for the log too; "" if it can."""
    if problem := settings.problem():
        log("refused", kind="settings", said=problem)
    return problem


def noted(make: Callable[[], Job]) -> Callable[[], Job]:
    """`make`, with a line in the log for the run that it makes."""

    def made() -> Job:
        job = make()
        header = getattr(job, "header", None)
        if header is None:
            log("job", kind=type(job).__name__)
        else:
            sizes = {"prompt_tokens": len(header.prompt_tokens), "max_tokens": header.max_tokens}
            log("run", method=header.method, family=header.family, seed=header.seed, **sizes, prompt=header.prompt)
        return job

    return made


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
