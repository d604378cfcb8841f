"""Saved traces: kept, found, opened again, and never half lost."""

import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from decoding.runs.store import Query, Store
from tests.samples import sample_trace


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_a_kept_trace_comes_back_equal(store):
    trace = sample_trace()
    assert store.open(store.keep(trace, "first", "a note")) == trace


def test_entries_are_found_by_every_field(store):
    trace = sample_trace()
    one = store.keep(trace, "first", "about 100% rejected")
    other = store.keep(msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, method="plain")), "second")
    assert [e.id for e in store.entries()] == [other, one]
    assert [e.id for e in store.entries(Query(words="100%"))] == [one]
    assert [e.id for e in store.entries(Query(words="first rejected"))] == [one]
    assert [e.id for e in store.entries(Query(method="plain"))] == [other]
    assert store.entries(Query(words="1_0%")) == []  # a wildcard of SQL is an ordinary character
    assert store.entries(Query(until=time.time() - 60)) == []
    assert store.count(Query(family=trace.header.family)) == 2


def test_the_entry_counts_steps_and_tokens(store):
    trace = sample_trace()
    store.keep(trace, "first")
    (entry,) = store.entries()
    assert entry.steps == len(trace.steps)
    assert entry.tokens == sum(len(step.tokens) for step in trace.steps)
    assert entry.text == trace.text_bytes().decode("utf-8", "replace")


def test_deleting_takes_the_steps_along(store):
    store.delete(store.keep(sample_trace(), "first"))
    assert store.entries() == []
    with store._open() as db:
        assert db.execute("SELECT COUNT(*) FROM steps").fetchone() == (0,)


def test_missing_and_damaged_traces_are_refused_with_a_sentence(store):
    with pytest.raises(ValueError, match="There is no trace 7"):
        store.open(7)
    kept = store.keep(sample_trace(), "first")
    with store._open() as db:
        db.execute("UPDATE steps SET data = ? WHERE number = 0", (b"\x93\x01",))
    with pytest.raises(ValueError, match="damaged"):
        store.open(kept)


def test_a_folder_that_cannot_be_used_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match="cannot be kept"):
        Store(tmp_path / "file")
    (tmp_path / "traces.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 20)
    with pytest.raises(ValueError, match="cannot be kept"):
        Store(tmp_path)


WRITER = """
import sys
from pathlib import Path
from decoding.runs.store import Store
from tests.samples import sample_trace
trace = sample_trace()
store = Store(Path(sys.argv[1]))
new = store.begin(trace.header, trace.token_bytes, "crash")
while True:
    store.append(new, trace.steps[:1], trace.token_bytes)
    print("step", flush=True)
"""


def test_a_killed_process_loses_at_most_the_step_it_was_writing(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, env=env, text=True)
    written = 0
    for _ in writer.stdout:
        written += 1
        if written == 50:
            writer.send_signal(signal.SIGKILL)
            break
    written += sum(1 for _ in writer.stdout)
    writer.wait()
    (entry,) = Store(tmp_path).entries()
    assert entry.steps in (written, written + 1)  # the last one may have been committed but not yet reported
    assert len(Store(tmp_path).open(entry.id).steps) == entry.steps


def test_several_processes_write_at_once(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    script = WRITER.replace("while True:", "for _ in range(40):")
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.DEVNULL, env=env) for _ in range(3)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert [entry.steps for entry in Store(tmp_path).entries()] == [40, 40, 40]
