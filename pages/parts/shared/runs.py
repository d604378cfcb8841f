"""The runs of a page: handed to the worker in one place, looked after by one controller, ended with the tab."""

import gc
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import inf
from threading import Lock, RLock, Thread
from time import monotonic, sleep
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakSet

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

from decoding.limits import Refused, check_held, check_jobs, limits, over
from decoding.models import memory
from decoding.runs.failures import told
from decoding.runs.log import log
from decoding.runs.visitors import new_key
from decoding.runs.worker import Job, Live, Owner, worker
from pages.parts.shared import visitor
from pages.parts.shared.remembered import Remembered

POLL = 0.3  # seconds between two looks at the worker
SLOWER = ((3, 1), (8, 2), (30, 4))  # seconds without anything new -> by how much the looks become rarer
SLOWEST = 8
PATIENCE = 0.15  # seconds a click waits for its step before the page turns to polling
LOOK = 2.0  # seconds between two looks which tabs are gone
GRACE = 60.0  # seconds that the runs of a tab go on without a browser: a network that is away for a moment costs nothing
KEPT = 120.0  # seconds that what a tab shows is kept without one; Streamlit's disconnectedSessionTTL has to be longer
CLEAN = 30.0  # seconds between two collections of what closed tabs left, which hold everybody up for a moment
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
    drawn: tuple = ()  # the `look` of the last drawing
    drawn_at: float = 0.0
    draw_seconds: float = 0.0
    news_at: float = 0.0  # when a look was last another one
    lock: RLock = field(default_factory=RLock)
    group: Hashable = field(default_factory=object)  # its runs are one of those that a visitor may have at once
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
    def held(self) -> bool:
        """Whether it waits for other runs of the same visitor."""
        return (live := self.waited_for) is not None and live.held

    @property
    def waited(self) -> float:
        """Seconds since the worker was asked."""
        return monotonic() - self.asked_at

    def in_line(self) -> str:
        """That others are served first, in a sentence; "" if they are not, or nobody could have noticed yet."""
        live = self.waited_for
        if live is None or live.state != "waiting" or self.waited <= 1:
            return ""
        if live.held:
            return (
                f"In line: you have {live.owner.at_once} runs at work, as many as take turns for one visitor. This one goes on as "
                "soon as one of them has ended or was stopped."
            )
        place = live.place
        others = "step of another run comes" if place == 1 else "steps of other runs come"
        return f"In line: {place:,} {others} first." if place else ""

    def loading(self) -> str:
        """What is being loaded for the run that is waited for, and for how long."""
        live = self.waited_for
        now = live.progress if live is not None else None
        what = str(now) if now is not None else "Loading the models and reading the prompt"
        return f"{what[:1].upper()}{what[1:]} … {self.waited:.0f} s"

    def tick(self) -> float | None:
        """Seconds until the page should look again; None: nothing moves by itself."""
        return self.rarer(self.poll) if self.busy else None

    def rarer(self, seconds: float) -> float:
        """Between two looks: the longer nothing new came, the longer. So the fuller a server is, the less it is asked."""
        waited = monotonic() - max(self.asked_at, self.news_at)
        return seconds * next((slower for until, slower in SLOWER if waited < until), SLOWEST)

    def look(self) -> tuple:
        """What a drawing of the page depends on, beside the controls: where two are equal, nothing has to be drawn again."""
        return (self.problem, *((live.state, live.count) for live in self.lives))

    def looked(self) -> tuple:
        """`look`, noting when it is news."""
        if (look := self.look()) != self.drawn:
            self.news_at = monotonic()
        return look

    def was_drawn(self, look: tuple, seconds: float) -> None:
        """Note a drawing, what it depended on, and how long it took."""
        self.drawn, self.drawn_at, self.draw_seconds = look, monotonic(), seconds

    def due(self) -> bool:
        """Whether the page should be drawn again: there is something new, and a slow machine has had time to breathe."""
        return self.look() != self.drawn and monotonic() - self.drawn_at > 2 * self.draw_seconds

    def begin(self, device: str, make: Callable[[], Job], count: float = inf) -> Live | None:
        """Hand a job to the worker and have its steps up to number `count` taken; None, with the reason in `problem`, if there is
        no such device."""
        try:
            live = handed(device, make, self.group)
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
        self.gone_at: float | None = None  # when it was first found without a browser
        self.key = new_key()  # what the browser knows it by: whoever has it, and is its visitor, gets what it shows
        self.kept: dict[str, Any] = {}  # what it keeps, by its names

    @property
    def busy(self) -> int:
        return sum(live.busy for live in list(self.lives))

    @property
    def groups(self) -> set[Hashable]:
        """What counts as one run, of those that are busy."""
        return {live.group for live in list(self.lives) if live.busy}

    @property
    def positions(self) -> int:
        """Of all steps of its runs the root and the drafted tokens, which lie in memory as long as a page shows them."""
        return sum(1 + len(getattr(step, "nodes", ())) for live in list(self.lives) for step in getattr(live.run, "steps", ()))

    def release(self, problem: str = "") -> None:
        for live in list(self.lives):
            if live.busy or not problem:
                live.close(problem)


class Tabs:
    """All tabs that have jobs. A thread looks which are gone, because what Streamlit says of a closed tab (`on_release`) it says of
    all tabs as soon as one of them clears the caches.

    The jobs of a tab end when it was gone for GRACE seconds: a browser that has lost the network finds its session again, and
    its runs as far as they went meanwhile. After KEPT seconds all of its session goes, and the memory of that.

    Args:
        is_there: whether a tab has a browser.
        forget: ends the session of a tab.
        clean: gives memory back, once that is done.
        every: seconds between two looks.
    """

    def __init__(
        self,
        is_there: Callable[[str], bool],
        forget: Callable[[str], None] = lambda tab: None,
        clean: Callable[[], None] = lambda: None,
        every: float = LOOK,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._is_there, self._forget, self._clean, self._every, self._clock = is_there, forget, clean, every, clock
        self._litter = False
        self._cleaned_at = -CLEAN
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
        """End the jobs of tabs that have been gone for long enough, and of visitors whose runs have grown beyond all measure."""
        now = self._clock()
        if self._litter and now - self._cleaned_at >= CLEAN:  # of tabs that were forgotten at an earlier look
            self._litter, self._cleaned_at = False, now
            self._clean()
        for tab in list(self._tabs.values()):
            if self._is_there(tab.tab):
                tab.gone_at = None
                continue
            if tab.gone_at is None:
                tab.gone_at = now
            if now - tab.gone_at >= GRACE:
                tab.release()
            if now - tab.gone_at >= KEPT:
                with self._lock:
                    self._tabs.pop(tab.tab, None)
                self._forget(tab.tab)
                self._litter = True
        if limits().held is not None:
            self.measure()

    def measure(self) -> None:
        """End the jobs of visitors whose runs hold more than they may."""
        for one in {tab.visitor for tab in list(self._tabs.values()) if tab.busy}:
            try:
                check_held(self.positions(one))
            except Refused as error:
                for tab in self.of(one):
                    tab.release(told(error))

    def take_over(self, key: str, to: RunCleanup) -> dict[str, Any]:
        """Give a tab what another one of the same visitor kept, whose browser is gone: it was reloaded.

        Args:
            key: of the other.

        Returns:
            what that is, by its names; nothing if there is no such tab.
        """
        with self._lock:
            for old in self.of(to.visitor):
                if old is not to and old.key == key and not self._is_there(old.tab):
                    found, old.kept = old.kept, {}
                    lives, old.lives = old.lives, WeakSet()
                    to.lives.update(lives)
                    to.kept |= found
                    return found
        return {}

    def of(self, visitor: str) -> list[RunCleanup]:
        """The tabs of a visitor."""
        return [tab for tab in list(self._tabs.values()) if tab.visitor == visitor]

    def positions(self, visitor: str) -> int:
        """Positions that the runs of a visitor hold."""
        return sum(tab.positions for tab in self.of(visitor))

    def make_room(self, visitor: str) -> None:
        """Before a visitor has another job done: what goes on in tabs of theirs that are gone ends, if the new one would have to
        wait for it or be refused."""
        rules, own = limits(), self.of(visitor)
        groups = len(set().union(*(tab.groups for tab in own)))
        if over(groups + 1, rules.at_once) or over(sum(tab.busy for tab in own) + 1, rules.jobs_each):
            for tab in own:
                if not self._is_there(tab.tab):
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


def forget(tab: str) -> None:
    """Have Streamlit end a session that no browser is connected to: by itself it does so only when another one is disconnected."""
    if runtime.exists():
        runtime.get_instance()._close_inactive_session_on_event_loop(tab)


def clean() -> None:
    """What closed tabs left is tied in circles, and lies in the allocator's hands."""
    gc.collect()
    memory.trim()


tabs = Tabs(is_there, forget, clean)


def cleanup() -> RunCleanup:
    """This tab's."""
    context = get_script_run_ctx()
    return tabs.tab(context.session_id if context is not None else "", visitor.key() if limits().public else "")


def handed(device: str, make: Callable[[], Job], group: Hashable = None) -> Live:
    """A job of the worker that serves the device, not begun yet. Every job of a page is made here, so that a closed tab ends it.

    A visitor of a public server has one share of the device, whatever they do in how many tabs; elsewhere every tab has one.

    Args:
        group: jobs of one group count as one of those that a visitor may have at once.

    Raises:
        ValueError: there is no such device, or the visitor or all visitors have as many at work as this server allows.
    """
    from decoding.models.family import find_device

    if limits().public and device != "auto":
        raise Refused(f"This demo chooses the device itself; “{device[:20]}” was asked for.")
    tab, rules = cleanup(), limits()
    if rules.public:
        tabs.make_room(tab.visitor)
        check_held(tabs.positions(tab.visitor))
    check_jobs(tabs.busy(tab.visitor), tabs.busy())
    owner = Owner(tab.visitor or tab.tab, rules.at_once)
    live = worker(str(find_device(device))).live(noted(make), owner, group)
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
    cleanup().kept[key] = st.session_state[key]
    return st.session_state[key]


def found_again(key: str) -> None:
    """In a callback, of a tab that was reloaded: go on with what it kept before, and let the controls say that."""
    found = tabs.take_over(key, cleanup())
    st.session_state.update(found)
    for owner in found.values():
        if isinstance(owner, Remembered):
            owner.other_boxes(st.session_state)
            for name, value in owner.values.items():
                if name in st.session_state:
                    say_control(name, value)


def timed(controller: RunController, every: float | None, draw: Callable[[], None]) -> None:
    """Follow the worker and draw, every so many seconds; the whole page is run again when something begins to move or comes to
    rest. For what stands on a page where more than this depends on that."""

    def once() -> None:
        controller.wait()
        controller.sync()
        if (controller.tick() is None) != (every is None):
            st.rerun()
        draw()

    st.fragment(once, run_every=every)()


def followed(controller: RunController, key: str, draw: Callable[[Callable[[], None]], None], line: Callable[[], None]) -> None:
    """Draw in a fragment, and again as soon as the worker has something new; meanwhile a line that says what is waited for.

    The whole page is not run for that: the timer is a fragment inside of the fragment, which draws the line alone. It begins, ends
    and becomes slower when what is around it is drawn.

    Args:
        key: of the fragment, one on a page.
        draw: puts the line where it belongs, by calling what it is given.
        line: draws it; called only while something moves.
    """
    said, pace, whole = controls_said(), None, False

    def once() -> None:
        nonlocal pace, whole
        if controls_said() != said:  # a button in here has changed the controls, which stand outside
            st.rerun()
        controller.wait()
        controller.sync()
        look, pace, began = controller.looked(), controller.tick(), monotonic()  # first: what comes meanwhile is news
        whole = True
        try:
            draw(st.fragment(timer, key=f"{key}.timer"))
        finally:
            whole = False
        controller.was_drawn(look, monotonic() - began)

    def timer() -> None:
        every = pace if whole else controller.tick() or controller.poll
        around = [True]  # what is drawn now is drawn by what is around it

        def tick() -> None:
            if not around:
                controller.sync()
                now = controller.tick()
                if now is None or controller.due():
                    run_fragment(key)
                elif now != every:
                    run_fragment(f"{key}.timer")
            around.clear()
            line()

        if every is None:
            st.empty()  # in the place of the line, which would stay: a browser keeps what a fragment inside has drawn
        else:
            st.fragment(tick, run_every=every)()

    st.fragment(once, key=key)()


def run_fragment(key: str) -> None:
    """Have a fragment of the page run next, from within another one, which ends with what it draws now. `st.rerun` does the same,
    but takes the key of a fragment in callbacks alone."""
    context = get_script_run_ctx()
    if context is not None and context.script_requests is not None:
        data = RerunData(
            query_string=context.query_string,
            page_script_hash=context.page_script_hash,
            fragment_id_queue=context.fragment_storage.resolve_target(key),
            is_fragment_scoped_rerun=True,
            cached_message_hashes=context.cached_message_hashes,
            context_info=context.context_info,
        )
        context.script_requests.request_rerun(data)


SAID = "draftscope_controls_said"  # in the session's state


def controls_said() -> int:
    """How often the page itself, not the visitor, has changed what the controls say."""
    return st.session_state.get(SAID, 0)


def say_control(key: str, value: Any) -> None:
    """Let a control say something, before it is drawn or in a callback."""
    st.session_state[key] = value
    st.session_state[SAID] = controls_said() + 1
