"""Trace files: what is broken or hostile is refused with a sentence; what opens is drawn by every view and made every file of."""

import gzip
import inspect
import pkgutil
import re
import sys
import threading
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from random import Random
from types import CodeType, FunctionType
from typing import Any

import msgspec
import pytest

import viz
from decoding.methods import METHODS
from decoding.runs.store import Store
from decoding.runs.trace_files import from_json, to_json
from decoding.trace import Trace, decode_trace, encode
from pages.parts.step.open_trace import settings_for
from tests.fuzz.mutations import BOMBS, case, cases, changed, damaged, opened
from tests.fuzz.odd_traces import mutable, names_of, odd, one_for_all, params, plain, rasters
from tests.fuzz.views import ALL, PANEL, STEP, all_open, drawn, files_of, the_course  # noqa: F401  a fixture
from tests.hostile import hostile
from tests.viz_samples import grown, trace_of

BROKEN, BLIND, ODD, PICTURES = 120, 120, 60, 16
METHOD_KEYS = list(METHODS)
DRAWN = ("Step", "Trace", "Row", "Node")  # a function of `viz` that takes one of these, or several, draws a trace


MORE_RUNS: tuple[tuple[Any, ...], ...] = (  # whose pictures are others: method, temperature, tokens, parameters
    ("jacobi", 0.0, 24, {}), ("medusa", 0.8, 10, {"rule": "typical"}), ("judge", 0.8, 10, {"threshold": 0.01}),
    ("speculative_sampling", 0.0, 10, {}), ("dyspec", 0.8, 10, {"nodes": 96}),
    ("lazyllm", 0.0, 10, {"compared": True, "drafter": "copies from the text"}),
)  # fmt: skip
SELDOM = {"misfit_words", "own_rule"}  # are drawn of rare numbers only


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
    """Keep it, open it again, make files of it, draw it; of what does not change with the step a part that the dice choose."""
    number = store.keep(trace, "fuzz", "")
    assert encode(store.open(number)) == encode(trace)
    files_of(trace, store.folder)
    if showable(trace):
        cursor = dice.randint(-1, len(trace.steps) - 1)
        node = dice.choice((None, None, -1, 0, len(trace.steps[cursor].nodes) if trace.steps else 0))
        chosen = frozenset({STEP, *dice.sample(sorted(ALL), dice.randint(0, 1))})
        drawn(trace, other, store, number, cursor, node, chosen)


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


DRAWING = ("speculative_jacobi", "dyspec", "plain", "prompt_lookup")


def test_odd_pictures_are_drawn(recorded, pictured, store, all_open):  # noqa: F811
    """The same of runs that draw pixels, of which a raster may claim anything that a raster can."""
    looked = 0
    for name, dice in cases("odd picture", PICTURES):
        trace = pictured(dice.choice(DRAWING))
        data = odd(hostile(trace) if dice.random() < 0.3 else trace, dice)
        rasters(data, dice)
        with case(name, msgspec.msgpack.encode(data)):
            found = opened(lambda data=data: decode_trace(msgspec.msgpack.encode(data)), "decoding/")
            if found is not None:
                look_at(found, recorded("plain"), store, dice)
                looked += 1
    assert looked > PICTURES / 2


def test_every_number_of_every_method(recorded, store, all_open):  # noqa: F811
    """Each score and each fact that a method writes, two at a time, in the whole run something else: none, infinite, negative, far
    too large; and each of its parameters, which need not be a number then."""
    for method in METHOD_KEYS:
        trace = recorded(method)
        numbers = [partial(one_for_all, name=name) for name in names_of(trace)]
        changes = [numbers[i : i + 2] for i in range(0, len(numbers), 2)]
        changes += [[partial(params, name=name)] for name in vars(METHODS[method].params())]
        for together in changes:
            for name, dice in cases(", ".join([method, *(change.keywords["name"] for change in together)]), 1):
                data = mutable(plain(trace))
                for change in together:
                    change(data, dice)
                with case(name, packed := msgspec.msgpack.encode(data)):
                    odd_one = decode_trace(packed)
                    drawn(odd_one, trace, store, 0, fullest(odd_one), None, frozenset({PANEL}))


def test_every_picture_is_among_them(recorded, pictured, store, all_open, tmp_path):  # noqa: F811
    """Of a run of every method every function of `viz` that takes a trace, or a part of one, is called by what these tests draw."""
    traces = [recorded(method) for method in METHOD_KEYS] + [recorded(*one, **params) for *one, params in MORE_RUNS]
    traces += [trace_of(grown((40, 80, 60)))]  # too many nodes to be drawn one by one
    traces += [drawing := pictured("speculative_jacobi", fill="above")]
    alone, greedy, called = recorded("plain"), recorded("eagle", 0.0), set[CodeType]()

    def note(frame, event, argument) -> None:
        called.add(frame.f_code)

    threading.settrace(note)
    sys.settrace(note)
    try:
        for trace in traces:
            for cursor in {fullest(trace), len(trace.steps) - 1} if trace in traces[len(METHOD_KEYS) :] else {fullest(trace)}:
                drawn(trace, alone, store, 0, cursor, None, frozenset({STEP}))
        drawn(greedy, recorded("medusa", 0.0), store, store.keep(greedy, "greedy"), 0, None, ALL)
        drawn(alone, recorded("plain", 0.0), store, 0, 0, None, ALL - {"findings"})
        drawn(greedy, recorded("plain", 0.0), store, 0, 0, None, frozenset({"comparison"}))
        drawn(drawing, pictured("plain"), store, 0, 0, None, frozenset({"comparison"}))
        files_of(greedy, tmp_path)
        the_course()
    finally:
        threading.settrace(None)
        sys.settrace(None)
    drawers = [one for one in pictures() if one.__name__ not in SELDOM]
    missing = sorted(f"{one.__module__}.{one.__name__}" for one in drawers if inspect.unwrap(one).__code__ not in called)
    assert not missing, ", ".join(missing)


def fullest(trace: Trace) -> int:
    """The step with the most nodes."""
    return max(range(len(trace.steps)), key=lambda i: len(trace.steps[i].nodes))


def pictures() -> Iterator[FunctionType]:
    """Every function of `viz` that draws a trace."""
    for found in pkgutil.walk_packages(viz.__path__, "viz."):
        if found.ispkg:
            continue
        module = import_module(found.name)
        for _, function in inspect.getmembers(module, inspect.isfunction):
            said = " ".join(map(str, function.__annotations__.values()))
            if function.__module__ == module.__name__ and re.search(rf"\bdecoding\.trace\.({'|'.join(DRAWN)})\b", said):
                yield function
