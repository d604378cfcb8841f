"""What takes long of everybody's time is done one after the other: files that visitors send are read, kept runs are searched and
those of studies are read one at a time, each by whoever is next."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from math import inf
from threading import Condition, Lock
from time import monotonic, sleep
from weakref import WeakValueDictionary

from decoding.limits import Refused, limits
from pages.parts.shared.resting import resting
from pages.parts.shared.runs import cleanup

BREATH = 3  # times as long as one took, nothing of its kind is done for those at the same address: all else stood still meanwhile
PATIENCE = 30.0  # seconds that one waits for others
LATE = 600.0  # seconds after which it is forgotten that an address had a turn


class Later(Refused):
    """It would have to wait for too long, and may be tried again."""


class Turns:
    """Of one kind, one is done at a time.

    Args:
        refusal: what is said to who would have to wait for too long.
    """

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._near: WeakValueDictionary[str, Lock] = WeakValueDictionary()  # address -> the turn of those who are there
        self._changed = Condition()  # of what follows
        self._busy = False
        self._waiting: list[tuple[float, int]] = []  # when their address had a turn last, and the number of their coming
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
        with self._changed:
            near = self._near.setdefault(address, Lock())
        held = begun = False
        took = 0.0
        try:
            with resting():  # who waits is in nobody's way: it needs no place among the scripts
                if not (held := near.acquire(timeout=PATIENCE)):
                    raise Later(self._refusal)
                self._begin(address)
                begun = True
            since = monotonic()
            try:
                yield
            finally:
                took = monotonic() - since
        finally:
            if begun:
                self._end(address)
            if held:
                breathe(near, took)

    def _begin(self, address: str) -> None:
        """Returns when nothing is done and nobody else comes first."""
        with self._changed:
            mine = self._had.get(address, -inf), next(self._coming)
            self._waiting.append(mine)
            try:
                if not self._changed.wait_for(lambda: not self._busy and min(self._waiting) == mine, PATIENCE):
                    raise Later(self._refusal)
                self._busy = True
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()

    def _end(self, address: str) -> None:
        with self._changed:
            self._busy, self._had[address] = False, (now := monotonic())
            self._had = {one: at for one, at in self._had.items() if now - at < LATE}
            self._changed.notify_all()


def breathe(near: Lock, took: float) -> None:
    """Keep others of an address waiting for a while, and then no more, also where the page is ended meanwhile."""
    try:
        if took and limits().public:
            with resting():
                sleep(BREATH * took)
    finally:
        near.release()


reading = Turns("Other files are being read, and this one would have to wait for long. Try again in a minute.").turn
looking = Turns("The runs of other studies are being read, and yours would have to wait for long. Try again in a minute.").turn
searching = Turns("Others search their runs, and this search would have to wait for long. Try again in a minute.").turn
