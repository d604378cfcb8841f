"""The worker: one thread per device takes one step at a time, for whoever has had the least of the device's time.

A page never computes. It asks a `Live` run for steps, looks at its trace, and closes it; cancelling is not asking. Models are
loaded beside the line, each on a thread of its own, so that nobody waits for another's; steps are taken in the line. Whatever a job
raises ends that job alone. No user interface is known here, and torch on those threads only: a page that shows a recorded run does
without.

Whose step comes next, `decoding.runs.line` says.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sized
from contextlib import contextmanager
from functools import cache, partial
from sys import getswitchinterval, setswitchinterval
from threading import BoundedSemaphore, Condition, Thread
from time import monotonic, perf_counter, thread_time
from typing import Any, Literal, Protocol

from decoding.models import memory
from decoding.models.default_format import kept
from decoding.models.ledger import Ledger, noted_in
from decoding.models.progress import Progress, rested_by, told_to
from decoding.runs.failures import sentence, told
from decoding.runs.line import NOBODY, Line, Owner
from decoding.trace import Trace

State = Literal["waiting", "working", "paused", "ended", "failed", "closed"]
EARLY = 2  # jobs that are made before their turn comes, while others are served: made in it they would have to come back
MOMENT = 0.05  # seconds that the line waits for a job that is being made; most are made at once
LATELY = 0.2  # how much a turn counts in the mean of those of its models
LOADS = 16  # jobs that are made at the same time
SWITCH = 0.0002  # seconds until another thread, of a page say, has to let the worker go on, which waits so at each call of torch
LOOK = 0.5  # seconds between two looks of one that waits for such a place


class Job(Protocol):
    """What a worker can run: a run, a study, a question that the models answer. One `next` is one turn.

    It may be `unready` from time to time: then `prepare` is called on a thread of its own before the next turn, as if it were made
    anew. It may have `let_go`, which drops what only further turns need, and `aside`, true of what needs no device: its turns are
    taken on a thread of its own. It may raise `Again` in place of a step. With a `turn`, that is called in place of `next`: it is
    the same, but returns None where so much was done that others should come, and no step was taken.
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


class Again(Exception):
    """A turn brought no step, for what it needs was lost: the job is `unready`, and has another turn once it was prepared."""


class Stopped(Exception):
    """Nobody wants what is being loaded any more."""


class Live:
    """A job that a page watches. All methods return at once; the worker's thread does the work.

    `make` builds the job, loading models if need be; it is called on a thread of its own, in the first turn that it is due, or
    before that where few are made: with sixteen made at the same time, each call of torch in a step waited for all of those
    threads. Runs of the same `group` count as one of those that their owner may have at once.
    """

    def __init__(
        self, worker: Worker, make: Callable[[], Job], owner: Owner = NOBODY, group: Hashable = None, models: Hashable = None
    ) -> None:
        self._worker = worker
        self.models = models
        self._make = make
        self.owner = owner
        self.group = self if group is None else group
        self._run: Any = None  # a Job
        self._attempt: object | None = None  # the making that is under way
        self._wanted: float = 0  # steps still to take
        self.state: State = "paused"
        self.problem = ""  # a sentence, once `state` is "failed"
        self.progress: Progress | None = None  # what is being loaded, and how far it is
        self.since = monotonic()  # when it was last asked, or had done what it was asked for
        self._ledger = Ledger()

    def ask(self, steps: float = 1) -> None:
        """Take `steps` more steps; float("inf") runs to the end. Asking again while steps are due adds nothing to them, so that
        rapid clicks coalesce."""
        with self._worker.changed:
            if self.over:
                return
            self._wanted, self.since = max(self._wanted, steps), monotonic()
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
            if self._give_up() or self.state == "waiting":
                self._finish("paused")

    def close(self, problem: str = "") -> None:
        """Take no more steps, ever.

        Args:
            problem: why it ends, if whoever looks at it should know: then it has failed.
        """
        with self._worker.changed:
            if self.over:
                return
            self._wanted = 0
            self._make = refused
            self.problem = problem
            if self._give_up() or self.state != "working":
                self._finish("failed" if problem else "closed")

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
    def wanted(self) -> float:
        """Steps still to take."""
        return self._wanted

    @property
    def expected(self) -> float:
        """Seconds that a turn of a run of its models takes, as far as is known."""
        return self._worker.usual(self.models)

    @property
    def nbytes(self) -> int:
        """What its keys and values take, until it is over."""
        return self._ledger.nbytes

    @property
    def place(self) -> int:
        """How many turns of other runs come first, if each takes as long as the last one of its owner did; 0 for one that does
        not stand in line, or is held."""
        return self._worker.place(self)

    @property
    def held(self) -> bool:
        """Whether it gets no turn before another run of its owner has nothing more to do."""
        return self._worker.held(self)

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

    @property
    def unmade(self) -> bool:
        """Whether nobody has begun to make the job."""
        return self._run is None and self._attempt is None

    def prepare(self) -> None:
        """Begin to make the job, or to make it ready again, unless that has begun; the caller holds `changed`."""
        if self._attempt is None:
            self._attempt = object()
            self._worker.making += 1
            try:
                Thread(target=self._prepare, args=(self._attempt,), name="draftscope-loader", daemon=True).start()
            except RuntimeError as error:  # the machine has no thread left
                self._attempt = None
                self._worker.making -= 1
                self._fail(sentence(error))

    def _prepare(self, attempt: object) -> None:
        """Make the job, on a thread of its own; what is given up meanwhile is dropped."""
        made, problem = None, ""
        try:
            listen = partial(self._told, attempt)
            with told_to(listen), noted_in(self._ledger), self._worker.loading(listen):
                made = self._made()
        except Stopped:
            pass
        except BaseException as error:  # also a panic in Rust, which is no Exception
            problem = sentence(error)
        with self._worker.changed:  # the error is gone by now, and with it all that was half made
            self._worker.making -= 1
            if self._attempt is not attempt:
                return
            self._attempt, self._run = None, self._run if made is None else made
            if made is None:
                self._fail(problem)
            elif self.state == "working":  # the line went on without it: it is first among its owner's
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
        if self._run is None:
            self.prepare()
        self._worker.changed.wait_for(lambda: self._attempt is None or self.state != "waiting", MOMENT)
        if self.state != "waiting" or self._worker.stands(self):  # stopped meanwhile, and perhaps asked again
            return False
        self.state = "working"
        if self._attempt is None and getattr(self._run, "unready", False):
            self.prepare()
        if self._attempt is not None or self.over:  # it is being made: it comes back by itself
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
        step = problem = None
        taken = 1
        try:
            with told_to(self._show), noted_in(self._ledger), kept():
                step = next_of(self._run)
            taken = int(step is not UNDER_WAY)
        except Again:
            taken = 0
        except BaseException as error:  # a thread that died would freeze every run of this device
            problem = sentence(error)
        if problem is None:
            self._after(step, taken)
        else:  # the error is gone by now: it held what the step had in its hands, and the memory of that
            self.break_off(problem)

    def _show(self, progress: Progress) -> None:
        self.progress = progress

    def break_off(self, problem: str) -> None:
        """End it for the reason that a sentence gives."""
        with self._worker.changed:
            self._fail(problem)

    def _after(self, step: Any, taken: int) -> None:
        """What comes behind a turn in which so many steps, 0 or 1, were taken."""
        with self._worker.changed:
            self._wanted -= taken
            if taken and step is None or (self._run is not None and self._run.ended):
                self._finish("ended")
            elif self._make is refused:
                self._finish("failed" if self.problem else "closed")
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
        self.state, self.since = state, monotonic()
        self._worker.leave(self)
        if self.over:
            self._let_go()
        self._worker.changed.notify_all()

    def _let_go(self) -> None:
        """What it did can be looked at as long as anybody likes; the models and their memory are for others."""
        self._make = refused
        if (let_go := getattr(self._run, "let_go", None)) is not None:
            let_go()
        if self._run is not None or self.problem:  # a failed load leaves half of a model
            memory.trim_soon()

    def wait(self, timeout: float = 60) -> None:
        """Block until nothing is due; for scripts and tests."""
        with self._worker.changed:
            self._worker.changed.wait_for(lambda: not self.busy, timeout)


UNDER_WAY = object()  # in place of a step


def next_of(job: Any) -> Any:
    """A job's next step; None if there is no other, UNDER_WAY if its turn was over before."""
    if (turn := getattr(job, "turn", None)) is None:
        return next(job, None)
    try:
        step = turn()
    except StopIteration:
        return None
    return UNDER_WAY if step is None else step


def refused() -> Job:
    raise ValueError("This run was closed.")


class Place:
    """One of the places of jobs that are made at the same time.

    Args:
        listen: hears that it is waited for, and may end that.
    """

    def __init__(self, places: BoundedSemaphore, listen: Callable[[Progress], None]) -> None:
        self._places, self._listen, self._taken = places, listen, False

    def take(self) -> None:
        while not self._places.acquire(timeout=LOOK):
            self._listen(Progress("waiting until other models are loaded"))
        self._taken = True

    def give(self) -> None:
        if self._taken:
            self._taken = False
            self._places.release()

    @contextmanager
    def left(self) -> Iterator[None]:
        """In the block, others may have it."""
        self.give()
        yield
        self.take()


class Worker:
    """One thread, and the line of those who wait for it.

    Args:
        clock: seconds, which tell how long a step took.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.changed = Condition()
        self._clock = clock
        self._line = Line()
        self._now: Live | None = None  # whose step is being taken
        self._usual: dict[Hashable, float] = {}  # models -> seconds of a turn
        self.making = 0  # jobs that are being made
        self._places = BoundedSemaphore(LOADS)
        self._thread = self._begun()

    def live(self, make: Callable[[], Job], owner: Owner = NOBODY, group: Hashable = None, models: Hashable = None) -> Live:
        """A new run, not yet made.

        Args:
            models: which it is one of, if that is known.
        """
        return Live(self, make, owner, group, models)

    def usual(self, models: Hashable) -> float:
        """Seconds that a turn of a run of these models takes in the mean of late; of unknown ones as many as of the slowest."""
        return self._usual.get(models, max(self._usual.values(), default=0.0))

    def enter(self, live: Live, first: bool = False) -> None:
        """Into the line; the caller holds `changed`."""
        self._line.enter(live, first)
        if live.unmade and self.making < EARLY:
            live.prepare()
        if not self._thread.is_alive():  # whatever ended it: those in line are served by another
            self._thread = self._begun()
        self.changed.notify_all()

    def leave(self, live: Live) -> None:
        """It wants no more turns; the caller holds `changed`."""
        self._line.leave(live)

    def stands(self, live: Live) -> bool:
        """Whether it stands in line; the caller holds `changed`."""
        return self._line.stands(live)

    def held(self, live: Live) -> bool:
        with self.changed:
            return self._line.held(live)

    def place(self, live: Live) -> int:
        with self.changed:
            now = self._now if self._now is not None and self._now.state == "working" else None
            return self._line.place(live, now)

    @contextmanager
    def loading(self, listen: Callable[[Progress], None]) -> Iterator[None]:
        """While the block runs, one of the places of jobs that are made at the same time; `listen` may end the waiting."""
        place = Place(self._places, listen)
        try:
            place.take()
            with rested_by(place.left):
                yield
        finally:
            place.give()

    def _begun(self) -> Thread:
        setswitchinterval(min(SWITCH, getswitchinterval()))
        thread = Thread(target=self._serve, name="draftscope-worker", daemon=True)
        thread.start()
        return thread

    def _serve(self) -> None:
        while True:
            try:
                self._turn()
            except BaseException as error:  # in what surrounds a step, which catches its own
                said = told(error, "The worker broke off in the middle of this step, and goes on with the others.")
                with self.changed:
                    broken, self._now = self._now, None
                    if broken is not None:
                        broken.break_off(said)

    def _turn(self) -> None:
        """Wait for the next one in line, and take its step."""
        with self.changed:
            while (found := self._line.next()) is None:
                self.changed.wait()
            assert isinstance(found, Live)  # nothing else enters
            self._now = live = found
            self._line.begin(live)
            began, came = self._clock(), perf_counter()
            ready = live.begin_turn()
            waited = perf_counter() - came  # until it was made: nobody else had the device meanwhile
        if ready:
            live.turn()
        with self.changed:
            self._now = None
            self._line.end(live, took := max(waited, self._clock() - began))
            if ready and live.models is not None:
                before = self._usual.get(live.models, took)
                self._usual[live.models] = before + LATELY * (took - before)


@cache
def worker(device: str) -> Worker:
    """The one worker of a device.

    On a processor a step is as long as its thread was at work. Pages want the processor too, and a step of a small model, which is
    hundreds of short calls, waits for them more often than a large one's of few long ones: it is not to pay for that.
    """
    return Worker(thread_time if device == "cpu" else perf_counter)
