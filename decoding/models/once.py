"""What is made once for a model or a tokenizer, as long as that lives.

Many visitors may ask for it in the same moment, each on a thread of their own. The first one makes it and the others wait: sixteen
that group the keys of the same target take sixteen times its memory, and nobody gets a step meanwhile.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from decoding.models.progress import resting, tell

LOOK = 0.2  # seconds between two looks whether whoever waits is still wanted
T = TypeVar("T")


class Once(Generic[T]):
    """
    Args:
        waits: what is said to who waits for another to have made it.

    >>> class Model: pass
    >>> made, model = Once("waiting"), Model()
    >>> made.of(model, lambda: 1), made.of(model, lambda: 2), made.of(model, lambda: 3, lambda found: found > 1)
    (1, 1, 3)
    """

    def __init__(self, waits: str) -> None:
        self._made: WeakKeyDictionary[Any, T] = WeakKeyDictionary()
        self._lock, self._waits = Lock(), waits

    def of(self, thing: Any, make: Callable[[], T], fits: Callable[[T], bool] = lambda found: True) -> T:
        """What was made for a thing, or is now.

        Args:
            fits: whether what was made is still right.
        """
        found = self._made.get(thing)
        if found is not None and fits(found):
            return found
        if not self._lock.acquire(blocking=False):
            with resting():
                while not self._lock.acquire(timeout=LOOK):
                    tell(self._waits)
        try:
            found = self._made.get(thing)
            if found is None or not fits(found):
                found = self._made[thing] = make()
            return found
        finally:
            self._lock.release()
