"""`/ready` says whether the worker turns, and strangers who ask make no work."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Event

import pytest

from decoding.runs import worker as module
from decoding.runs.worker import Once, Worker
from deploy import readiness
from deploy.readiness import STAND, Readiness
from tests.conftest import PATIENCE, eventually


@pytest.fixture
def workers(monkeypatch):
    """As many workers as were asked for by device, none at first."""
    made = cache(lambda device: Worker())
    monkeypatch.setattr(module, "worker", made)
    return made


@pytest.fixture
def stuck(workers):
    """The worker in a step that does not end, and what ends it."""
    line, begun, over = workers("cpu"), Event(), Event()

    def step() -> bool:
        begun.set()
        return over.wait(PATIENCE)

    line.live(lambda: Once(step)).ask()
    assert begun.wait(PATIENCE)
    yield line, over
    over.set()


def answers(asked: Readiness, times: int = 1) -> list[tuple[int, dict]]:
    async def ask() -> list:
        return await asyncio.gather(*(asked.answer(None) for _ in range(times)))

    return [(answer.status_code, json.loads(answer.body)) for answer in asyncio.run(ask())]


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr("decoding.models.family.find_device", lambda device: "cpu")


def test_a_server_that_nobody_has_used_is_ready_and_begins_no_worker(workers):
    assert answers(Readiness()) == [(200, {"ready": True})]
    assert not workers.cache_info().currsize


def test_a_worker_that_turns_is_ready(workers):
    workers("cpu")
    assert answers(Readiness(patience=PATIENCE)) == [(200, {"ready": True})]


def test_a_worker_that_hangs_is_not_ready_and_gets_one_job_however_often_it_is_asked(stuck, monkeypatch):
    line, over = stuck
    asked, given, live = Readiness(patience=0.05, kept=0), [], line.live
    monkeypatch.setattr(line, "live", lambda make: given.append(make) or live(make))
    for _ in range(5):
        ((status, said),) = answers(asked)
        assert status == 503 and not said["ready"] and "no turn" in said["reason"]
    assert len(given) == 1
    over.set()
    eventually(lambda: answers(asked) == [(200, {"ready": True})], "the worker turns, and is said not to")


def test_pages_that_are_not_let_run_are_told(workers):
    """As when two tabs waited for each other's places: the worker turned, and nobody was served."""
    standing = [STAND - 1, STAND + 1, 0.0]
    asked = Readiness(lambda: standing[0], kept=0)
    assert answers(asked) == [(200, {"ready": True})]
    standing.pop(0)
    ((status, said),) = answers(asked)
    assert status == 503 and "No page was let run for 21 seconds" in said["reason"]
    standing.pop(0)
    assert answers(asked) == [(200, {"ready": True})]


def test_many_who_ask_at_once_have_one_answer(stuck, monkeypatch):
    asked, count = Readiness(patience=0.05, kept=PATIENCE), []
    problem = asked.problem
    monkeypatch.setattr(asked, "problem", lambda: count.append(1) or problem())
    found = answers(asked, 50)
    assert len(count) == 1 and {status for status, _ in found} == {503}


def test_threads_that_make_files_for_visitors_are_not_waited_for(workers):
    workers("cpu")
    over = Event()

    async def ask() -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        files = loop.run_in_executor(None, over.wait, PATIENCE)
        try:
            answer = await asyncio.wait_for(Readiness(patience=PATIENCE).answer(None), PATIENCE / 4)
        finally:
            over.set()
        await files
        return answer.status_code

    assert asyncio.run(ask()) == 200


def test_no_torch_is_imported_to_answer():
    """In a process of its own: this one has it."""
    import subprocess
    import sys

    program = "import deploy.readiness, sys; assert deploy.readiness.begun() is None; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], cwd=readiness.__file__.rpartition("/deploy/")[0], capture_output=True)
    assert not done.returncode, done.stderr.decode()
