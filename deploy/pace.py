"""How fast the messages of pages are passed on, so that one visitor's flood waits in its own queue and the others do not notice.

All scripts of all pages share one processor's worth of Python, so a flood of pages asked for by one visitor delays everybody's.
A visitor, and an address with all its visitors, has so many at once and so many per second after that: whole pages, which are dear,
and what is cheap, fragments and messages that run nothing; and so many bytes of them, before they are read. That is more than a
hand needs, and less than a script wants. Nothing is dropped or overtaken: the next message is taken from the network when this one
has been passed on, until then it stays there.

A cheap message can bring about a whole page, by a callback that has it run again. Such a page is charged to whatever the same tab
asks for next, which waits as if it had asked for the page.

And so few scripts run at the same time for one visitor, for one address, and for all, that those of the others get their part of
the processor, however much each of them does (`deploy/places.py`): among all it is an address whose turn it is, at an address a
visitor, of a visitor a tab. What takes too long is ended (`deploy/overlong.py`): that costs its visitor and its address what is
passed on in PRICE seconds.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from math import ceil
from operator import methodcaller
from typing import NamedTuple

from decoding.limits import left_for, limits
from decoding.runs.line import TOGETHER
from deploy.asking import counted
from deploy.buckets import Bucket, now
from deploy.overlong import CLOSED, COMPUTES, Watched
from deploy.places import WHOLE, Places
from deploy.ticks import Ticks
from deploy.working import computed, forget, is_gone, script_of

PATIENT = 10.0  # seconds that a script which has waited for something waits for a place
LOOK = 0.25  # seconds between two looks what scripts compute
PRICE = 30.0  # seconds
LINGER = 10.0  # seconds that a closed connection counts: Streamlit keeps what it had


class Purse(NamedTuple):
    """What a visitor, or an address, has."""

    pages: Bucket
    others: Bucket
    sent: Bucket
    places: Places

    @property
    def full(self) -> bool:
        """Whether all is there again."""
        return self.pages.full and self.others.full and self.sent.full


class Tab:
    """One connection of a page, and what its visitor, its address and all together have."""

    def __init__(
        self, names: list[str], purses: list[Purse], places: list[Places], known: Callable[["Tab"], None] = lambda tab: None
    ) -> None:
        self.names, self.ticks, self._purses, self._known = names, Ticks(), purses, known
        self.session = ""  # Streamlit's id of it, once it is known
        self.drawn = False  # whether a script has begun for it, or is to
        self._places = list(zip(places, (*names, self), strict=True))[::-1]  # its visitor's come first, those of all last
        self._again = Rested(self)
        self._coming = False  # a page that was asked for and has not begun
        self._unpaid = 0  # pages that began and that no message had asked for
        self._due = False  # a script that was asked for while another one ran, and has not begun
        self.watched = Watched()  # its script
        self._whole = True  # whether that is a page's

    async def tick(self, fragment: str) -> bool:
        """Return when a tick of a fragment's timer may be passed on, and whether it is to be."""
        if not self.ticks.is_due(fragment, now()):
            return False
        await self.turn(page=False)
        self.ticks.passed(fragment, now())
        return True

    async def sent(self, size: int) -> None:
        """Return when a message of so many bytes may be read, which everybody waits for."""
        if (seconds := max(purse.sent.wait(size) for purse in self._purses)) > 0:
            await asyncio.sleep(seconds)

    async def turn(self, page: bool, runs: bool = True) -> None:
        """Return when a message may be passed on; `page`: it asks for a whole page, `runs`: a script runs for it."""
        pages, self._unpaid = self._unpaid + page, 0
        waits = [purse.others.wait() for purse in self._purses if not page]
        waits += [purse.pages.wait(pages) for purse in self._purses if pages]
        if (seconds := max(waits)) > 0:
            await asyncio.sleep(seconds)
        if runs:
            self._whole = page
            await self._placed()
        self._coming |= page

    async def _placed(self) -> None:
        """Return when it has a place of its visitor's, of its address's and of all: in this order, and none of those while it waits
        for one before it, or two tabs would wait for each other."""
        had = [await places.take(self, whose, self._whole) for places, whose in self._places]
        while not all(self in places for places, _ in self._places):  # a script that ended meanwhile gave some back
            self.gone()
            had = [await places.take(self, whose, self._whole) for places, whose in self._places]
        self._due = all(had)
        if not self.watched.alive:
            self.watched = Watched()  # of the next script
        for places, _ in self._places:
            places.begin(self)

    def belongs(self, session: str) -> None:
        """Streamlit has told which session it is."""
        self.session = session
        self._known(self)

    def page_began(self) -> None:
        """A whole page began to run. All that were asked for until now are this one: Streamlit makes one run of many."""
        self._unpaid += not self._coming
        self._coming = False
        self.ticks.page_began()

    def spoke(self) -> None:
        """Something is sent to it."""
        self.watched.spoke()
        for places, _ in self._places:
            places.spoke(self)
            places.spoke(self._again)

    def began(self) -> None:
        """A script began to run."""
        self._due, self.drawn = False, True
        self.watched.began(script_of(self.session))

    def computed(self) -> float:
        """Seconds that its scripts have computed."""
        return computed(self.session)

    def over(self) -> bool:
        """Whether its script has ended and nobody will tell."""
        return bool(self.session) and not self.watched.alive and is_gone(self.session)

    def later(self) -> int:
        """How much later than others it comes with a page: whoever loads theirs again, or whose visitor had much of late, whatever
        others at their address had."""
        places, visitor = self._places[-2]
        return 2 * self.drawn + (not places.had_little(visitor))

    def ended(self, again: bool = False) -> None:
        """A script has ended; `again`: another one takes its place at once, as it does if it was asked for meanwhile."""
        if not again and not self._due:
            self.gone()

    def dropped(self) -> None:
        """What it had a turn for is not passed on."""
        if not self._due:  # no script of an earlier message runs
            self.gone()
        self._due = False

    def gone(self) -> None:
        """No script runs for it."""
        for places, _ in self._places:
            places.give(self)
            places.give(self._again)

    def rests(self) -> None:
        """Its script waits, and needs no place but its visitor's meanwhile: two of a class who waited for their steps kept all
        others of it from asking for theirs."""
        for places, _ in self._places[1:]:
            places.give(self)
            places.give(self._again)

    async def goes_on(self) -> None:
        """Return when its script, which has waited, has such places again."""
        for places, whose in self._places[1:]:
            if self not in places:  # another message may have taken one meanwhile
                await places.take(self._again, whose, self._whole)
                places.begin(self._again)

    def look(self, most: float = COMPUTES) -> None:
        """End its script if that has computed for more seconds without a word, and note if it is slow."""
        ended = self.watched.look(most)
        if self.watched.slow:
            places, whose = self._places[-1]
            places.slow(whose)
        for purse in self._purses if ended else ():
            purse.pages.fine(PRICE)
            purse.others.fine(PRICE)

    def left(self) -> None:
        """It is closed."""
        for places, _ in self._places:
            places.leave(self) if self.watched.alive else places.give(self)


class Rested:
    """What holds the place of a script that has waited for something: while it did so its tab may have asked for another."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab

    def computed(self) -> float:
        """As of its tab."""
        return self._tab.computed()

    def over(self) -> bool:
        """As of its tab."""
        return self._tab.over()

    def later(self) -> int:
        """As of its tab."""
        return self._tab.later()


class Pace:
    """All tabs of a server."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()  # connections of a visitor or an address, with those closed a moment ago
        self._all = 0  # of all together
        self._purses: dict[str, Purse] = {}
        self._places: Places | None = None  # of all together
        self._sessions: dict[str, Tab] = {}  # Streamlit's id of a session -> its page
        self._closed: set[Tab] = set()  # whose scripts go on
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._crowds: dict[str, int] = {}  # address -> how many of its visitors wanted places at the last look
        self._crowded = 0  # those of addresses where several did

    @property
    def stand(self) -> float:
        """Seconds for which no page was let run while pages waited that their own visitor and address do not hold up."""
        return self._places.stand if self._places is not None else 0.0

    def enter(self, key: str | None, address: str) -> Tab | None:
        """A new connection of whoever has the key, if any, at an address; None: there are too many."""
        wanted, whole = counted(key, address), limits().whole
        if any(self._open[name] >= left_for(rule.tabs, whole.tabs, self._all) for name, rule in wanted.items()):
            return None
        self._forget_idle()
        self._open.update(wanted.keys())
        self._all += 1
        looks = methodcaller("computed"), methodcaller("over")
        for name, rule in wanted.items():
            if name not in self._purses:
                # of an address several wait among all, or the next page after each of its own would always be another address's
                pages = rule.scripts if name == next(iter(wanted)) else WHOLE
                places = Places(rule.scripts, *looks, pages=pages)
                self._purses[name] = Purse(Bucket(rule.pages), Bucket(rule.others), Bucket(rule.sent), places)
        self._places = self._places or Places(whole.scripts, *looks, self._parts, methodcaller("later"))
        purses = [self._purses[name] for name in wanted]
        return Tab(list(wanted), purses, [self._places, *(purse.places for purse in purses)], self.known)

    def _parts(self, address: str) -> int:
        """How many parts of all places an address has: as many as its visitors want, and no more than of the device's time. Of
        several such addresses each has fewer, by how many want some there: a class is more than four at each of ten others."""
        purse = self._purses.get(address)
        if purse is None:
            return 1
        crowd = self._crowds.get(address) or purse.places.crowd
        together = ceil(TOGETHER * crowd / max(1, crowd, self._crowded))
        return max(1, min(crowd, limits().shares or 1, together))

    def known(self, tab: Tab) -> None:
        """A page has a session."""
        self._sessions[tab.session], self._loop = tab, asyncio.get_running_loop()
        if self._alarm is None:
            self._alarm = self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        """What the scripts of all tabs compute, and so on as long as there are any."""
        self._crowds = {name: purse.places.crowd for name, purse in self._purses.items() if name.startswith("address")}
        self._crowded = sum(crowd for crowd in self._crowds.values() if crowd > 1)
        self._closed = {tab for tab in self._closed if tab.watched.alive}
        more = self._sessions or self._closed
        self._alarm = asyncio.get_running_loop().call_later(LOOK, self._look) if more else None
        for tab in self._sessions.values():
            tab.look()
        for tab in self._closed:
            tab.look(CLOSED)

    def tab_of(self, session: str) -> Tab | None:
        """The page of Streamlit's id of a session; None: it is closed."""
        return self._sessions.get(session)

    def rests(self, session: str) -> Callable[[], None]:
        """The script of a session waits; it says so on its own thread.

        Returns:
            what waits on that thread until the script has a place among all again, or for PATIENT seconds.
        """
        tab, loop = self._sessions.get(session), self._loop
        if tab is None or loop is None:
            return lambda: None

        def go_on() -> None:
            if not loop.is_closed():
                coming = asyncio.run_coroutine_threadsafe(tab.goes_on(), loop)
                with suppress(TimeoutError, CancelledError):
                    coming.result(PATIENT)
                coming.cancel()

        with suppress(RuntimeError):  # the server is ending
            loop.call_soon_threadsafe(tab.rests)
        return go_on

    def leave(self, tab: Tab) -> None:
        """Its connection is closed; it counts for a moment more."""
        if self._sessions.get(tab.session) is tab:
            del self._sessions[tab.session]
        tab.left()
        self._closed.add(tab)
        asyncio.get_running_loop().call_later(LINGER, self._gone, tab)

    def _gone(self, tab: Tab) -> None:
        self._open.subtract(tab.names)
        self._all -= 1
        if tab.session not in self._sessions:
            forget(tab.session)

    def _forget_idle(self) -> None:
        """What visitors had who are gone and have all of theirs again."""
        self._open += Counter()  # leaves out those that are at nothing
        for name in [name for name, purse in self._purses.items() if not self._open[name] and purse.full]:
            del self._purses[name]
