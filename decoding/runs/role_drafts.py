"""Acceptance by role: the thoughts of a graph (`decoding.lenses.diagram_of_thought`) written again by any method, as a job of the
worker.

Zhang, Yuan and Yao 2024, https://arxiv.org/abs/2409.10038, have no drafter; this is ours. Every thought becomes a run of its own,
greedy, behind all that stands in front of it, and as long as it is. So the same text comes about, and a marker, or what was put in
the critic's mouth, is neither drafted nor judged.
"""

from collections.abc import Mapping
from typing import Any

from decoding.looks.diagram_of_thought import DiagramOfThoughtLook
from decoding.methods import METHODS
from decoding.models.family import Family
from decoding.runs.run import Run
from decoding.runs.turns import InTurns
from decoding.sample import Sampling
from decoding.trace import Step, Trace

Section = tuple[str, Trace]  # a role, and the run that wrote one of its thoughts


class RoleDrafts(InTurns[Step]):
    """An iterator of the steps of all these runs; `sections` are those that are over.

    Raises:
        ValueError: a method that this family cannot serve, one that would write another text, or a look without a thought that
            can be written again.
    """

    def __init__(self, family: Family, look: DiagramOfThoughtLook, method: str, params: Mapping[str, Any]) -> None:
        self.family, self.method, self.params, self.tokens = family, method, dict(params), look.tokens
        self.left = [(one.role, one.at, one.greedy) for one in look.thoughts if one.greedy and one.at]
        if not self.left or max(at + count for _, at, count in self.left) > len(look.tokens):
            raise ValueError("This graph has no thought that could be written again.")
        if not METHODS[method].lossless_with(self.params, True):
            raise ValueError(f"With {METHODS.title(method)} as this run has it the target writes another text than the graph's.")
        self.steps: list[Step] = []
        self.sections: list[Section] = []
        self.run = self._begun()

    def _begun(self) -> Run:
        """The run of the next thought."""
        _, at, count = self.left[0]
        return Run(self.family, self.method, self.params, self.tokens[:at], Sampling(0), max_tokens=count, record=False)

    @property
    def ended(self) -> bool:
        return not self.left

    def turn(self) -> Step | None:
        """As that of a run; StopIteration at the end."""
        if self.ended:
            raise StopIteration
        if (step := self.run.turn()) is None:
            return None
        self.steps.append(step)
        if self.run.ended:
            role, at, count = self.left.pop(0)
            # Two tokens that were level may come out the other way round.
            if self.run.trace.tokens_before(len(self.run.steps)) == self.tokens[: at + count]:
                self.sections.append((role, self.run.trace))
            self.run.let_go()
            if self.left:
                self.run = self._begun()
        return step

    def let_go(self) -> None:
        self.run.let_go()
