"""The desk of a tab: the lens that is chosen, its parameters, what is being looked at and what was seen. The run and the place are
those of the Step page: whoever moves here has moved there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import streamlit as st

from decoding.lenses import LENSES
from decoding.looks import Cursor, Look
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.controls import param_key
from pages.parts.shared.remembered import Remembered
from pages.parts.shared.runs import of_tab
from pages.parts.shared.session import Session, session
from pages.parts.shared.settings import family_named
from pages.parts.shared.side_job import Question, SideJobs

if TYPE_CHECKING:
    from decoding.lens import Cost, Lens

PANEL = "lens"  # has one question under way at a time
FREE = 64  # rows up to which a look follows the reader by itself


@dataclass(eq=False)
class Desk(SideJobs, Remembered):
    """The controller of the Lenses page: one question under way, the answers to the last ones, the session that it asks about."""

    session: Session = field(default_factory=Session)
    lens: str = next(iter(LENSES))
    of: int = 0  # the session's run that was looked at last
    seen: dict[str, tuple[Any, Look]] = field(default_factory=dict)  # lens -> what it was asked last, and what it saw

    # -- what is asked ------------------------------------------------------------------------------------------------

    @property
    def chosen(self) -> "Lens":
        return LENSES[self.lens]

    @property
    def cursor(self) -> Cursor:
        here = self.session
        return Cursor(here.cursor, here.selected)

    @property
    def params(self) -> Any:
        """What the controls say; ValueError for what they cannot."""
        name = prefix(self.lens)
        given = {key: st.session_state.get(param_key(name, key), self.values.get(param_key(name, key))) for key in self.defaults}
        return self.chosen.checked({key: value for key, value in given.items() if value is not None})

    @property
    def defaults(self) -> dict[str, Any]:
        return asdict(self.chosen.params())

    @property
    def cost(self) -> "Cost":
        return self.chosen.cost(self.session.trace, self.cursor, self.params)

    @property
    def about(self) -> tuple:
        """All that the answer depends on. Where the run goes on while it is looked at, that stays the question until it is
        answered."""
        here = self.session
        now = self.lens, here.runs, here.count, self.cursor, tuple(asdict(self.params).items())
        asked, _ = self.under_way.get(PANEL, (None, None))
        return asked.about if asked is not None and but_for_steps(asked.about) == but_for_steps(now) else now

    @property
    def question(self) -> Question:
        here, lens, cursor, params = self.session, self.lens, self.cursor, asdict(self.params)
        models, trace = here.settings.models, here.trace

        def make():
            from decoding.models.family_cache import family
            from decoding.runs.lens_run import LensRun

            return LensRun(family(*models), lens, trace, *cursor, params)

        title = self.chosen.title
        waiting = "Looking … {count}" if self.cost.rows > FREE else "Looking …"
        return Question(PANEL, self.about, here.settings.device, make, title, waiting, read=attrgetter("look"), holds=(trace,))

    def refusal(self) -> str:
        """Why the chosen lens cannot look at this run, as far as it can be told without a model; "" if it can."""
        settings = self.session.settings
        if settings is None:
            return "There is no run to look at yet. Make one on the page Step."
        return settings.problem() or self.chosen.missing(family_named(settings.target, settings.draft))

    # -- what is seen -------------------------------------------------------------------------------------------------

    def look_at(self) -> None:
        """Have the worker look."""
        self.problem = "" if not (refused := self.refusal()) else refused
        if not self.problem:
            self.ask(self.question)

    def look_here(self) -> None:
        """Somebody has asked: the place stays where it is, also where a run to its end was moving it."""
        with self.session.lock:
            self.session.goal = self.session.goal_node = None
        self.look_at()

    def follows(self) -> bool:
        """Whether the chosen lens looks by itself when the reader has moved: it was asked before, takes little, and its models are
        there."""
        from decoding.models.family_cache import loaded

        settings = self.session.settings
        known = settings is not None and loaded(settings.target, settings.draft) is not None
        return known and self.lens in self.seen and self.cost.rows <= FREE and not self.problem

    def found(self) -> tuple[Look | None, bool]:
        """What there is to see through the chosen lens, and whether it was seen here and is an answer to what the page asks now."""
        question = self.question
        live = self.begun(question)
        now = getattr(live.run, "look", None) if live is not None else self.answer(PANEL, question.about)
        if now is not None:
            self.seen[self.lens] = question.about, now
            return now, True
        if (shipped := self.recorded()) is not None:
            return shipped, False
        for panel, about, look in self.answers:  # of the same place, when the run had fewer steps
            if panel == PANEL and but_for_steps(about) == but_for_steps(question.about):
                self.seen[self.lens] = about, look
                break
        about, before = self.seen.get(self.lens, (None, None))
        return before if about is not None and about[1] == question.about[1] else None, False

    def recorded(self) -> Look | None:
        """What was recorded of the recorded run, if that is what the page asks."""
        here, look = self.session, demo.look(self.lens)
        if look is None or not here.recorded or here.trace is not demo.recorded() or look.family != here.trace.header.family:
            return None
        return look if (look.step, look.node, look.params) == (*self.cursor, asdict(self.params)) else None

    # -- following the worker -----------------------------------------------------------------------------------------

    def tick(self) -> float | None:
        return super().tick() or self.session.tick()

    def sync(self) -> None:
        self.session.sync()
        if self.session.runs != self.of:  # what was asked about the run before is of no use
            self.close()
            self.of, self.problem = self.session.runs, ""
        super().sync()

    def look(self) -> tuple:
        return (self.session.look(), *super().look())


def but_for_steps(about: tuple) -> tuple:
    """What is asked, whatever the run has come to."""
    lens, run, _, *rest = about
    return lens, run, *rest


def prefix(lens: str) -> str:
    """What the keys of a lens's controls begin with."""
    return f"lens.{lens}"


def say_params(here: Desk, lens: str, params: Mapping[str, Any]) -> None:
    """Let the controls of a lens say checked parameters."""
    values = {param_key(prefix(lens), name): value for name, value in params.items()}
    here.values |= values
    st.session_state.update(values)


def desk() -> Desk:
    """This tab's. It asks about the run that the tab shows, also behind a reload that gave the tab another one back."""
    here = of_tab("draftscope_lenses", lambda: Desk(session=session()))
    if here.session is not session():
        here.close()
        here.seen.clear()
        here.session, here.of = session(), 0
    return here
