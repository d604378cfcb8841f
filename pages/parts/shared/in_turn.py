"""Files that visitors send are read one at a time, each by whoever is next: reading takes time in which all pages stand still."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic, sleep
from weakref import WeakValueDictionary

from decoding.limits import Refused, limits
from pages.parts.shared.runs import cleanup

BREATH = 3  # times as long as a file took to read, those at the same address read no other: all else stood still meanwhile
PATIENCE = 30.0  # seconds that a file waits for others to be read
_reading = Lock()  # one file at a time, for its memory too
_near: WeakValueDictionary[str, Lock] = WeakValueDictionary()  # address -> the turn of those who are there
_guard = Lock()


@contextmanager
def reading() -> Iterator[None]:
    """One file at a time is read in the block. On a public server one of each address is in line, and while it breathes others
    are read: so whoever sends many waits for them alone.

    Raises:
        Refused: too many others come first.
    """
    with _guard:
        near = _near.setdefault(cleanup().address, Lock())
    with taken(near):
        began = ended = 0.0
        try:
            with taken(_reading):
                began = monotonic()
                try:
                    yield
                finally:
                    ended = monotonic()
        finally:
            if limits().public:
                sleep(BREATH * (ended - began))


@contextmanager
def taken(lock: Lock) -> Iterator[None]:
    """Holds it in the block; Refused if others hold it for too long."""
    if not lock.acquire(timeout=PATIENCE):
        raise Refused("Other files are being read, and this one would have to wait for long. Try again in a minute.")
    try:
        yield
    finally:
        lock.release()
