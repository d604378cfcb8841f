"""Side jobs of the Step page: the worker answers, Stop and a closed tab end them, answers are kept. With the embedded models."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from streamlit.testing.v1 import AppTest

from decoding.methods import s2d
from decoding.runs.worker import Once
from pages.parts.methods import judge
from pages.parts.shared import address, runs
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from pages.parts.shared.side_job import KEPT, Question, SideJobs
from pages.parts.step.step_view import NUMBERS
from tests.conftest import PATIENCE, eventually
from tests.decoding.test_worker import Gated
from tests.pages.test_step import errors, opened, press, said, settled, state
from tests.samples import sample_trace
from tests.stepper_events import asks

pytestmark = [pytest.mark.timeout(4 * PATIENCE), pytest.mark.usefixtures("opens_with_embedded")]


def run_of(method: str, tokens: int = 24) -> AppTest:
    settings = Settings(prompt="Once upon a time", method=method, max_tokens=tokens)
    return press(opened(**address.parameters(settings, 1, None)), "run")


def keys(at: AppTest) -> list[str]:
    return [button.key for button in at.button]


def captions(at: AppTest) -> str:
    return " ".join(caption.value for caption in at.caption).replace("\\", "")


@pytest.fixture
def standard(monkeypatch) -> list[Gated]:
    """The runs without the judge that were made; each takes a step only when the test lets it."""
    made, real = [], judge.standard

    def question(session) -> Question:
        asked = real(session)

        def make() -> Gated:
            made.append(Gated(asked.make(), "standard", []))
            return made[-1]

        return replace(asked, make=make)

    monkeypatch.setattr(judge, "standard", question)
    return made


def begun(made: list[Gated]) -> Gated:
    """The one that is in its first step."""
    eventually(lambda: made, "the run without the judge was not made")
    assert made[0].started.acquire(timeout=PATIENCE)
    return made[0]


def test_stop_ends_the_run_without_the_judge_and_it_can_go_on(standard):
    at = run_of("judge")
    at.button("judge_standard").click().run()
    run = begun(standard)  # and the page is there, although no step was taken
    live = state(at).sides.lives[0]
    at.run()
    assert "with the standard rule …" in said(at) and {"stop", "stop_judge_standard"} <= set(keys(at))
    at.button("stop").click().run()
    run.let(100)
    live.wait(PATIENCE)
    settled(at)
    assert live.state == "paused" and live.count == 1
    assert "Stopped after 1 step" in captions(at) and "with the judge," in captions(at) and "stop" not in keys(at)
    press(at, "judge_standard")
    assert not state(at).sides.lives and "Stopped" not in captions(at) and "judge_standard" not in keys(at)
    assert len(standard) == 1 and run.run.ended


def test_a_closed_tab_ends_the_run_without_the_judge(standard, monkeypatch):
    tab = runs.RunCleanup()
    monkeypatch.setattr(runs, "cleanup", lambda: tab)
    at = run_of("judge")
    at.button("judge_standard").click().run()
    run, live = begun(standard), state(at).sides.lives[0]
    tab.release()
    run.let(100)
    live.wait(PATIENCE)
    assert live.state == "closed" and live.count == 1
    assert "judge_standard" in keys(settled(at))  # as if it had not been asked


def test_a_new_run_ends_what_was_asked_about_the_old_one(standard):
    at = run_of("judge")
    at.button("judge_standard").click().run()
    run, live = begun(standard), state(at).sides.lives[0]
    at.number_input("seed").set_value(5).run()
    asks(at)
    run.let(1)  # the worker takes turns: then comes the first step of the new run
    eventually(lambda: at.run() and state(at).coming is None, "the new run did not come")
    run.let(100)
    live.wait(PATIENCE)
    assert live.state == "closed" and not state(at).sides.lives and state(at).settings.seed == 5


def test_every_sub_model_is_asked_by_the_worker_once_for_each_node(monkeypatch):
    asked, real = [], s2d.opinions

    def opinions(family, text, token):
        asked.append(text)
        return real(family, text, token)

    monkeypatch.setattr(s2d, "opinions", opinions)
    at = run_of("s2d", 12)

    def look(node: int) -> list[str]:
        state(at).go(0)
        state(at).pick(node)
        at.run()
        return [key for key in keys(at) if key.startswith("s2d_ask_")]

    for node in (0, 1):
        press(at, look(node)[0])
        assert "belong to the sub-model" in captions(at)
    assert look(0) == look(1) == [] and "belong to the sub-model" in captions(at) and len(asked) == 2
    assert asked[1][:-1] == asked[0]


def test_what_cannot_be_answered_is_a_sentence(monkeypatch):
    def opinions(*_):
        raise ValueError("The text has 2,000 tokens.")

    monkeypatch.setattr(s2d, "opinions", opinions)
    at = run_of("s2d", 12)
    state(at).go(0)
    state(at).pick(0)
    at.run()
    ask = next(key for key in keys(at) if key.startswith("s2d_ask_"))
    press(at, ask)
    assert "The sub-models: The text has 2,000 tokens." in errors(at) and ask in keys(at) and not at.exception


def test_plain_decoding_is_measured_and_measured_again():
    at = run_of("prompt_lookup")
    at.session_state["views.prompt_lookup"] = NUMBERS
    at.run()
    for _ in range(2):
        press(at, "measure")
        assert "in plain decoding (24 tokens" in captions(at)
    assert at.button("measure").label == "Measure again"


def test_a_model_called_by_a_page_is_found_out(no_model_on_the_thread_of_a_page):
    def page() -> None:
        import torch

        torch.nn.Linear(1, 1)(torch.ones(1))

    assert "The page itself called a Linear" in AppTest.from_function(page, default_timeout=PATIENCE).run().exception[0].value
    assert no_model_on_the_thread_of_a_page == ["Linear"]
    no_model_on_the_thread_of_a_page.clear()
    torch.nn.Linear(1, 1)(torch.ones(1))


# -- without a page ----------------------------------------------------------------------------------------------------


@pytest.fixture
def sides(monkeypatch) -> SideJobs:
    monkeypatch.setattr(runs, "cleanup", runs.RunCleanup)
    return SideJobs()


def question(panel: str, about: int, answer=None, device: str = "cpu") -> Question:
    make = lambda: Once(answer or (lambda: 10 * about))  # noqa: E731
    return Question(panel, about, device, make, "It", "Asking …", steps=1, read=lambda job: job.steps[0])


def answered(sides: SideJobs, asked: Question):
    sides.ask(asked)
    sides.wait()
    for live in sides.lives:
        live.wait(PATIENCE)
    sides.sync()
    return sides.answer(asked.panel, asked.about)


def test_answers_are_kept_but_not_for_ever(sides):
    for about in range(KEPT + 1):
        assert answered(sides, question("panel", about)) == 10 * about
    assert sides.answer("panel", 1) == 10 and sides.answer("panel", 0) is None and sides.answer("other", 1) is None
    assert len(sides.answers) == KEPT and not sides.lives


def test_what_an_answered_question_was_made_with_is_gone(sides):
    """The look of a lens held the whole run that it had looked at, sixteen of them in a tab."""

    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    asked = question("panel", 1)
    sides.ask(replace(asked, make=lambda held=held: Once(lambda: 10)))
    for live in sides.lives:
        live.wait(PATIENCE)
    sides.sync()
    del held
    gc.collect()
    assert sides.answer("panel", 1) == 10 and gone() is None
    sides.close()
    assert sides.answer("panel", 1) is None and not sides.answers


def test_the_runs_that_side_jobs_hold_are_counted(sides):
    """Those that are looked at, and those that are answers."""
    looked, found = sample_trace(), sample_trace()
    sides.ask(replace(question("panel", 1, lambda: found), holds=(looked,)))
    assert sides.replayed == (looked,)
    for live in sides.lives:
        live.wait(PATIENCE)
    sides.sync()
    assert len(sides.replayed) == 1 and sides.replayed[0] is found
    session = Session(sides=sides)
    assert [trace is found for trace in session.replayed] == [True]


def test_asked_again_it_is_answered_anew(sides):
    assert answered(sides, question("panel", 1)) == 10
    assert answered(sides, question("panel", 1, lambda: "new")) == "new" and len(sides.answers) == 1


def test_what_refused_a_question_is_gone_once_it_is_asked_again(sides):
    """On the page of the run, too."""
    session = Session(sides=sides)
    sides.ask(question("panel", 1, device="abacus"))
    session.sync()
    assert "abacus" in sides.problem and sides.problem in session.look()[4] and not session.problem
    assert answered(sides, question("panel", 1)) == 10
    session.sync()
    assert not sides.problem and not session.problem


def test_a_device_that_is_not_there_is_a_sentence(sides):
    assert answered(sides, question("panel", 1, device="abacus")) is None
    assert sides.problem.startswith("There is no device 'abacus'") and not sides.lives


def test_a_question_that_fails_says_whose_it_was(sides):
    assert answered(sides, question("panel", 1, lambda: 1 // 0)) is None
    assert sides.problem.startswith("It: The step failed: ZeroDivisionError") and not sides.lives
    assert answered(sides, question("panel", 2)) == 20 and sides.problem == ""
