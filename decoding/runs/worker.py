"""The worker: one thread per device takes one step at a time, in turn over all runs that want one.

A page never computes. It asks a `Live` run for steps, looks at its trace, and closes it; cancelling is not asking. Models are
loaded beside the line, each on a thread of its own, so that nobody waits for another's; steps are taken in the line. Whatever a job
raises ends that job alone. No user interface is known here, and torch on those threads only: a page that shows a recorded run does
without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from functools import cache, partial
from threading import BoundedSemaphore, Condition, Thread
from typing import Any, Literal, Protocol

from decoding.models import memory
from decoding.models.default_format import kept
from decoding.models.progress import Progress, told_to
from decoding.runs.failures import sentence
from decoding.trace import Trace

State = Literal["waiting", "working", "paused", "ended", "failed", "closed"]
MOMENT = 0.05  # seconds that the line waits for a job that is being made; most are made at once
LOADS = 16  # jobs that are made at the same time
LOOK = 0.5  # seconds between two looks of one that waits for such a place


class Job(Protocol):
    """What a worker can run: a run, a study, a question that the models answer. One `next` is one turn.

    It may be `unready` from time to time: then `prepare` is called on a thread of its own before the next turn, as if it were made
    anew. It may have `let_go`, which drops what only further turns need, and `aside`, true of what needs no device: its turns are
    taken on a thread of its own.
    """

    def __next__(self) -> Any: ...

    @property
    def steps(self) -> Sized:
        """One for every turn so far."""
        ...

    @property
    def ended(self) -> bool: ...


class Once:
    """A job of a single turn: its one step is what `answer` returns."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.steps: list[Any] = []
        self._answer = answer

    def __next__(self) -> Any:
        self.steps.append(self._answer())
        return self.steps[-1]

    def let_go(self) -> None:
        self._answer = refused

    @property
    def ended(self) -> bool:
        return bool(self.steps)


class Stopped(Exception):
    """Nobody wants what is being loaded any more."""


class Live:
    """A job that a page watches. All methods return at once; the worker's thread does the work.

    `make` builds the job, loading models if need be; it is called on a thread of its own, once the first turn is asked for.
    """

    def __init__(self, worker: Worker, make: Callable[[], Job]) -> None:
        self._worker = worker
        self._make = make
        self._run: Any = None  # a Job
        self._attempt: object | None = None  # the making that is under way
        self._wanted: float = 0  # steps still to take
        self.state: State = "paused"
        self.problem = ""  # a sentence, once `state` is "failed"
        self.progress: Progress | None = None  # what is being loaded, and how far it is

    def ask(self, steps: float = 1) -> None:
        """Take `steps` more steps; float("inf") runs to the end. Asking again while steps are due adds nothing to them, so that
        rapid clicks coalesce."""
        with self._worker.changed:
            if self.over:
                return
            self._wanted = max(self._wanted, steps)
            if self._run is None:
                self._load()
            if self.state == "paused":
                self.state = "waiting"
                self._worker.enter(self)

    def reach(self, count: float) -> None:
        """Take steps until there are `count`; nothing happens if there are so many."""
        with self._worker.changed:
            if count > self.count:
                self.ask(count - self.count)

    def pause(self) -> None:
        """Let the step that is being taken finish, and take no more; what is being loaded is given up."""
        with self._worker.changed:
            self._wanted = 0
            if self._give_up() and self.state == "working":
                self._finish("paused")

    def close(self) -> None:
        """Take no more steps, ever."""
        with self._worker.changed:
            self._wanted = 0
            self._make = refused
            if self._give_up() or self.state != "working":
                self._finish("closed")

    def _give_up(self) -> bool:
        """Forget the making that is under way, which ends at the next word of its progress; whether there was one."""
        given, self._attempt = self._attempt, None
        return given is not None

    @property
    def busy(self) -> bool:
        return self.state in ("waiting", "working")

    @property
    def over(self) -> bool:
        """No step comes any more, whoever asks."""
        return self.state in ("ended", "failed", "closed")

    @property
    def lost(self) -> bool:
        """It broke or was closed; whoever wants its steps has to make it again."""
        return self.state in ("failed", "closed")

    @property
    def place(self) -> int:
        """How many turns of other runs come first."""
        return self._worker.place(self)

    @property
    def run(self) -> Any:
        """What `make` made; None until the first turn. To be looked at, not to be driven."""
        return self._run

    @property
    def trace(self) -> Trace | None:
        """Everything a run has done so far, frozen; None until it has been made."""
        run = self._run
        return None if run is None else run.trace

    @property
    def count(self) -> int:
        """Steps taken."""
        run = self._run
        return 0 if run is None else len(run.steps)

    def _load(self) -> None:
        """Begin to make the job, or to make it ready again, unless that has begun; the caller holds `changed`."""
        if self._attempt is None:
            self._attempt = object()
            Thread(target=self._prepare, args=(self._attempt,), name="draftscope-loader", daemon=True).start()

    def _prepare(self, attempt: object) -> None:
        """Make the job, on a thread of its own; what is given up meanwhile is dropped."""
        made, problem = None, ""
        try:
            with told_to(partial(self._told, attempt)), self._worker.loading(partial(self._told, attempt)):
                made = self._made()
        except Stopped:
            pass
        except BaseException as error:  # also a panic in Rust, which is no Exception
            problem = sentence(error)
        with self._worker.changed:
            if self._attempt is not attempt:
                return
            self._attempt, self._run = None, self._run if made is None else made
            if problem or made is None:
                self._fail(problem)
            elif self.state == "working":  # the line went on without it: it is its turn now
                self.state = "waiting"
                self._worker.enter(self, first=True)
            self._worker.changed.notify_all()

    def _made(self) -> Any:
        if self._run is None:
            return self._make()
        self._run.prepare()
        return self._run

    def _told(self, attempt: object, progress: Progress) -> None:
        """How far the loading is; the place where it can be stopped."""
        if self._attempt is not attempt:
            raise Stopped
        self.progress = progress

    def begin_turn(self) -> bool:
        """Whether a step is to be taken now; the caller holds `changed` and took the run out of the line."""
        if getattr(self._run, "unready", False):
            self._load()
        self._worker.changed.wait_for(lambda: self._attempt is None or self._wanted <= 0, MOMENT)
        if self.over:
            return False
        if self._wanted <= 0:  # paused while it stood in line
            self._finish("paused")
            return False
        self.state = "working"
        if self._attempt is not None:  # it is being made: it comes back by itself
            return False
        if getattr(self._run, "aside", False):
            Thread(target=self._turns, name="draftscope-aside", daemon=True).start()
            return False
        return True

    def _turns(self) -> None:
        """Every turn that is due, on this thread."""
        while self.state == "working":
            self.turn()

    def turn(self) -> None:
        """Take one step."""
        try:
            with told_to(self._show), kept():
                step = next(self._run, None)
        except BaseException as error:  # a thread that died would freeze every run of this device
            self.break_off(sentence(error))
        else:
            self._after(step)

    def _show(self, progress: Progress) -> None:
        self.progress = progress

    def break_off(self, problem: str) -> None:
        """End it for the reason that a sentence gives."""
        with self._worker.changed:
            self._fail(problem)

    def _after(self, step: Any) -> None:
        with self._worker.changed:
            self._wanted -= 1
            if step is None or (self._run is not None and self._run.ended):
                self._finish("ended")
            elif self._make is refused:
                self._finish("closed")
            elif self._wanted <= 0:
                self._finish("paused")
            elif not getattr(self._run, "aside", False):
                self.state = "waiting"
                self._worker.enter(self)

    def _fail(self, problem: str) -> None:
        self.problem = problem
        self._finish("failed")

    def _finish(self, state: State) -> None:
        self._wanted = 0
        self.state = state
        if self.over:
            self._let_go()
        self._worker.changed.notify_all()

    def _let_go(self) -> None:
        """What it did can be looked at as long as anybody likes; the models and their memory are for others."""
        self._make = refused
        if (let_go := getattr(self._run, "let_go", None)) is not None:
            let_go()
            memory.trim()

    def wait(self, timeout: float = 60) -> None:
        """Block until nothing is due; for scripts and tests."""
        with self._worker.changed:
            self._worker.changed.wait_for(lambda: not self.busy, timeout)


def refused() -> Job:
    raise ValueError("This run was closed.")


class Worker:
    """One thread and a first-in-first-out queue; a run that wants more goes to the end of the line after every step. A thread that
    dies is replaced."""

    def __init__(self) -> None:
        self.changed = Condition()
        self._queue: deque[Live] = deque()
        self._now: Live | None = None  # whose step is being taken
        self._places = BoundedSemaphore(LOADS)
        self._thread = self._begun()

    def live(self, make: Callable[[], Job]) -> Live:
        """A new run, not yet made."""
        return Live(self, make)

    def enter(self, live: Live, first: bool = False) -> None:
        """Into the line; the caller holds `changed`."""
        self._queue.insert(0 if first else len(self._queue), live)
        if not self._thread.is_alive():
            broken, self._now = self._now, None
            if broken is not None:
                broken.break_off("The worker ended in the middle of this step; it was started again.")
            self._thread = self._begun()
        self.changed.notify_all()

    def place(self, live: Live) -> int:
        with self.changed:
            return self._queue.index(live) + 1 if live in self._queue else 0

    @contextmanager
    def loading(self, listen: Callable[[Progress], None]) -> Iterator[None]:
        """While the block runs, one of the places of jobs that are made at the same time; `listen` may end the waiting."""
        while not self._places.acquire(timeout=LOOK):
            listen(Progress("waiting until other models are loaded"))
        try:
            yield
        finally:
            self._places.release()

    def _begun(self) -> Thread:
        thread = Thread(target=self._serve, name="draftscope-worker", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._queue)
                self._now = live = self._queue.popleft()
                ready = live.begin_turn()
            if ready:
                live.turn()
            self._now = None


@cache
def worker(device: str) -> Worker:
    """The one worker of a device."""
    return Worker()
