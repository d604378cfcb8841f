"""Traces, stores and heads that were written before names changed still open, and say the new names."""

import gzip
import json
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from decoding import old_names
from decoding.methods import METHODS
from decoding.runs.store import Store
from decoding.runs.trace_files import from_json, to_json
from decoding.trace import MAX_NODES, MAX_TOKENS, SCHEMA, decode_trace, encode

DATA = Path(__file__).parent.parent / "data"


def old_traces():
    yield "eagle", from_json((DATA / "eagle-schema-1.json.gz").read_bytes())
    yield "ppd", decode_trace((DATA / "ppd-schema-1.msgpack").read_bytes())


@pytest.fixture
def store(tmp_path) -> Store:
    shutil.copy(DATA / "store-schema-1.sqlite", tmp_path / "traces.sqlite")
    return Store(tmp_path)


def test_the_files_are_really_old():
    old = json.loads(gzip.decompress((DATA / "eagle-schema-1.json.gz").read_bytes()))["trace"]
    assert "pieces" in old and old["header"]["params"]["tree"] == "drawn" and old["header"].get("schema", 1) == 1
    assert {"unread"} <= {node["verdict"] for step in old["steps"] for node in step["nodes"]}
    assert any(row and "rest" in row for step in old["steps"] for row in step["rows"])
    assert b"root probes" in (DATA / "ppd-schema-1.msgpack").read_bytes()


@pytest.mark.parametrize("key, trace", list(old_traces()))
def test_old_files_open_under_the_new_names(key, trace):
    assert trace.header.method == key and trace.header.schema == SCHEMA and trace.text_bytes()
    verdicts = {node.verdict for step in trace.steps for node in step.nodes}
    assert verdicts <= {"accepted", "rejected", "not judged"}
    assert all(len(row.residual) == len(row.tokens) for step in trace.steps for row in step.rows if row)
    METHODS[key].checked(trace.header.params)
    assert decode_trace(encode(trace)) == trace == from_json(to_json(trace))


def test_names_of_the_methods_are_new_too():
    eagle, ppd = (trace for _, trace in old_traces())
    assert eagle.header.params["tree"] == "sampled"
    assert {node.source for step in eagle.steps for node in step.nodes} == {"sampled tree"}
    assert ppd.header.params["prompt_tokens"] == 2 and "root prompt tokens" in ppd.steps[0].facts
    assert {"prompt tokens", "prompt token probability"} <= set(ppd.steps[1].nodes[0].scores)


def test_an_old_store_opens_and_can_be_gone_on_with(store):
    opened = [store.open(entry.id) for entry in store.entries()]
    assert [trace.header.method for trace in opened] == ["speculative_sampling", "jacobi", "ppd", "eagle"]
    assert opened[1].header.params["guess"] == "sampled" and all(trace.header.schema == SCHEMA for trace in opened)
    for entry, trace in zip(store.entries(), opened, strict=True):
        store.append(entry.id, trace.steps[:1], trace.token_bytes)  # old and new steps side by side
        assert store.open(entry.id).steps == (*trace.steps, trace.steps[0])


def test_a_damaged_old_trace_is_refused():
    data = (DATA / "ppd-schema-1.msgpack").read_bytes()
    plain = msgspec.msgpack.decode(data, strict=False)
    for broken in ({"steps": 3}, {"header": []}, {"steps": [{"nodes": 5}]}, {"pieces": "none"}):
        with pytest.raises(ValueError, match="damaged"):
            decode_trace(msgspec.msgpack.encode(plain | broken))
    for place in range(0, len(data), 97):
        flipped = bytearray(data)
        flipped[place] ^= 0x5A
        with suppress(ValueError):  # nothing else may come out
            decode_trace(bytes(flipped))


def test_longer_lists_than_a_trace_has_are_refused_without_a_look_at_each():
    assert old_names.LONGEST == MAX_TOKENS >= MAX_NODES + 1
    plain = msgspec.msgpack.decode((DATA / "ppd-schema-1.msgpack").read_bytes(), strict=False)
    looked = []
    many = [0] * (old_names.LONGEST + 1)
    assert old_names.each(many, looked.append) is many and not looked
    for broken in ({"steps": many}, {"steps": [plain["steps"][0] | {"nodes": many}]}):
        with pytest.raises(ValueError, match="damaged"):
            decode_trace(msgspec.msgpack.encode(plain | broken))


def test_a_link_of_before_opens():
    from pages.parts.shared.address import VERSION, parse

    place = parse({"v": str(VERSION), "method": "eagle", "p.tree": "drawn"})
    assert place.settings.full_params["tree"] == "sampled" and not place.complaints
