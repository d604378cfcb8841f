"""What every lens promises, over all of them: words, ranges, looks that end and repeat, a family that is left as it was, and
pictures that draw whatever a look holds."""

import dataclasses
import inspect
import math
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

import msgspec
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

import decoding.lenses
import decoding.looks
from decoding.lens import BLOCK, Cursor, place_of
from decoding.lenses import LENSES, SCOPES
from decoding.looks import MAX_LOOK, Look, decode_look, encode_look
from decoding.models.family import Family
from decoding.models.target import Target
from decoding.runs.lens_run import LensRun
from decoding.runs.line import Owner
from decoding.runs.run import Run
from decoding.runs.worker import Worker, next_of
from decoding.sample import Sampling
from decoding.trace import MAX_PIECE, Trace
from tests.methods.test_contract import unfit
from viz.lenses import pictures_of

KEYS = list(LENSES)
REFUSED = {
    ("byte_level", "temperature", 0.1): "no probability that a number can hold",  # of half a name
    ("critical_tokens", "answer", "é" * 20): "must be a number",
}
PROMPT = "Once upon a time there was a little girl who lived in a small house near the forest with her litt"
HOSTILE = b"<script>alert(1)</script>"


@pytest.fixture(scope="module")
def trace(embedded) -> Trace:
    run = Run(embedded, "speculative_sampling", prompt=PROMPT, sampling=Sampling(1.0), seed=3, max_tokens=16)
    list(run)
    return run.trace


@pytest.fixture(scope="module")
def seen(embedded, trace):
    """Lens -> all its looks at the first refused node."""
    made: dict[str, list[Look]] = {}

    def looks(key: str) -> list[Look]:
        if key not in made:
            made[key] = list(LensRun(embedded, key, trace, *refused(trace)))
        return made[key]

    return looks


def refused(trace: Trace) -> Cursor:
    """The first node that the target turned down."""
    return next(
        Cursor(i, j) for i, step in enumerate(trace.steps) for j, node in enumerate(step.nodes) if node.verdict == "rejected"
    )


def least(key: str) -> dict[str, int | bool]:
    """Parameters with which a look is small: every number of things at its low end, every extra left out."""
    return {
        field.name: field.metadata["low"] if type(field.default) is int else False
        for field in own_fields(key)
        if type(field.default) in (int, bool) and not field.metadata["choices"]
    }


def own_fields(key: str) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(LENSES[key].params)


# -- the files ---------------------------------------------------------------------------------------------------------


def test_every_file_is_a_lens_under_its_own_name():
    names = [module.name for module in iter_modules(decoding.lenses.__path__)]
    assert sorted(LENSES) == sorted(names) == sorted(module.name for module in iter_modules(decoding.looks.__path__))
    assert sorted(key for keys in LENSES.grouped().values() for key in keys) == sorted(names)


@pytest.mark.parametrize("key", KEYS)
def test_words(key):
    lens, module = LENSES[key], import_module(f"decoding.lenses.{key}")
    assert lens.key == key and lens is module.LENS
    assert lens.title[0].isupper() and len(lens.title) <= 40
    assert lens.paper.startswith("https://") and lens.paper in module.__doc__
    assert lens.authors and 2015 <= lens.year <= 2030 and lens.scope in SCOPES
    assert lens.asks.endswith("?") and len(lens.asks) <= 110
    assert all(words.endswith(".") for words in (lens.idea, lens.reading, lens.checks))
    assert not lens.ours or lens.ours.endswith(".")
    assert inspect.getdoc(module) and module.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("key", KEYS)
def test_the_look_has_the_name_of_the_lens_and_draws_empty(key):
    kind = import_module(f"decoding.looks.{key}").LOOK
    empty = kind()
    assert empty.key == key and issubclass(kind, Look) and kind.__struct_config__.frozen
    assert decode_look(encode_look(empty)) == empty
    draw(empty)


@pytest.mark.parametrize("key", KEYS)
def test_params_are_frozen_and_anything_that_does_not_fit_is_refused(key):
    lens = LENSES[key]
    assert dataclasses.is_dataclass(lens.params) and lens.params.__dataclass_params__.frozen
    assert lens.checked({}) == lens.params()
    with pytest.raises(ValueError, match="no parameter 'nonsense'"):
        lens.checked({"nonsense": 1})
    for field in own_fields(key):
        assert field.metadata["label"] and field.metadata["help"].endswith(".")
        for value in unfit(field):
            with pytest.raises(ValueError, match=field.metadata["label"]):
                lens.checked({field.name: value})


# -- looking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_it_looks_and_ends(key, seen, trace):
    looks, at = seen(key), refused(trace)
    assert looks and [look.done for look in looks] == [False] * (len(looks) - 1) + [True]
    for look in looks:
        assert (look.key, look.family, (look.step, look.node)) == (key, trace.header.family, at)
        assert look.params == dataclasses.asdict(LENSES[key].params())
        assert look.ms >= 0 and all(note.endswith(".") for note in look.notes)
        assert decode_look(data := encode_look(look)) == look and len(data) <= MAX_LOOK
    assert 0 <= looks[-1].rows_read <= LENSES[key].cost(trace, at, LENSES[key].params()).rows


def timeless(look: Look) -> Look:
    return msgspec.structs.replace(look, ms=0.0)


@pytest.mark.parametrize("key", KEYS)
def test_every_place_of_a_run_can_be_looked_at(key, embedded, trace):
    last = len(trace.steps) - 1
    for step, node in ((-1, None), (0, None), (0, -1), (0, 0), (last, len(trace.steps[last].nodes))):
        *_, look = LensRun(embedded, key, trace, step, node, least(key))
        assert look.done
        draw(look)


@pytest.mark.parametrize("key", KEYS)
def test_both_ends_of_every_range_look(key, embedded, trace):
    for field in own_fields(key):
        rules = field.metadata
        ends = (False, True) if type(field.default) is bool else (rules["low"], rules["high"])
        if type(field.default) is str and not rules["choices"]:
            ends = ("", "é" * rules["longest"])
        for value in rules["choices"] or ends:
            if words := REFUSED.get((key, field.name, value)):
                with pytest.raises(ValueError, match=words):
                    list(LensRun(embedded, key, trace, *refused(trace), {field.name: value}))
                continue
            *_, look = LensRun(embedded, key, trace, *refused(trace), least(key) | {field.name: value})
            draw(look)


@pytest.mark.parametrize("key", KEYS)
def test_the_same_place_gives_the_same_look_and_the_family_stays_as_it_was(key, embedded, seen, trace):
    known = [timeless(look) for look in seen(key)]
    parts = [embedded.target.model, *([embedded.draft.model] if embedded.draft else [])]
    before = weights(parts)
    modes = [part.training for part in parts]
    state, kept = torch.random.get_rng_state(), trace
    assert [timeless(look) for look in LensRun(embedded, key, trace, *refused(trace))] == known
    assert before == weights(parts)
    assert modes == [part.training for part in parts] and torch.equal(state, torch.random.get_rng_state())
    again = Run(embedded, "speculative_sampling", prompt=PROMPT, sampling=Sampling(1.0), seed=3, max_tokens=16)
    list(again)
    assert [step.tokens for step in again.trace.steps] == [step.tokens for step in kept.steps]


def weights(parts: list) -> list[tuple]:
    """What must not change of the parameters of models."""
    found = [p for part in parts for p in part.parameters()]
    return [(p.data_ptr(), p.requires_grad, float(p.detach().double().sum()), p.grad) for p in found]


@pytest.mark.parametrize("key", KEYS)
def test_the_worker_runs_it_and_stops_it_between_two_looks(key, embedded, trace, seen):
    worker = Worker()
    live = worker.live(lambda: LensRun(embedded, key, trace, *refused(trace)), Owner("somebody"))
    live.ask(1)
    live.wait()
    assert live.count == 1 and live.state in ("paused", "ended"), live.problem
    live.ask(math.inf)
    live.wait()
    assert live.state == "ended" and timeless(live.run.look) == timeless(seen(key)[-1])
    live.close()
    other = worker.live(lambda: LensRun(embedded, key, trace, *refused(trace)), Owner("somebody"))
    other.ask(1)
    other.wait()
    other.close()
    assert other.over and next(iter(other.run), None) is None or other.run.ended


@pytest.mark.parametrize("key", [key for key in KEYS if key not in ("reagent", "hyperfitting")])
def test_no_turn_reads_a_long_text_at_once(key, embedded, monkeypatch):
    """Others wait for it. ReAGent reads many short texts at a time, and hyperfitting those of the small models that have a twin."""
    run = Run(embedded, "speculative_sampling", prompt="The cat saw the dog. 3 + 4 = 7. " * 60, seed=3, max_tokens=12)
    list(run)
    rows, forward = [0], Target.forward

    def counted(self, cache, ids, positions, *given, **more):
        rows[-1] += len(positions) if isinstance(positions, list | range) else positions.numel()
        return forward(self, cache, ids, positions, *given, **more)

    monkeypatch.setattr(Target, "forward", counted)
    looks = LensRun(embedded, key, run.trace, *refused(run.trace), least(key))
    rows[:] = [0]
    while not looks.ended:
        next_of(looks)
        rows.append(0)
    assert len(run.trace.header.prompt_tokens) > 8 * BLOCK and max(rows) <= 4 * BLOCK


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_what_cannot_be_looked_at_is_refused(key, embedded, llama, trace, monkeypatch):
    for place, words in (((99, None), "step 100"), ((0, 99), "node 99"), ((-2, None), "step -1")):
        with pytest.raises(ValueError, match=words):
            LensRun(embedded, key, trace, *place)
    with pytest.raises(ValueError, match="has .* tokens|another tokenizer|There is no hyperfitted twin of"):
        LensRun(llama, key, trace)
    other = msgspec.structs.replace(trace, token_bytes=dict.fromkeys(trace.token_bytes, b"x"))
    with pytest.raises(ValueError, match="another tokenizer"):
        LensRun(embedded, key, other)
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    long = msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, prompt_tokens=(0,) * 5000))
    if LENSES[key].cost(long, Cursor(0), LENSES[key].params()).rows > 2048:
        with pytest.raises(ValueError, match="This demo reads at most 2,048 rows"):
            LensRun(embedded, key, long, 0)


def test_an_unknown_lens_is_refused(embedded, trace):
    with pytest.raises(ValueError, match="no lens 'nonsense'"):
        LensRun(embedded, "nonsense", trace)


@pytest.mark.parametrize("key", KEYS)
def test_what_a_family_lacks_is_said(key, embedded, trace):
    bare = Family("bare", embedded.tokenizer, embedded.target)
    if LENSES[key].requirements:
        sentence = LENSES[key].missing(bare)
        assert LENSES[key].title in sentence and sentence.endswith(".")
        with pytest.raises(ValueError, match=LENSES[key].title):
            LensRun(bare, key, trace)
    assert LENSES[key].missing(embedded) == LENSES[key].lacks(embedded) == ""


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw(look: Look) -> str:
    """Draw everything of a look, dark and light; returns all its HTML."""
    pictures, made = pictures_of(look.key), ""
    assert pictures is not None and pictures.sentence(look) and isinstance(pictures.table(look), pd.DataFrame)
    for dark in (False, True):
        figures = [(pictures.figure(look, dark), pictures.alt(look))]
        figures += [(figure, alt) for _, figure, alt in getattr(pictures, "more", lambda look, dark: [])(look, dark)]
        for figure, alt in figures:
            assert figure is None or (isinstance(figure, go.Figure) and alt)
            made += figure.to_json() if figure is not None else ""
        made += getattr(pictures, "html", lambda look, dark: "")(look, dark)
    return made


@pytest.mark.parametrize("key", KEYS)
def test_every_token_is_escaped(key, seen):
    look = seen(key)[-1]
    made = draw(msgspec.structs.replace(look, token_bytes=dict.fromkeys(look.token_bytes, HOSTILE)))
    assert "<script" not in made.replace("\\u003c", "<")


@pytest.mark.parametrize("key", KEYS)
def test_a_damaged_look_is_drawn_or_refused(key, seen):
    """Every field emptied, filled with extremes, or without the bytes of its tokens."""
    look = seen(key)[-1]
    draw(msgspec.structs.replace(look, token_bytes={}))
    draw(msgspec.structs.replace(look, token_bytes=dict.fromkeys(look.token_bytes, b"\xff" * MAX_PIECE)))
    for changed in damaged(look):
        try:
            read = decode_look(msgspec.msgpack.encode(changed))
        except ValueError:
            continue
        draw(read)


def damaged(look: Look) -> Iterator[dict]:
    """The look as plain data, one thing changed at a time."""
    plain = msgspec.to_builtins(look, builtin_types=(bytes,))
    for name, value in plain.items():
        for other in (0, -1, 2**53, 1e308, float("nan"), "", "x", [], {}, None):
            yield plain | {name: other}
        if isinstance(value, list) and value:
            yield plain | {name: value[:1]}
            yield plain | {name: value[::-1]}
            yield plain | {name: [inner(value[0], odd) for odd in (0, 1.0, 2**31 - 1, None)]}


def inner(value: object, odd: object) -> object:
    """The numbers of a value replaced."""
    if isinstance(value, list):
        return [inner(part, odd) for part in value]
    if isinstance(value, dict):
        return {name: inner(part, odd) for name, part in value.items()}
    return odd if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def test_what_is_no_look_is_refused():
    for data in (b"", b"\x00", b"\xc1", msgspec.msgpack.encode({"lens": "nonsense"}), b"x" * (MAX_LOOK + 1)):
        with pytest.raises(ValueError):
            decode_look(data)


# -- places ------------------------------------------------------------------------------------------------------------


def test_places(trace):
    """Context, token and rival at the root, at a refused node, behind it, and at the final token."""
    step, node = refused(trace)
    done, before = trace.steps[step], trace.tokens_before(step)
    assert place_of(trace, Cursor(-1)).context == trace.header.prompt_tokens
    assert place_of(trace, Cursor(step)) == place_of(trace, Cursor(step, -1))
    assert place_of(trace, Cursor(step)).context == before and place_of(trace, Cursor(step)).token == done.tokens[0]
    here = place_of(trace, Cursor(step, node))
    assert here.context == before + done.tokens[:node] and here.token == done.nodes[node].token
    assert here.rival == done.tokens[node] != here.token
    last = place_of(trace, Cursor(step, len(done.nodes)))
    assert last.context == before + done.tokens[:-1] and last.token == done.tokens[-1] and last.rival is None
    if node + 1 < len(done.nodes):  # behind a refused node nothing was written
        assert place_of(trace, Cursor(step, node + 1)).rival is None
