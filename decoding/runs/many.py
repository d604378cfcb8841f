"""Many prompts on one family, or on the same family on every machine of a cluster, each machine with one prompt at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Queue
from threading import Event, Lock, Thread
from typing import Any, TypeVar

from decoding.models.family import Family, load
from decoding.runs.cluster import Cluster
from decoding.runs.machine import known_of
from decoding.runs.orders import Known, Models
from decoding.runs.run import Place

T = TypeVar("T")
K = TypeVar("K")
LEAVE = 5.0  # seconds that what is under way has to end


def opened(models: Models, methods: Sequence[str], stop: Sequence[int | str], address: str) -> tuple[list[Family | Place], Known]:
    """Where runs of a family can be made, and what is to be known of it and these methods.

    Args:
        stop: tokens that runs are going to stop at.
        address: of a cluster; "": on this machine.

    Raises:
        ValueError: it cannot be loaded, there is no such cluster, or one of the stop tokens is none.
    """
    if not address:
        family = load(*models)
        return [family], known_of(family, methods, stop)
    places = Cluster(address).families(models)
    return list(places), places[0].known(methods, stop)


def spread_over(places: T | Sequence[T], items: Iterable[K], do: Callable[[T, K], object]) -> Iterator:
    """What `do` makes of every item at one of the places, in the order in which it is made."""
    at = list(places) if isinstance(places, Sequence) else [places]
    left, lock = iter(items), Lock()

    def part(place: T) -> Iterator:
        while True:
            with lock:
                if (item := next(left, None)) is None:
                    return
            yield do(place, item)

    return merged([part(place) for place in at])


def merged(parts: Sequence[Iterable[T]]) -> Iterator[T]:
    """The items of all parts as they come, each part taken on a thread of its own; one alone is taken on this one. What a part
    raises is raised here. Whoever takes no more items, or presses Ctrl-C, ends them all behind the items that are under way."""
    if len(parts) == 1:
        yield from parts[0]
        return
    found: Queue[tuple[str, Any]] = Queue()
    enough = Event()

    def take(part: Iterable[T]) -> None:
        try:
            for item in part:
                found.put(("item", item))
                if enough.is_set():
                    return
        except BaseException as error:
            found.put(("broke", error))
        finally:
            found.put(("end", None))

    threads = [Thread(target=take, args=(part,), name="draftscope-part", daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    try:
        going = len(threads)
        while going:
            what, item = found.get()
            if what == "broke":
                raise item
            if what == "end":
                going -= 1
            else:
                yield item
    finally:
        enough.set()
        for thread in threads:
            thread.join(LEAVE)
