"""What the keys and values take that a job has in memory, for whoever looks after jobs and knows none of their parts. No torch.

A cache notes itself when it is made, in the ledger of the job that is worked for on this thread. Nothing is kept alive by that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Protocol
from weakref import WeakSet


class Noted(Protocol):
    @property
    def nbytes(self) -> int: ...


class Ledger:
    """The caches of one job. Threads may share it."""

    def __init__(self) -> None:
        self._caches: WeakSet[Noted] = WeakSet()
        self._lock = Lock()

    def add(self, cache: Noted) -> None:
        with self._lock:
            self._caches.add(cache)

    @property
    def nbytes(self) -> int:
        """Of all that are still there."""
        with self._lock:
            caches = list(self._caches)
        return sum(cache.nbytes for cache in caches)


_ledger: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def noted_in(ledger: Ledger) -> Iterator[None]:
    """While the block runs, caches that are made on this thread note themselves there."""
    token = _ledger.set(ledger)
    try:
        yield
    finally:
        _ledger.reset(token)


def note(cache: Noted) -> None:
    """Called by a cache that is made."""
    if (ledger := _ledger.get()) is not None:
        ledger.add(cache)
