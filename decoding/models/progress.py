"""Progress: how far something long has come, told to whoever looks, without the one knowing the other.

What takes long is a generator of `Progress`: one turn of the worker takes one of them, so that other runs go on meanwhile. What
loads models inside one turn says where it is with `tell`; the worker and the command line listen with `told_to`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

UNITS = ("bytes", "kB", "MB", "GB", "TB")
LARGEST = 1000  # of a unit, before the next is taken


@dataclass(frozen=True)
class Progress:
    """What is being done, and how many bytes of it; a total of 0 is not known."""

    stage: str
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        if not self.total:
            return self.stage
        return f"{self.stage}, {said(self.done)} of {said(self.total)}"

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0


Listener = Callable[[Progress], None]  # may raise, which ends what is being done
Rest = Callable[[], AbstractContextManager[None]]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_rest: ContextVar[Rest] = ContextVar("rest", default=nullcontext)


def said(count: float) -> str:
    """A number of bytes as people say it.

    >>> said(512), said(92_871_040), said(1_500_000_000)
    ('512 bytes', '93 MB', '1.5 GB')
    """
    for unit in UNITS:
        if count < LARGEST or unit == UNITS[-1]:
            break
        count /= 1000
    whole = count >= 10 or unit == UNITS[0]
    return f"{count:.0f} {unit}" if whole else f"{count:.1f} {unit}"


def tell(stage: str, done: int = 0, total: int = 0) -> None:
    """Say where one is to whoever listens on this thread."""
    if (listener := _listener.get()) is not None:
        listener(Progress(stage, done, total))


def told(steps: Iterable[Progress]) -> None:
    """Do all of something long at once, telling every step of it."""
    for step in steps:
        tell(step.stage, step.done, step.total)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """While the block runs, what is told on this thread goes to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def resting() -> AbstractContextManager[None]:
    """In the block, this thread does no more than wait for what another one does: whoever gave it a place has that free
    meanwhile."""
    return _rest.get()()


@contextmanager
def rested_by(rest: Rest) -> Iterator[None]:
    """While the block runs, that is asked whenever this thread rests."""
    token = _rest.set(rest)
    try:
        yield
    finally:
        _rest.reset(token)
