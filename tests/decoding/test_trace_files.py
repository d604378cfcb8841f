"""Traces as files: what goes out comes back equal; what is hostile is refused and changes nothing."""

import gzip
import json

import msgspec
import pandas as pd
import pytest

from decoding.runs import trace_files
from decoding.runs.trace_files import from_json, nodes_frame, steps_frame, to_json, to_parquet
from tests.samples import sample_trace


def altered(change) -> bytes:
    """The sample trace as JSON with one change made to the plain data."""
    data = json.loads(gzip.decompress(to_json(sample_trace())))
    change(data)
    return json.dumps(data).encode()


def test_json_comes_back_equal():
    trace = sample_trace()
    assert from_json(to_json(trace)) == trace
    assert from_json(gzip.decompress(to_json(trace))) == trace
    assert to_json(trace) == to_json(trace)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not a Draftscope trace"),
        (b"{}", "not a Draftscope trace"),
        (b"\x80\x04\x95", "not a Draftscope trace"),  # how a pickle begins
        (b"[" * 100_000, "not a Draftscope trace"),
        (b"\x1f\x8b" + b"\x00" * 40, "damaged"),
        (to_json(sample_trace())[:-20], "cut short|damaged"),
        (altered(lambda d: d.update(format="other")), "says it is 'other'"),
        (altered(lambda d: d["trace"]["header"].update(schema=99)), "schema 99"),
        (altered(lambda d: d.update(more=1)), "not a Draftscope trace"),
        (altered(lambda d: d["trace"]["steps"][0]["nodes"][0].update(parent=5)), "before its parent"),
        (altered(lambda d: d["trace"]["steps"][0]["nodes"][0].update(verdict="<script>")), "not a Draftscope trace"),
        (altered(lambda d: d["trace"]["steps"][0].update(path=[99])), "not there"),
        (altered(lambda d: d["trace"]["steps"][0]["origins"].append("bonus")), "origins"),
    ],
)
def test_hostile_files_are_refused_with_a_sentence(data, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_json(data)


def test_sizes_are_capped_before_and_while_unpacking(monkeypatch):
    monkeypatch.setattr(trace_files, "MAX_UPLOAD", 1000)
    with pytest.raises(ValueError, match="at most 1,000"):
        from_json(b"x" * 1001)
    bomb = gzip.compress(b" " * 10_000_000)
    monkeypatch.setattr(trace_files, "MAX_UPLOAD", 10**6)
    monkeypatch.setattr(trace_files, "MAX_BYTES", 10**6)
    with pytest.raises(ValueError, match="unpacks to more than"):
        from_json(bomb)


def test_tables_hold_every_node_and_step(tmp_path):
    trace = sample_trace()
    nodes, steps = nodes_frame(trace), steps_frame(trace)
    assert len(nodes) == sum(len(step.nodes) for step in trace.steps)
    assert steps["tokens"].sum() == sum(len(step.tokens) for step in trace.steps)
    (tmp_path / "nodes.parquet").write_bytes(to_parquet(nodes))
    back = pd.read_parquet(tmp_path / "nodes.parquet")
    assert back["verdict"].tolist() == nodes["verdict"].tolist()


def test_an_empty_trace_makes_empty_tables():
    empty = msgspec.structs.replace(sample_trace(), steps=())
    assert from_json(to_json(empty)) == empty
    assert len(nodes_frame(empty)) == len(steps_frame(empty)) == 0
