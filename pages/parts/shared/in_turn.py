"""What takes long of everybody's time is done one after the other: files that visitors send are read, kept runs are searched and
those of studies are read one at a time, each by whoever is next."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from math import inf
from threading import Condition
from time import monotonic, sleep
from typing import NamedTuple

from decoding.limits import Refused, limits
from pages.parts.shared.resting import resting
from pages.parts.shared.runs import cleanup

BREATH = 3  # times as long as one took, nothing of its kind is done for those at the same address: all else stood still meanwhile
PATIENCE = 30.0  # seconds that one waits for others
CALL = 0.5  # seconds in which who is called may come, before the next one is
LATE = 600.0  # seconds after which it is forgotten that an address had a turn


class Later(Refused):
    """It would have to wait for too long, and may be tried again."""


class Turns:
    """Of one kind, one is done at a time.

    Who waits needs no place among the scripts of the server (`resting`), and has to get one again when their turn comes. Nobody has
    the turn meanwhile: the first in line is called, and so is the next one where that takes long; the turn is whose who then comes.

    Args:
        refusal: what is said to who would have to wait for too long.
    """

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._changed = Condition()  # of what follows
        self._busy = False
        self._near: set[str] = set()  # addresses of which one is at it, or breathes
        self._waiting: list[Waiting] = []
        self._called = -inf  # when one of them was
        self._coming = count()
        self._had: dict[str, float] = {}  # address -> when it had a turn last, of late

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One at a time is done in the block, of the address that had none for longest. On a public server one of each address is
        in line, and while it breathes others have their turns: so whoever has many to do waits for them alone.

        Raises:
            Later: too many others come first.
        """
        address = cleanup().address
        self._begin(address)
        began = monotonic()
        try:
            yield
        finally:
            self._end(address)
            self._breathe(address, monotonic() - began)

    def _begin(self, address: str) -> None:
        """Returns when nothing is done and nobody else comes first."""
        until = monotonic() + PATIENCE
        with self._changed:
            mine = Waiting(self._had.get(address, -inf), next(self._coming), address)
            if monotonic() - self._called >= CALL and self._takes(mine):  # nobody is on their way
                return
        while True:
            with resting(), self._changed:
                self._stand(mine, until)
            with self._changed:
                if self._takes(mine):
                    return

    def _stand(self, mine: "Waiting", until: float) -> None:
        """Stand in line until called."""
        self._waiting.append(mine)
        try:
            while not self._comes(mine):
                if (left := until - monotonic()) <= 0:
                    raise Later(self._refusal)
                self._changed.wait(min(left, CALL))
            self._called = monotonic()
        finally:
            self._waiting.remove(mine)
            self._changed.notify_all()

    def _comes(self, mine: "Waiting") -> bool:
        """Whether it is the first of those who may come next, and nobody was called a moment ago."""
        able = [one for one in self._waiting if one.address not in self._near]
        return not self._busy and mine in able and min(able) == mine and monotonic() - self._called >= CALL

    def _takes(self, mine: "Waiting") -> bool:
        """Whether the turn is theirs: nobody has it, and nobody who stands in line comes before them."""
        if self._busy or mine.address in self._near or any(one < mine and one.address not in self._near for one in self._waiting):
            return False
        self._busy, self._called = True, -inf
        self._near.add(mine.address)
        return True

    def _end(self, address: str) -> None:
        with self._changed:
            self._busy, self._had[address] = False, (now := monotonic())
            self._had = {one: at for one, at in self._had.items() if now - at < LATE}
            self._changed.notify_all()

    def _breathe(self, address: str, took: float) -> None:
        """Keep others of an address waiting for a while, and then no more, also where the page is ended meanwhile."""
        with resting():
            try:
                if limits().public:
                    sleep(BREATH * took)
            finally:
                with self._changed:
                    self._near.discard(address)
                    self._changed.notify_all()


class Waiting(NamedTuple):
    """One in line; the smaller comes first."""

    had: float  # when their address had a turn last
    number: int  # of their coming
    address: str


reading = Turns("Other files are being read, and this one would have to wait for long. Try again in a minute.").turn
looking = Turns("The runs of other studies are being read, and yours would have to wait for long. Try again in a minute.").turn
searching = Turns("Others search their runs, and this search would have to wait for long. Try again in a minute.").turn
