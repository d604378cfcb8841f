"""Places in which scripts run, and whose turn it is.

Who says nothing for a while gives their place to others, but not as long as they work: with ten at work nothing else was, for each
word of the server's own waits for all of them. Where there are more than may run, the next place is for who runs least now, and of
those for who has computed least of late, both for each of their parts. What somebody had is forgotten soon, or whoever has loaded a
page would wait until everybody else has taken as many steps as cost that much. Whole pages run one after the other: they are
dearest, and three at a time left the steps of runs, which need the interpreter hundreds of times each, a fourth of it; one that
computes nothing for a moment loses its place. Of pages those come first that are opened and not loaded again, and of those whose
visitors had little of late: a class opens its pages before who loads theirs again and again, at however many addresses. Those whose
scripts were slow of late share one place.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from deploy.buckets import now

HOLD = 1.0  # seconds that a script has its place without a word, and for so long each time if it is at work
LONGEST = 20.0  # seconds that it has it, whatever it says or does; who computes without a word is ended long before
SOON = 0.05  # seconds after which it is looked whether a script has ended that says nothing, while somebody waits
WORKS = 0.02  # of a processor, beside all that want it too: more than who waits and looks now and then
HALF = 2.0  # seconds after which what somebody had counts half
MOST = 0.5  # seconds of what somebody had that count
LITTLE = 0.1  # of these: less than a page that shows much, more than a step or two
WHOLE = 1  # pages at a time
STILL = 0.2  # seconds without having computed anything, after which one of them waits for something
SLOW_FOR = 600.0  # seconds that somebody counts as slow after a slow script


class Places:
    """Scripts that run at the same time. A tab has one place, whatever it asks for; one that says nothing for HOLD seconds has lost
    it, unless it is at work: it waits for something, or has asked for what runs nothing.

    Args:
        most: places.
        computed: seconds of a processor that a tab's script has had so far, or whatever else is to count of a place.
        over: whether it is known that no script of a tab runs, which nobody tells for a page whose browser is gone.
        parts: how many parts somebody has where others have one, such as a class where others are alone.
        pages: of the places, for whole pages.
        later: how much later than others a tab comes with a page, by what only it or its visitor had.
    """

    half, cap = HALF, MOST  # of what somebody had

    def __init__(
        self,
        most: int,
        computed: Callable[[Any], float],
        over: Callable[[Any], bool] = lambda tab: False,
        parts: Callable[[Any], int] = lambda whose: 1,
        later: Callable[[Any], int] = lambda tab: 0,
        pages: int = WHOLE,
    ) -> None:
        self._most, self._computed, self._over, self._parts, self._later, self._pages = most, computed, over, parts, later, pages
        self._taken: dict[Hashable, Place] = {}
        self._waiting: dict[Hashable, Waiting] = {}  # in the order in which they came
        self._had: dict[Hashable, tuple[float, float]] = {}  # seconds, as many as counted then
        self._slow: dict[Hashable, float] = {}  # who counts as slow, and until when
        self._alarm: asyncio.TimerHandle | None = None
        self._moved = 0.0  # when one was handed out, or somebody came for one where nobody waited

    @property
    def stand(self) -> float:
        """Seconds for which nobody was handed one while somebody waited."""
        return now() - self._moved if self._waiting else 0.0

    @property
    def crowd(self) -> int:
        """How many have one or wait for one."""
        return len({*(place.whose for place in self._taken.values()), *(waiting.whose for waiting in self._waiting.values())})

    async def take(self, tab: Hashable, whose: Hashable, page: bool = False) -> bool:
        """Return when there is one, and whether it was there already; it is kept until it is given back, or for HOLD seconds from
        `begin` without a word.

        A tab whose script runs may have it begin anew if nobody waits; else it waits for its end, and then like the others.

        Args:
            page: a whole page is to run.
        """
        if (place := self._taken.get(tab)) is not None and (place.until == inf or not self._waiting):
            place.until = inf
            return True
        served = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._moved = now()
        self._waiting[tab] = Waiting(whose, page, served)
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
            place.had = place.seen = place.has = self._computed(tab)
            place.moved = place.began
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
            able = self._able()
            if not able or len(self._taken) >= self._most:
                if self._forget_silent():
                    continue
                break
            busy, at = Counter(place.whose for place in self._taken.values()), now()
            tab = min(able, key=lambda tab: self._before(tab, self._waiting[tab], busy, at))  # of equals who came first
            waiting = self._waiting.pop(tab)
            self._moved = now()
            self._taken[tab] = Place(waiting.whose, waiting.page, self._computed(tab))
            waiting.served.set_result(None)
        self._wake()

    def _able(self) -> list[Hashable]:
        """Who may have the next place, if one is free."""
        held_up = any(self._is_slow(place.whose) for place in self._taken.values())
        pages = sum(place.page for place in self._taken.values())
        return [
            tab
            for tab, waiting in self._waiting.items()
            if tab not in self._taken
            and not waiting.served.done()
            and not (held_up and self._is_slow(waiting.whose))
            and not (waiting.page and pages >= self._pages)
        ]

    def _is_still(self, tab: Hashable, place: "Place") -> bool:
        """Whether its script has computed nothing for a while: it waits for something."""
        if place.until < inf and (has := self._computed(tab)) > place.has + WORKS * STILL:
            place.has, place.moved = has, now()
        return place.until < inf and now() - place.moved >= STILL

    def _before(self, tab: Hashable, waiting: "Waiting", busy: Counter[Hashable], at: float) -> tuple[int, int, float]:
        """The less, the sooner; of two at the same moment, or the one that is looked at later would always have had less."""
        parts = self._parts(waiting.whose)
        return busy[waiting.whose] // parts, waiting.page and self._later(tab), self._counts(waiting.whose, at) / parts

    def had_little(self, whose: Hashable) -> bool:
        """Whether they have had less than LITTLE of late."""
        return self._counts(whose, now()) < LITTLE

    def _counts(self, whose: Hashable, at: float) -> float:
        """Seconds that it had, the longer ago the less of them."""
        seconds, then = self._had.get(whose, (0.0, 0.0))
        return seconds * 0.5 ** ((at - then) / self.half)

    def _forget_silent(self) -> bool:
        """Take back what nothing was heard of; whether that was anything."""
        for tab, place in self._taken.items():
            if place.until <= now() < (last := place.began + LONGEST) and self._works(tab, place):
                place.until = min(now() + HOLD, last)
        silent = [
            tab
            for tab, place in self._taken.items()
            if place.until <= now() or self._is_over(tab, place) or (place.page and self._is_still(tab, place))
        ]
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
        self._had = {one: had for one, had in self._had.items() if self._counts(one, at) > MOST / 32}

    def _wake(self) -> None:
        """Have those who wait served when the next place is lost, and look soon whether one is free."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        until = min((place.until for place in self._taken.values()), default=inf)
        if self._waiting and until < inf:
            self._alarm = asyncio.get_running_loop().call_at(min(until, now() + SOON), self._serve)


class Waiting(NamedTuple):
    """Who waits for a place."""

    whose: Hashable
    page: bool
    served: asyncio.Future


@dataclass
class Place:
    """What a tab holds."""

    whose: Hashable
    page: bool
    had: float  # seconds that its script had computed before
    began: float = 0.0  # its script
    until: float = inf
    seen: float = 0.0  # seconds that its script had computed when that was looked at last
    looked: float = 0.0
    has: float = 0.0  # seconds that it had computed when it was last seen to have computed something
    moved: float = 0.0  # when that was
