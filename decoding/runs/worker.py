"""The worker: one thread per device takes one step at a time, in turn over all runs that want one.

A page never computes. It asks a `Live` run for steps, looks at its trace, and closes it; cancelling is not asking. No user
interface is known here, and torch only on the worker's thread: a page that shows a recorded run does without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sized
from functools import cache
from threading import Condition, Thread
from typing import Any, Literal, Protocol

from decoding.models.progress import Progress, told_to
from decoding.runs.failures import sentence
from decoding.trace import Trace

State = Literal["waiting", "working", "paused", "ended", "failed", "closed"]


class Job(Protocol):
    """What a worker can run: a run, a study, a question that the models answer. One `next` is one turn."""

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

    @property
    def ended(self) -> bool:
        return bool(self.steps)


class Stopped(Exception):
    """Nobody wants what is being loaded any more."""


class Live:
    """A job that a page watches. All methods return at once; the worker's thread does the work.

    `make` builds the job, loading models if need be; it is called on the worker's thread, at the first turn.
    """

    def __init__(self, worker: Worker, make: Callable[[], Job]) -> None:
        self._worker = worker
        self._make = make
        self._run: Any = None  # a Job
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
            if self.state == "paused":
                self.state = "waiting"
                self._worker.enter(self)

    def reach(self, count: float) -> None:
        """Take steps until there are `count`; nothing happens if there are so many."""
        with self._worker.changed:
            if count > self.count:
                self.ask(count - self.count)

    def pause(self) -> None:
        """Let the step that is being taken finish, and take no more."""
        with self._worker.changed:
            self._wanted = 0

    def close(self) -> None:
        """Take no more steps, ever."""
        with self._worker.changed:
            self._wanted = 0
            if self.state != "working":
                self._finish("closed")
            self._make = refused

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

    def turn(self) -> None:
        """One turn, on the worker's thread: make the run if it is not there yet, and take one step."""
        try:
            with told_to(self._told):
                if self._run is None:
                    self._run = self._make()
                step = next(self._run, None)
        except Stopped:
            with self._worker.changed:
                self._finish("closed" if self._make is refused else "paused")
        except Exception as error:  # a thread that died would freeze every run of this device
            self._fail(sentence(error))
        else:
            self._after(step)

    def _told(self, progress: Progress) -> None:
        """How far the loading is; the place where it can be stopped."""
        self.progress = progress
        if self._run is None and self._wanted <= 0:
            raise Stopped

    def _after(self, step: Any) -> None:
        with self._worker.changed:
            self._wanted -= 1
            if step is None or (self._run is not None and self._run.ended):
                self._finish("ended")
            elif self._make is refused:
                self._finish("closed")
            elif self._wanted <= 0:
                self._finish("paused")
            else:
                self.state = "waiting"
                self._worker.enter(self)

    def _fail(self, problem: str) -> None:
        with self._worker.changed:
            self.problem = problem
            self._finish("failed")

    def _finish(self, state: State) -> None:
        self._wanted = 0
        self.state = state
        self._worker.changed.notify_all()

    def wait(self, timeout: float = 60) -> None:
        """Block until nothing is due; for scripts and tests."""
        with self._worker.changed:
            self._worker.changed.wait_for(lambda: not self.busy, timeout)


def refused() -> Job:
    raise ValueError("This run was closed.")


class Worker:
    """One thread and a first-in-first-out queue; a run that wants more goes to the end of the line after every step."""

    def __init__(self) -> None:
        self.changed = Condition()
        self._queue: deque[Live] = deque()
        Thread(target=self._serve, name="draftscope-worker", daemon=True).start()

    def live(self, make: Callable[[], Job]) -> Live:
        """A new run, not yet made."""
        return Live(self, make)

    def enter(self, live: Live) -> None:
        """Into the line; the caller holds `changed`."""
        self._queue.append(live)
        self.changed.notify_all()

    def place(self, live: Live) -> int:
        with self.changed:
            return self._queue.index(live) + 1 if live in self._queue else 0

    def _serve(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self._queue)
                live = self._queue.popleft()
                if live._wanted <= 0:  # paused or closed while it stood in line
                    live._finish("closed" if live.state == "closed" else "paused")
                    continue
                live.state = "working"
            live.turn()


@cache
def worker(device: str) -> Worker:
    """The one worker of a device."""
    return Worker()
