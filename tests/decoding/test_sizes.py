"""What pages look through in a trace: a public server opens and keeps no trace in which there is more of it than it allows."""

from dataclasses import replace

import msgspec
import pytest

from decoding import limits as rules
from decoding.limits import IN_WORDS, PUBLIC, Refused
from decoding.runs.store import Store
from decoding.runs.trace_files import from_json, to_json
from decoding.sizes import sizes, sizes_of
from tests.samples import sample_trace
from tests.viz_samples import node, step_of, trace_of


def test_sizes_are_counted():
    steps = (
        step_of(
            [node(1, -1, "accepted", scores={"a": 1.0}), node(2, 0, "rejected", scores={"a": 1.0, "b": 2.0})], (0,), "correction", 3
        ),
        step_of([node(2, -1)], (), "plain", 1),
    )
    pieces = {1: b"one", 2: b"four", 3: b"", 4: b"prompt"}
    found = sizes(steps, pieces, (4, 4), 5)
    assert found._asdict() == {
        "steps": 2, "nodes": 2, "said": 5 + 12 + 3 + 1 + 3, "text": 5, "scores": 3, "names": 4, "pieces": 13, "drafted": 3 + 4 + 4,
    }  # fmt: skip
    trace = trace_of(*steps)
    said = len(trace.header.prompt) + sum(len(turn.content) for turn in trace.header.messages)
    assert sizes_of(trace) == sizes(steps, trace.token_bytes, trace.header.prompt_tokens, said)


@pytest.mark.parametrize("what", IN_WORDS)
def test_a_trace_with_more_than_a_server_allows_is_refused(what, monkeypatch, tmp_path):
    """With tokens of a kilobyte that were drafted again and again a page was 50 MB, and all visitors waited for each drawing."""
    (first, *others), store = (trace := sample_trace()).steps, Store(tmp_path)
    scored = msgspec.structs.replace(first.nodes[0], scores={"joint": 0.5, "depth": 1.0})
    trace = msgspec.structs.replace(trace, steps=(msgspec.structs.replace(first, nodes=(scored, *first.nodes[1:])), *others))
    count = getattr(sizes_of(trace), what)
    assert count
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, **{what: count}))
    assert from_json(to_json(trace)) == trace and store.keep(trace, "kept")
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, **{what: count - 1}))
    for door in (lambda: from_json(to_json(trace)), lambda: store.keep(trace, "more")):
        with pytest.raises(Refused, match=f"at most {count - 1:,} {IN_WORDS[what]}; this one has {count:,}"):
            door()
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert from_json(to_json(trace)) == trace
