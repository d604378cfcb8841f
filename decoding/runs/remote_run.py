"""RemoteRun: a run whose steps are taken by another machine.

If that machine dies, another one takes its place and the run goes on from its committed tokens, where what follows comes from the
target's distribution as before: with a lossless method. The tokens that come are drawn with other uniforms than the seed alone
would give (`seed_behind`): with the same ones again they would depend on the text that those were drawn for already. The text of a
greedy run stays what it was. The step where that happened says so (`WENT_ON` in its facts). A run of another method ends with a
sentence.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from decoding.checks import Quoted
from decoding.methods import METHODS
from decoding.models.chat import checked_messages, is_chat
from decoding.runs.failures import Elsewhere
from decoding.runs.orders import Answer, Begun, Failed, Known, Models, Order, Over, Taken, encode
from decoding.runs.worker import Again
from decoding.score_names import WENT_ON
from decoding.trace import Header, SamplingData, Step, Trace

if TYPE_CHECKING:
    from decoding.sample import Sampling

T = TypeVar("T")


class Lost(ValueError):
    """A machine died."""


class Member(Protocol):
    """Where machines stand, one at a time; `decoding.runs.cluster.Member` is one."""

    machine: int  # number of the one that is there

    def start(self) -> int:
        """Its number, once it can be asked."""
        ...

    def ask(self, machine: int, what: str, *given: Any) -> Answer:
        """The answer of a machine (`decoding.runs.machine.Machine`), waited for; Lost if it is another one by now."""
        ...

    def drop(self, machine: int, job: str) -> None: ...


class RemoteRun:
    """A run on a member of a cluster, to be used like `decoding.runs.run.Run`: an iterator of Steps that keeps them as a Trace.

    `next` raises `Again` if the machine was lost and the run can go on; `for` goes on by itself.

    Raises:
        ValueError: what cannot be, as of a Run.
        Elsewhere: what broke, or the machine that did.
    """

    def __init__(self, member: Member, order: Order) -> None:
        self._member: Member | None = member  # None once it was let go
        self._order = order
        self._job, self._machine = "", 0
        self._lost = False  # the machine is, and what is left was not begun on the next one
        self._lost_at = -1  # steps that there were then
        self._went_on: float | None = None  # from so many tokens, with the next step
        self.steps: list[Step] = []
        begun = self._begin(member, order)
        self.header: Header = begun.header
        self.token_bytes: dict[int, bytes] = begun.token_bytes
        self.notes = begun.notes

    def _begin(self, member: Member, order: Order) -> Begun:
        self._machine, self._job = member.start(), secrets.token_hex(8)
        return expected(member.ask(self._machine, "begin", self._job, encode(order)), Begun)

    def __iter__(self) -> Iterator[Step]:
        while True:
            try:
                yield next(self)
            except StopIteration:
                return
            except Again:
                continue

    def __next__(self) -> Step:
        if (member := self._member) is None or self.ended:
            raise StopIteration
        if self.unready:
            self.prepare()
        try:
            answer = member.ask(self._machine, "step", self._job)
        except Lost as lost:
            raise self._after(lost) from lost
        if isinstance(answer, Over):
            raise StopIteration
        taken = expected(answer, Taken)
        step = taken.step
        if self._went_on is not None:
            step, self._went_on = msgspec.structs.replace(step, facts=step.facts | {WENT_ON: self._went_on}), None
        self.token_bytes.update(taken.token_bytes)
        self.steps.append(step)
        return step

    @property
    def unready(self) -> bool:
        """Whether the machine that it was begun on is gone, and it was said so: `next` did, also if another run found that out."""
        return self._member is not None and self._lost

    def prepare(self) -> None:
        """Begin what is left of it on the machine that took the place of the lost one; not on the worker's thread."""
        if (member := self._member) is not None:
            self._begin(member, rest(self._order, self.header.prompt_tokens, self.steps))
            self._went_on = float(len(committed(self.steps))) if self.steps else None
            self._lost = False

    def _after(self, lost: Lost) -> Exception:
        """What comes of a lost machine: another turn, or the end of the run."""
        count, order = len(committed(self.steps)), self._order
        if len(self.steps) == self._lost_at:
            return Lost(f"{lost} It was lost in the same step before: the step seems to be too much for it.")
        greedy = order.sampling.temperature == 0
        if self.steps and not METHODS[order.method].lossless_with(order.params, greedy):
            return Lost(f"{lost} {METHODS[order.method].title} is lossy, so this run cannot go on from its middle; begin it again.")
        self._lost, self._lost_at = True, len(self.steps)
        self.notes += (f"{lost} {went_on(count, greedy)}",)
        return Again(self.notes[-1])

    @property
    def ended(self) -> bool:
        return bool(self.steps and self.steps[-1].ending)

    def let_go(self) -> None:
        """Have the machine forget it; what was done stays, and no step can follow."""
        member, self._member = self._member, None
        if member is not None:
            member.drop(self._machine, self._job)

    def __del__(self) -> None:
        if getattr(self, "_member", None) is not None:  # nobody looks at it any more
            self.let_go()

    @property
    def trace(self) -> Trace:
        """Everything so far, frozen."""
        steps = tuple(self.steps)  # first: another thread may add a step now, and token bytes come before their step
        return Trace(self.header, dict(self.token_bytes), steps)

    @property
    def text(self) -> str:
        """The committed text without the prompt."""
        return self.trace.text_bytes().decode("utf-8", "replace")


def committed(steps: Sequence[Step]) -> tuple[int, ...]:
    return tuple(token for step in steps for token in step.tokens)


def rest(order: Order, prompt: tuple[int, ...], steps: Sequence[Step]) -> Order:
    """What is left of a run behind these steps; the whole of it if there are none."""
    if not steps:
        return order
    done = committed(steps)
    more = {"text": "", "messages": (), "template": None, "tokens": prompt + done}
    return msgspec.structs.replace(order, seed=seed_behind(order.seed, len(done)), max_tokens=order.max_tokens - len(done), **more)


def seed_behind(seed: int, count: int) -> int:
    """The seed of what follows `count` committed tokens: not the run's own, whose uniforms those tokens depend on.

    >>> seed_behind(0, 5) == seed_behind(0, 5), seed_behind(0, 5) == seed_behind(0, 6), 0 <= seed_behind(7, 1) < 2**63
    (True, False, True)
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {count}".encode()).digest()[:8], "big") >> 1


def went_on(count: int, greedy: bool) -> str:
    """What became of a run, in a sentence."""
    if not count:
        return "The run begins anew on the one that takes its place."
    what = (
        "The text stays what it would have been; a drafter that learns begins anew."
        if greedy
        else "What follows is drawn with other random numbers than the seed alone would give, from the same distribution."
    )
    return f"The run goes on from its {count:,} {'token' if count == 1 else 'tokens'} on the one that takes its place. {what}"


@dataclass(frozen=True)
class RemoteFamily:
    """A family on a member of a cluster."""

    member: Member
    models: Models

    def run(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        prompt: Any = "",
        sampling: Sampling | None = None,
        seed: int = 0,
        max_tokens: int = 64,
        record: bool = True,
        template_options: Mapping[str, Any] | None = None,
        stop: Any = (),
        ignore_end: bool = False,
    ) -> RemoteRun:
        """A run there; arguments and errors are those of `decoding.runs.run.Run`."""
        if method not in METHODS:
            raise ValueError(f"There is no method {method!r}; there are {', '.join(METHODS)}.")
        chat = is_chat(prompt)
        how = SamplingData(1.0, 0, 1.0) if sampling is None else SamplingData(**asdict(sampling))
        order = Order(
            self.models,
            method,
            dict(params or {}),
            how,
            seed,
            max_tokens,
            text=prompt if isinstance(prompt, str) else "",
            messages=checked_messages(prompt) if chat else (),
            tokens=() if chat or isinstance(prompt, str) else tuple(prompt),
            record=record,
            template=None if template_options is None else dict(template_options),
            stop=(stop,) if isinstance(stop, int | str) else tuple(stop),
            ignore_end=ignore_end,
        )
        return RemoteRun(self.member, order)

    def known(self, methods: Sequence[str], stop: Sequence[int | str] = ()) -> Known:
        """What it is and can do with these methods; loads it."""
        machine, asked = self.member.start(), (encode(self.models), encode(tuple(methods)), encode(tuple(stop)))
        answer = self.member.ask(machine, "known", secrets.token_hex(8), *asked)
        return expected(answer, Known)


def expected(answer: Answer, kind: type[T]) -> T:
    """The answer if it is of this kind; what it says went wrong is raised as it would be on this machine."""
    if isinstance(answer, Failed):
        raise {"refused": ValueError, "quoted": Quoted}.get(answer.kind, Elsewhere)(answer.said)
    if not isinstance(answer, kind):
        raise Elsewhere(f"A machine of the cluster answered with {type(answer).__name__} in place of {kind.__name__}.")
    return answer
