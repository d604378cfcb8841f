"""Traces as files: what goes out comes back equal; what is hostile is refused and changes nothing."""

import gzip
import json
import math
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from msgspec.structs import replace

from decoding.runs import trace_files
from decoding.runs.trace_files import from_json, nodes_frame, steps_frame, to_json, to_parquet
from decoding.trace import decode_trace, encode
from tests.samples import sample_trace

RECORDED = decode_trace((Path(__file__).parent.parent / "data" / "embedded-run.msgpack").read_bytes())  # which has rows


def altered(change, trace=None) -> bytes:
    """The sample trace, or another one, as JSON with one change made to the plain data."""
    data = json.loads(gzip.decompress(to_json(trace or sample_trace())))
    change(data)
    return json.dumps(data).encode()


def last_row_gone(step: dict) -> None:
    """The row where the last token was drawn, of a step whose drafted nodes all lie elsewhere."""
    step["rows"][(step["path"] or [-1])[-1] + 1] = None


def more_tokens(step: dict, count: int) -> None:
    step["tokens"], step["origins"] = (step["tokens"] + [0] * count)[:count], (step["origins"] + ["bonus"] * count)[:count]


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
        (altered(lambda d: d["trace"]["header"].update(seed=2**64)), "<= 9223372036854775807"),
        (altered(lambda d: d["trace"]["header"]["params"].update(length=10**30)), "damaged"),
        (altered(lambda d: d["trace"]["header"].update(max_tokens=2**60)), "damaged"),
        (altered(lambda d: d["trace"]["header"].update(prompt="a" * 2**21)), "length <= 1048576"),
        (altered(lambda d: d["trace"]["header"].update(method="a" * 2000)), "length <= 1000"),
        (altered(lambda d: d["trace"]["steps"][0]["tokens"].__setitem__(0, 2**31)), "<= 2147483647"),
        (altered(lambda d: d["trace"]["steps"][0]["nodes"][0].update(token=-1)), ">= 0"),
        (altered(lambda d: d["trace"]["steps"][0]["nodes"][0].update(p=1e308)), "<= 1.01"),
        (altered(lambda d: d["trace"]["steps"][0]["rows"][0].update(p=[1e308]), RECORDED), "<= 1.01"),
        (altered(lambda d: d["trace"]["steps"][0]["rows"][0].update(entropy=1e308), RECORDED), "damaged"),
        (altered(lambda d: d["trace"]["steps"][0]["rows"].__setitem__(0, None), RECORDED), "without the row that it stands at"),
        (altered(lambda d: last_row_gone(d["trace"]["steps"][0]), RECORDED), "without the row that it stands at"),
        (altered(lambda d: more_tokens(d["trace"]["steps"][0], 9)), "9 tokens for a path of"),
        (altered(lambda d: d["trace"]["steps"][0].update(tokens=[], origins=[], path=[])), "0 tokens for a path of 0"),
        (altered(lambda d: d["trace"]["steps"][0].update(nodes=d["trace"]["steps"][0]["nodes"] * 2000)), "length <= 1024"),
        (altered(lambda d: d["trace"].update(steps=d["trace"]["steps"] * 5000)), "length <= 4096"),
        (altered(lambda d: d["trace"]["token_bytes"].update({"0": "QUFB" * 400})), "length <= 1024"),
        (altered(lambda d: d["trace"]["token_bytes"].update({"-1": ""})), "damaged"),
        (altered(lambda d: d["trace"]["steps"][0]["facts"].update({str(i): 0.0 for i in range(200)})), "length <= 128"),
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


def test_a_small_file_unpacks_to_little(monkeypatch):
    """What a file costs in memory has to do with its size."""
    monkeypatch.setattr(trace_files, "MAX_SMALL", 10**6)
    bomb = gzip.compress(b" " * 20_000_000)
    with pytest.raises(ValueError, match="unpacks to more than 1,000,000 bytes"):
        from_json(bomb)
    many = altered(lambda d: d["trace"].update(steps=d["trace"]["steps"] * 10))
    assert len(from_json(gzip.compress(many)).steps) >= 10


def test_numbers_that_are_none_are_refused():
    """MessagePack knows them, JSON does not."""
    trace = sample_trace()
    step = trace.steps[0]
    for value in (math.nan, math.inf):
        for changes in ({"nodes": (replace(step.nodes[0], p=value), *step.nodes[1:])}, {"times": replace(step.times, read=value)}):
            with pytest.raises(ValueError, match="damaged"):
                decode_trace(encode(replace(trace, steps=(replace(step, **changes),))))


def test_tables_hold_every_node_and_step(tmp_path):
    trace = sample_trace()
    nodes, steps = nodes_frame(trace), steps_frame(trace)
    assert len(nodes) == sum(len(step.nodes) for step in trace.steps)
    assert steps["tokens"].sum() == sum(len(step.tokens) for step in trace.steps)
    (tmp_path / "nodes.parquet").write_bytes(to_parquet(nodes))
    back = pd.read_parquet(tmp_path / "nodes.parquet")
    assert back["verdict"].tolist() == nodes["verdict"].tolist()
    every = [(step, node) for step in trace.steps for node in step.nodes]
    assert nodes["q"].tolist() == pytest.approx([math.nan if node.q is None else node.q for _, node in every], nan_ok=True)
    assert nodes["text"].tolist() == [trace.token_bytes[node.token].decode("utf-8", "backslashreplace") for _, node in every]


def test_scores_of_too_many_names_are_refused():
    """Each was a column of the table of nodes: a file of 40 kB made one of 5 GB, and all visitors waited for it."""
    trace = sample_trace()
    step = next(step for step in trace.steps if step.nodes)

    def named(count: int):
        node = replace(step.nodes[0], scores={f"score {i}": 0.5 for i in range(count)})
        other = replace(step.nodes[0], scores={f"other {i}": 0.5 for i in range(8)})
        made = [replace(step, nodes=(one, *step.nodes[1:])) for one in (node, other)]
        return replace(trace, steps=tuple(made))

    there = {name for step in named(120).steps for node in step.nodes for name in node.scores}
    fits = 120 - (len(there) - 128)
    assert len(nodes_frame(from_json(to_json(named(fits))))) == 2 * len(step.nodes)
    with pytest.raises(ValueError, match="scores of 129 names"):
        from_json(to_json(named(fits + 1)))


def test_an_empty_trace_makes_empty_tables():
    empty = msgspec.structs.replace(sample_trace(), steps=())
    assert from_json(to_json(empty)) == empty
    assert len(nodes_frame(empty)) == len(steps_frame(empty)) == 0
