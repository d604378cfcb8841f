"""`deploy/overlong.py`: what computes without a word is ended, and nothing else is. On real threads."""

import sys
from pathlib import Path
from threading import Condition, Event, Thread
from types import SimpleNamespace

import pytest

from deploy import overlong
from deploy.overlong import COMPUTES, Overlong, Watched, handled, is_importing, takes_lock
from tests.conftest import PATIENCE, eventually

pytestmark = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not tell what threads compute")


class Script:
    """A script that computes until it may end, or is interrupted."""

    def __init__(self, *before) -> None:
        self.go_on, self.error, self.watched = Event(), None, Watched()
        self.before = before
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()
        self.watched.began(self.thread)

    def _run(self) -> None:
        try:
            for one in self.before:
                one()
            while not self.go_on.is_set():
                sum(range(1000))
        except Overlong as error:
            self.error = error

    def end(self) -> None:
        self.go_on.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def seconds(monkeypatch):
    """What a thread is said to have computed."""
    said = SimpleNamespace(now=0.0)
    monkeypatch.setattr(overlong, "processor", lambda thread: said.now if thread is not None and thread.is_alive() else None)
    return said


def test_what_computes_for_too_long_is_interrupted():
    """For real: seconds of a processor, as the kernel tells them."""
    script = Script()
    script.watched.look()
    eventually(lambda: script.watched.look(0.05) or script.error, "it was not interrupted")
    script.thread.join(PATIENCE)
    assert isinstance(script.error, Overlong) and "too long" in str(script.error)
    assert not script.watched.look(0) and not script.watched.alive


def test_who_says_something_goes_on(seconds):
    script = Script()
    for _ in range(10):
        assert not script.watched.look()
        seconds.now += 0.9 * COMPUTES
        script.watched.spoke()
    assert not script.watched.look()
    seconds.now += 1.1 * COMPUTES
    assert script.watched.slow and script.watched.look()
    script.end()


def test_who_goes_on_all_the_same_is_interrupted_again(seconds):
    """As where somebody takes it for an error of a library."""
    caught: list[Overlong] = []

    def stubborn() -> None:
        for _ in range(2):
            try:
                while True:
                    sum(range(1000))
            except Overlong as error:
                caught.append(error)

    script = Script(stubborn)
    script.watched.look()
    for count in (1, 2):
        seconds.now += 1.1 * COMPUTES
        assert script.watched.look()
        eventually(lambda count=count: len(caught) == count, "it was not interrupted")
    script.end()


def test_an_import_is_not_interrupted(seconds, tmp_path, monkeypatch):
    """Of a library that was imported by half nothing is left that could be imported again."""
    (tmp_path / "imports_for_long.py").write_text("from tests.deploy.test_overlong import IMPORTING\nIMPORTING[0]()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    begun, go_on = Event(), Event()
    IMPORTING[:] = [lambda: (begun.set(), go_on.wait(PATIENCE))]
    script = Script(lambda: __import__("imports_for_long"))
    assert begun.wait(PATIENCE) and is_importing(script.thread.ident)
    script.watched.look()
    seconds.now += 2 * COMPUTES
    assert not script.watched.look()
    go_on.set()
    eventually(lambda: not is_importing(script.thread.ident), "it does not go on")
    assert not script.watched.look(), "what it took counts for nothing"
    seconds.now += 2 * COMPUTES
    assert script.watched.look()
    script.thread.join(PATIENCE)
    assert script.error is not None
    sys.modules.pop("imports_for_long", None)


IMPORTING: list = []


def test_who_is_taking_a_lock_is_interrupted_behind_it(seconds):
    """In front of the page's own code it had the lock, and nobody gave it back: all runs would have stood still."""
    lock, held = Condition(), Event()

    def works() -> None:
        while True:
            held.set()
            with lock:
                sum(range(100))

    with lock:
        script = Script(works)
        assert held.wait(PATIENCE)
        eventually(lambda: takes_lock(script.thread.ident), "it does not come to the lock")
        script.watched.look()
        seconds.now += 2 * COMPUTES
        assert not script.watched.look()
    eventually(lambda: script.watched.look() or script.error, "it was not interrupted")
    script.thread.join(PATIENCE)
    assert isinstance(script.error, Overlong) and lock.acquire(timeout=PATIENCE)


def test_nobody_is_interrupted_who_is_not_there():
    assert not Watched().look(0) and not Watched().slow and not Watched().alive


def test_the_page_says_it(monkeypatch):
    said = []
    monkeypatch.setattr(overlong.st, "error", lambda text, **more: said.append(text))
    assert handled(Overlong()) and "takes this demo too long" in said[0]
    assert not handled(ValueError("another")) and len(said) == 1
