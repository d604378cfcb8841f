"""StudyController: what one browser tab has to do with studies: the plans it looks at and the run of those that are not finished.

Views are functions of what the store holds; nothing is computed by a page. A study that was stopped, or whose tab was closed,
goes on where it stopped as soon as the same plan is started again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic
from typing import ClassVar

from decoding.runs.cluster import Maker, Member
from decoding.runs.store import Query, Store
from decoding.runs.study import Plan, Study
from decoding.runs.turns import InTurns
from decoding.runs.worker import Live
from decoding.trace import Step
from pages.parts.shared.remembered import Remembered
from pages.parts.shared.runs import RunController, of_tab, refusal
from pages.parts.shared.settings import Settings


@dataclass(frozen=True)
class Job:
    """One drafter over all prompts."""

    label: str  # "A: Prompt lookup"
    settings: Settings  # its prompt is not used
    plan: Plan
    key: str  # of the plan, worked out once

    def maker(self, store: Store) -> Maker:
        """What builds the study, here or on a member of a cluster; called on the worker's thread, where the models are loaded."""

        def make(member: Member | None) -> Study:
            from decoding.models.family_cache import family

            models = self.settings.models
            return Study(family(*models) if member is None else member.family(models), self.plan, store)

        return Maker(self.settings.models, make)


class Series(InTurns[Step]):
    """Several studies, one after the other: the models of one can be let go before the next are loaded.

    An iterator over the steps of all, as the worker wants it.
    """

    def __init__(self, jobs: Sequence[Job], store: Store, member: Member | None = None) -> None:
        self.jobs = jobs
        self._member = member
        self.done = [0] * len(jobs)  # prompts, per job
        self.problems: dict[str, dict[int, str]] = {job.key: {} for job in jobs}
        self.tokens = self.count = 0  # of this run
        self._store = store
        self._number = 0
        self._study: Study | None = None

    def __iter__(self) -> "Series":
        return self

    @property
    def unready(self) -> bool:
        """Whether the models of the next study have to be loaded first."""
        return self._study is None and not self.ended

    def prepare(self) -> None:
        """Load them; not on the worker's thread."""
        self._study = self.jobs[self._number].maker(self._store)(self._member)

    def let_go(self) -> None:
        """Drop the models; what was counted stays."""
        if self._study is not None:
            self._study.let_go()

    def turn(self) -> Step | None:
        """As that of a study."""
        while not self.ended:
            if self._study is None:
                self.prepare()
            try:
                step = self._study.turn()
            except StopIteration:
                self._note(over=True)
                continue
            self._note(step)
            return step
        raise StopIteration

    def _note(self, step: Step | None = None, over: bool = False) -> None:
        """Write down how far the study is, and leave it if it has ended: it is `over`, or no run of it is missing."""
        study = self._study
        self.done[self._number] = len(study.finished) + len(study.problems)
        self.problems[self.jobs[self._number].key] = dict(study.problems)
        if step is not None:
            self.tokens, self.count = self.tokens + len(step.tokens), self.count + 1
        if over or study.ended:
            self._study, self._number = None, self._number + 1

    @property
    def held(self) -> tuple:
        """The run that lies in memory."""
        return () if (study := self._study) is None else study.held

    @property
    def steps(self) -> range:
        """As many as were taken; the steps themselves are in the store."""
        return range(self.count)

    @property
    def ended(self) -> bool:
        return self._number >= len(self.jobs)


@dataclass(eq=False)
class StudyController(RunController, Remembered):
    """The controller of the Drafter page: the studies of one press of Run, as one job of the worker."""

    poll: ClassVar[float] = 0.5
    file: tuple = ()  # id, name and prompts of the uploaded file
    refused: tuple[str, str] = ("", "")  # id of an uploaded file that could not be read, and why
    jobs: tuple[Job, ...] = ()  # the ones that were started last
    live: Live | None = None
    folder: Path | None = None  # of the store that it keeps its runs in
    problems: dict[str, dict[int, str]] = field(default_factory=dict)  # plan key -> prompt number -> why it was skipped
    looked: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # (folder, plan key) -> `stamp` of the last look

    @property
    def lives(self) -> tuple[Live, ...]:
        return () if self.live is None else (self.live,)

    @property
    def long(self) -> bool:
        return self.busy

    @property
    def series(self) -> Series | None:
        return None if self.live is None else self.live.run

    def start(self, jobs: Sequence[Job], store: Store) -> None:
        """Run what is missing and keep it in a store; a paused run of the same plans goes on in the middle of its prompt."""
        with self.lock:
            self.problem = next((p for job in jobs if (p := refusal(job.settings))), "")
            if self.problem or self.busy:
                return
            for job in jobs:
                self.problems.pop(job.key, None)  # the reasons may have passed
            same = [job.key for job in jobs] == [job.key for job in self.jobs] and store.folder == self.folder
            self.jobs, self.folder, self.asked_at = tuple(jobs), store.folder, monotonic()
            if same and self.live is not None and self.live.state == "paused":
                self.resume(self.live, inf)
            else:
                self.close()
                settings = jobs[0].settings
                maker = Maker(settings.models, lambda member: Series(tuple(jobs), store, member))
                self.live = self.begin(settings.device, maker)

    def belongs(self, store: Store) -> None:
        """End what goes on into another store, and forget why runs are missing in it: the visitor has taken another key, or chosen
        another folder."""
        if self.folder not in (None, store.folder):
            if self.busy:
                self.problem = "Runs are kept elsewhere now, so the study was stopped; its own are where it began."
            self.close()
            self.jobs, self.live, self.folder, self.problems = (), None, None, {}

    def sync(self) -> None:
        if self.series is not None:
            self.problems |= self.series.problems
        if self.live is not None and self.live.state == "failed":
            self.problem, self.live = self.live.problem, None


def controller() -> StudyController:
    """This tab's."""
    return of_tab("desk", StudyController)


def finished(store: Store, job: Job) -> int:
    """Prompts of the plan whose runs are in the store."""
    return store.finished(job.key)


def stamp(store: Store, job: Job) -> tuple[int, int]:
    """Tells one state of the plan's runs from another: how many there are, and the newest."""
    newest = store.entries(Query(study=job.key), limit=1)
    return finished(store, job), newest[0].id if newest else 0
