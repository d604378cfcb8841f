"""A trace that is read back is untrusted: what is damaged, foreign or impossible is refused with a sentence."""

import msgspec
import pytest

from decoding import trace as format
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import SCHEMA, Trace, decode_trace, encode

changed = msgspec.structs.replace


@pytest.fixture(scope="module")
def trace(llama) -> Trace:
    run = Run(llama, "multi_candidate", prompt="the cat", sampling=Sampling(1.0), seed=2, max_tokens=16)
    list(run)
    return run.trace


def first_step(trace: Trace, **changes) -> Trace:
    return changed(trace, steps=(changed(trace.steps[0], **changes), *trace.steps[1:]))


def test_what_was_written_is_read(trace):
    data = encode(trace)
    assert decode_trace(data) == trace and encode(decode_trace(data)) == data
    assert len(trace.steps) > 1 and all(step.rows and None in step.rows for step in trace.steps[:-1])


def test_an_unfinished_or_unrecorded_run_is_read_too(llama):
    run = Run(llama, "plain", prompt="the cat", record=False)
    assert decode_trace(encode(run.trace)) == run.trace
    next(run)
    assert decode_trace(encode(run.trace)).steps == run.trace.steps


def test_the_tokens_before_a_step_are_the_prompt_and_what_was_committed(trace):
    prompt, steps = trace.header.prompt_tokens, trace.steps
    assert trace.tokens_before(0) == trace.tokens_before(-1) == prompt and trace.root(0) == prompt[-1]
    assert trace.tokens_before(2) == (*prompt, *steps[0].tokens, *steps[1].tokens) and trace.root(2) == steps[1].tokens[-1]
    assert changed(trace, header=changed(trace.header, prompt_tokens=())).root(0) is None


def test_bytes_that_are_no_characters_survive(trace):
    odd = changed(trace, token_bytes={**trace.token_bytes, 5: b"\xff\xe2\x82"})
    assert decode_trace(encode(odd)).token_bytes[5] == b"\xff\xe2\x82"


@pytest.mark.parametrize("data", [b"", b"\x00", b"not a trace", b"{}", b"\x93\x01\x02\x03", b"\x80", b"\xc1" * 40])
def test_other_data_is_refused(data):
    with pytest.raises(ValueError, match="not a Draftscope trace, or it is damaged"):
        decode_trace(data)


def test_cut_at_any_place_is_refused(trace):
    data = encode(trace)
    for size in range(0, len(data) - 1, max(1, len(data) // 97)):
        with pytest.raises(ValueError, match="damaged"):
            decode_trace(data[:size])


def test_flipped_bytes_are_refused_or_stay_possible(trace):
    """Whatever one wrong byte does: nothing but a ValueError comes out, and what comes back has a possible shape."""
    data = encode(trace)
    refused = 0
    for place in range(0, len(data), max(1, len(data) // 400)):
        broken = bytearray(data)
        broken[place] ^= 0x5A
        try:
            assert all(format.impossible(step) == "" for step in decode_trace(bytes(broken)).steps)
        except ValueError:
            refused += 1
    assert refused > 50


def test_trailing_data_is_refused(trace):
    with pytest.raises(ValueError, match="damaged"):
        decode_trace(encode(trace) + b"\x00")


def test_another_schema_is_refused(trace):
    other = changed(trace, header=changed(trace.header, schema=SCHEMA + 1))
    with pytest.raises(ValueError, match=f"schema {SCHEMA + 1}; this version reads schema 1 and {SCHEMA}"):
        decode_trace(encode(other))


def test_too_large_is_refused_before_it_is_read(trace, monkeypatch):
    data = encode(trace)
    monkeypatch.setattr(format, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ValueError, match=f"{len(data):,} bytes"):
        decode_trace(data)
    monkeypatch.setattr(format, "MAX_BYTES", len(data))
    assert decode_trace(data) == trace


@pytest.mark.parametrize("field, value", [("verdict", "maybe"), ("token", "seven"), ("p", "much"), ("parent", 0.5)])
def test_values_of_another_kind_are_refused(trace, field, value):
    plain = msgspec.to_builtins(trace)
    plain["steps"][0]["nodes"][0][field] = value
    plain["token_bytes"] = {int(k): v for k, v in trace.token_bytes.items()}
    with pytest.raises(ValueError, match="damaged"):
        decode_trace(msgspec.msgpack.encode(plain))


def test_impossible_steps_are_refused(trace):
    step = trace.steps[0]
    row = step.rows[0]
    cases = {
        "before its parent": {"nodes": (changed(step.nodes[0], parent=0), *step.nodes[1:])},
        "a node that is not there": {"path": (len(step.nodes),)},
        "rows for": {"rows": step.rows[:-1]},
        "origins": {"origins": (*step.origins, "bonus")},
        "differ in length": {"rows": (changed(row, p=row.p[:-1]), *step.rows[1:])},
    }
    for words, changes in cases.items():
        with pytest.raises(ValueError, match=words):
            decode_trace(encode(first_step(trace, **changes)))
    for parent in (-2, -100, 5):
        with pytest.raises(ValueError, match="Step 1 of the trace cannot be"):
            decode_trace(encode(first_step(trace, nodes=(changed(step.nodes[0], parent=parent), *step.nodes[1:]))))
    with pytest.raises(ValueError, match="cannot be"):
        decode_trace(encode(first_step(trace, path=(-1,))))
    for part in ("q", "residual"):
        with pytest.raises(ValueError, match="differ in length"):
            decode_trace(encode(first_step(trace, rows=(changed(row, **{part: (0.5,)}), *step.rows[1:]))))


def test_a_trace_cannot_be_changed(trace):
    with pytest.raises(AttributeError):
        trace.steps[0].nodes[0].p = 1.0
