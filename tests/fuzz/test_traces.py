"""Trace files: what is broken or hostile is refused with a sentence; what opens is drawn by every view and made every file of."""

import gzip
import inspect
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from random import Random

import msgspec
import pytest

import viz
from decoding.methods import METHODS
from decoding.runs.store import Store
from decoding.runs.trace_files import from_json, to_json
from decoding.trace import Trace, decode_trace, encode
from pages.parts.step.open_trace import settings_for
from tests.fuzz.mutations import BOMBS, case, cases, changed, damaged, opened
from tests.fuzz.odd_traces import mutable, odd, plain
from tests.fuzz.views import all_open, drawn, files_of  # noqa: F401  a fixture
from tests.hostile import hostile

BROKEN, BLIND, ODD, PER_METHOD = 150, 150, 120, 1
METHOD_KEYS = list(METHODS)
DRAWN = {"Step", "Trace", "Row", "Node"}  # a function of `viz` that takes one of these, or several, draws a trace


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def as_json(data: object) -> bytes:
    return msgspec.json.encode({"format": "draftscope-trace", "trace": data})


def showable(trace: Trace) -> bool:
    """Whether the Step page opens it; otherwise it says why not."""

    def door() -> bool:
        settings_for(trace.header)
        if not max(1, len(trace.steps)) <= trace.header.max_tokens <= 4096:
            raise ValueError("no run can have so many steps")
        return True

    return bool(opened(door))


def look_at(trace: Trace, other: Trace, store: Store, dice: Random) -> None:
    """Keep it, open it again, make files of it, draw it."""
    number = store.keep(trace, "fuzz", "")
    assert encode(store.open(number)) == encode(trace)
    files_of(trace, store.folder)
    if showable(trace):
        cursor = dice.randint(-1, len(trace.steps) - 1)
        node = dice.choice((None, None, -1, 0, len(trace.steps[cursor].nodes) if trace.steps else 0))
        drawn(trace, other, store, number, cursor, node)


# -- what is refused, or opens ---------------------------------------------------------------------------------------------


def test_broken_bytes(recorded):
    """Of files as they come, and of traces as they are stored."""
    for name, dice in cases("broken", BROKEN):
        trace = recorded(dice.choice(METHOD_KEYS))
        good = dice.choice((gzip.decompress(to_json(trace)), to_json(trace), encode(trace)))
        data = damaged(good, dice)
        with case(name, data):
            for door in (from_json, decode_trace):
                opened(lambda door=door, data=data: door(data), "decoding/")


def test_other_values_anywhere(recorded, store):
    """Most are refused, by the door that says where."""
    refused = 0
    for name, dice in cases("blind", BLIND):
        trace = recorded(dice.choice(METHOD_KEYS))
        data = changed(mutable(plain(trace)), dice)
        with case(name, data):
            for pack, door in ((as_json, from_json), (msgspec.msgpack.encode, decode_trace)):
                try:
                    packed = pack(data)
                except (OverflowError, TypeError, ValueError, RecursionError, UnicodeEncodeError):  # nothing that a file could say
                    continue
                found = opened(lambda door=door, packed=packed: door(packed), "decoding/")
                refused += found is None
                if found is not None:
                    files_of(found, store.folder)
    assert refused > BLIND / 2


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    for door in (from_json, decode_trace):
        with case(name, BOMBS[name][:2_000]):
            assert opened(lambda door=door: door(BOMBS[name]), "decoding/") is None


# -- what is drawn -----------------------------------------------------------------------------------------------------------


def test_odd_traces_are_drawn(recorded, store, all_open):  # noqa: F811
    """What could be and hardly is: every view draws it, or says in a sentence that it does not."""
    looked = 0
    for name, dice in cases("odd", ODD):
        trace = recorded(METHOD_KEYS[int(name.split()[1]) % len(METHOD_KEYS)])
        data = odd(hostile(trace) if dice.random() < 0.3 else trace, dice)
        with case(name, msgspec.msgpack.encode(data)):
            found = opened(lambda data=data: decode_trace(msgspec.msgpack.encode(data)), "decoding/")
            if found is not None:
                look_at(found, recorded(dice.choice(METHOD_KEYS)), store, dice)
                looked += 1
    assert looked > ODD / 2


def test_every_picture_is_among_them(recorded, store, all_open, tmp_path):  # noqa: F811
    """Of a run of every method every function of `viz` that takes a trace, or a part of one, is called by what these tests draw."""
    called: set[tuple[str, str]] = set()

    def note(frame, event, argument) -> None:
        if event == "call":
            called.add((frame.f_globals.get("__name__", ""), frame.f_code.co_name))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        for method in METHOD_KEYS:
            look_at(recorded(method), recorded("eagle"), store, Random(3))
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    missing = sorted(f"{module}.{name}" for module, name in pictures() if (module, name) not in called)
    assert not missing


def pictures() -> Iterator[tuple[str, str]]:
    """Module and name of every function of `viz` that draws a trace."""
    for found in pkgutil.walk_packages(viz.__path__, "viz."):
        if found.ispkg:
            continue
        module = import_module(found.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            said = " ".join(str(one) for one in function.__annotations__.values())
            if function.__module__ == module.__name__ and any(
                kind in said.replace(".", " ").split() or f"{kind}" in said for kind in DRAWN
            ):
                yield module.__name__, name


Opened = Callable[[bytes], Trace]
