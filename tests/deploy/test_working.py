"""`deploy/working.py`: what the scripts of a page compute."""

from threading import Thread
from types import SimpleNamespace

import pytest
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

from deploy import working
from tests.conftest import eventually


@pytest.fixture
def page():
    """A session that is forgotten again."""
    yield "a session of this test"
    working.forget("a session of this test")


def test_what_a_script_has_computed_counts_after_its_end(page, monkeypatch):
    """Short scripts were never looked at: whoever asked for hundreds of them counted as somebody who had nothing."""
    seconds = []

    def script(runner: object) -> None:
        while working.thread_time() < 0.02:
            sum(range(1000))
        seconds.append(working.thread_time())

    monkeypatch.setattr(ScriptRunner, "_run_script_thread", script)
    working.bound()
    for _ in range(3):
        thread = Thread(target=ScriptRunner._run_script_thread, args=(SimpleNamespace(_session_id=page),))
        thread.start()
        thread.join()
    assert working.computed(page) == pytest.approx(sum(seconds), abs=0.01) and working.computed("another") == 0
    working.forget(page)
    assert working.computed(page) == 0


def test_what_runs_counts_while_it_does(page, monkeypatch):
    over = []

    def works() -> None:
        while not over:
            sum(range(1000))

    thread = Thread(target=works, daemon=True)
    thread.start()
    monkeypatch.setattr(working, "script_of", lambda session: thread)
    try:
        eventually(lambda: working.computed(page) > 0.02, "it computes nothing")
    finally:
        over.append(True)
        thread.join()
