"""The families in memory: the embedded ones, and of the others those that somebody uses, and the one that was asked for last.

A family is in use as long as anybody but this cache holds it, as a run does until it is over. What nobody uses is freed before
another is loaded, on a public server as much of it as has no room, the least recently used first; what is in use stays, and
together with the new one must fit a budget. Loading one holds up nobody else. On a processor families share the models that they
have in common: a model holds no state of any run.
"""

import gc
import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from math import inf
from pathlib import Path
from threading import Lock
from time import monotonic
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from transformers import PreTrainedTokenizerBase

from decoding.limits import limits
from decoding.models import memory
from decoding.models.family import Family, Opened, find_device, load, open_model, opened_from
from decoding.models.memory import BYTES
from decoding.models.names import SHIPPED_TARGETS
from decoding.models.progress import resting, said, tell
from decoding.models.target import Target

EMBEDDED = tuple((target, None) for target in SHIPPED_TARGETS)  # targets and draft models
BUDGET = "DRAFTSCOPE_MODEL_GB"  # how much memory the families that are in use may take, beside the embedded ones
SHARE = 0.6  # of the device's memory, if that is not said
SPARE = 1.5  # gigabytes of what nobody uses, or is asked for, that a public server keeps: its visitors ask for now this, now that
GIGABYTE = 10**9
EVERY = 10.0  # seconds between two collections, unless there is no room for what is asked for
LOOK = 0.5  # seconds between two words of who waits for another to load a family
Key = tuple[str, str | None, str, str]  # target, draft model, device, number format

_lock = Lock()  # of what follows; never held while anything is loaded
_families: dict[Key, Family] = {}  # kept, whether or not they are used
_alive: WeakValueDictionary[Key, Family] = WeakValueDictionary()  # those, and what others still use
_coming: dict[Key, int] = {}  # what is being loaded -> bytes that it will take
_loading: dict[Hashable, Lock] = {}
_models: WeakValueDictionary[tuple[str, str], Target] = WeakValueDictionary()  # folder and number format -> open on a processor
_beside: WeakKeyDictionary[Target, tuple[PreTrainedTokenizerBase, tuple[str, ...]]] = WeakKeyDictionary()  # tokenizer, notes
_one = Lock()  # to open a model on a public server
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
                found = load(*key, open_by=open_shared)
        with _lock:
            _families.pop(key, None)  # the last one is the one that was used last
            _families[key] = _alive[key] = found
        return found


def open_shared(source: str, device: torch.device, dtype: str, *, spread: bool = False, graphs: str = "auto") -> Opened:
    """As `open_model`; what is in memory is not opened again."""
    if device.type != "cpu":
        return open_model(source, device, dtype, spread=spread, graphs=graphs)
    key = source, dtype
    with _lock:
        own = _loading.setdefault(key, Lock())
    with turn(own, Path(source).name):
        with _lock:
            target = _models.get(key)
            beside = None if target is None else _beside.get(target)
        if target is not None and beside is not None:
            return beside[0], target, beside[1]
        with turn(_one, "another model") if limits().public else nullcontext():  # it takes Python's time, of which there is one
            tokenizer, target, notes = open_model(source, device, dtype, spread=spread, graphs=graphs)
        with _lock:
            _models[key], _beside[target] = target, (tokenizer, notes)
        return tokenizer, target, notes


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
    with _lock:
        there = [*_families.items(), *_alive.items()]
    return next((family for key, family in there if key[:2] == (target, draft)), None)


@contextmanager
def room(key: Key) -> Iterator[None]:
    """While the block runs, a family is being loaded for which there is room (ValueError if there is none)."""
    if key[:2] in EMBEDDED:
        yield
        return
    size = bytes_needed(key)
    if free_others(max(0.0, SPARE * GIGABYTE - size) if limits().public else 0.0):
        collect(EVERY)
    try:
        claim(key, size)
    except ValueError:  # what nobody uses any more may lie there yet
        collect()
        claim(key, size)
    try:
        yield
    finally:
        with _lock:
            del _coming[key]


def claim(key: Key, size: int) -> None:
    """Count what is being loaded, or raise a ValueError: there is no room for it."""
    with _lock:
        check_budget(key, size)
        _coming[key] = size


def free_others(keep: float = 0.0) -> bool:
    """Forget families, but not the embedded ones, those first that were used least lately; whether there were any. What nobody uses
    of them is freed by `collect`.

    Args:
        keep: bytes that need not go.
    """
    with _lock:
        others = [key for key in _families if key[:2] not in EMBEDDED]
        went = 0
        while others[went:] and (not keep or bytes_of(*(_families[key] for key in others[went:])) > keep):
            del _families[others[went]]
            went += 1
    return bool(went)


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
    used = {other: one for other, one in list(_alive.items()) if other[:2] not in EMBEDDED}
    taken = bytes_of(*used.values()) + sum(_coming.values())
    if (used or _coming) and taken + size > (most := budget(key[2])):
        names = ", ".join(sorted({" + ".join(filter(None, other[:2])) for other in [*used, *_coming]}))
        raise ValueError(
            f"{' + '.join(filter(None, key[:2]))} takes {said(size)} of memory. Runs that are not over use {names}, "
            f"{said(taken)}, and {said(most)} are for all together: end one of them, or wait for it."
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
            source = opened_from(name, SHIPPED_TARGETS)[0]
            if (source, dtype) in _models and find_device(device).type == "cpu":
                continue
            found = memory.needs(Path(source), width)
            size += found.weights if found is not None else 0
    return size


def bytes_of(*families: Family) -> int:
    """What the weights of families take together, those that they share once."""
    found = [target for family in families for target in (family.target, family.draft) if target is not None]
    found += [family.other_draft.model for family in families if family.other_draft is not None]
    targets = {id(target.model): target for target in found}.values()
    heads = [target.plain.blocks for target in targets if target.plain is not None]
    twice = sum(4 * blocks.numel() for blocks in heads if blocks is not None)
    return twice + sum(values.nbytes for target in targets for values in target.model.parameters())
