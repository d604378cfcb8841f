"""A study: one method over many prompts, every run kept in the store, so that it can be stopped at any step and resumed.

It knows prompts, runs and the store; what the traces say is drawn elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from decoding.limits import check_prompts
from decoding.models.panics import is_panic
from decoding.runs.failures import sentence, told
from decoding.runs.prompts import Prompt
from decoding.runs.store import Entry, Gone, Locked, Query, Store
from decoding.runs.turns import InTurns
from decoding.runs.writing import Writing
from decoding.sample import Sampling
from decoding.trace import Message, Step, Trace

if TYPE_CHECKING:
    from decoding.models.chat import Option
    from decoding.models.ends import Stop
    from decoding.models.family import Family
    from decoding.runs.remote_run import RemoteRun
    from decoding.runs.run import Place, Run

taking = Lock()


@dataclass(frozen=True)
class Plan:
    """What to run. Two plans that are equal are the same study, and the second one goes on where the first one stopped.

    In chat form every turn of a prompt is a run: its messages are the turns before it, with the answers that the model gave.
    """

    family: str
    method: str
    prompts: tuple[Prompt, ...]
    params: dict = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    max_tokens: int = 64
    chat: bool = False
    template: Mapping[str, Option] = field(default_factory=dict)  # options of the chat template
    stop: tuple[Stop, ...] = ()
    ignore_end: bool = False

    @property
    def key(self) -> str:
        """A name that depends on everything in the plan that matters; of one without chat, guidance, or ends of its own, the
        same as before there were any."""
        said = asdict(self)
        for name in ("stop", "ignore_end"):
            if not said[name]:
                del said[name]
        if self.sampling.guidance == 1:
            del said["sampling"]["guidance"]
        if not self.chat:
            del said["chat"], said["template"]
            said["prompts"] = [{"text": prompt.text, "domain": prompt.domain} for prompt in self.prompts]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(prompt, turn) of every run, in the order of the runs."""
        turns = [len(prompt.questions) if self.chat else 1 for prompt in self.prompts]
        return tuple((number, turn) for number, count in enumerate(turns) for turn in range(count))

    @cached_property
    def asked(self) -> tuple[Prompt, ...]:
        """What every run is asked, and its domain."""
        if not self.chat:
            return self.prompts
        return tuple(Prompt(self.prompts[i].questions[turn], self.prompts[i].domain) for i, turn in self.places)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name in the store of every run."""
        return tuple(f"prompt {i + 1}" + (f", turn {turn + 1}" if turn else "") for i, turn in self.places)


def family_of_plan(target: str, draft: str | None, dtype: str) -> str:
    """What a plan calls a family: its models, checksums of their weights, and a number format that is not the usual one."""
    from decoding.models.family import weights_mark  # not at the top: it needs torch

    named = target if draft is None else f"{target} + {draft}"
    named += "".join(f" {mark}" for mark in map(weights_mark, (target, draft)) if mark)
    return named if dtype == "auto" else f"{named} ({dtype})"


class Study(InTurns[Step]):
    """An iterator over the steps of all prompts, one target call each.

    A prompt that cannot be run (too long, say), or whose run breaks in the middle, is skipped, with its sentence in `problems`:
    nothing that one prompt does ends the study. Runs are counted from 0.

    Args:
        family: where its runs are made: a family, or one on a member of a cluster.
        begun: prompts that were begun by any of several studies of one plan which share this set, each on a thread of its own: a
            prompt that another one began is left to it.
    """

    def __init__(self, family: Family | Place, plan: Plan, store: Store, begun: set[int] | None = None) -> None:
        check_prompts(len(plan.places))
        self.family: Family | Place | None = family  # None once it was let go
        self.plan, self.store = plan, store
        self._begun: set[int] = set() if begun is None else begun
        self._own: set[int] = set()  # of those
        self.problems: dict[int, str] = {}  # run -> why it was skipped
        self.kept: dict[int, int] = {}  # run that is finished -> id of its trace
        self._answers: dict[int, str] = {}  # of those, what was said, as far as chats have asked for it
        self._adopt()
        self._run: Run | RemoteRun | None = None
        self._number = -1  # of the run
        self._writing: Writing | None = None  # of it

    def __iter__(self) -> Study:
        return self

    def turn(self) -> Step | None:
        """The next step, or None where a prompt was skipped or read in part instead: that takes as long as a step, and whoever
        shares the device with others lets them come between. So they do while somebody else writes into the store.
        StopIteration at the end."""
        if self._run is None:
            self._number = self._next_number()
        try:
            return self._written()
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            self._run = self._writing = None
            self._adopt()
            if self._number not in self.kept:
                self.problems[self._number] = sentence(error)
            return None

    def _written(self) -> Step | None:
        """The next step of the run, once it is written down: whatever happens to the process, no more than a step is lost."""
        if self._run is None and self._recall(self._number):
            return None
        if self._run is None or self._writing is None:
            self._run, self._writing = self._start(self._number), self._paper(self._number)
        run, writing = self._run, self._writing
        step = writing.left or getattr(run, "turn", iter(run).__next__)()
        if step is None or not writing.write(run, step):
            return None
        if step.ending:
            self.kept[self._number], self._run, self._writing = writing.entry, None, None
        return step

    def _recall(self, number: int) -> bool:
        """Read one answer that the chat of a run goes on from, and is not known yet: a turn each, for to open a trace takes as long
        as a step. False if there was none to read."""
        for run in self._before(number):
            if run in self.kept and run not in self._answers:
                self._answers[run] = self.store.open(self.kept[run]).answer
                return True
        return False

    def _before(self, number: int) -> range:
        """The runs of the turns before a run's own, of which its chat holds the answers."""
        return range(number - self.plan.places[number][1], number) if self.plan.chat else range(0)

    def _paper(self, number: int) -> Writing:
        return Writing(self.store, self.plan.names[number], self.plan.asked[number].domain, self.plan.key)

    def _adopt(self) -> None:
        """Take over what is whole in the store, whoever ran it."""
        self.kept |= {number: entry.id for number, entry in entries_of(self.store, self.plan) if entry.ended}
        self.problems = {number: problem for number, problem in self.problems.items() if number not in self.kept}

    def let_go(self) -> None:
        """Drop the models; what is kept stays, and no step can follow."""
        self.family = self._run = self._writing = None

    @property
    def held(self) -> tuple[Run | RemoteRun, ...]:
        """The run that lies in memory."""
        return () if self._run is None else (self._run,)

    @property
    def finished(self) -> set[int]:
        """The runs that are kept."""
        return set(self.kept)

    @property
    def ended(self) -> bool:
        return len(self.kept) + len(self.problems) == len(self.plan.places)

    def _next_number(self) -> int:
        self._adopt()
        for number, (prompt, _) in enumerate(self.plan.places):
            if number not in self.kept and number not in self.problems and self._takes(prompt):
                return number
        raise StopIteration

    def _takes(self, prompt: int) -> bool:
        """Whether a prompt is this study's, now if not before."""
        with taking:
            if prompt not in self._begun:
                self._begun.add(prompt)
                self._own.add(prompt)
        return prompt in self._own

    def _start(self, number: int) -> Run | RemoteRun:
        from decoding.runs.run import begin  # not at the top: the tables of a study that is over need no torch

        plan = self.plan
        if self.family is None:
            raise ValueError("This study was closed.")
        return begin(
            self.family,
            plan.method,
            plan.params,
            self._messages(number) if plan.chat else plan.asked[number].text,
            plan.sampling,
            seed=plan.seed + number,
            max_tokens=plan.max_tokens,
            template_options=plan.template,
            stop=plan.stop,
            ignore_end=plan.ignore_end,
        )

    def _messages(self, number: int) -> tuple[Message, ...]:
        """The chat of a run; ValueError if a turn before it has no answer."""
        before = self._before(number)
        if without := [run - before.start + 1 for run in before if run not in self.kept]:
            raise ValueError(f"Turn {without[0]} of this prompt could not be run, so there is nothing to go on from.")
        prompt = self.plan.prompts[self.plan.places[number][0]]
        return prompt.messages([self._answers[run] for run in before])


def entries_of(store: Store, plan: Plan) -> list[tuple[int, Entry]]:
    """The runs of a plan that are in the store, and what is known of each, in order; one for every prompt."""
    numbers = {name: number for number, name in enumerate(plan.names)}
    query = Query(study=plan.key)
    found: dict[int, Entry] = {}
    for entry in store.entries(query, limit=store.count(query)):
        number = numbers.get(entry.name)
        if number is not None and (number not in found or better(entry, found[number])):
            found[number] = entry
    return sorted(found.items())


def better(one: Entry, other: Entry) -> bool:
    """Which of two runs of the same prompt counts: the one that ended, or the first of those, or the longer one."""
    return (one.ended, -one.id if one.ended else one.steps) > (other.ended, -other.id if other.ended else other.steps)


def results(store: Store, plan: Plan, damaged: dict[int, str] | None = None) -> list[tuple[int, int, str, Trace]]:
    """(run, trace id, domain, trace) of every finished run, in order. The domain is the plan's: a run's note may be written anew.

    Args:
        damaged: is told by number which runs could not be read, and why, and the others are read; without it, that is a ValueError.
            One that was deleted meanwhile is left out then too.
    """
    found = []
    for number, entry in entries_of(store, plan):
        if not entry.ended:
            continue
        try:
            found.append((number, entry.id, plan.asked[number].domain, store.open(entry.id)))
        except ValueError as error:
            if damaged is None or isinstance(error, Locked):  # others write: it can be read later
                raise
            if not isinstance(error, Gone):
                damaged[number] = told(error)
    return found
