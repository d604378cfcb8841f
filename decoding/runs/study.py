"""A study: one method over many prompts, every run kept in the store, so that it can be stopped at any step and resumed.

It knows prompts, runs and the store; what the traces say is drawn elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from decoding.runs.failures import sentence
from decoding.runs.prompts import Prompt
from decoding.runs.store import Query, Store
from decoding.sample import Sampling
from decoding.trace import Step, Trace

if TYPE_CHECKING:
    from decoding.models.family import Family
    from decoding.runs.run import Run


@dataclass(frozen=True)
class Plan:
    """What to run. Two plans that are equal are the same study, and the second one goes on where the first one stopped."""

    family: str
    method: str
    prompts: tuple[Prompt, ...]
    params: dict = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    max_tokens: int = 64

    @property
    def key(self) -> str:
        """A name that depends on everything in the plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class Study:
    """An iterator over the steps of all prompts, one target call each.

    A prompt that cannot be run (too long, say), or whose run breaks in the middle, is skipped, with its sentence in `problems`:
    nothing that one prompt does ends the study.
    """

    def __init__(self, family: Family, plan: Plan, store: Store) -> None:
        self.family, self.plan, self.store = family, plan, store
        self.problems: dict[int, str] = {}  # prompt number -> why it was skipped
        self.finished: set[int] = set()  # prompt numbers
        for entry in self._entries():
            if entry.ended:
                self.finished.add(number_of(entry.name))
            else:
                store.delete(entry.id)  # half a prompt: run it again
        self._run: Run | None = None
        self._number = -1

    def __iter__(self) -> Study:
        return self

    def __next__(self) -> Step:
        while True:
            if self._run is None:
                self._number = self._next_number()
            try:
                self._run = run = self._run or self._start(self._number)
                step = next(run)
            except Exception as error:
                self.problems[self._number], self._run = sentence(error), None
                continue
            if step.ending:
                prompt = self.plan.prompts[self._number]
                self.store.keep(run.trace, name_of(self._number), prompt.domain, self.plan.key)
                self.finished.add(self._number)
                self._run = None
            return step

    @property
    def ended(self) -> bool:
        return len(self.finished) + len(self.problems) == len(self.plan.prompts)

    def _next_number(self) -> int:
        for number in range(len(self.plan.prompts)):
            if number not in self.finished and number not in self.problems:
                return number
        raise StopIteration

    def _start(self, number: int) -> Run:
        from decoding.runs.run import Run  # not at the top: the tables of a study that is over need no torch

        plan, prompt = self.plan, self.plan.prompts[number]
        return Run(
            self.family,
            plan.method,
            plan.params,
            prompt.text,
            plan.sampling,
            seed=plan.seed + number,
            max_tokens=plan.max_tokens,
        )

    def _entries(self):
        return self.store.entries(Query(study=self.plan.key), limit=len(self.plan.prompts) + 1)


def results(store: Store, plan: Plan) -> list[tuple[int, int, str, Trace]]:
    """(prompt number, trace id, domain, trace) of every finished prompt, in order."""
    entries = store.entries(Query(study=plan.key), limit=len(plan.prompts) + 1)
    found = [(number_of(e.name), e.id, e.note, store.open(e.id)) for e in entries if e.ended]
    return sorted(found, key=lambda item: item[0])


def name_of(number: int) -> str:
    return f"prompt {number + 1}"


def number_of(name: str) -> int:
    return int(name.removeprefix("prompt ")) - 1
