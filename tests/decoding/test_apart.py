"""A process of its own: it is given and answers, says how far it is, and ends with its time, its memory or whoever started it."""

import os
import sys
import time
from pathlib import Path

import pytest

from decoding.models import apart
from decoding.models.apart import Bounds, Ended
from decoding.models.progress import Progress, told_to
from tests.conftest import eventually

ROOMY = Bounds(seconds=30, memory=4 * 2**30, patience=60)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that holds a program."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def made(program: str) -> str:
        (tmp_path / "program.py").write_text(
            "import os, sys, time\nfrom decoding.models.apart import *\nfrom decoding.models.progress import Progress\n" + program
        )
        return "program"

    return made


def end_of(name: str, bounds: Bounds = ROOMY, given: bytes = b"") -> Ended:
    return apart.end_of(apart.run(name, ["a", "b"], bounds, given), "waiting")


def test_it_reads_what_it_is_given_and_answers(module):
    end = end_of(module("print(sys.argv[1:], sys.stdin.buffer.read())"), given="é".encode())
    assert end == Ended(0, "", "['a', 'b'] b'\\xc3\\xa9'\n")


def test_it_ends_with_a_sentence(module):
    end = end_of(module("print('half'); fail('It is\\n wrong \x1b[31m.')"))
    assert end.code == 1 and end.last_line == "It is wrong  [31m." and not end.spent


def test_how_far_it_is_comes_across(module):
    program = "for i in range(3):\n    say(Progress('reading', i, 2))\n    time.sleep(0.4)\n"
    steps = apart.run(module(program), [], ROOMY)
    assert list(dict.fromkeys(step for step in steps if step)) == [Progress("reading", i, 2) for i in range(3)]


def test_its_time_ends_it(module):
    end = end_of(module("limited(Bounds(1, 2**32, 60))\nwhile True: pass"))
    assert end.spent


def test_its_memory_ends_it(module):
    for addresses in (True, False):
        bounds = f"Bounds(30, 2**29, 60, {addresses})"
        end = end_of(
            module(f"limited({bounds})\ntry:\n    a = b'a' * 2**31\nexcept MemoryError:\n    fail('memory')\nfail(str(len(a)))")
        )
        assert end.last_line == "memory", (addresses, end)


def test_what_is_silent_is_ended(module):
    assert end_of(module("time.sleep(600)"), Bounds(30, 2**32, 0.5)) == Ended(None, "")


def test_a_word_now_and_then_keeps_it(module):
    program = "for i in range(8):\n    time.sleep(0.3)\n    say(Progress('on', i))\nprint('done')"
    assert end_of(module(program), Bounds(30, 2**32, 20)).answer == "done\n"


def test_who_drops_it_ends_it(module, tmp_path):
    program = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    steps = apart.run(module(program), [], ROOMY)
    eventually(lambda: (next(steps), (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())[1], "it does not begin")
    process = int((tmp_path / "pid").read_text())
    steps.close()
    assert not Path(f"/proc/{process}").exists() or not running(process)


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_who_listens_may_end_it(module):
    def stop(progress: Progress) -> None:
        raise KeyError(progress.stage)

    began = time.monotonic()
    with pytest.raises(KeyError, match="waiting"), told_to(stop):
        end_of(module("time.sleep(600)"))
    assert time.monotonic() - began < 300
