"""Machine: one member of a cluster as it is on its own side, a family in memory and the runs that are made with it.

It takes bytes and gives bytes (`decoding.runs.orders`), knows nothing of whoever carries them, and raises nothing: what goes wrong
is an answer. One thread at a time asks for steps, others may meanwhile have runs made, ask how far that is, and drop what nobody
wants any more.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock

import msgspec

from decoding.checks import Quoted
from decoding.methods import METHODS
from decoding.models import memory
from decoding.models.default_format import kept
from decoding.models.ends import Stop
from decoding.models.family import Family
from decoding.models.family_cache import family
from decoding.models.progress import Progress, told_to
from decoding.runs.failures import words
from decoding.runs.orders import Answer, Begun, Doing, Failed, Known, Models, Order, Over, Ready, Taken, decode, encode
from decoding.runs.run import Run
from decoding.sample import Sampling


class Machine:
    """All methods take and give MessagePack; `job` is a name that whoever asks makes up, and uses for nothing else.

    Args:
        environment: names and values that are to hold here too: what the server allows.
    """

    def __init__(self, environment: bytes) -> None:
        os.environ.update(decode(environment, dict[str, str]))
        self._runs: dict[str, Run] = {}
        self._doing: dict[str, Progress] = {}  # what is under way
        self._dropped: set[str] = set()  # of that, what nobody wants any more
        self._lock = Lock()

    def ready(self) -> bytes:
        return encode(Ready())

    def known(self, job: str, models: bytes, methods: bytes, stop: bytes) -> bytes:
        """Load a family and say what it can do with these methods; the stop tokens are those that runs are going to have."""

        def found() -> Known:
            return known_of(family(*decode(models, Models)), decode(methods, tuple[str, ...]), decode(stop, tuple[Stop, ...]))

        return self._answer(job, found)

    def begin(self, job: str, order: bytes) -> bytes:
        """Make a run, loading its family if need be."""

        def made() -> Begun:
            run = run_of(decode(order, Order))
            self._runs[job] = run
            return Begun(run.header, run.token_bytes, run.notes)

        return self._answer(job, made)

    def step(self, job: str) -> bytes:
        """Take the next step of a run."""

        def taken() -> Answer:
            run = self._runs[job]
            known = set(run.token_bytes)
            with kept():
                step = next(run, None)
            if step is None:
                return Over()
            return Taken(step, {token: run.token_bytes[token] for token in run.token_bytes.keys() - known})

        return self._answer(job, taken)

    def doing(self, job: str) -> bytes:
        """How far what is under way for a job is."""
        now = self._doing.get(job)
        return encode(Doing("") if now is None else Doing(now.stage, now.done, now.total))

    def drop(self, job: str) -> None:
        """Forget a run, at once or as soon as what is under way for it allows."""
        with self._lock:
            if job in self._doing:
                self._dropped.add(job)
            else:
                self._forget(job)

    def _forget(self, job: str) -> None:
        if (run := self._runs.pop(job, None)) is not None:
            run.let_go()
            del run
            memory.trim()

    def _answer(self, job: str, do: Callable[[], Answer]) -> bytes:
        self._note(job, Progress(""))
        try:
            with told_to(partial(self._note, job)):
                answer = do()
        except BaseException as error:  # also a panic in Rust, which is no Exception
            kind = "quoted" if isinstance(error, Quoted) else "refused" if isinstance(error, ValueError) else "broken"
            answer = Failed(words(error), kind)
        with self._lock:
            del self._doing[job]
            if job in self._dropped:
                self._dropped.discard(job)
                self._forget(job)
        return encode(answer)

    def _note(self, job: str, progress: Progress) -> None:
        """How far it is; the place where what nobody wants ends."""
        self._doing[job] = progress
        if job in self._dropped:
            raise ValueError("This run was closed.")


def run_of(order: Order) -> Run:
    """The run that is asked for, on this machine."""
    return Run(
        family(*order.models),
        order.method,
        order.params,
        order.messages or order.tokens or order.text,
        Sampling(**msgspec.structs.asdict(order.sampling)),
        order.seed,
        order.max_tokens,
        order.record,
        order.template,
        order.stop,
        order.ignore_end,
    )


def known_of(found: Family, methods: Iterable[str], stop: Sequence[Stop]) -> Known:
    """What a family can do with these methods; ValueError if it has no such stop tokens."""
    found.stop_tokens(tuple(stop))
    missing = {key: METHODS[key].missing(found) for key in methods}
    sizes = {key: METHODS[key].parameters(found) for key, reason in missing.items() if not reason}
    return Known(found.name, found.chats, missing, sizes, found.notes)
