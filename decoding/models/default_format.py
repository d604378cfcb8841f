"""The default number format is one of the whole process, and transformers changes it while it opens a model in another one.

Steps of runs and the opening of models are on different threads: steps share the format they find, a model that changes it waits
until no step is taken, and steps wait for it. One model is opened at a time: each puts back what it found. No torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

_changed = Condition()
_steps = 0  # that are being taken
_changing = False
_opening = Lock()


@contextmanager
def kept() -> Iterator[None]:
    """While the block runs the format stays what it is."""
    global _steps
    with _changed:
        _changed.wait_for(lambda: not _changing)
        _steps += 1
    try:
        yield
    finally:
        with _changed:
            _steps -= 1
            _changed.notify_all()


@contextmanager
def opening_alone(changes: bool) -> Iterator[None]:
    """While the block runs no other model is opened and, if the format `changes`, no step is taken."""
    global _changing
    with _opening:
        if not changes:
            yield
            return
        with _changed:
            _changing = True
            _changed.wait_for(lambda: not _steps)
        try:
            yield
        finally:
            with _changed:
                _changing = False
                _changed.notify_all()
