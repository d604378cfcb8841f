"""The Drafter page without a browser: prompts, start and stop, results with filters, the way to a step on the Step page."""

from math import inf
from threading import Event

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from decoding.limits import Refused
from decoding.models.family import EMBEDDED, load
from decoding.runs import recorded_study
from decoding.runs.prompts import Prompt
from decoding.runs.store import Store
from decoding.runs.study import Plan, Study, results
from decoding.runs.worker import Worker
from decoding.trace import Message
from pages.parts.drafter import study_view
from pages.parts.drafter.controller import Series, finished
from pages.parts.drafter.findings import called
from pages.parts.drafter.rejections import name, place
from pages.parts.drafter.sidebar import job, seeds, settings_of
from pages.parts.drafter.study_view import sentence
from pages.parts.shared import recorded_run
from pages.parts.shared.settings import Settings
from tests.conftest import PATIENCE, eventually
from tests.decoding.test_published_heads import MEDUSA, medusa_tensors, written
from viz.drafter.judgements import per_prompt
from viz.drafter.pairs import paired_taus
from viz.runs.tally import tally

PROMPTS = ("Once upon a time", "Tom had a red hat. Tom had a red", "Question: Tom has")
TEXT = "\n\n".join(PROMPTS)
FAST = {"study.temperature": 0.0, "study.max_tokens": 8}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    return Store(tmp_path)


@pytest.fixture(scope="module")
def family():
    return load()


def page(**state) -> AppTest:
    at = AppTest.from_file("../../app.py", default_timeout=PATIENCE).switch_page("pages/3_Drafter.py")
    for key, value in state.items():
        at.session_state[key] = value
    at.run()
    assert not at.exception, at.exception
    return at


def typed(method="prompt_lookup", text=TEXT, **state) -> AppTest:
    wanted = {"study.source": "typed", "study.typed": text, "study.A.method": method} | FAST | state
    return page(**wanted)


def press(at: AppTest, key: str) -> AppTest:
    at.button(key=key).click().run()
    assert not at.exception, at.exception
    return at


def run(at: AppTest) -> AppTest:
    """Press Run and look again until nothing moves."""
    press(at, "study_run")
    if (live := at.session_state["desk"].live) is not None:  # it is let go of when it fails
        live.wait(PATIENCE)
    at.run()
    assert not at.exception, at.exception
    return at


def words(at: AppTest) -> str:
    elements = [*at.markdown, *at.caption, *at.info, *at.success, *at.error, *at.warning, *at.get("html")]
    return "\n".join(str(getattr(e, "value", None) or getattr(e.proto, "body", "")) for e in elements)


def test_the_first_visit_finds_a_recorded_study_and_can_start_one(store):
    at = page()
    assert f"A recorded study, to show what this page finds: {len(recorded_study.PROMPTS)} questions" in words(at).replace("*", "")
    assert at.metric[0].value == str(len(recorded_study.PROMPTS)) and not at.button(key="study_run").disabled
    assert "Verdict" in words(at) and not at.error


def test_every_tab_of_the_recorded_study_opens_and_a_rejection_leads_to_its_step(store):
    at = page()
    for tab in ("Its list", "Calibration", "p against q", "Rejections"):
        at.session_state["find.tabs.5"] = tab
        at.run()
        assert not at.exception and not at.error, tab
    at.button(key="find.open").click().run()
    shown = at.session_state["draftscope"]
    assert shown.trace in [run[3] for run in recorded_study.read().runs] and shown.step.nodes[shown.selected].verdict == "rejected"


def test_the_recorded_study_is_what_the_program_says():
    runs = recorded_study.read().runs
    for number, _, domain, trace in runs:
        header = trace.header
        assert (header.family.partition(" ")[0], header.method, header.seed) == ("smollm2", recorded_study.METHOD, number)
        assert (
            header.messages == (Message("user", recorded_study.PROMPTS[number].text),) and header.max_tokens == recorded_study.MOST
        )
        assert domain in recorded_study.QUESTIONS and trace.steps[-1].ending and recorded_study.read().open(number) == trace
    assert sum(file.stat().st_size for file in recorded_study.FOLDER.iterdir()) < 600_000


def test_your_own_study_takes_the_place_of_the_recorded_one(store):
    at = run(typed())
    assert "A recorded study" not in words(at) and at.metric[0].value == "3"


def test_a_visit_without_the_recorded_study_says_what_this_is_for(store, monkeypatch):
    monkeypatch.setattr(recorded_run, "study", lambda: None)
    at = page()
    assert "Why are a drafter" in words(at) and not at.button(key="study_run").disabled


def test_without_prompts_nothing_can_be_started(store):
    at = typed(text="")
    assert "There is no prompt yet" in words(at) and at.button(key="study_run").disabled


def test_a_prompt_that_is_too_long_is_a_sentence(store):
    assert "at most 20,000 are read" in words(typed(text="word " * 5000)).replace("\\", "")


def test_a_study_runs_and_shows_what_it_found(store):
    at = run(typed())
    plan = at.session_state["desk"].jobs[0].plan
    assert [r[0] for r in results(store, plan)] == [0, 1, 2]
    assert [m.label for m in at.metric][:3] == ["prompts", "tau", "alpha"] and at.metric[0].value == "3"
    assert len(at.get("plotly_chart")) >= 5 and all(chart.proto.alt for chart in at.get("plotly_chart"))
    assert "Too little to judge by" in words(at)  # three short runs: the verdict comes first, and knows when to be silent
    assert "all runs are there" in words(at) and at.button(key="study_run").disabled


def test_what_was_kept_is_shown_again_in_another_session(store):
    run(typed())
    assert typed().metric[0].value == "3"


@pytest.mark.parametrize("stopped", [True, False])
def test_a_study_does_not_go_on_into_a_store_that_was_left(store, tmp_path, monkeypatch, stopped):
    """A visitor who had taken another browser's key pressed Run, and it ran on into the store of before."""
    go_on, take = Event(), Series.turn

    def held(series: Series):
        assert not series.done[0] or go_on.wait(PATIENCE)
        return take(series)

    monkeypatch.setattr(Series, "turn", held)
    at = press(typed(method="speculative_sampling", **{"study.max_tokens": 48}), "study_run")
    desk = at.session_state["desk"]
    live = desk.live
    eventually(lambda: live.run and live.run.done[0], "the first prompt does not end")
    if stopped:
        desk.stop()
        go_on.set()
        live.wait(PATIENCE)
    at.session_state["store_folder"] = str(tmp_path / "other")
    at.run()
    assert ["was stopped" in one.value for one in at.error] == [True] * (not stopped)
    go_on.set()
    run(at)
    assert live.over and store.count() < 3 and Store(tmp_path / "other").count() == 3


def test_a_stopped_study_goes_on_where_it_stopped(store, monkeypatch):
    stopped, take = Event(), Series.__next__

    def held(series: Series):
        """The worker is faster than a busy page: it waits with the second prompt until the study has been stopped."""
        assert not series.done[0] or stopped.wait(PATIENCE)
        return take(series)

    monkeypatch.setattr(Series, "__next__", held)
    at = press(typed(method="speculative_sampling", **{"study.max_tokens": 48}), "study_run")
    live = at.session_state["desk"].live
    eventually(lambda: live.run and live.run.done[0], "the first prompt does not end")
    at.session_state["desk"].stop()
    stopped.set()
    live.wait(PATIENCE)
    at.run()
    kept = finished(store, at.session_state["desk"].jobs[0])
    assert 1 <= kept < 3 and at.button(key="study_run").label == "Go on"
    first = store.entries()[-1].id
    run(at)
    assert store.count() == 3 and store.entries()[-1].id == first


def test_while_a_study_runs_controls_that_cannot_be_leave_its_stop_button(store, monkeypatch):
    """A red sentence stood alone on the page, and the study went on behind it."""
    go_on, take = Event(), Series.turn

    def held(series: Series):
        assert go_on.wait(PATIENCE)
        return take(series)

    monkeypatch.setattr(Series, "turn", held)
    at = press(typed(), "study_run")
    desk = at.session_state["desk"]
    at.text_area(key="study.stop_tokens").set_value("\n".join(f"a{i}" for i in range(40))).run()
    assert not at.exception and at.error and desk.busy
    assert at.button(key="study_stop") and "0 of 3 prompts" in progress_of(at)
    at.session_state["store_folder"] = "/dev/null/x"
    at.run()
    assert not at.exception and "cannot be kept" in at.error[0].value
    press(at, "study_stop")
    go_on.set()
    live = desk.live
    live.wait(PATIENCE)
    assert live.state == "paused"


def progress_of(at: AppTest) -> str:
    return " ".join(one.proto.text for one in at.get("progress"))


def test_controls_that_cannot_be_leave_what_was_found(store):
    at = run(typed())
    at.text_area(key="study.stop_tokens").set_value("\n".join(f"a{i}" for i in range(40))).run()
    assert not at.exception and at.error and at.metric[0].value == "3" and at.button(key="study_run").disabled


def test_a_damaged_run_is_named_and_the_others_are_shown(store):
    run(typed())
    damaged = store.entries()[-1]
    with store._open() as db:
        db.execute("UPDATE steps SET data = x'00' WHERE trace = ? AND number = 0", (damaged.id,))
    st.cache_resource.clear()
    at = typed()
    assert at.metric[0].value == "2" and f"what was kept of {damaged.name} cannot be read" in words(at)
    store.delete(damaged.id)
    at = run(typed())
    assert at.metric[0].value == "3" and "cannot be read" not in words(at)


def test_where_a_study_cannot_be_read_no_other_stands_in_its_place(store, monkeypatch):
    """Below the reason stood the recorded study, and that one's own would take its place."""
    run(typed())
    monkeypatch.setattr(study_view, "found_in", lambda *given: (_ for _ in ()).throw(ValueError("It cannot be read now.")))
    at = typed()
    assert "cannot be read now" in at.error[0].value.replace("\\", "") and "A recorded study" not in words(at)


def test_a_run_that_is_deleted_while_it_is_read_breaks_no_page(store, monkeypatch):
    run(typed())
    gone, read = store.entries()[0].id, Store.open

    def deleted(own, trace):
        own.delete(gone)
        return read(own, trace)

    st.cache_resource.clear()
    monkeypatch.setattr(Store, "open", deleted)
    assert typed().metric[0].value == "2"


@pytest.mark.parametrize("refused", [False, True], ids=["the good one", "a refused one behind it"])
def test_the_prompts_of_a_file_go_with_it_and_stay_when_the_page_is_left(store, refused):
    """A file that was taken away was studied all the same."""
    at = page(**{"study.source": "a file"})
    at.file_uploader(key="study_file").set_value(("a.txt", b"One\n\nTwo", "text/plain")).run()
    at.switch_page("pages/4_Methods.py").run()
    at.switch_page("pages/3_Drafter.py").run()
    assert not at.exception and "2 prompts of a.txt" in words(at).replace("\\", "")
    at.file_uploader(key="study_file").set_value(
        ("b.json", b"{", "text/json") if refused else ("b.txt", b"Three", "text/plain")
    ).run()
    at.file_uploader(key="study_file").set_value(None).run()
    assert not at.exception and not at.error
    assert at.session_state["desk"].file == () and "There is no prompt yet" in words(at)


def test_a_skipped_prompt_is_listed_with_its_reason(store):
    at = run(typed(text="Once upon a time\n\n" + "word " * 3000))
    assert "1 skipped prompt" in [e.label for e in at.expander]
    assert "1 run is there" in words(at) and "1 run came to nothing" in words(at) and "It can be tried again" in words(at)
    assert at.button(key="study_run").label == "Try again"
    at = run(at)
    assert store.count() == 1 and "1 skipped prompt" in [e.label for e in at.expander]
    assert "context holds" in at.session_state["desk"].problems[at.session_state["desk"].jobs[0].key][1]


def test_a_model_that_cannot_be_opened_is_a_sentence(store):
    at = run(typed(**{"study.target": "/nowhere/at all"}))
    assert "There is no folder" in at.error[0].value and not at.session_state["desk"].busy


def test_filters_apply_to_all_and_may_leave_nothing(store):
    at = run(typed())
    at.multiselect(key="find.domains").set_value(["typed"])
    at.multiselect(key="find.classes").set_value([at.multiselect(key="find.classes").options[0]]).run()
    assert not at.exception
    said = next(c.value for c in at.caption if "pass the filters" in c.value)
    assert not said.startswith("0 of")


def test_a_rejection_opens_exactly_its_step(store):
    at = run(typed(method="speculative_sampling", **{"study.temperature": 1.0, "study.max_tokens": 16}))
    at.session_state["find.tabs.5"] = "Rejections"
    at.run()
    trace, step, node = map(int, at.selectbox(key="find.rejections.chosen").value.split("."))
    press(at, "find.open")
    session = at.session_state["draftscope"]
    assert session.trace == store.open(trace)
    assert (session.cursor, session.selected) == (step, node)
    assert session.step.nodes[node].verdict == "rejected"


def test_a_run_is_called_by_its_prompt_and_turn():
    """The turns of a chat were counted as if each were a prompt, in every table of what a study found."""
    row = {"prompt": 1, "step": 0, "node": 2, "position": 3, "token": "a", "context": "b", "accepted by": "A"}
    names = ("1", "1, turn 2", "2")
    assert "prompt 1, turn 2, step 1, node 3" in name(row, names) and "prompt 1, turn 2, position 4" in place(row, names)
    assert list(called(pd.Series([0, 1, 2]), names)) == list(names) and list(called(pd.Series([0, 1]), ("1", "2"))) == [1, 2]


@pytest.mark.parametrize("tab", ["Acceptance", "Its list", "Calibration", "p against q", "Rejections", "Two drafters"])
def test_two_drafters_are_compared(store, tab):
    at = run(typed(method="token_recycling", **{"study.two": True, "study.B.method": "prompt_lookup"}))
    assert store.count() == 6
    assert "tau of B" in words(at)
    at.session_state["find.tabs.6"] = tab
    at.run()
    assert not at.exception, at.exception


def test_every_method_is_offered_but_plain(store):
    at = page()
    assert not any("Plain" in option for option in at.selectbox(key="study.A.method").options)


# -- without a page -----------------------------------------------------------------------------------------------------------


def series(store, *methods):
    prompts = tuple(Prompt(text, "typed") for text in PROMPTS)
    jobs = [job(Settings(method=m, temperature=0.0, max_tokens=6), prompts, side) for m, side in zip(methods, "AB", strict=False)]
    return Series(jobs, store)


def test_two_studies_run_one_after_the_other(store):
    both = series(store, "prompt_lookup", "token_recycling")
    done = [tuple(both.done) for _ in both]
    assert both.ended and both.done == [3, 3] and (3, 0) in done
    assert len(both.steps) == len(done) and both.tokens == 36
    assert not any(both.problems.values())


def test_others_come_between_the_prompts_that_are_skipped(store, monkeypatch):
    """Each was read as far as to its first step before it was refused; all of them were one turn of the worker, for whose end every
    other visitor waited."""
    both, tried = series(store, "prompt_lookup", "token_recycling"), []

    def full(*given, **more):
        tried.append(given)
        raise Refused("The store is full.")

    monkeypatch.setattr(Store, "keep", full)
    for turn in range(1, 7):
        assert both.turn() is None
        assert len(tried) == turn == sum(map(len, both.problems.values())) == sum(both.done)
    assert both.ended and not both.steps
    with pytest.raises(StopIteration):
        next(both)


def test_a_study_whose_prompts_are_all_skipped_ends_on_the_worker(store, monkeypatch):
    monkeypatch.setattr(Store, "keep", lambda *given, **more: (_ for _ in ()).throw(Refused("The store is full.")))
    live = Worker().live(lambda: series(store, "prompt_lookup"))
    live.ask(inf)
    live.wait(PATIENCE)
    assert live.state == "ended" and [len(found) for found in live.run.problems.values()] == [3]


def test_the_same_controls_are_the_same_plan(store):
    one, two = series(store, "prompt_lookup").jobs[0], series(store, "prompt_lookup").jobs[0]
    assert one.key == two.key != series(store, "token_recycling").jobs[0].key


def test_taus_are_paired_by_the_prompts_that_both_have_finished(family, tmp_path):
    sides = []
    for number, method in enumerate(("prompt_lookup", "token_recycling")):
        store = Store(tmp_path / method)
        plan = Plan("embedded", method, tuple(Prompt(t, "typed") for t in PROMPTS[number:]), max_tokens=6)
        list(Study(family, plan, store))
        sides.append(results(store, plan))
    shared = [[tally(trace.steps).tau for number, *_, trace in runs if number < 2] for runs in sides]
    assert list(paired_taus(*map(per_prompt, sides))) == shared


def test_a_target_of_ones_own_breaks_no_menu(store):
    at = page()
    at.text_input(key="study.target").set_value(str(EMBEDDED / "target")).run()
    assert not at.exception and at.selectbox(key="study.A.method").value == "speculative_sampling"
    assert any("needs a draft model" in warning.value for warning in at.warning)
    at.text_input(key="study.target").set_value("embedded").run()
    assert not at.exception and not any("needs a draft model" in warning.value for warning in at.warning)


def test_a_published_head_drafts_here_too(store, tmp_path, embedded):
    config = embedded.target.model.config
    head = written(tmp_path / "head", MEDUSA, medusa_tensors(3, config.hidden_size, config.vocab_size))
    at = typed(method="medusa", text=PROMPTS[0])
    assert not any(box.key == "study.A.draft" for box in at.text_input)
    at.text_input(key="study.A.head").set_value(str(head)).run()
    [one] = run(at).session_state["desk"].jobs
    assert one.settings.draft == str(head) and not at.error
    assert [trace.header.family for *_, trace in results(store, one.plan)] == [f"embedded + {head}"]


def test_what_another_method_was_given_is_not_passed_on(store, tmp_path):
    """A draft model that was named for one method is of no use to one without a field for it, and would rename its family."""
    at = typed(method="speculative_sampling", **{"study.A.draft": str(EMBEDDED / "draft")})
    at.selectbox(key="study.A.method").set_value("prompt_lookup").run()
    assert settings_of(at.session_state["desk"], "A").draft is None and not at.exception


def test_of_chats_with_further_turns_the_page_says_what_a_run_is():
    """It counted turns as prompts, and named seeds that no run had."""
    prompts = (Prompt("a", "chat", ("a", "b")), Prompt("c", "chat", ("c", "d")))
    chat, plain = Plan("f", "plain", prompts, chat=True), Plan("f", "plain", prompts)
    assert sentence(chat, [0], 4, 0).startswith("2 prompts of 4 turns,") and sentence(plain, [0], 2, 0).startswith("2 prompts,")
    assert "Every turn is a run" in seeds(prompts, chat=True)
    assert seeds(prompts, chat=False) == seeds(prompts[:0], chat=True) == "Prompt n runs with the seed plus n − 1."
