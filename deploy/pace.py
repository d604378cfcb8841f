"""How fast the messages of pages are passed on, so that one visitor's flood waits in its own queue and the others do not
notice.

Python runs all scripts of all pages on one processor's worth of time, so what delays the others is how many of a visitor's
scripts run at the same time, and for how long. A tab needs a place for its run, until Streamlit says that the run is over;
whole pages, which are dear, one after the other, and out of a budget of seconds that fills again by a share of the time.
Fragments, which are cheap and wait for the model most of their time, have more places and no budget. While a tab has its place
it may ask again, as quick clicks do: Streamlit breaks a page off for the next one, and adds up what fragments are asked. That
counts messages, and whoever has sent more than a hand does waits until the run is over. Nothing is dropped or overtaken: the
next message is taken from the network when this one has been passed on.
"""

import asyncio
from collections import Counter
from contextlib import suppress

from decoding.limits import limits

BURST, RATE = 80.0, 20.0  # messages that a tab may send at once while its script runs, and per second; any that are no runs, too
PAGE = 4.0  # as many messages as a whole page counts for: 20 at once, five per second
BUDGET, SHARE = 8.0, 0.25  # seconds of whole pages that a visitor has, and that come back per second
LONGEST = 2.0  # seconds that a run holds its place: a message for a fragment that is gone has no end
LINGER = 10.0  # seconds that a closed connection counts: Streamlit keeps what it had


def now() -> float:
    """Seconds of the event loop."""
    return asyncio.get_running_loop().time()


class Room:
    """Places for runs, first come first served, and what they may take of the time.

    Args:
        places: runs at the same time.
        share: of the time; None: no budget.
    """

    def __init__(self, places: int, share: float | None = None) -> None:
        self._places, self._share = asyncio.Semaphore(places), share
        self._left = BUDGET
        self._at = now()

    async def enter(self) -> None:
        await self._places.acquire()
        try:
            while self._share and (lacks := round(-self.left(), 6)) > 0:
                await asyncio.sleep(lacks / self._share)
        except BaseException:  # whoever waited is gone
            self._places.release()
            raise

    def leave(self, seconds: float) -> None:
        """Of a run that took so long."""
        self._left = self.left() - seconds * bool(self._share)
        self._places.release()

    def left(self) -> float:
        """Seconds of the budget."""
        self._left, self._at = min(BUDGET, self._left + (self._share or 0) * (now() - self._at)), now()
        return self._left

    @property
    def full(self) -> bool:
        return self._share is None or self.left() >= BUDGET - 1e-6


class Tab:
    """One connection of a page.

    Args:
        pages: where a run of a whole page needs a place.
        fragments: where one of a fragment does.
    """

    def __init__(self, pages: list[Room], fragments: list[Room]) -> None:
        self._pages, self._fragments = pages, fragments
        self._held: list[tuple[Room, float]] = []  # and since when
        self._whole = False  # a whole page runs
        self._left, self._at = BURST, now()  # messages
        self._over = asyncio.Event()  # no script of it runs, as far as is known
        self._over.set()
        self._timer: asyncio.TimerHandle | None = None

    async def page(self) -> None:
        """Return when a message that asks for a whole page may be passed on."""
        if not self._whole or not await self._spent(PAGE):
            await self._begin(self._pages)
            self._whole = True

    async def fragment(self) -> None:
        """The same for a fragment."""
        if self._over.is_set() or not await self._spent(1):
            await self._begin(self._fragments)

    async def other(self) -> None:
        """The same for what asks for no run."""
        while (wait := self._wait(1)) > 0:
            await asyncio.sleep(wait)
        self._left -= 1

    def ended(self) -> None:
        """The run is over, or nobody is left to see it."""
        if self._timer is not None:
            self._timer.cancel()
        while self._held:
            room, since = self._held.pop()
            room.leave(now() - since)
        self._whole = False
        self._over.set()

    async def _spent(self, cost: float) -> bool:
        """Whether there came to be enough left while the run goes on, and is spent now; False: the run is over."""
        while (wait := self._wait(cost)) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), wait)
            if self._over.is_set():
                return False
        self._left -= cost
        return True

    async def _begin(self, rooms: list[Room]) -> None:
        for room in rooms:
            await room.enter()
            self._held.append((room, now()))
        self._over.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LONGEST, self.ended)

    def _wait(self, cost: float) -> float:
        """Seconds until there is enough left."""
        self._left, self._at = min(BURST, self._left + RATE * (now() - self._at)), now()
        return round((cost - self._left) / RATE, 6)


class Pace:
    """All tabs of a server."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()  # connections of a visitor or an address, with those closed a moment ago
        self._rooms: dict[str, list[Room]] = {}  # of a visitor those for pages and fragments, of an address that for pages

    def enter(self, key: str | None, address: str) -> Tab | None:
        """A new connection of whoever has the key, if any, at an address; None: there are too many."""
        rules, place = limits(), f"address {address}"
        most = {place: rules.tabs_address} | ({f"visitor {key}": rules.tabs} if key else {})
        if any(count is not None and self._open[name] >= count for name, count in most.items()):
            return None
        self._rooms = {name: rooms for name, rooms in self._rooms.items() if self._open[name] or not all(r.full for r in rooms)}
        self._open.update(most.keys())
        shared = self._rooms.setdefault(place, [Room(rules.pages_address)])
        own = self._rooms.setdefault(f"visitor {key}", [Room(1, SHARE), Room(rules.fragments)]) if key else []
        return Tab(own[:1] + shared, own[1:])

    def leave(self, tab: Tab, key: str | None, address: str) -> None:
        """Its connection is closed; it counts for a moment more."""
        tab.ended()
        names = [f"address {address}"] + [f"visitor {key}"] * bool(key)
        asyncio.get_running_loop().call_later(LINGER, self._forget, names)

    def _forget(self, names: list[str]) -> None:
        self._open -= Counter(names)  # leaves out those that are at nothing
