"""Tabs: whose jobs go on without a browser, for how long, and what becomes of the memory that a closed tab held."""

import gc
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from threading import Lock, Thread
from time import monotonic, sleep
from typing import Any
from weakref import WeakSet

from streamlit import runtime

from decoding.limits import Refused, check_held, limits, over
from decoding.models import memory
from decoding.runs.failures import told
from decoding.runs.visitors import new_key
from decoding.runs.worker import Live
from decoding.trace import Trace
from pages.parts.shared.room import Holding, make_room, parts_of
from pages.parts.shared.weight import weight

LOOK = 2.0  # seconds between two looks which tabs are gone
GRACE = 60.0  # seconds that the runs of a tab go on without a browser: a network that is away for a moment costs nothing
KEPT = 120.0  # seconds that what a tab shows is kept without one; Streamlit's disconnectedSessionTTL has to be longer
FULL = (
    "The runs at work take all the memory that this demo has for them, and yours, or those of your network, take the most. Try "
    "again in a minute, or with a shorter prompt."
)
LET_GO = (
    "The memory of this demo is full, and what stood still here was let go of: your pages, or those of your network, hold more "
    "than a fair part of it. Ask for the run again, or open the file again, to see it."
)
STOPPED = (
    "The memory of this demo is full, and your pages, or those of your network, hold more than a fair part of it, so that this "
    "ends here. Press Reset on Step and Compare, or close the tabs that you need no more."
)
CLEAN = 30.0  # seconds between two collections of what closed tabs left, which hold everybody up for a moment


class Lives:
    """The jobs of a tab that anybody knows still. Several threads look at them while others add to them."""

    def __init__(self, lives: Iterable[Live] = ()) -> None:
        self._lives, self._lock = WeakSet(lives), Lock()

    def add(self, *lives: Live) -> None:
        with self._lock:
            self._lives.update(lives)

    def __iter__(self) -> Iterator[Live]:
        with self._lock:
            return iter(list(self._lives))

    def __bool__(self) -> bool:
        return len(self._lives) > 0


class RunCleanup:
    """What dies with the tab: first its claims on the worker, later what it shows."""

    def __init__(self, tab: str = "", visitor: str = "", address: str = "") -> None:
        self.tab = tab  # id of Streamlit's session; "" outside of a page
        self.visitor, self.address = visitor, address  # of a public server
        self.lives = Lives()  # a job that nobody looks at and no worker has in line needs no end
        self.gone_at: float | None = None  # when it was first found without a browser
        self.key = new_key()  # what the browser knows it by: whoever has it, and is its visitor, gets what it shows
        self.kept: dict[str, Any] = {}  # what it keeps, by its names
        self.given: RunCleanup | None = None  # the tab that was given all of that
        self._opened = 0.0  # when one of the kept or imported traces that it shows was first found
        self._weighed: dict[int, tuple[Any, int, int]] = {}  # id of a run or a trace -> itself, its steps so far, their bytes

    @property
    def busy(self) -> int:
        return sum(live.busy for live in self.lives)

    @property
    def groups(self) -> set[Hashable]:
        """What counts as one run, of those that are busy."""
        return {live.group for live in self.lives if live.busy}

    @property
    def nbytes(self) -> int:
        """Of all its runs, which lie in memory as long as a page shows them, of those that its jobs hold (`held`), and of the kept
        and imported ones that it shows."""
        before, now = self._weighed, {}
        replayed = self.replayed
        if any(id(trace) not in before for trace in replayed):
            self._opened = monotonic()
        for run in [*(run for live in self.lives for run in held_by(live)), *replayed]:
            steps, (_, known, found) = len(run.steps), before.get(id(run), (run, 0, 0))
            if id(run) not in before or steps != known:
                found = weight(run, (known, found) if known < steps else (0, 0), steps)
            now[id(run)] = run, steps, found
        self._weighed = now
        return sum(found for _, _, found in now.values())

    @property
    def replayed(self) -> list[Trace]:
        """The kept and imported traces that it shows."""
        return [trace for owner in list(self.kept.values()) for trace in getattr(owner, "replayed", ())]

    @property
    def since(self) -> float:
        """When one of its jobs was last asked, or had done what it was asked for, or a trace was opened; 0 if there is none."""
        return max([self._opened if self.replayed else 0.0, *(live.since for live in self.lives)])

    def let_go(self, problem: str) -> None:
        """End its jobs that are at work; if none is, forget what it shows. Whatever shows it then says why."""
        if self.busy:
            self.release(STOPPED)
        else:
            for owner in list(self.kept.values()):
                getattr(owner, "let_go", lambda why: None)(problem)

    def release(self, problem: str = "") -> None:
        for live in self.lives:
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

    def tab(self, tab: str, visitor: str, address: str = "") -> RunCleanup:
        with self._lock:
            found = self._tabs.setdefault(tab, RunCleanup(tab))
            found.visitor, found.address = visitor, address
            if self._thread is None:
                self._thread = Thread(target=self._watch, name="draftscope-tabs", daemon=True)
                self._thread.start()
            return found

    @property
    def working(self) -> int:
        """Tabs that something is under way for."""
        return sum(tab.busy > 0 for tab in list(self._tabs.values()))

    def busy(self, visitor: str, address: str) -> tuple[int, int, int]:
        """Jobs that are at work or in line: of a visitor, of all visitors at an address, and of all."""
        return summed([(tab, tab.busy) for tab in list(self._tabs.values())], visitor, address)

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
        if limits().public:
            self.measure()
            thin([(tab, live) for tab in list(self._tabs.values()) for live in tab.lives])

    def measure(self) -> None:
        """End the jobs of visitors whose runs hold more than they may, and make room where those of all at an address, or of all
        together, do."""
        rules, tabs = limits(), list(self._tabs.values())
        held = [(tab, tab.nbytes) for tab in tabs]
        for visitor in {tab.visitor for tab in tabs if tab.busy}:
            try:
                check_held(sum(count for tab, count in held if tab.visitor == visitor))
            except Refused as error:
                for tab in self.of(visitor):
                    tab.release(told(error))
        holdings = [
            Holding(tab.visitor, tab.address, count, tab.busy > 0, tab.since, partial(tab.let_go, LET_GO)) for tab, count in held
        ]
        make_room(holdings, None, rules.held_near, rules.whole.held.most)

    def take_over(self, key: str, to: RunCleanup) -> dict[str, Any]:
        """Give a tab what another one of the same visitor kept, whose browser is gone: it was reloaded. What was begun in the tab
        meanwhile stays, and what the other had in its place ends with that one.

        Args:
            key: of the other.

        Returns:
            what that is, by its names; nothing if there is no such tab.
        """
        with self._lock:
            for old in self._called(key, to):
                if not self._is_there(old.tab):
                    begun = {name for name, owner in to.kept.items() if is_begun(owner)}
                    found = {name: owner for name, owner in old.kept.items() if name not in begun}
                    stays = {live for name in old.kept.keys() & begun for live in getattr(old.kept[name], "lives", ())}
                    to.lives.add(*(set(old.lives) - stays))
                    old.kept, old.given, old.lives, to.given = {}, to, Lives(stays), None
                    to.kept |= found
                    return found
        return {}

    def visitor_of(self, tab: str) -> str:
        """The key of the visitor whose tab it is, as its page knows it: the browser may have been given another since it came."""
        found = self._tabs.get(tab)
        return "" if found is None else found.visitor

    def is_open(self, key: str, to: RunCleanup) -> bool:
        """Whether another tab of the same visitor is called so, and seems to have a browser: of a connection that hangs that is
        found out later. A tab that has begun something of its own asks for nothing more."""
        return not to.lives and any(self._is_there(old.tab) for old in self._called(key, to))

    def _called(self, key: str, to: RunCleanup) -> list[RunCleanup]:
        """The other tabs of a visitor that are called so, or that were given what those kept: a page that is reloaded twice at once
        knows only what the first of them was called."""
        found = []
        for old in self.of(to.visitor):
            if old.key == key:
                while old.given is not None:
                    old = old.given
                found += [old] if old is not to and old.visitor == to.visitor else []
        return found

    def of(self, visitor: str) -> list[RunCleanup]:
        """The tabs of a visitor."""
        return [tab for tab in list(self._tabs.values()) if tab.visitor == visitor]

    def held(self, visitor: str, address: str) -> tuple[int, int, int]:
        """Bytes that the runs of a visitor take, those of all visitors at an address, and of all."""
        return summed([(tab, tab.nbytes) for tab in list(self._tabs.values())], visitor, address)

    def part(self, address: str) -> int:
        """Bytes that runs may take at an address however much others do: who holds more than their part makes room (`measure`)."""
        visitors: dict[str, set[str]] = {address: set()}
        for tab in list(self._tabs.values()):
            visitors.setdefault(tab.address, set()).add(tab.visitor)
        parts = {where: max(1, parts_of(there)) for where, there in visitors.items()}
        return limits().whole.held.most * parts[address] // sum(parts.values())

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


def is_begun(owner: Any) -> bool:
    """Whether what a page keeps has work of its own, shows a trace that is not ours, or holds answers: more than a page that was
    just opened."""
    return any(getattr(owner, name, ()) for name in ("lives", "replayed", "answered"))


def held_by(live: Live) -> tuple:
    """The runs that a job holds in memory."""
    return () if (job := live.run) is None else tuple(getattr(job, "held", (job,)))


def thin(lives: list[tuple[RunCleanup, Live]]) -> None:
    """Have runs let go of their keys and values where those take more memory than they may: of a visitor, of an address, of all.
    What stood still is made again when another step is wanted; columns that stand between two steps of others are at work."""
    rules, working = limits(), {live.group for _, live in lives if live.busy}
    make_room(
        [holding(tab, live, live.group in working) for tab, live in lives], rules.caches, rules.caches_near, rules.whole.caches
    )


def holding(tab: RunCleanup, live: Live, busy: bool) -> Holding:
    return Holding(tab.visitor, tab.address, live.nbytes, busy, live.since, partial(live.close, FULL if busy else ""))


def summed(held: list[tuple[RunCleanup, int]], visitor: str, address: str) -> tuple[int, int, int]:
    """Of what tabs hold: how much is the visitor's, how much lies at the address, how much it is in all."""
    own = sum(count for tab, count in held if tab.visitor == visitor)
    return own, sum(count for tab, count in held if tab.address == address), sum(count for _, count in held)


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
