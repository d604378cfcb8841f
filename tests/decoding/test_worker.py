"""One thread serves all runs of a device: in turn, stoppable after any step, and never stopped by a run that fails."""

import gc
import itertools
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from sys import getswitchinterval, setswitchinterval
from threading import Event, Semaphore, Thread
from weakref import WeakValueDictionary

import pytest
import torch

from decoding.limits import PUBLIC, Refused, limits
from decoding.models import family_cache
from decoding.models.cache import FIRST_ROWS, TreeCache
from decoding.models.lazy_cache import LazyCache
from decoding.models.progress import tell
from decoding.models.target import Target
from decoding.runs import worker as module
from decoding.runs.line import Line, Owner
from decoding.runs.prompts import Prompt
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.study import Plan, Study
from decoding.runs.worker import EARLY, MOMENT, SWITCH, Live, Once, Worker, worker
from tests.conftest import eventually
from tests.toys import GREEDY

FOREVER = float("inf")
PATIENCE = 20  # seconds; nothing here takes one


class Gated:
    """A real run that takes a step only when the test lets it, and notes whose step it was."""

    turn = None  # each step passes the gate

    def __init__(self, run: Run, name: str, log: list[str]) -> None:
        self.run, self.name, self.log = run, name, log
        self.gate = Semaphore(0)
        self.started = Semaphore(0)

    def __next__(self):
        self.started.release()
        assert self.gate.acquire(timeout=PATIENCE)
        self.log.append(self.name)
        return next(self.run)

    def __getattr__(self, name: str):
        return getattr(self.run, name)

    def let(self, steps: int) -> None:
        self.gate.release(steps)


@pytest.fixture
def one_worker() -> Worker:
    return Worker()


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def gated(llama, log):
    def make(name: str, max_tokens: int = 8) -> Gated:
        return Gated(Run(llama, "plain", prompt="the cat", sampling=GREEDY, max_tokens=max_tokens), name, log)

    return make


def real(llama, **options):
    return lambda: Run(llama, "token_recycling", prompt="the cat", **({"max_tokens": 12} | options))


def holding(one_worker: Worker, gated) -> tuple[Live, Gated]:
    """A run in the middle of a step, so that what is asked meanwhile stands in line."""
    run = gated("first", 1)
    live = one_worker.live(lambda: run)
    live.ask()
    assert run.started.acquire(timeout=PATIENCE) and live.state == "working"
    return live, run


def test_a_step_pays_for_what_its_thread_had_of_the_processor(llama, monkeypatch):
    """And not for the pages that took the processor from it meanwhile."""
    charged = []
    monkeypatch.setattr(Line, "end", lambda line, run, seconds, real=Line.end: charged.append(seconds) or real(line, run, seconds))
    live = worker.__wrapped__("cpu").live(lambda: Once(lambda: time.sleep(0.2)))
    live.ask()
    live.wait(PATIENCE)
    eventually(lambda: sum(charged), "it was never charged")
    assert 0 <= sum(charged) < 0.2 and worker.__wrapped__("cuda")._clock is time.perf_counter


def test_a_job_that_is_being_made_pays_for_the_moment_that_the_line_waits_for_it(llama, monkeypatch):
    """Whoever begins run after run, each long in the making, would be next each time, and never the others."""
    charged, made = [], Event()
    monkeypatch.setattr(Line, "end", lambda line, run, seconds, real=Line.end: charged.append(seconds) or real(line, run, seconds))
    live = worker.__wrapped__("cpu").live(lambda: made.wait(PATIENCE) and Once(lambda: True))
    live.ask()
    eventually(lambda: charged, "it was never charged")
    made.set()
    assert charged[0] >= 0.9 * MOMENT
    live.wait(PATIENCE)


def test_pages_at_work_let_the_worker_go_on_soon():
    """It lets go of the interpreter hundreds of times in a step, and waited up to 5 ms each time for a page to let go of it."""
    before = getswitchinterval()
    try:
        setswitchinterval(0.005)
        Worker().live(lambda: Once(lambda: 1)).ask(1)
        assert getswitchinterval() == pytest.approx(SWITCH) and SWITCH < 0.005
        setswitchinterval(SWITCH / 2)
        Worker().live(lambda: Once(lambda: 1)).ask(1)
        assert getswitchinterval() < SWITCH  # who wants less has it
    finally:
        setswitchinterval(before)


def test_a_run_to_the_end_is_the_run_itself(one_worker, llama):
    live = one_worker.live(real(llama, seed=4))
    assert live.state == "paused" and live.trace is None and live.count == 0
    live.ask(FOREVER)
    live.wait(PATIENCE)
    alone = real(llama, seed=4)()
    list(alone)
    assert live.state == "ended" and not live.busy and live.count == len(alone.steps)
    assert [s.tokens for s in live.trace.steps] == [s.tokens for s in alone.steps]
    live.ask()
    assert live.state == "ended"


def test_steps_one_by_one(one_worker, llama):
    live = one_worker.live(real(llama))
    for count in (1, 2, 3):
        live.ask()
        live.wait(PATIENCE)
        assert live.count == count and live.state == "paused"


def test_two_runs_take_turns(one_worker, gated, log):
    _, first = holding(one_worker, gated)
    runs = [gated("a"), gated("b")]
    lives = [one_worker.live(lambda run=run: run) for run in runs]
    for live, run in zip(lives, runs, strict=True):
        run.let(8)
        live.ask(FOREVER)
    assert [live.place for live in lives] == [1, 2]
    first.let(1)
    for live in lives:
        live.wait(PATIENCE)
    assert log == ["first"] + ["a", "b"] * 8


def test_one_more_run_gets_its_turn_at_once(one_worker, gated, log):
    """A run to the end does not make a single step of another one wait for it."""
    long, short = gated("long", 30), gated("short", 30)
    running, asking = one_worker.live(lambda: long), one_worker.live(lambda: short)
    running.ask(FOREVER)
    long.let(5)
    assert all(long.started.acquire(timeout=PATIENCE) for _ in range(6))  # within its sixth step
    short.let(1)
    asking.ask()
    long.let(25)
    asking.wait(PATIENCE)
    running.wait(PATIENCE)
    assert log.index("short") == 6


def test_reach_counts_what_is_there(one_worker, llama):
    live = one_worker.live(real(llama))
    for goal, count in ((3, 3), (2, 3), (3, 3), (5, 5), (FOREVER, 12)):
        live.reach(goal)
        live.wait(PATIENCE)
        assert count == live.count or goal == FOREVER and live.state == "ended"
        assert live.over == (goal == FOREVER) and not live.lost


def test_a_job_of_one_turn_has_ended_after_it(one_worker):
    live = one_worker.live(lambda: Once(lambda: "answer"))
    live.reach(FOREVER)
    live.wait(PATIENCE)
    assert live.state == "ended" and live.count == 1 and live.run.steps == ["answer"]


def test_pause_takes_effect_within_one_step(one_worker, gated, log):
    run = gated("a", 30)
    live = one_worker.live(lambda: run)
    live.ask(FOREVER)
    run.let(3)
    assert all(run.started.acquire(timeout=PATIENCE) for _ in range(4))
    live.pause()  # in the middle of the fourth step
    run.let(20)
    live.wait(PATIENCE)
    assert live.state == "paused" and live.count == len(log) == 4
    live.ask()
    live.wait(PATIENCE)
    assert live.count == 5


def test_pause_while_standing_in_line(one_worker, gated, log):
    holder, first = holding(one_worker, gated)
    run = gated("a")
    live = one_worker.live(lambda: run)
    live.ask(3)
    live.pause()
    first.let(1)
    live.wait(PATIENCE)
    holder.wait(PATIENCE)
    assert live.state == "paused" and live.count == 0 and log == ["first"]


def test_rapid_asks_coalesce(one_worker, gated, log):
    _, first = holding(one_worker, gated)
    run = gated("a")
    run.let(8)
    live = one_worker.live(lambda: run)
    for _ in range(25):
        live.ask()
    first.let(1)
    live.wait(PATIENCE)
    assert live.count == 1 and log == ["first", "a"]
    live.ask(2)
    live.ask(3)
    live.wait(PATIENCE)
    assert live.count == 4


def test_close_while_standing_in_line(one_worker, gated, log):
    holder, first = holding(one_worker, gated)
    run = gated("a")
    live = one_worker.live(lambda: run)
    live.ask(FOREVER)
    live.close()
    assert live.state == "closed" and not live.busy
    first.let(1)
    holder.wait(PATIENCE)
    live.ask()
    assert live.state == "closed" and log == ["first"]


def test_close_in_the_middle_of_a_step(one_worker, gated, log):
    run = gated("a")
    live = one_worker.live(lambda: run)
    live.ask(FOREVER)
    assert run.started.acquire(timeout=PATIENCE)
    live.close()
    run.let(8)
    live.wait(PATIENCE)
    assert live.state == "closed" and log == ["a"] and live.count == 1


def failing(error: BaseException):
    def make():
        raise error

    return make


SENTENCES = {
    "refused": (ValueError("The prompt is empty."), "The prompt is empty."),
    "memory": (torch.OutOfMemoryError("CUDA out of memory. Tried 20 GiB"), "The device is out of memory. Lower"),
    "anything": (KeyError("head"), "The step failed: KeyError: 'head'"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_failed_run_says_why_and_the_others_go_on(one_worker, llama, case):
    error, sentence = SENTENCES[case]
    broken, sound = one_worker.live(failing(error)), one_worker.live(real(llama))
    broken.ask(FOREVER)
    sound.ask(FOREVER)
    broken.wait(PATIENCE)
    sound.wait(PATIENCE)
    assert broken.state == "failed" and broken.problem.startswith(sentence) and broken.trace is None
    assert sound.state == "ended" and sound.problem == ""
    broken.ask()
    assert broken.state == "failed"


def test_a_run_that_breaks_in_a_step_keeps_what_it_had(one_worker, gated, monkeypatch):
    run = gated("a")
    live = one_worker.live(lambda: run)
    run.let(9)
    live.ask(2)
    live.wait(PATIENCE)
    monkeypatch.setattr(run, "run", None)
    live.ask()
    live.wait(PATIENCE)
    assert live.state == "failed" and "TypeError" in live.problem


def test_what_a_page_reads_while_steps_are_taken_is_whole(one_worker, llama):
    """Traces looked at in between are prefixes of the last one, and every token they name has its piece."""
    live, seen = one_worker.live(real(llama, max_tokens=60)), []

    def look() -> None:
        while live.busy:
            if (trace := live.trace) is not None:
                seen.append(trace)
            time.sleep(0)

    live.ask(FOREVER)
    reader = Thread(target=look)
    reader.start()
    live.wait(PATIENCE)
    reader.join(PATIENCE)
    last = live.trace
    assert seen and len(last.steps) > 10
    for trace in seen:
        assert trace.steps == last.steps[: len(trace.steps)]
        assert all(token in trace.token_bytes for step in trace.steps for token in step.occurring())


class Interrupted(dict):
    """A dict that lets the run take a step in the middle of being copied, as another thread may."""

    run: Run

    def __iter__(self):
        return iter(list(super().keys()))

    def keys(self):
        found = list(super().keys())
        next(self.run)
        return found


def test_a_step_between_two_reads_of_the_trace_does_not_tear_it(llama):
    run = real(llama)()
    run.token_bytes = Interrupted(run.token_bytes)
    run.token_bytes.run = run
    trace = run.trace
    assert all(token in trace.token_bytes for step in trace.steps for token in step.occurring())


def test_one_worker_per_device():
    assert worker("cpu") is worker("cpu") and worker("cpu") is not worker("cuda:0")


# -- whatever a job does, the others go on -----------------------------------------------------------------------------


class PanicException(BaseException):
    """What a library in Rust raises."""


PANIC = PanicException("index out of bounds")
ENDS = [PANIC, KeyboardInterrupt(), GeneratorExit(), SystemExit(3), MemoryError(), BaseException("?")]


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["made", "step"])
def test_nothing_that_a_job_raises_ends_the_worker(one_worker, llama, error, where):
    broken = one_worker.live(failing(error) if where == "made" else lambda: Once(failing(error)))
    sound = one_worker.live(real(llama))
    broken.ask(FOREVER)
    sound.ask(FOREVER)
    broken.wait(PATIENCE)
    sound.wait(PATIENCE)
    assert broken.state == "failed" and broken.problem.endswith((".", "?", "bounds", "3", ": "))
    assert sound.state == "ended" and one_worker._thread.is_alive()


# -- fairness -----------------------------------------------------------------------------------------------------------


class Timed:
    """A job whose every step takes `cost` seconds of a clock that stands still between; it notes whose step it was."""

    ended = False

    def __init__(self, hall: "Hall", name: str, cost: float, often: Callable[[int], None]) -> None:
        self.hall, self.name, self.cost, self.often = hall, name, cost, often
        self.steps: list[float] = []

    def __next__(self) -> float:
        self.hall.now += self.cost
        self.hall.log.append(self.name)
        self.steps.append(self.hall.now)
        self.often(len(self.steps))
        return self.hall.now


class Hall:
    """A worker with a clock of its own, and a first step that lasts until the test has said who else is there."""

    def __init__(self) -> None:
        self.now, self.log, self.begun, self.go_on = 0.0, [], Event(), Event()
        self.lives: dict[str, Live] = {}
        self.worker = Worker(lambda: self.now)
        first = self.worker.live(lambda: Once(self._hold), Owner("door"))
        first.ask()
        assert self.begun.wait(PATIENCE)

    def _hold(self) -> None:
        self.begun.set()
        assert self.go_on.wait(PATIENCE)

    def run(
        self,
        name: str,
        cost: float,
        steps: float = FOREVER,
        owner: Owner | None = None,
        group: object = None,
        often: Callable[[int], None] = lambda count: None,
    ) -> Live:
        """One more who wants so many steps; `often` is called in each of them."""
        job = Timed(self, name, cost, often)
        live = self.lives[name] = self.worker.live(lambda: job, owner or Owner(name), group)
        live._run = job  # made, as at its second turn
        live.ask(steps)
        return live

    def served(self, count: int) -> list[str]:
        """Let them go on until `count` steps were taken; whose they were."""
        self.go_on.set()
        eventually(lambda: len(self.log) >= count or not any(live.busy for live in self.lives.values()), "the line stands")
        for live in self.lives.values():
            live.close()
        return self.log[:count]


def test_time_is_shared_not_steps():
    """Steps of 768 nodes, of a model of 135 M, and of a small tree."""
    hall = Hall()
    costs = {"large": 10.0, "model": 4.0, "small": 1.0}
    for name, cost in costs.items():
        hall.run(name, cost)
    log = hall.served(600)
    spent = {name: cost * log.count(name) for name, cost in costs.items()}
    assert max(spent.values()) - min(spent.values()) <= 2 * max(costs.values())  # of more than 600 seconds each
    assert min(spent.values()) > 300


def test_a_small_run_waits_for_one_large_step_at_most():
    hall = Hall()
    for i in range(4):
        hall.run(f"large {i}", 10.0)
    hall.run("small", 0.1)
    log = hall.served(2000)
    small = [i for i, name in enumerate(log) if name == "small"]
    between = [log[a + 1 : b] for a, b in itertools.pairwise(small)]
    debt = [names for names in between if names]  # large steps come in rounds, once the small one has had as much
    assert len(small) > 1000 and all(sorted(names) == sorted(set(names)) for names in debt)


def test_one_owners_many_runs_get_one_share():
    hall = Hall()
    for i in range(6):
        hall.run(f"column {i}", 1.0, owner=Owner("six"), group="comparison")
    hall.run("alone", 1.0)
    log = hall.served(240)
    assert abs(log.count("alone") - 120) <= 1
    counts = [log.count(f"column {i}") for i in range(6)]
    assert max(counts) - min(counts) <= 1  # and among them it goes round


@pytest.mark.parametrize(("crowd", "shares", "wanted"), [(12, 4, 4 / 6), (3, 4, 3 / 5), (12, None, 12 / 14)])
def test_many_owners_at_one_place_have_few_shares_together(crowd, shares, wanted):
    """Whoever throws the key away is another owner, and stays at the same address."""
    hall = Hall()
    for i in range(crowd):
        hall.run(f"crowd {i}", 1.0, owner=Owner(f"crowd {i}", near="there", shares=shares))
    for name in ("alone", "other"):
        hall.run(name, 1.0, owner=Owner(name, near=name, shares=shares))
    log = hall.served(600)
    counts = [log.count(f"crowd {i}") for i in range(crowd)]
    assert sum(counts) == pytest.approx(600 * wanted, abs=crowd) and max(counts) - min(counts) <= 1
    assert abs(log.count("alone") - log.count("other")) <= 1


def test_a_newcomer_comes_next_and_no_more():
    """Neither does the past count for them, nor can they take what others had before."""
    hall = Hall()

    def at(count: int) -> None:
        if count == 100:
            hall.run("new", 1.0)

    hall.run("old", 1.0, often=at)
    hall.run("other", 1.0)
    log = hall.served(400)
    came = log.index("new")
    assert came <= [i for i, name in enumerate(log) if name == "old"][99] + 2
    after = log[came:]
    counts = [after[:150].count(name) for name in ("old", "other", "new")]
    assert max(counts) - min(counts) <= 1


def test_who_comes_again_and_again_is_no_newcomer():
    """A visitor who asks step by step for large steps does not get more than one who runs to the end."""
    hall = Hall()
    hall.run("steady", 1.0, often=lambda count: clicks.ask())
    clicks = hall.run("clicks", 5.0, 1)
    log = hall.served(300)
    assert log.count("clicks") > 30 and 5 * log.count("clicks") <= log.count("steady") + 10


def test_an_idle_device_forgets():
    """Nobody owes time that nobody else wanted."""
    hall = Hall()
    alone = hall.run("alone", 10.0, 20)
    hall.go_on.set()
    alone.wait(PATIENCE)
    eventually(lambda: hall.worker._now is None and not hall.worker._line._networks, "accounts are kept")
    gate = Event()
    door = hall.worker.live(lambda: Once(lambda: gate.wait(PATIENCE)), Owner("door"))
    door.ask()
    eventually(lambda: door.state == "working", "it never began")
    hall.run("alone", 1.0, 5), hall.run("other", 1.0, 5)
    gate.set()
    assert hall.served(30)[20:] == ["alone", "other"] * 5


def test_the_place_in_line_counts_turns():
    hall = Hall()
    six = [hall.run(f"column {i}", 1.0, 3, Owner("six"), "comparison") for i in range(3)]
    alone = hall.run("alone", 1.0, 3)
    assert [live.place for live in six] == [1, 2, 3] and alone.place == 2  # behind the step at work, and one of the six
    alone.pause()
    assert alone.place == 0 and [live.place for live in six] == [1, 2, 3]


def test_the_place_in_line_is_kept_where_steps_are_as_long_as_before():
    """The place that a run is told is the number of turns that come."""
    hall, told = Hall(), []

    def look(count: int) -> None:
        if count in (3, 8):
            told.append((len(hall.log), hall.lives["large"].place))

    hall.run("large", 10.0)
    hall.run("small", 1.0, often=look)
    hall.run("middle", 3.0)
    log = hall.served(60)
    for at, place in told:
        assert log[at - 1 :].index("large") == place
    assert len(told) == 2 and told[0][1] > 2


# -- what a visitor may have at once ------------------------------------------------------------------------------------


def test_a_third_run_waits_for_one_of_the_first_two():
    hall, alice = Hall(), Owner("alice", at_once=2)
    first, second, third = (hall.run(name, 1.0, steps, alice) for name, steps in (("a", 6), ("b", 3), ("c", 3)))
    assert third.held and third.place == 0 and not (first.held or second.held)
    other = hall.run("other", 1.0, 12)
    assert not other.held
    log = hall.served(24)
    assert not third.held and log.index("c") > max(i for i, name in enumerate(log) if name == "b")
    assert sorted(log) == sorted(["a"] * 6 + ["b"] * 3 + ["c"] * 3 + ["other"] * 12)


@pytest.mark.parametrize("end", ["pause", "close"])
def test_a_third_run_goes_on_when_another_is_stopped(end):
    hall, alice = Hall(), Owner("alice", at_once=2)
    lives = [hall.run(name, 1.0, 4, alice) for name in "abc"]
    getattr(lives[0], end)()
    assert not lives[2].held
    assert sorted(hall.served(8)) == ["b"] * 4 + ["c"] * 4


def test_a_held_run_can_be_stopped():
    hall, alice = Hall(), Owner("alice", at_once=1)
    hall.run("a", 1.0, 4, alice)
    second = hall.run("b", 1.0, 4, alice)
    assert second.held
    second.pause()
    assert second.state == "paused" and not second.held
    assert hall.served(8) == ["a"] * 4


def test_the_columns_of_a_comparison_are_one_run():
    hall, alice = Hall(), Owner("alice", at_once=2)
    six = [hall.run(f"column {i}", 1.0, 2, alice, "comparison") for i in range(6)]
    step = hall.run("step", 1.0, 2, alice)
    third = hall.run("third", 1.0, 2, alice)
    assert not any(live.held for live in (*six, step)) and third.held
    log = hall.served(16)
    before = log[: log.index("third")]
    assert len(log) == 16 and sum(name.startswith("column") for name in before) == 12


# -- loading ------------------------------------------------------------------------------------------------------------


class Slow:
    """A load that takes until it is let, or until it hears that nobody wants it."""

    def __init__(self, make) -> None:
        self.begun, self.go_on, self.given_up, self.make = Event(), Event(), Event(), make

    def __call__(self):
        self.begun.set()
        try:
            while not self.go_on.wait(0.01):
                tell("downloading")
        except BaseException:
            self.given_up.set()
            raise
        return self.make()


def test_a_load_holds_up_nobody(one_worker, llama):
    loads = [Slow(real(llama)) for _ in range(4)]
    slow = [one_worker.live(load) for load in loads]
    for live in slow:
        live.ask()
    quick = one_worker.live(real(llama))
    quick.ask(FOREVER)
    quick.wait(PATIENCE)
    assert quick.state == "ended" and all(live.busy and live.run is None for live in slow)
    for load, live in zip(loads, slow, strict=True):
        load.go_on.set()
        live.wait(PATIENCE)
        assert live.state == "paused" and live.count == 1


def test_jobs_are_made_in_their_turns_and_not_all_at_once(one_worker, gated):
    """Sixteen threads that made runs had each step wait for all of them at each of its calls: 8 to 15 s a step."""
    holds, gate = holding(one_worker, gated)
    at_once, most = [], []

    def make() -> Once:
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(MOMENT / 10)
        at_once.pop()
        return Once(lambda: True)

    lives = [one_worker.live(make, Owner(str(number))) for number in range(20)]
    for live in lives:
        live.ask()
    assert len(most) <= EARLY
    gate.let(1)
    for live in lives:
        live.wait(PATIENCE)
    assert [live.count for live in lives] == [1] * 20 and len(most) == 20
    assert max(most) <= EARLY + 3  # some may take longer than a moment


def test_a_few_jobs_are_made_before_their_turns_come(one_worker, gated):
    """In it they came back for another one, a round later: the first step of a run took two."""
    holds, gate = holding(one_worker, gated)
    made = Event()

    def make() -> Once:
        made.set()
        return Once(lambda: True)

    live = one_worker.live(make, Owner("other"))
    live.ask()
    assert made.wait(PATIENCE) and live.count == 0
    eventually(lambda: live.run is not None and not one_worker.making, "it is not made")
    gate.let(1)
    live.wait(PATIENCE)
    assert live.count == 1


@pytest.mark.parametrize("end", ["pause", "close"])
def test_a_load_is_given_up_at_once(one_worker, llama, end):
    load = Slow(real(llama))
    live = one_worker.live(load)
    live.ask()
    eventually(lambda: live.state == "working", "it never had its turn")
    getattr(live, end)()
    assert live.state == {"pause": "paused", "close": "closed"}[end] and load.given_up.wait(PATIENCE)
    live.ask()
    load.go_on.set()
    live.wait(PATIENCE)
    assert (live.state, live.count) == (("paused", 1) if end == "pause" else ("closed", 0))


def test_a_load_that_hears_nothing_is_dropped_when_it_is_done(one_worker, llama):
    done, made = Event(), []

    def deaf():
        done.wait(PATIENCE)
        made.append(real(llama)())
        return made[0]

    live = one_worker.live(deaf)
    live.ask()
    eventually(lambda: live.state == "working", "it never had its turn")
    live.close()
    done.set()
    eventually(lambda: made, "it was never made")
    assert live.state == "closed" and live.run is None


def test_loads_beyond_the_places_wait_for_one(llama, monkeypatch):
    monkeypatch.setattr(module, "LOADS", 1)
    monkeypatch.setattr(module, "LOOK", 0.01)
    full = Worker()
    first, second = Slow(real(llama)), Slow(real(llama))
    lives = [full.live(load) for load in (first, second)]
    for live, load in zip(lives, (first, second), strict=True):
        live.ask()
        eventually(lambda load=load: load is second or load.begun.is_set(), "it never began")
    eventually(lambda: lives[1].progress is not None, "it says nothing")
    assert "waiting until other models" in lives[1].progress.stage and not second.begun.is_set()
    lives[0].close()
    assert second.begun.wait(PATIENCE)
    second.go_on.set()
    lives[1].wait(PATIENCE)
    assert lives[1].count == 1


def test_who_waits_for_anothers_load_takes_no_place(llama, monkeypatch):
    """Sixteen who wanted the same model had everybody wait whose models were there; now they can also be stopped."""
    monkeypatch.setattr(module, "LOADS", 2)
    monkeypatch.setattr(family_cache, "LOOK", 0.01)
    for name, empty in (("_alive", WeakValueDictionary()), ("_families", {}), ("_loading", {})):
        monkeypatch.setattr(family_cache, name, empty)
    opened, load = [], Slow(lambda: replace(llama))
    monkeypatch.setattr(family_cache, "load", lambda *key, **_: opened.append(key) or load())
    full, owners = Worker(), itertools.count()

    def wants(name: str) -> Live:
        live = full.live(lambda: real(family_cache.family(name))(), Owner(str(next(owners))))
        live.ask()
        return live

    alike = [wants("embedded") for _ in range(4)]
    eventually(lambda: sum(str(live.progress).startswith("waiting until embedded") for live in alike) == 3, "they do not say it")
    assert load.begun.is_set()
    quick = full.live(real(llama), Owner("quick"))
    quick.ask()
    quick.wait(PATIENCE)
    assert quick.count == 1 and all(live.run is None for live in alike)
    stopped = next(live for live in alike if str(live.progress).startswith("waiting"))
    stopped.close()
    load.go_on.set()
    for live in alike:
        live.wait(PATIENCE)
    assert sorted(live.count for live in alike) == [0, 1, 1, 1] and len(opened) == 1
    assert full._places._value == 2  # all are given back


def test_a_job_is_made_ready_again_beside_the_line(one_worker, llama):
    """As a series of studies, whose models differ."""

    class Parts(Once):
        unready, ended = True, False

        def prepare(self) -> None:
            load()
            self.unready = False

    load = Slow(lambda: None)
    parts = one_worker.live(lambda: Parts(lambda: "answer"))
    parts.ask()
    assert load.begun.wait(PATIENCE)
    quick = one_worker.live(real(llama))
    quick.ask(FOREVER)
    quick.wait(PATIENCE)
    assert quick.state == "ended" and parts.busy and parts.count == 0
    load.go_on.set()
    parts.wait(PATIENCE)
    assert parts.state == "paused" and parts.run.steps == ["answer"]


def test_what_needs_no_device_has_a_thread_of_its_own(one_worker, llama):
    release = Event()

    class Waiting(Once):
        aside = True

    aside = one_worker.live(lambda: Waiting(lambda: release.wait(PATIENCE)))
    aside.ask(FOREVER)
    eventually(lambda: aside.state == "working", "it never began")
    quick = one_worker.live(real(llama))
    quick.ask(FOREVER)
    quick.wait(PATIENCE)
    assert quick.state == "ended" and aside.state == "working"
    release.set()
    aside.wait(PATIENCE)
    assert aside.state == "ended" and aside.run.steps == [True]


# -- memory -------------------------------------------------------------------------------------------------------------


def caches(family) -> list[weakref.ref]:
    """Every cache of its target that there is."""
    kind = type(family.target.new_cache())
    return [weakref.ref(found) for found in gc.get_objects() if issubclass(type(found), kind)]


def gone(*things: weakref.ref) -> bool:
    gc.collect()
    return all(thing() is None for thing in things)


@pytest.mark.parametrize("end", ["ended", "closed", "failed", "closed while it works"])
def test_a_run_that_is_over_lets_go_of_models_and_cache(one_worker, llama, end):
    """Its trace can still be looked at."""
    family, held, before = replace(llama), [], caches(llama)

    def make():
        run = Run(held[0], "speculative_sampling", prompt="the cat", sampling=GREEDY, max_tokens=12)
        held.clear()
        return run

    held.append(family)
    live = one_worker.live(make)
    live.ask(FOREVER if end == "ended" else 2)
    live.wait(PATIENCE)
    kept, count = [weakref.ref(family), *(cache for cache in caches(llama) if cache not in before)], live.count
    assert len(kept) > 1 or end == "ended"
    del family
    if end == "failed":
        live.break_off("The step failed.")
    if end == "closed while it works":
        live.ask(FOREVER)
    if end != "ended":
        live.close()
    live.wait(PATIENCE)
    eventually(lambda: gone(*kept), "the models are still held")
    assert live.over and live.count >= count and live.trace.steps and live.trace.text_bytes()


def test_a_study_that_is_over_lets_go(one_worker, llama, tmp_path):
    family, held = replace(llama), []
    held.append(family)
    plan = Plan("llama", "plain", (Prompt("the cat", ""), Prompt("a dog", "")), sampling=GREEDY, max_tokens=4)
    live = one_worker.live(lambda: Study(held.pop(), plan, Store(tmp_path)))
    live.ask(FOREVER)
    live.wait(PATIENCE)
    kept = weakref.ref(family)
    del family
    eventually(lambda: gone(kept), "the models are still held")
    assert live.state == "ended" and live.run.finished == {0, 1}


def test_what_a_job_of_one_turn_was_asked_is_not_kept(one_worker, llama):
    family = replace(llama)
    live = one_worker.live(lambda family=family: Once(lambda: family.name))
    live.ask()
    live.wait(PATIENCE)
    kept = weakref.ref(family)
    del family
    eventually(lambda: gone(kept), "the models are still held")
    assert live.run.steps == [llama.name]


@pytest.mark.parametrize("method", ["plain", "speculative_sampling", "medusa", "token_recycling"])
def test_a_long_prompt_is_read_in_turns_and_others_come_between(one_worker, embedded, monkeypatch, method):
    """One of 4,000 digits took the worker for half a minute at once, with a real model, and everybody waited."""
    text = "Once upon a time there was a girl. " * 30
    whole = [step.tokens for step in Run(embedded, method, prompt=text, max_tokens=6)]
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    rows, read = limits().rows or 0, []
    extend = Target.extend_with_hidden

    def noted(target, cache, tokens, *given, **more):
        if target is embedded.target:
            read.append(len(tokens))
        return extend(target, cache, tokens, *given, **more)

    monkeypatch.setattr(Target, "extend_with_hidden", noted)
    live = one_worker.live(lambda: Run(embedded, method, prompt=text, max_tokens=6), Owner("long"))
    live.ask()
    between = []
    while live.busy:
        other = one_worker.live(lambda: Once(lambda: len(read)), Owner("other"))
        other.ask()
        other.wait(PATIENCE)
        between.append(other.run.steps[0])
    count = len(live.run.header.prompt_tokens) - 1
    parts = [rows] * (count // rows) + [count % rows] * bool(count % rows)
    assert len(parts) > 1 and live.count == 1
    assert read == parts and len(set(between)) > 1
    live.ask(FOREVER)
    live.wait(PATIENCE)
    assert [step.tokens for step in live.trace.steps] == whole


@pytest.mark.parametrize(("count", "before"), [(32, 0), (33, 1), (64, 1), (96, 1), (97, 2), (128, 2)])
def test_the_first_step_reads_less_than_a_part_of_the_prompt(embedded, monkeypatch, count, before):
    """It has a draft to read, too; a short prompt takes no turn of its own."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr("decoding.limits.PUBLIC", replace(PUBLIC, rows=64))
    run = Run(embedded, "plain", prompt=[7] * (count + 1), max_tokens=2)
    turns = [run.turn() for _ in range(before + 2)]
    assert [step is None for step in turns] == [True] * before + [False, False]


@pytest.mark.parametrize("method", ["plain", "speculative_sampling", "kangaroo", "lazyllm"])
def test_what_keys_and_values_take_is_known_until_they_are_let_go(one_worker, embedded, method):
    """Of target and drafter, also of a run that stands still: those of many tabs filled the memory."""
    live = one_worker.live(lambda: Run(embedded, method, prompt="Once upon a time there was", max_tokens=40))
    assert live.nbytes == 0
    live.ask(2)
    live.wait(PATIENCE)
    held = [one for one in gc.get_objects() if type(one) in (TreeCache, LazyCache) and one in live._ledger._caches]
    assert live.state == "paused" and len(held) >= 1 + (method in ("speculative_sampling", "kangaroo"))
    rows = embedded.target.model.config.num_hidden_layers * FIRST_ROWS  # of a number of 4 bytes at least
    assert live.nbytes == sum(one.nbytes for one in held) > 2 * 4 * rows
    del held
    live.close()
    gc.collect()
    assert live.nbytes == 0


def test_a_prompt_of_too_many_tokens_is_refused_before_it_is_read(embedded, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr("decoding.limits.PUBLIC", replace(PUBLIC, prompt_tokens=5))
    with pytest.raises(Refused, match="at most 5 tokens; this one has"):
        Run(embedded, "plain", prompt="Once upon a time there was a little girl.")


def test_a_prompt_that_is_read_in_one_turn_is_shorter(embedded, monkeypatch):
    """The others wait for as long as that takes."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr("decoding.limits.PUBLIC", replace(PUBLIC, prompt_at_once=5))
    prompt = "Once upon a time there was a little girl."
    with pytest.raises(Refused, match="in one turn; this one has"):
        Run(embedded, "lazyllm", prompt=prompt)
    Run(embedded, "plain", prompt=prompt)
