"""Side jobs: what a panel wants to know beside the run that is shown and only the models can tell; the worker answers.

A panel states a `Question`, draws its button with `offer`, and takes the answer from the session's `SideJobs`. Stop and a closed
tab end them like runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter
from typing import Any

import streamlit as st

from decoding.runs.worker import Job, Live
from decoding.trace import Trace
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.resting import resting
from pages.parts.shared.runs import PATIENCE, RunController
from viz.tokens import as_markdown

KEPT = 16  # answers


@dataclass(frozen=True)
class Question:
    """What a panel asks. Equal if the answers are: the same panel and the same `about`."""

    panel: str  # has one question under way at a time
    about: Any  # all that the answer depends on: the run, the step, the parameters
    device: str = field(compare=False)
    make: Callable[[], Job] = field(compare=False)  # called on the worker's thread
    title: str = field(compare=False)  # what could not be done, if it fails
    waiting: str = field(compare=False)  # the line while it is under way; {count} stands for the steps taken
    steps: float = field(default=inf, compare=False)  # of the job, until it is answered
    read: Callable[[Any], Any] = field(default=attrgetter("trace"), compare=False)  # the job's answer
    holds: tuple[Trace, ...] = field(default=(), compare=False)  # what the job keeps in memory, beside what it does itself


@dataclass(eq=False)
class SideJobs(RunController):
    """The questions of all panels of a tab, and the answers to the last of them."""

    under_way: dict[str, tuple[Question, Live]] = field(default_factory=dict)  # panel -> what it asked; begun, perhaps stopped
    answers: list[tuple[str, Any, Any]] = field(default_factory=list)  # panel, what it was about, what was found

    @property
    def replayed(self) -> tuple[Trace, ...]:
        """The runs that it holds, beside those that the worker does."""
        asked = [trace for question, _ in list(self.under_way.values()) for trace in question.holds]
        return (*asked, *(found for *_, found in list(self.answers) if isinstance(found, Trace)))

    @property
    def lives(self) -> tuple[Live, ...]:
        return tuple(live for _, live in list(self.under_way.values()))

    @property
    def long(self) -> bool:
        """Whether something is under way that takes more than a step or so."""
        return any(live.busy and question.steps == inf for question, live in list(self.under_way.values()))

    def ask(self, question: Question) -> None:
        """Have the worker answer; what the same panel asked before is given up."""
        with self.lock:
            if question.panel in self.under_way:
                self.under_way.pop(question.panel)[1].close()
            self.problem = ""
            live = self.begin(question.device, question.make, question.steps)
            if live is not None:
                self.under_way[question.panel] = question, live

    def go_on(self, question: Question) -> None:
        """A stopped job goes on."""
        with self.lock:
            if (live := self.begun(question)) is not None:
                self.problem = ""
                self.resume(live, question.steps)

    def begun(self, question: Question) -> Live | None:
        """The job that will answer, at work or stopped."""
        asked, live = self.under_way.get(question.panel, (None, None))
        return live if asked == question else None

    def answer(self, panel: str, about: Any) -> Any:
        """The answer to what the panel asked; of a stopped job as much as there is. None: nothing yet."""
        if (begun := self.under_way.get(panel)) is not None:
            asked, live = begun
            if asked.about == about and live.count and not live.busy:
                return asked.read(live.run)
        return next((found for *asked, found in self.answers if asked == [panel, about]), None)

    def close(self) -> None:
        """Nothing is answered any more, and what was found is forgotten: it was about a run that is gone."""
        super().close()
        self.under_way.clear()
        self.answers.clear()

    def wait(self) -> None:
        """A short wait for an answer that takes a step or so, not for a whole run."""
        for question, live in list(self.under_way.values()):
            if live.busy and question.steps < inf:
                with resting():
                    live.wait(PATIENCE)

    def sync(self) -> None:
        with self.lock:
            for panel, (question, live) in list(self.under_way.items()):
                if live.state == "failed":
                    self.problem = f"{question.title}: {live.problem}"
                elif live.state == "ended" or live.count >= question.steps:
                    others = [one for one in self.answers if one[:2] != (question.panel, question.about)]
                    self.answers = [(question.panel, question.about, question.read(live.run)), *others][:KEPT]
                elif live.state != "closed":
                    continue
                live.close()  # the answer stays, the model's state does not
                del self.under_way[panel]

    def line(self) -> str:
        """What is waited for, in a sentence; "" if it is nothing."""
        for question, live in list(self.under_way.values()):
            if live.busy:
                return self.in_line() or question.waiting.format(count=live.count)
        return ""


def stop_other(sides: SideJobs, question: Question, key: str) -> None:
    """The button that stops what the same panel has asked about something else, if the worker is at that still."""
    asked, live = sides.under_way.get(question.panel, (question, None))
    if live is not None and live.busy and asked != question:
        st.button(f"Stop: {as_markdown(asked.title)}", key=f"stop_other_{key}", icon=":material/stop:", on_click=sides.stop,
                  help="What was asked before, of another place or with other parameters, is still being answered.")  # fmt: skip


def offer(sides: SideJobs, question: Question, label: str, key: str) -> None:
    """The button that asks; while the worker is at it, the one that stops it; none once the answer is there."""
    live = sides.begun(question)
    if live is not None and live.busy:
        st.button("Stop", key=f"stop_{key}", icon=":material/stop:", on_click=sides.stop, help="The step under way is the last.")
    elif live is not None and live.count:
        st.button("Go on", key=key, icon=":material/play_arrow:", on_click=sides.go_on, args=(question,))
        st.caption(f"Stopped after {live.count:,} {'step' if live.count == 1 else 'steps'}.")
    elif sides.answer(question.panel, question.about) is None:
        stop_other(sides, question, key)
        help = as_markdown(WHY) if still_loading() else None
        st.button(as_markdown(label), key=key, on_click=sides.ask, args=(question,), disabled=still_loading(), help=help)
