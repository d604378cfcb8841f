"""Tabs whose browser is gone: a short break of the network costs nothing, after a minute their runs end. With a clock of a test."""

import sys
import tomllib
from math import inf
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import pytest
from streamlit.runtime import Runtime

from decoding import limits as rules
from decoding.limits import PUBLIC, limits, megabytes
from decoding.runs.visitors import new_key
from decoding.trace import Node, Step, Times
from pages.parts.learn.place import Reader
from pages.parts.shared import runs
from pages.parts.shared.tabs import GRACE, KEPT, LOOK, Tabs
from pages.parts.shared.weight import of_node
from tests.conftest import PATIENCE, eventually
from tests.samples import sample_trace

ROOT = Path(__file__).parent.parent.parent


class Waiting:
    """A job that takes steps for ever, from when it may."""

    ended = False

    def __init__(self, go_on: Event) -> None:
        self.steps, self.go_on = [], go_on

    def __next__(self) -> int:
        assert self.go_on.wait(PATIENCE)
        self.steps.append(0)
        return 0


class Site:
    """Tabs of visitors, which have a browser or not."""

    def __init__(self, monkeypatch) -> None:
        self.now, self.there, self.here = 0.0, set(), ("", "")
        self.forgotten, self.cleaned = [], []
        clean = lambda: self.cleaned.append(self.now)  # noqa: E731
        self.tabs = Tabs(lambda tab: tab in self.there, self.forgotten.append, clean, 1e9, lambda: self.now)
        self.go_on = Event()
        monkeypatch.setattr(runs, "tabs", self.tabs)
        monkeypatch.setattr(runs, "cleanup", lambda: self.tabs.tab(*self.here))

    def run(self, tab: str, visitor: str = "", group: object = None):
        """A job that is at work until `go_on`."""
        self.there.add(tab)
        self.here = tab, visitor
        live = runs.handed("auto", lambda: Waiting(self.go_on), group)
        live.ask(inf)
        return live

    def after(self, seconds: float) -> None:
        """The time when the thread looks again."""
        self.now += seconds
        self.tabs.look()


@pytest.fixture
def site(monkeypatch):
    site = Site(monkeypatch)
    yield site
    site.go_on.set()
    for tab in list(site.tabs._tabs.values()):
        tab.release()


@pytest.fixture
def public(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setenv("DRAFTSCOPE_LOG", str(tmp_path / "log"))


def test_a_short_break_costs_nothing(site):
    live = site.run("a")
    site.after(1)
    site.there.remove("a")
    for _ in range(29):
        site.after(2)
    assert live.busy
    site.there.add("a")
    site.after(2)
    site.there.remove("a")
    site.after(2)
    site.after(GRACE - 1)  # a second break, counted anew
    assert live.busy


def test_after_a_minute_they_end(site):
    gone, there = site.run("a"), site.run("b")
    site.there.remove("a")
    site.after(1)
    site.after(GRACE - 0.1)
    assert gone.busy
    site.after(0.1)
    site.go_on.set()
    gone.wait(PATIENCE)
    there.pause()
    there.wait(PATIENCE)
    assert gone.state == "closed" and there.state == "paused" and not site.forgotten


def test_after_two_minutes_their_session_goes_and_its_memory_comes_back(site):
    site.run("a"), site.run("b"), site.run("c")
    site.there -= {"a", "b"}
    site.after(0)
    site.after(KEPT - 0.1)
    assert not site.forgotten
    site.there.add("b")  # which came back in time
    site.after(0.1)
    assert site.forgotten == ["a"] and list(site.tabs._tabs) == ["b", "c"] and not site.cleaned
    site.after(2)  # the server has ended the session meanwhile
    assert site.cleaned == [site.now]
    site.there.clear()
    site.after(2), site.after(KEPT)
    assert site.forgotten == ["a", "b", "c"]
    site.after(2)
    assert len(site.cleaned) == 2


def test_memory_is_cleaned_now_and_then_not_at_every_closed_tab(site):
    for i in range(20):
        site.tabs.tab(f"tab {i}", "")
        site.after(2)
    assert site.forgotten == [] and site.cleaned == []
    for _ in range(70):
        site.after(2)
    assert len(site.forgotten) == 20 and 1 <= len(site.cleaned) <= 3


def test_streamlit_can_end_a_session():
    """By a method that is not part of what it promises."""
    assert callable(Runtime._close_inactive_session_on_event_loop)


def test_a_tab_that_was_reloaded_goes_on(site, public):
    live = site.run("old", "alice")
    old = site.tabs.tab("old", "alice")
    old.kept["draftscope"] = "what it shows"
    new = site.tabs.tab("new", "alice")
    site.there.add("new")
    assert site.tabs.take_over(old.key, new) == {}  # a second tab beside the first, whose browser is there
    assert site.tabs.is_open(old.key, new) and not site.tabs.is_open(old.key, old)  # or whose connection hangs
    site.there.remove("old")
    assert site.tabs.take_over(old.key, new) == {"draftscope": "what it shows"} == new.kept
    site.after(0), site.after(KEPT)
    assert live.wanted and list(new.lives) == [live] and site.forgotten == ["old"]
    assert site.tabs.take_over(old.key, new) == {}


def test_a_page_that_is_reloaded_twice_at_once_goes_on(site, public):
    """The second reload knew only what the tab was called before the first one, whose answer it did not wait for."""
    live = site.run("old", "alice")
    old, first, second = (site.tabs.tab(name, "alice") for name in ("old", "first", "second"))
    old.kept["draftscope"] = "what it shows"
    site.there.clear()
    assert site.tabs.take_over(old.key, first)
    site.there.add("first")
    assert site.tabs.is_open(old.key, second) and site.tabs.take_over(old.key, second) == {}
    site.there.remove("first")
    assert site.tabs.take_over(old.key, second) == {"draftscope": "what it shows"} and list(second.lives) == [live]
    assert site.tabs.take_over(old.key, second) == {} and not first.kept
    assert site.tabs.take_over(second.key, old)  # back, and so on: nobody goes round in circles
    assert site.tabs.take_over(old.key, first) and site.tabs.take_over(first.key, second)
    assert list(second.lives) == [live] and site.tabs.take_over(old.key, second) == {}


def test_what_was_begun_meanwhile_stays(site, public):
    """In a tab that was made of another one, and asks for a while: the other was closed, and its run took the place of its own."""
    closed, compared = site.run("old", "alice"), site.run("old", "alice")
    begun = site.run("new", "alice")
    old, new = site.tabs.tab("old", "alice"), site.tabs.tab("new", "alice")
    step, shown = SimpleNamespace(lives=(begun,)), SimpleNamespace(replayed=(sample_trace(),))
    new.kept |= {"step": step, "saved": shown, "race": SimpleNamespace(lives=())}
    race = SimpleNamespace(lives=(compared,))
    old.kept |= {"step": SimpleNamespace(lives=(closed,)), "saved": SimpleNamespace(replayed=()), "race": race}
    site.there.remove("old")
    assert site.tabs.take_over(old.key, new) == {"race": race}
    assert new.kept == {"step": step, "saved": shown, "race": race} and set(new.lives) == {begun, compared}
    site.after(0), site.after(GRACE)
    assert begun.wanted and compared.wanted and not closed.wanted


def test_answers_of_a_lesson_outlive_a_reload_and_give_way_to_newer_ones(site, public):
    """Runs were found again, and what a reader had answered was not."""
    old, new = site.tabs.tab("old", "alice"), site.tabs.tab("new", "alice")
    before, fresh, answered = Reader(answers={(0, 3): 1}), Reader(), Reader(skipped={(0, 3)})
    old.kept["learn"], new.kept["learn"] = before, fresh
    assert site.tabs.take_over(old.key, new) == {"learn": before} == new.kept
    later = site.tabs.tab("later", "alice")
    later.kept["learn"] = answered
    assert site.tabs.take_over(new.key, later) == {} and later.kept == {"learn": answered}


def test_jobs_can_be_looked_at_while_others_are_added(site):
    """A press of one visitor counts the jobs of all, and broke where another's run was begun in that moment."""
    tab, jobs = site.tabs.tab("a", "alice"), [Job() for _ in range(3000)]
    adding = Thread(target=lambda: [tab.lives.add(job) for job in jobs])
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        adding.start()
        while adding.is_alive():
            assert tab.busy == 0
    finally:
        sys.setswitchinterval(before)
    assert set(tab.lives) == set(jobs)


class Job:
    """One that has nothing to do."""

    busy, group = False, None


def test_nobody_gets_another_visitors_tab(site, public):
    live = site.run("alices", "alice")
    alices = site.tabs.tab("alices", "alice")
    alices.kept["draftscope"] = "what it shows"
    site.there.clear()
    bobs = site.tabs.tab("bobs", "bob")
    for key in (alices.key, "alices", "", new_key()):
        assert site.tabs.take_over(key, bobs) == {}
    assert live.wanted and list(alices.lives) == [live]


NODE = Node(0, -1, None, 0.5, None, "not judged", "table", {})


class Large:
    """A run whose every step has so many nodes."""

    ended = False

    def __init__(self, nodes: int) -> None:
        self.steps, self.nodes = [], nodes

    def __next__(self):
        nodes = (NODE,) * self.nodes
        self.steps.append(Step(nodes, (), (), (0,), ("correction",), 0, Times(0, 0, 0, 0), ""))
        return self.steps[-1]


def test_runs_that_hold_too_much_end_and_say_so(site, public):
    site.there |= {"a", "b"}
    site.here = "a", "alice"
    many = (PUBLIC.held // 4 - 50_000) // of_node(NODE)  # four such steps are nearly as much as may be
    large, small = (runs.handed("auto", lambda n=n: Large(n)) for n in (many, 100_000 // of_node(NODE)))
    site.here = "b", "bob"
    other = runs.handed("auto", lambda: Large(1))
    large.ask(4), small.ask(3), other.ask(3)
    for live in (large, small, other):
        live.wait(PATIENCE)
    site.after(2)
    assert large.state == "paused"  # as much as may be, and not more
    block = Event()
    small.run.__class__ = type("Blocked", (Large,), {"__next__": lambda job: (block.wait(PATIENCE), Large.__next__(job))[1]})
    small.ask(9)
    eventually(lambda: small.state == "working", "it does not go on")
    site.after(2)
    block.set()
    small.wait(PATIENCE)
    said = f"hold 160 MB, and this demo remembers {megabytes(PUBLIC.held)} for one visitor"
    assert small.state == "failed" and said in small.problem and small.count == 4
    assert large.state == "paused" and other.state == "paused"
    site.here = "a", "alice"
    with pytest.raises(ValueError, match="Press Reset on Step and Compare"):
        runs.handed("auto", lambda: Large(1))
    del large
    site.here = "b", "bob"
    runs.handed("auto", lambda: Large(1))


def test_a_tab_that_comes_back_later_can_have_new_runs(site):
    before = site.run("a")
    site.there.clear()
    site.after(0), site.after(GRACE)
    again = site.run("a")
    site.after(2)
    assert again.busy and again.wanted and not before.wanted


def test_streamlit_keeps_the_session_for_as_long():
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert config["server"]["disconnectedSessionTTL"] > KEPT + 2 * LOOK


def test_what_is_left_in_a_gone_tab_makes_room(site, public):
    """A reload is a new tab: its visitor waits for nothing that nobody looks at."""
    left = [site.run("old", "alice", group) for group in ("run", "comparison")]
    other = site.run("bobs", "bob")
    site.there.remove("old")
    new = site.run("new", "alice")
    assert not new.held and other.busy
    assert {live.state for live in left} <= {"closed", "working"} and all(live.wanted == 0 for live in left)


def test_what_would_not_be_in_the_way_goes_on(site, public):
    left = site.run("old", "alice")
    site.there.remove("old")
    new = site.run("new", "alice")
    assert left.busy and left.wanted and not new.held


def test_a_visitors_tabs_share_what_they_may_have_at_once(site, public):
    """Whatever they open in how many tabs; the third says what it waits for."""
    first, second = site.run("a", "alice"), site.run("b", "alice")
    third = site.run("c", "alice")
    columns = [site.run("d", "bob", "comparison") for _ in range(6)]
    assert not first.held and not second.held and third.held
    assert not any(live.held for live in columns)
    assert {live.owner.key for live in (first, second, third)} == {"alice"}


def test_the_line_says_what_a_held_run_waits_for(site, public):
    class Page(runs.RunController):
        lives = ()

    site.run("a", "alice"), site.run("a", "alice")
    page = Page()
    page.lives = (site.run("a", "alice"),)
    page.asked_at = -1e9
    assert page.held and page.in_line() == (
        "In line: you have 2 runs at work, as many as take turns for one visitor. This one goes on as soon as one of them has "
        "ended or was stopped."
    )


def test_on_a_machine_of_ones_own_nothing_is_held(site):
    lives = [site.run(tab) for tab in "abcdabcd"]
    assert not any(live.held for live in lives)
    assert len({live.owner.key for live in lives}) == 4  # every tab has its share


def test_the_limit_stands_with_the_others(public, monkeypatch):
    assert f"{PUBLIC.at_once} runs at a time" in limits().words
    assert PUBLIC.jobs_each >= 6 + PUBLIC.at_once  # six columns, and one run more than may take turns is in line, not refused
    monkeypatch.setattr(rules, "PUBLIC", rules.Limits(**{**vars(PUBLIC), "at_once": 1}))
    assert "1 runs at a time" in limits().words
