"""Tabs whose browser is gone: a short break of the network costs nothing, after a minute their runs end. With a clock of the test's."""

import tomllib
from pathlib import Path
from threading import Event

import pytest

from decoding import limits as rules
from decoding.limits import PUBLIC, limits
from decoding.runs.worker import Once
from pages.parts.shared import runs
from tests.conftest import PATIENCE

ROOT = Path(__file__).parent.parent.parent


class Site:
    """Tabs of visitors, which have a browser or not."""

    def __init__(self, monkeypatch) -> None:
        self.now, self.there, self.here = 0.0, set(), ("", "")
        self.tabs = runs.Tabs(lambda tab: tab in self.there, every=1e9, clock=lambda: self.now)
        self.go_on = Event()
        monkeypatch.setattr(runs, "tabs", self.tabs)
        monkeypatch.setattr(runs, "cleanup", lambda: self.tabs.tab(*self.here))

    def run(self, tab: str, visitor: str = "", group: object = None):
        """A job that is at work until `go_on`."""
        self.there.add(tab)
        self.here = tab, visitor
        live = runs.handed("auto", lambda: Once(lambda: self.go_on.wait(PATIENCE)), group)
        live.ask()
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
    site.after(runs.GRACE - 1)  # a second break, counted anew
    assert live.busy


def test_after_a_minute_they_end(site):
    gone, there = site.run("a"), site.run("b")
    site.there.remove("a")
    site.after(1)
    site.after(runs.GRACE - 0.1)
    assert gone.busy
    site.after(0.1)
    site.go_on.set()
    gone.wait(PATIENCE), there.wait(PATIENCE)
    assert gone.state == "closed" and there.state == "ended"
    assert site.tabs.busy() == 0 and list(site.tabs._tabs) == ["b"]


def test_a_tab_that_comes_back_later_can_have_new_runs(site):
    site.run("a")
    site.there.clear()
    site.after(0), site.after(runs.GRACE)
    again = site.run("a")
    site.after(2)
    assert again.busy and site.tabs.busy() == 1


def test_streamlit_keeps_the_session_for_as_long():
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert config["server"]["disconnectedSessionTTL"] > runs.GRACE + runs.LOOK


def test_what_is_left_in_a_gone_tab_makes_room(site, public):
    """A reload is a new tab: its visitor waits for nothing that nobody looks at."""
    left = [site.run("old", "alice", group) for group in ("run", "comparison")]
    other = site.run("bobs", "bob")
    site.there.remove("old")
    new = site.run("new", "alice")
    assert not new.held and other.busy
    assert {live.state for live in left} <= {"closed", "working"} and all(live._wanted == 0 for live in left)


def test_what_would_not_be_in_the_way_goes_on(site, public):
    left = site.run("old", "alice")
    site.there.remove("old")
    new = site.run("new", "alice")
    assert left.busy and left._wanted and not new.held


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
