"""How fast the messages of pages are passed on, so that one visitor's flood waits in its own queue and the others do not notice.

All scripts of all pages share one processor's worth of Python, so a flood of pages asked for by one visitor delays everybody's.
A visitor, and an address with all its visitors, has so many at once and so many per second after that: whole pages, which are dear,
and what is cheap, fragments and messages that run nothing. That is more than a hand needs, and less than a script wants. Nothing
is dropped or overtaken: the next message is taken from the network when this one has been passed on, until then it stays there.

A cheap message can bring about a whole page, by a callback that has it run again. Such a page is charged to whatever the same tab
asks for next, which waits as if it had asked for the page.

And so few scripts run at the same time for one visitor, and for one address, that those of the others get their part of the
processor, however much each of them does.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

from decoding.limits import Rate
from deploy.asking import counted

HOLD = 1.0  # seconds that a script has its place without a word of its end
LINGER = 10.0  # seconds that a closed connection counts: Streamlit keeps what it had


class Bucket:
    """What may still be passed on: so much at once, and it fills again."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._left, self._at = float(rate.at_once), now()

    def wait(self, count: int = 1) -> float:
        """Take so many; seconds until they may go. Who comes later waits longer: first come, first served."""
        self._left = self._filled() - count
        self._at = now()
        return max(0.0, -self._left / self._rate.per_second)

    @property
    def full(self) -> bool:
        return self._filled() >= self._rate.at_once

    def _filled(self) -> float:
        return min(self._rate.at_once, self._left + self._rate.per_second * (now() - self._at))


class Places:
    """Scripts that run at the same time. A tab has one place, whatever it asks for; one that says nothing for HOLD seconds has lost
    it: it waits for something, or has asked for what runs nothing."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._until: dict[Tab, float] = {}
        self._free = asyncio.Event()

    async def take(self, tab: "Tab") -> None:
        """Return when there is one."""
        while tab not in self._until:
            self._until = {one: at for one, at in self._until.items() if at > now()}
            if len(self._until) < self._most:
                break
            self._free.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(min(self._until.values())):
                    await self._free.wait()
        self._until[tab] = now() + HOLD

    def give(self, tab: "Tab") -> None:
        if self._until.pop(tab, None) is not None:
            self._free.set()


class Purse(NamedTuple):
    """What a visitor, or an address, has."""

    pages: Bucket
    others: Bucket
    places: Places


class Tab:
    """One connection of a page, and what its visitor and its address have."""

    def __init__(self, names: list[str], purses: list[Purse]) -> None:
        self.names, self._purses = names, purses
        self._coming = False  # a page that was asked for and has not begun
        self._unpaid = 0  # pages that began and that no message had asked for

    async def turn(self, page: bool, runs: bool = True) -> None:
        """Return when a message may be passed on; `page`: it asks for a whole page, `runs`: a script runs for it."""
        pages, self._unpaid = self._unpaid + page, 0
        waits = [purse.others.wait() for purse in self._purses if not page]
        waits += [purse.pages.wait(pages) for purse in self._purses if pages]
        if (seconds := max(waits)) > 0:
            await asyncio.sleep(seconds)
        for purse in self._purses if runs else ():
            await purse.places.take(self)
        self._coming |= page

    def page_began(self) -> None:
        """A whole page began to run. All that were asked for until now are this one: Streamlit makes one run of many."""
        self._unpaid += not self._coming
        self._coming = False

    def ended(self) -> None:
        """No script runs for it."""
        for purse in self._purses:
            purse.places.give(self)


class Pace:
    """All tabs of a server."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()  # connections of a visitor or an address, with those closed a moment ago
        self._purses: dict[str, Purse] = {}

    def enter(self, key: str | None, address: str) -> Tab | None:
        """A new connection of whoever has the key, if any, at an address; None: there are too many."""
        wanted = counted(key, address)
        if any(self._open[name] >= rule.tabs for name, rule in wanted.items()):
            return None
        self._forget_idle()
        self._open.update(wanted.keys())
        for name, rule in wanted.items():
            if name not in self._purses:
                self._purses[name] = Purse(Bucket(rule.pages), Bucket(rule.others), Places(rule.scripts))
        return Tab(list(wanted), [self._purses[name] for name in wanted])

    def leave(self, tab: Tab) -> None:
        """Its connection is closed; it counts for a moment more."""
        tab.ended()
        asyncio.get_running_loop().call_later(LINGER, self._gone, tab)

    def _gone(self, tab: Tab) -> None:
        self._open.subtract(tab.names)

    def _forget_idle(self) -> None:
        """What visitors had who are gone and have all of theirs again."""
        self._open += Counter()  # leaves out those that are at nothing
        idle = [name for name, it in self._purses.items() if not self._open[name] and it.pages.full and it.others.full]
        for name in idle:
            del self._purses[name]


def now() -> float:
    """Seconds of the event loop."""
    return asyncio.get_running_loop().time()
