"""What a step costs a page that waits for it: which parts run how often, counted with the timers of a browser and gated steps."""

import pytest
from streamlit.testing.v1 import AppTest

from pages.parts.shared import runs
from pages.parts.shared.settings import Settings
from tests.conftest import PATIENCE, eventually
from tests.decoding.test_worker import Gated
from tests.pages.browser_timers import PAGE, Browser
from tests.pages.test_step import STEP

COMPARE = STEP.parent / "2_Compare.py"
pytestmark = [pytest.mark.timeout(4 * PATIENCE), pytest.mark.usefixtures("opens_with_embedded")]


@pytest.fixture
def made(monkeypatch) -> list[Gated]:
    """The runs that pages have made; each takes a step only when the test lets it."""
    found, maker = [], Settings.maker

    def gated(settings: Settings):
        make = maker(settings)

        def makes() -> Gated:
            found.append(Gated(make(), settings.method, []))
            return found[-1]

        return makes

    monkeypatch.setattr(Settings, "maker", gated)
    yield found
    for run in found:
        run.let(1000)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The seconds that pages see; those of the waiting, not of the worker."""
    now = [1000.0]
    monkeypatch.setattr(runs, "monotonic", lambda: now[0])
    monkeypatch.setattr("pages.parts.compare.race.monotonic", lambda: now[0])
    return now


@pytest.fixture
def step(made, clock) -> Browser:
    """The Step page, with settings of its own."""
    browser = Browser(AppTest.from_file(str(STEP), default_timeout=PATIENCE)).open()
    browser.open(seed=5)
    browser.runs.clear()
    browser.messages = 0
    return browser


def pressed(browser: Browser, made: list[Gated]) -> Gated:
    """Press Step; the run that is in its first step then."""
    browser.ask("step_view")
    eventually(lambda: made and made[0].started.acquire(timeout=PATIENCE), "no run was made")
    return made[0]


def taken(browser: Browser, run: Gated, count: int) -> None:
    """Let steps be taken, and wait for the worker, not for the page."""
    session = browser.at.session_state["draftscope"]
    live = session.coming or session.live
    run.let(count)
    live.wait(PATIENCE)


def test_a_page_at_rest_has_no_timer(step):
    assert step.timers == {}


def test_a_step_that_is_waited_for_runs_no_whole_page(step, made):
    """A click, looks, and one drawing of what is new."""
    run = pressed(step, made)
    assert step.runs == ["step_view"] and list(step.timers.values()) == [runs.POLL / 2]
    for _ in range(5):
        step.tick()
    assert step.runs == ["step_view", *["timer"] * 5]
    taken(step, run, 1)
    step.tick()
    assert step.runs[6:] == ["timer", "step_view"] and step.timers == {}
    session = step.at.session_state["draftscope"]
    assert session.count == 1 and session.cursor == 0 and session.settings.seed == 5


def test_a_click_that_brings_nothing_at_once_draws_the_timer_alone(step, made):
    """The view would be the same again."""
    run = pressed(step, made)
    taken(step, run, 1)
    step.tick()
    step.runs.clear()
    before = step.messages
    step.ask("step_view")
    assert step.runs == ["step_view", "step_view.timer"]  # the first as far as its callback
    assert step.messages - before < 15
    assert list(step.timers.values()) == [runs.POLL / 2]
    taken(step, run, 1)
    step.tick()
    assert step.runs[-1] == "step_view" and step.timers == {} and step.at.session_state["draftscope"].cursor == 1


def test_a_click_that_brings_a_step_at_once_draws_it(step, made):
    run = pressed(step, made)
    taken(step, run, 1)
    step.tick()
    step.runs.clear()
    run.let(1)
    step.ask("step_view")
    assert step.runs == ["step_view"] and step.timers == {} and step.at.session_state["draftscope"].cursor == 1


def test_a_look_that_finds_nothing_sends_nearly_nothing(step, made):
    pressed(step, made)
    before = step.messages
    for _ in range(10):
        step.tick()
    drawn = before  # what the drawing of the view took
    assert step.messages - before <= 10 * 8 < 3 * drawn


def test_looks_become_rarer_the_longer_nothing_comes(step, made, clock):
    """Twenty seconds are 20 looks and not 67; each change of the pace is a run of the timer alone. After one second the view is
    drawn once more, with its Stop, which is no news."""
    run, looks = pressed(step, made), 0
    began = clock[0]
    while clock[0] < began + 20:
        clock[0] += next(iter(step.timers.values()))
        step.tick()
        looks += 1
    assert looks <= 34 and list(step.timers.values()) == [4 * runs.POLL]
    assert set(step.runs[1:]) == {"timer", "step_view.timer", "step_view"} and step.runs[1:].count("step_view") == 1
    taken(step, run, 1)
    step.tick()
    assert step.runs[-1] == "step_view" and step.timers == {} and PAGE not in step.runs
    step.ask("step_view")  # what is asked anew is looked for at once
    assert list(step.timers.values()) == [runs.POLL / 2]


def test_a_run_to_the_end_draws_what_is_new_and_comes_to_rest(step, made, clock):
    step.click("run", "step_view")
    eventually(lambda: made and made[0].started.acquire(timeout=PATIENCE), "no run was made")
    session, run, drawn = step.at.session_state["draftscope"], made[0], 0
    live = session.coming
    while not live.over:
        run.let(1)
        eventually(lambda count=live.count: live.over or run.started.acquire(timeout=0.1), "no step was taken")
        clock[0] += 1
        step.tick()
        drawn += 1
    step.tick()
    assert step.timers == {} and session.ended and session.at_end
    assert step.runs.count("step_view") <= drawn + 3 and PAGE not in step.runs


def test_stop_takes_the_timer_away(step, made):
    step.click("run", "step_view")
    eventually(lambda: made and made[0].started.acquire(timeout=PATIENCE), "no run was made")
    session = step.at.session_state["draftscope"]
    live = session.coming
    session.stop()
    made[0].let(1)
    live.wait(PATIENCE)
    step.tick()
    assert step.timers == {} and not session.busy


def test_a_button_of_the_view_that_changes_the_controls_runs_the_page(step, made):
    """They stand outside of the view."""
    run = pressed(step, made)
    taken(step, run, 1)
    step.tick()
    step.open(seed=6)
    step.runs.clear()
    step.click("put_back", "step_view")
    assert step.runs[-1] == PAGE and step.at.session_state["seed"] == 5


def test_a_comparison_that_is_waited_for_runs_no_whole_page(made, clock):
    compare = Browser(AppTest.from_file(str(COMPARE), default_timeout=PATIENCE)).open()
    compare.runs.clear()
    compare.click("compare_step", "compare_view")
    race = compare.at.session_state["draftscope_race"]
    eventually(lambda: len(made) == len(race.columns), "the runs were not made")
    assert compare.runs == ["compare_view"] and list(compare.timers.values()) == [runs.POLL / 2]
    for _ in range(5):
        compare.tick()
    assert compare.runs[1:] == ["timer"] * 5
    for run in made:
        run.let(1)
    for column in race.columns:
        column.live.wait(PATIENCE)
    compare.tick()
    assert compare.runs[6:] == ["timer", "compare_view"] and compare.timers == {} and race.calls == 1
    race.reset()
