"""The runs of a page: handed to the worker in one place, looked after by one controller, ended with the tab."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import inf
from threading import RLock
from time import monotonic
from typing import ClassVar, Protocol, TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from decoding.limits import Refused, check_held, check_jobs, limits
from decoding.runs.cluster import Maker, Member, asked_for, cluster
from decoding.runs.failures import told
from decoding.runs.line import Owner
from decoding.runs.log import log
from decoding.runs.worker import Job, Live, worker
from decoding.trace import Trace
from pages.parts.shared import visitor
from pages.parts.shared.remembered import Remembered, say_control
from pages.parts.shared.tabs import RunCleanup, Tabs, clean, forget, held_by, is_there
from pages.parts.shared.weight import weight

POLL = 0.3  # seconds between two looks at the worker
SLOWER = ((1, 0.5), (4, 1), (8, 2), (30, 4))  # seconds without anything new -> by how much the looks become rarer
SLOWEST = 8
FEW = 8  # pages that look as often as one does
PATIENCE = 0.3  # seconds a click waits for its step before the page turns to polling: a drawing without news costs more than that
LAG = 0.05  # seconds from a look until the browser waits for the next one
T = TypeVar("T")


class Refusable(Protocol):
    """What may be refused: settings."""

    def problem(self) -> str: ...


@dataclass(eq=False)
class RunController:
    """What the controllers of the pages share: they ask the worker for runs, follow them, and stop them.

    A controller says which runs are its own (`lives`) and what it takes over of them (`sync`); the rest is the same for all.
    All methods return at once and may be called from callbacks.
    """

    problem: str = ""  # why what was asked for cannot be, in a sentence
    asked_at: float = 0.0
    drawn: tuple = ()  # the `look` of the last drawing
    drawn_at: float = 0.0
    draw_seconds: float = 0.0
    draw_computed: float = 0.0  # of them, seconds of a processor
    news_at: float = 0.0  # when a look last brought news
    told: tuple | None = None  # the news of that look
    lock: RLock = field(default_factory=RLock)
    group: Hashable = field(default_factory=object)  # its runs are one of those that a visitor may have at once
    poll: ClassVar[float] = POLL

    @property
    def lives(self) -> tuple[Live, ...]:
        """All runs that were asked for, the one that is waited for first at the front."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        return any(live.busy for live in self.lives)

    @property
    def waited_for(self) -> Live | None:
        """The run whose next step is due."""
        return next((live for live in self.lives if live.busy), None)

    @property
    def held(self) -> bool:
        """Whether it waits for other runs of the same visitor."""
        return (live := self.waited_for) is not None and live.held

    @property
    def waited(self) -> float:
        """Seconds since the worker was asked."""
        return monotonic() - self.asked_at

    def in_line(self) -> str:
        """That others are served first, in a sentence; "" if they are not, or nobody could have noticed yet."""
        live = self.waited_for
        if live is None or live.state != "waiting" or self.waited <= 1:
            return ""
        if live.held:
            return (
                f"In line: you have {live.owner.at_once} runs at work, as many as take turns for one visitor. This one goes on as "
                "soon as one of them has ended or was stopped."
            )
        place = live.place
        others = "step of another run comes" if place == 1 else "steps of other runs come"
        return f"In line: {place:,} {others} first." if place else ""

    def loading(self) -> str:
        """What is being loaded for the run that is waited for, and for how long."""
        live = self.waited_for
        now = live.progress if live is not None else None
        what = str(now) if now is not None else "Loading the models and reading the prompt"
        return f"{what[:1].upper()}{what[1:]} … {self.waited:.0f} s"

    def tick(self) -> float | None:
        """Seconds until the page should look again; None: nothing moves by itself."""
        return self.rarer(self.poll) if self.busy else None

    @property
    def long(self) -> bool:
        """Whether something is under way that takes more than a step or so."""
        return False

    @property
    def crowd(self) -> int:
        """Pages that something is under way for, where this one can wait for its turn among them; else 1."""
        return max(1, tabs.working) if self.long else 1

    def rarer(self, seconds: float) -> float:
        """Between two looks: the longer nothing new came, and the more pages look, the longer. So the fuller a server is, the less
        it is asked."""
        waited = monotonic() - max(self.asked_at, self.news_at)
        return seconds * max(self.crowd / FEW, next((slower for until, slower in SLOWER if waited < until), SLOWEST))

    def look(self) -> tuple:
        """What a drawing of the page depends on, beside the controls: where two are equal, nothing has to be drawn again."""
        return (self.problem, *((live.state, live.count) for live in self.lives))

    def looked(self) -> tuple:
        """`look`, noting when there is news."""
        if (look := self.look()) != self.drawn and (news := self.news()) != self.told:
            self.told, self.news_at = news, monotonic()
        return look

    def news(self) -> tuple:
        """What of `look` is new only where the worker has something new."""
        return self.look()

    def was_drawn(self, look: tuple, seconds: float, computed: float) -> None:
        """Note a drawing, what it depended on, how long it took, and how much of that a processor."""
        self.drawn, self.drawn_at, self.draw_seconds, self.draw_computed = look, monotonic(), seconds, computed

    def due(self) -> bool:
        """Whether the page should be drawn again: there is something new, and a slow machine has had time to breathe. All that wait
        for a run's end compute for half of the time together, however many they are."""
        rest = max(2 * self.draw_seconds, 2 * self.crowd * self.draw_computed)
        return self.look() != self.drawn and monotonic() - self.drawn_at > rest

    def begin(self, device: str, make: Callable[[], Job], count: float = inf) -> Live | None:
        """Hand a job to the worker and have its steps up to number `count` taken; None, with the reason in `problem`, if there is
        no such device."""
        try:
            live = handed(device, make, self.group)
        except ValueError as error:
            self.problem = told(error)
            return None
        self.asked_at = monotonic()
        live.reach(count)
        return live

    def resume(self, live: Live, count: float) -> bool:
        """Have a job that was made before take its steps up to number `count`; False, with the reason in `problem`, if there is too
        much at work."""
        try:
            reach(live, count)
        except Refused as error:
            self.problem = told(error)
            return False
        self.asked_at = monotonic()
        return True

    def stop(self) -> None:
        """The step that is being taken is the last one."""
        for live in self.lives:
            live.pause()

    def close(self) -> None:
        """No run takes another step, ever."""
        for live in self.lives:
            live.close()

    def let_go(self, problem: str) -> None:
        """Forget what takes memory, and say why; where nothing does, nothing is said."""
        with self.lock:
            if any(map(held_by, self.lives)) or getattr(self, "replayed", ()):
                self.close()
                self.problem = problem

    def wait(self) -> None:
        """A short wait for what is due, so that most clicks paint once."""

    def sync(self) -> None:
        """Take over what the worker did since the last look."""
        raise NotImplementedError


# -- the tab -----------------------------------------------------------------------------------------------------------

tabs = Tabs(is_there, forget, clean)


def cleanup() -> RunCleanup:
    """This tab's."""
    context = get_script_run_ctx()
    who = (visitor.key(), visitor.address()) if limits().public else ("", "")
    return tabs.tab(context.session_id if context is not None else "", *who)


def handed(device: str, make: Callable[[], Job], group: Hashable = None) -> Live:
    """A job of the worker that serves the device, or a machine of the cluster, not begun yet. Every job of a page is made here, so
    that a closed tab ends it.

    A visitor of a public server has one share of the device, whatever they do in how many tabs; elsewhere every tab has one.

    Args:
        group: jobs of one group count as one of those that a visitor may have at once.

    Raises:
        ValueError: there is no such device or cluster, or the visitor or all visitors have as many at work as this server allows.
    """
    from decoding.models.family import find_device

    if limits().public and device != "auto":
        raise Refused(f"This demo chooses the device itself; “{device[:20]}” was asked for.")
    tab, rules = cleanup(), limits()
    if rules.public:
        tabs.make_room(tab.visitor)
        check_held(*tabs.held(tab.visitor, tab.address), tabs.part(tab.address))
    check_jobs(*tabs.busy(tab.visitor, tab.address))
    owner = Owner(tab.visitor or tab.tab, rules.at_once, tab.address if rules.shares else None, rules.shares)
    if isinstance(make, Maker) and asked_for():
        live = cluster().live(noted(make), make.models, owner, group)
    else:
        models = make.models if isinstance(make, Maker) else None
        live = worker(str(find_device(device))).live(noted(make), owner, group, models)
    tab.lives.add(live)
    return live


def reach(live: Live, count: float) -> None:
    """Have a job of this tab, made before, take its steps up to number `count`: one that stands still is one more at work then,
    unless others of its group are at work, as columns of a comparison are. All of those go on, or none.

    Raises:
        Refused: the visitor or all visitors have as many at work as this server allows.
    """
    tab = cleanup()
    if not live.busy and live.group not in tab.groups:
        check_jobs(*tabs.busy(tab.visitor, tab.address))
    live.reach(count)


def check_replayed(trace: Trace, instead: Sequence[Trace] = ()) -> None:
    """Before this tab shows a trace that was kept or imported: ValueError if its visitor's pages hold too much with it.

    Args:
        instead: what it takes the place of.
    """
    tab = cleanup()
    if not limits().public or any(one is trace for one in tab.replayed):
        return
    more = weight(trace) - sum(map(weight, instead))
    check_held(*(held + more for held in tabs.held(tab.visitor, tab.address)), tabs.part(tab.address))


def refusal(settings: Refusable) -> str:
    """Why a run with these settings cannot be, for the log too; "" if it can."""
    if problem := settings.problem():
        log("refused", kind="settings", said=problem)
    return problem


def noted(make: Callable[..., Job]) -> Callable[..., Job]:
    """`make`, with a line in the log for the run that it makes."""

    def made(*where: Member) -> Job:
        job = make(*where)
        header = getattr(job, "header", None)
        if header is None:
            log("job", kind=type(job).__name__)
        else:
            sizes = {"prompt_tokens": len(header.prompt_tokens), "max_tokens": header.max_tokens}
            log("run", method=header.method, family=header.family, seed=header.seed, **sizes, prompt=header.prompt)
        return job

    return made


def of_tab(key: str, make: Callable[[], T]) -> T:
    """What this tab keeps under a name; made when it is first asked for."""
    if key not in st.session_state:
        st.session_state[key] = make()
    cleanup().kept[key] = st.session_state[key]
    return st.session_state[key]


def found_again(key: str) -> bool:
    """In a callback, of a tab that was reloaded: go on with what it kept before, and let the controls say that. Whether to ask
    again in a while, because it seems to be open still."""
    if tabs.is_open(key, cleanup()):
        return True
    found = tabs.take_over(key, cleanup())
    st.session_state.update(found)
    for owner in found.values():
        if isinstance(owner, Remembered):
            owner.other_boxes(st.session_state)
            for name, value in owner.values.items():
                if name in st.session_state:
                    say_control(name, value)
    return False
