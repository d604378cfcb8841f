"""Saved traces: kept, found, opened again, and never half lost."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace

import msgspec
import pytest

from decoding.limits import PUBLIC
from decoding.runs.store import LONGEST_SEARCH, MOST_WORDS, TABLES, Query, Store, append, insert
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
    assert [e.id for e in store.entries(Query(words="ABOUT"))] == [one]
    assert store.entries(Query(until=time.time() - 60)) == []
    assert store.count(Query(family=trace.header.family)) == 2


@pytest.mark.parametrize("words", ["übung", "ÜBUNG", "привет МИР", "strasse", "éà"])
def test_upper_and_lower_case_are_one_of_all_letters(store, words):
    kept = store.keep(sample_trace(), "Übung", "Привет, мир: Straße, ÉÀ")
    store.keep(sample_trace(), "Ubung", "another")
    assert store.found(Query(words=words)) == [kept]
    assert Store(store.folder / "empty", later=True).found(Query(words=words)) == []


@pytest.mark.parametrize("steps_at_once", [1, 2, 99])
@pytest.mark.parametrize("said", ["Zoë 😀 naïve €", "€", "a\0b😀", b"\xff\xe2\x82x\xf0\x9f"], ids=repr)
def test_the_text_of_a_run_is_that_of_its_bytes(store, said, steps_at_once):
    """A character whose bytes came in two steps stood there as two that stand for none, and was not found by a search."""
    said = said.encode() if isinstance(said, str) else said
    step, pieces = sample_trace().steps[0], {byte: bytes([byte]) for byte in range(256)}
    steps = [msgspec.structs.replace(step, tokens=(byte,), ending="") for byte in said]
    kept = store.begin(sample_trace().header, pieces, "bytes")
    for i in range(0, len(steps), steps_at_once):
        store.append(kept, steps[i : i + steps_at_once], pieces)
    assert [e.text for e in store.entries()] == [said.decode("utf-8", "replace")]


@pytest.mark.parametrize("words", ["a" * (LONGEST_SEARCH + 1), "a " * (MOST_WORDS + 1)])
def test_what_is_too_much_to_look_for_is_refused(store, words):
    with pytest.raises(ValueError, match="A search has at most"):
        store.entries(Query(words=words))


def test_a_long_text_is_searched_in_time_of_its_length(store):
    """With LIKE it would be that times the word's: minutes of a processor for these."""
    trace = sample_trace()
    for _ in range(3):
        store.keep(msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, prompt="a" * 2**20)), "long")
    began = time.process_time()
    for _ in range(10):
        assert not store.count(Query(words="a" * (LONGEST_SEARCH - 1) + "b"))
    assert time.process_time() - began < 4  # 12 with LIKE, 0.3 so


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


KEEPER = """
import sys
from pathlib import Path
from decoding.runs.store import Store
from tests.samples import sample_trace
trace, store = sample_trace(), Store(Path(sys.argv[1]))
print("step", flush=True)
while True:
    store.keep(trace, "kept")
"""


def killed(program: str, folder, wait: float) -> None:
    """Run a program until it has written a line and some time has passed."""
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    writer = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, env=env, text=True)
    assert writer.stdout.readline()
    time.sleep(wait)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()


@pytest.mark.parametrize("wait", [0.001, 0.02, 0.05, 0.1])
def test_a_process_killed_while_it_keeps_leaves_no_shell(tmp_path, wait):
    killed(KEEPER, tmp_path, wait)
    store, whole = Store(tmp_path), len(sample_trace().steps)
    assert all(entry.steps == whole for entry in store.entries(limit=10_000))


def test_a_trace_that_cannot_be_written_leaves_nothing(store):
    trace = sample_trace()
    odd = msgspec.structs.replace(trace, steps=(*trace.steps, msgspec.structs.replace(trace.steps[0], facts={"a": object()})))
    with pytest.raises(TypeError):
        store.keep(odd, "half")
    assert store.entries() == []


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB; skips where nobody may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("a small disk cannot be made here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="a small disk is made by Linux")
@pytest.mark.parametrize("opened", ["before", "when it is full"])
def test_on_a_full_disk_keeping_is_a_sentence_and_deleting_works(small_disk, opened):
    store, kept, trace = Store(small_disk), [], sample_trace()
    with pytest.raises(ValueError, match="could not be read or written: the disk is full"):
        while True:
            kept.append(store.keep(trace, "kept"))
    with (small_disk / "other").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1024)):
            pass
    assert shutil.disk_usage(small_disk).free < 1024
    store = Store(small_disk) if opened != "before" else store
    for one in kept[:20]:
        store.delete(one)
    assert store.count() == len(kept) - 20 and store.open(kept[-1]) == trace and shutil.disk_usage(small_disk).free > 0
    assert store.keep(trace, "again")


def test_deleting_gives_the_room_back(store):
    kept = [store.keep(sample_trace(), "kept") for _ in range(40)]
    store.give_back()
    before = store.path.stat().st_size
    for trace in kept:
        store.delete(trace)
    assert store.path.stat().st_size < before / 3


def test_a_locked_store_and_one_of_a_later_version_are_sentences(store, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: connect(path, timeout=0.1))
    kept = store.keep(sample_trace(), "first")
    with store._connected() as db:
        db.execute("BEGIN IMMEDIATE")
        for write in (lambda: store.keep(sample_trace(), "second"), lambda: store.delete(kept)):
            with pytest.raises(ValueError, match="another program is writing there"):
                write()
    assert [entry.name for entry in store.entries()] == ["first"]
    with store._connected() as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="cannot be kept in .* a later version of Draftscope made it"):
        Store(store.folder)


@pytest.mark.parametrize("name", ["a" * 300, "b" * 300 + "/c", "nul\0", "/dev/null/x"])
def test_a_folder_that_cannot_be_is_a_sentence(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be kept"):
        Store(tmp_path / name)


def test_of_the_runs_of_a_prompt_the_first_whole_one_stays(store):
    trace = sample_trace()
    whole = msgspec.structs.replace(
        trace, steps=(*trace.steps[:-1], msgspec.structs.replace(trace.steps[-1], ending="token limit"))
    )
    half = msgspec.structs.replace(trace, steps=(msgspec.structs.replace(trace.steps[0], ending=""),))
    ids = [store.keep(one, "prompt 1", study="s") for one in (half, whole, whole, half)]
    others = [store.keep(whole, "prompt 2", study="s"), store.keep(whole, "prompt 1", study="t"), store.keep(whole, "prompt 1")]
    assert store.finished("s") == 2
    assert store.settle(ids[3]) == ids[1] and store.settle(others[2]) == others[2]
    assert sorted(entry.id for entry in store.entries()) == [ids[1], *others]


def test_a_long_run_is_written_in_time_of_its_length(tmp_path, monkeypatch):
    """The line that holds its text is written once, and what will not fit is not begun."""
    step, piece = sample_trace().steps[0], b"x" * 1024
    trace = msgspec.structs.replace(
        sample_trace(), token_bytes={0: piece}, steps=(msgspec.structs.replace(step, tokens=(0,) * 128, ending=""),) * 256
    )
    store, written = Store(tmp_path), []
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        db.set_trace_callback(written.append)
        append(db, insert(db, trace.header, trace.token_bytes, "long", "", ""), trace.steps, trace.token_bytes)
    assert sum("UPDATE" in one for one in written) == 1
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr("decoding.runs.store.insert", None)
    monkeypatch.setattr("decoding.limits.PUBLIC", replace(PUBLIC, said=None, text=None))
    with pytest.raises(ValueError, match="yours would fill"):
        store.keep(trace, "long")


def test_in_a_full_store_a_study_can_begin_its_half_run_anew(store, monkeypatch):
    """It is one of those that fill it, and goes once there is a whole one; nothing else makes room."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr("decoding.limits.PUBLIC", replace(PUBLIC, kept=3))
    trace = sample_trace()
    half = msgspec.structs.replace(trace, steps=(msgspec.structs.replace(trace.steps[0], ending=""),))
    others = [store.keep(half, "prompt 2", study="s"), store.keep(half, "prompt 1")]
    store.keep(half, "prompt 1", study="s")
    anew = store.keep(half, "prompt 1", study="s")
    assert sorted(entry.id for entry in store.entries()) == [*others, anew]
    for name, study in (("prompt 1", ""), ("prompt 3", "s"), ("prompt 2", "t")):
        with pytest.raises(ValueError, match="You have kept 3 runs"):
            store.keep(trace, name, study=study)
    assert store.count() == 3
