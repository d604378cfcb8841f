"""What takes long of everybody's time is done one after the other: files that visitors send are read one at a time, and kept runs
are searched one at a time, each by whoever is next."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic, sleep
from weakref import WeakValueDictionary

from decoding.limits import Refused, limits
from pages.parts.shared.runs import cleanup

BREATH = 3  # times as long as one took, nothing of its kind is done for those at the same address: all else stood still meanwhile
PATIENCE = 30.0  # seconds that one waits for others


class Turns:
    """Of one kind, one is done at a time.

    Args:
        refusal: what is said to who would have to wait for too long.
    """

    def __init__(self, refusal: str) -> None:
        self._refusal = refusal
        self._one = Lock()
        self._near: WeakValueDictionary[str, Lock] = WeakValueDictionary()  # address -> the turn of those who are there
        self._guard = Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One at a time is done in the block. On a public server one of each address is in line, and while it breathes others have
        their turns: so whoever has many to do waits for them alone.

        Raises:
            Refused: too many others come first.
        """
        with self._guard:
            near = self._near.setdefault(cleanup().address, Lock())
        with self._taken(near):
            began = ended = 0.0
            try:
                with self._taken(self._one):
                    began = monotonic()
                    try:
                        yield
                    finally:
                        ended = monotonic()
            finally:
                if limits().public:
                    sleep(BREATH * (ended - began))

    @contextmanager
    def _taken(self, lock: Lock) -> Iterator[None]:
        """Holds it in the block; Refused if others hold it for too long."""
        if not lock.acquire(timeout=PATIENCE):
            raise Refused(self._refusal)
        try:
            yield
        finally:
            lock.release()


reading = Turns("Other files are being read, and this one would have to wait for long. Try again in a minute.").turn
searching = Turns("Others search their runs, and this search would have to wait for long. Try again in a minute.").turn
