"""The families in memory: the embedded ones, and of the others those that somebody uses, and the one that was asked for last.

A family is in use as long as anybody but this cache holds it, as a run does until it is over. What nobody uses is freed before
another is loaded; what is in use stays, and together with the new one must fit a budget. Loading one holds up nobody else.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from threading import Lock
from time import monotonic
from weakref import WeakValueDictionary

import torch

from decoding.models import memory
from decoding.models.family import Family, find_device, load, opened_from
from decoding.models.memory import BYTES
from decoding.models.names import SHIPPED_TARGETS
from decoding.models.progress import resting, said, tell

EMBEDDED = tuple((target, None) for target in SHIPPED_TARGETS)  # targets and draft models
BUDGET = "DRAFTSCOPE_MODEL_GB"  # how much memory the families that are in use may take, beside the embedded ones
SHARE = 0.6  # of the device's memory, if that is not said
GIGABYTE = 10**9
EVERY = 10.0  # seconds between two collections, unless there is no room for what is asked for
LOOK = 0.5  # seconds between two words of who waits for another to load a family
Key = tuple[str, str | None, str, str]  # target, draft model, device, number format

_lock = Lock()  # of what follows; never held while anything is loaded
_families: dict[Key, Family] = {}  # kept, whether or not they are used
_alive: WeakValueDictionary[Key, Family] = WeakValueDictionary()  # those, and what others still use
_coming: dict[Key, int] = {}  # what is being loaded -> bytes that it will take
_loading: dict[Key, Lock] = {}
_collected = -inf  # when


def family(target: str = "embedded", draft: str | None = None, device: str = "auto", dtype: str = "auto") -> Family:
    """The family with these names (see `decoding.models.family.load`), loaded if it is not in memory.

    Raises:
        ValueError: it cannot be loaded, or does not fit beside those that are in use; those stay in memory.
    """
    key = (target, draft, device, dtype)
    with _lock:
        own = _loading.setdefault(key, Lock())
    with turn(own, " + ".join(filter(None, key[:2]))):  # two who want the same one: it is loaded once
        with _lock:
            found = _families.get(key) or _alive.get(key)
        if found is None:
            with room(key):
                found = load(*key)
        with _lock:
            _families[key] = _alive[key] = found
        return found


@contextmanager
def turn(own: Lock, name: str) -> Iterator[None]:
    """Holds a lock in the block. Who waits for it says so, and takes nobody's place meanwhile."""
    got = own.acquire(blocking=False)
    try:
        if not got:
            with resting():
                while not (got := own.acquire(timeout=LOOK)):
                    tell(f"waiting until {name} is loaded for another run")
        yield
    finally:
        if got:
            own.release()


def loaded(target: str, draft: str | None) -> Family | None:
    """The family with these models that is in memory, on whatever device; waits for no other that is being loaded."""
    there = [*_families.items(), *_alive.items()]
    return next((family for key, family in there if key[:2] == (target, draft)), None)


@contextmanager
def room(key: Key) -> Iterator[None]:
    """While the block runs, a family is being loaded for which there is room (ValueError if there is none)."""
    if key[:2] in EMBEDDED:
        yield
        return
    if free_others():
        collect(EVERY)
    size = bytes_needed(key)
    try:
        with _lock:
            check_budget(key, size)
            _coming[key] = size
    except ValueError:
        collect()
        with _lock:
            check_budget(key, size)
            _coming[key] = size
    try:
        yield
    finally:
        with _lock:
            del _coming[key]


def free_others() -> bool:
    """Forget every family but the embedded ones; whether there were any. What nobody uses of them is freed by `collect`."""
    with _lock:
        others = [key for key in _families if key[:2] not in EMBEDDED]
        for other in others:
            del _families[other]
    return bool(others)


def collect(every: float = 0.0) -> None:
    """Free what nobody uses, unless that was done within so many seconds: all visitors of a server wait for it."""
    global _collected
    with _lock:
        if monotonic() - _collected < every:
            return
        _collected = monotonic()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    memory.trim()


def check_budget(key: Key, size: int) -> None:
    """Refuse a family that does not fit beside those that are in use (ValueError); alone it may be as large as the machine."""
    used = {other: bytes_of(one) for other, one in list(_alive.items()) if other[:2] not in EMBEDDED} | _coming
    if used and sum(used.values()) + size > (most := budget(key[2])):
        names = ", ".join(sorted({" + ".join(filter(None, other[:2])) for other in used}))
        raise ValueError(
            f"{' + '.join(filter(None, key[:2]))} takes {said(size)} of memory. Runs that are not over use {names}, "
            f"{said(sum(used.values()))}, and {said(most)} are for all together: end one of them, or wait for it."
        )


def budget(device: str) -> float:
    """Bytes that the families in use may take."""
    if (chosen := os.environ.get(BUDGET, "")).replace(".", "", 1).isdigit():
        return float(chosen) * GIGABYTE
    where = find_device(device)
    if where.type == "cuda":
        return SHARE * torch.cuda.get_device_properties(where).total_memory
    return SHARE * memory.total()


def bytes_needed(key: Key) -> int:
    """What loading a family will take, told from its files; what is not on this machine is fetched for that. 0 where they do not
    say: loading it says what is wrong."""
    target, draft, device, dtype = key
    width = BYTES.get(dtype, 4 if find_device(device).type == "cpu" else 2)
    size = 0
    for name in filter(None, (target, draft)):
        with suppress(ValueError):
            found = memory.needs(Path(opened_from(name, SHIPPED_TARGETS)[0]), width)
            size += found.weights if found is not None else 0
    return size


def bytes_of(family: Family) -> int:
    """What the weights of a family take."""
    targets = [target for target in (family.target, family.draft) if target is not None]
    if family.other_draft is not None:
        targets.append(family.other_draft.model)
    heads = [target.plain.blocks for target in targets if target.plain is not None]
    twice = sum(4 * blocks.numel() for blocks in heads if blocks is not None)
    return twice + sum(values.nbytes for target in targets for values in target.model.parameters())
