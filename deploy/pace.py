"""How fast the messages of pages are passed on, so that one visitor's flood waits in its own queue and the others do not notice.

All scripts of all pages share one processor's worth of Python, so a flood of pages asked for by one visitor delays everybody's.
A visitor, and an address with all its visitors, has so many at once and so many per second after that: whole pages, which are dear,
and what is cheap, fragments and messages that run nothing; and so many bytes of them, before they are read. That is more than a
hand needs, and less than a script wants. Nothing is dropped or overtaken: the next message is taken from the network when this one
has been passed on, until then it stays there.

A cheap message can bring about a whole page, by a callback that has it run again. Such a page is charged to whatever the same tab
asks for next, which waits as if it had asked for the page.

And so few scripts run at the same time for one visitor, for one address, and for all, that those of the others get their part of
the processor, however much each of them does. Who says nothing for a while gives their place to others, but not as long as they
work: with ten at work nothing else was, for each word of the server's own waits for all of them. Where there are more than may
run, the next place is for who runs least now, and of those for who has computed least of late: among all it is an address, at an
address a visitor, of a visitor a tab. What somebody had is forgotten soon, or whoever has loaded a page would wait until everybody
else has taken as many steps as cost that much. Those at an address whose scripts were slow of late share one of all places with
the others of that kind, and what takes too long is ended (`deploy/overlong.py`): that costs its visitor and its address what is
passed on in PRICE seconds.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from operator import methodcaller
from typing import Any, NamedTuple

from decoding.limits import Rate, left_for, limits
from deploy.asking import counted
from deploy.overlong import CLOSED, COMPUTES, Watched
from deploy.ticks import Ticks
from deploy.working import computed, forget, is_gone, script_of

HOLD = 1.0  # seconds that a script has its place without a word, and for so long each time if it is at work
LONGEST = 20.0  # seconds that it has it, whatever it says or does; who computes without a word is ended long before
PATIENT = 10.0  # seconds that a script which has waited for something waits for a place
SOON = 0.05  # seconds after which it is looked whether a script has ended that says nothing, while somebody waits
WORKS = 0.02  # of a processor, beside all that want it too: more than who waits and looks now and then
HALF = 2.0  # seconds after which what somebody had counts half
FEW, MOST = 0.12, 0.5  # seconds: so little counts for nothing, and no more than that counts
SLOW_FOR = 600.0  # seconds that an address counts as slow after a slow script
LOOK = 0.25  # seconds between two looks what scripts compute
PRICE = 30.0  # seconds
LINGER = 10.0  # seconds that a closed connection counts: Streamlit keeps what it had


class Bucket:
    """What may still be passed on: so much at once, and it fills again."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left, self._at = float(rate.at_once), now()

    def wait(self, count: float = 1) -> float:
        """Take so many; seconds until they may go. Who comes later waits longer: first come, first served."""
        self._left = self._filled() - count
        self._at = now()
        return max(0.0, -self._left / self._rate.per_second)

    def fine(self, seconds: float) -> None:
        """Take what is passed on in so many; however often, nobody waits for longer than that."""
        price = self._rate.per_second * seconds
        self._left, self._at = max(self._filled() - price, -price), now()

    @property
    def full(self) -> bool:
        return self._filled() >= self._rate.at_once

    def _filled(self) -> float:
        return min(self._rate.at_once, self._left + self._rate.per_second * (now() - self._at))


class Places:
    """Scripts that run at the same time. A tab has one place, whatever it asks for; one that says nothing for HOLD seconds has lost
    it, unless it is at work: it waits for something, or has asked for what runs nothing.

    Args:
        most: places.
        computed: seconds of a processor that a tab's script has had so far, or whatever else is to count of a place.
        over: whether it is known that no script of a tab runs, which nobody tells for a page whose browser is gone.
    """

    half, few, cap = HALF, FEW, MOST  # of what somebody had

    def __init__(self, most: int, computed: Callable[[Any], float], over: Callable[[Any], bool] = lambda tab: False) -> None:
        self._most, self._computed, self._over = most, computed, over
        self._taken: dict[Hashable, Place] = {}
        self._waiting: dict[Hashable, tuple[Hashable, asyncio.Future]] = {}  # in the order in which they came
        self._had: dict[Hashable, tuple[float, float]] = {}  # seconds, as many as counted then
        self._slow: dict[Hashable, float] = {}  # who counts as slow, and until when
        self._alarm: asyncio.TimerHandle | None = None
        self._moved = 0.0  # when one was handed out, or somebody came for one where nobody waited

    @property
    def stand(self) -> float:
        """Seconds for which nobody was handed one while somebody waited."""
        return now() - self._moved if self._waiting else 0.0

    async def take(self, tab: Hashable, whose: Hashable) -> bool:
        """Return when there is one, and whether it was there already; it is kept until it is given back, or for HOLD seconds from
        `begin` without a word.

        A tab whose script runs may have it begin anew if nobody waits; else it waits for its end, and then like the others.
        """
        if (place := self._taken.get(tab)) is not None and (place.until == inf or not self._waiting):
            place.until = inf
            return True
        served = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._moved = now()
        self._waiting[tab] = whose, served
        self._serve()
        try:
            await served
        except asyncio.CancelledError:  # perhaps at the moment it was served
            self.give(tab)
            raise
        finally:
            self._waiting.pop(tab, None)
        return False

    def __contains__(self, tab: Hashable) -> bool:
        return tab in self._taken

    def begin(self, tab: Hashable) -> None:
        """Its script runs from now on."""
        if tab in self._taken:
            place = self._taken[tab]
            place.began = place.looked = now()
            place.had = place.seen = self._computed(tab)
            place.until = now() + HOLD
            self._serve()

    def spoke(self, tab: Hashable) -> None:
        """Its script has sent something: it goes on."""
        if (place := self._taken.get(tab)) is not None and place.until < inf:
            place.until = min(now() + HOLD, place.began + LONGEST)

    def give(self, tab: Hashable) -> None:
        if tab in self._taken:
            self._return(tab)
            self._serve()

    def leave(self, tab: Hashable) -> None:
        """It is closed: its script ends when it would say something, and may be at work until then."""
        if (place := self._taken.get(tab)) is None or place.until == inf:
            self.give(tab)
        else:
            place.until = now() + HOLD / 4
            self._serve()

    def slow(self, whose: Hashable) -> None:
        """A script of theirs is slow: for a while they share a place with others of whom that is known."""
        self._slow = {one: until for one, until in self._slow.items() if until > now()} | {whose: now() + SLOW_FOR}

    def _is_slow(self, whose: Hashable) -> bool:
        return self._slow.get(whose, 0.0) > now()

    def _serve(self) -> None:
        """Hand out the places that are free."""
        while self._waiting:
            held_up = any(self._is_slow(place.whose) for place in self._taken.values())
            able = [
                tab
                for tab, (whose, served) in self._waiting.items()
                if tab not in self._taken and not served.done() and not (held_up and self._is_slow(whose))
            ]
            if not able or len(self._taken) >= self._most:
                if self._forget_silent():
                    continue
                break
            busy, at = Counter(place.whose for place in self._taken.values()), now()
            tab = min(able, key=lambda tab: self._before(self._waiting[tab][0], busy, at))  # of equals who came first
            whose, served = self._waiting.pop(tab)
            self._moved = now()
            self._taken[tab] = Place(whose, self._computed(tab))
            served.set_result(None)
        self._wake()

    def _before(self, whose: Hashable, busy: Counter[Hashable], at: float) -> tuple[int, float]:
        """The less, the sooner; of two at the same moment, or the one that is looked at later would always have had less."""
        had = self._counts(whose, at)
        return busy[whose], had if had > self.few else 0.0

    def _counts(self, whose: Hashable, at: float) -> float:
        """Seconds that it had, the longer ago the less of them."""
        seconds, then = self._had.get(whose, (0.0, 0.0))
        return seconds * 0.5 ** ((at - then) / self.half)

    def _forget_silent(self) -> bool:
        """Take back what nothing was heard of; whether that was anything."""
        for tab, place in self._taken.items():
            if place.until <= now() < (last := place.began + LONGEST) and self._works(tab, place):
                place.until = min(now() + HOLD, last)
        silent = [tab for tab, place in self._taken.items() if place.until <= now() or self._is_over(tab, place)]
        for tab in silent:
            self._return(tab)
        return bool(silent)

    def _is_over(self, tab: Hashable, place: "Place") -> bool:
        """Whether its script has ended without a word."""
        return place.until < inf and now() - place.began >= SOON and self._over(tab)

    def _works(self, tab: Hashable, place: "Place") -> bool:
        """Whether its script had some of a processor since that was looked at before."""
        had, passed = self._computed(tab) - place.seen, now() - place.looked
        place.seen, place.looked = place.seen + had, now()
        return had > WORKS * passed

    def _return(self, tab: Hashable) -> None:
        """Take back a place, and note what was done in it."""
        place, at = self._taken.pop(tab), now()
        did = self._computed(tab) - place.had
        self._had[place.whose] = min(self._counts(place.whose, at) + did, self.cap), at
        self._had = {one: had for one, had in self._had.items() if self._counts(one, at) > FEW / 8}

    def _wake(self) -> None:
        """Have those who wait served when the next place is lost, and look soon whether one is free."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        until = min((place.until for place in self._taken.values()), default=inf)
        if self._waiting and until < inf:
            self._alarm = asyncio.get_running_loop().call_at(min(until, now() + SOON), self._serve)


@dataclass
class Place:
    """What a tab holds."""

    whose: Hashable
    had: float  # seconds that its script had computed before
    began: float = 0.0  # its script
    until: float = inf
    seen: float = 0.0  # seconds that its script had computed when that was looked at last
    looked: float = 0.0


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
            await self._placed()
        self._coming |= page

    async def _placed(self) -> None:
        """Return when it has a place of its visitor's, of its address's and of all: in this order, and none of those while it waits
        for one before it, or two tabs would wait for each other."""
        had = [await places.take(self, whose) for places, whose in self._places]
        while not all(self in places for places, _ in self._places):  # a script that ended meanwhile gave some back
            self.gone()
            had = [await places.take(self, whose) for places, whose in self._places]
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
        """Its script waits, and needs no place among all meanwhile."""
        places, _ = self._places[-1]
        places.give(self)
        places.give(self._again)

    async def goes_on(self) -> None:
        """Return when its script, which has waited, has such a place again."""
        places, whose = self._places[-1]
        if self not in places:  # another message may have taken one meanwhile
            await places.take(self._again, whose)
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
        for name, rule in wanted.items():
            if name not in self._purses:
                places = Places(rule.scripts, Tab.computed, Tab.over)
                self._purses[name] = Purse(Bucket(rule.pages), Bucket(rule.others), Bucket(rule.sent), places)
        self._places = self._places or Places(whole.scripts, methodcaller("computed"), methodcaller("over"))
        purses = [self._purses[name] for name in wanted]
        return Tab(list(wanted), purses, [self._places, *(purse.places for purse in purses)], self.known)

    def known(self, tab: Tab) -> None:
        """A page has a session."""
        self._sessions[tab.session], self._loop = tab, asyncio.get_running_loop()
        if self._alarm is None:
            self._alarm = self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        """What the scripts of all tabs compute, and so on as long as there are any."""
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


def now() -> float:
    """Seconds of the event loop."""
    return asyncio.get_running_loop().time()
