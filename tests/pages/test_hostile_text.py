"""A trace, a store, a link and prompts whose every text is markup of all kinds: on no page is any of it drawn as markup."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

from decoding.methods import METHODS
from decoding.runs import fetch_job
from decoding.runs.prompts import Prompt
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.trace_files import to_json
from decoding.sample import Sampling
from decoding.trace import Trace
from pages.parts.compare.race import Column, Race
from pages.parts.compare.sweep import Plan, Sweep
from pages.parts.drafter.controller import StudyController
from pages.parts.drafter.sidebar import jobs
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.controls import FOLDER, HUB
from pages.parts.shared.examples import EXAMPLES
from pages.parts.shared.session import Session
from pages.parts.step.open_trace import settings_for
from pages.parts.traces.trace_list import which
from tests.conftest import PATIENCE, eventually, named
from tests.hostile import PAYLOAD, clean, hostile, leaks
from tests.stepper_events import asks, sent

PAGES = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def made(embedded):
    """method -> a short run of it with hostile text; made when first asked for."""
    known: dict[str, Trace] = {}

    def make(key: str) -> Trace:
        if key not in known:
            run = Run(embedded, key, prompt="Tom had a red hat. Tom had a red", sampling=Sampling(0.8), max_tokens=12)
            known[key] = hostile([run for _ in run][-1].trace)
        return known[key]

    return make


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    return Store(tmp_path)


def opened(page: str, state: dict | None = None, query: dict | None = None) -> AppTest:
    at = AppTest.from_file(PAGES / "app.py", default_timeout=PATIENCE).switch_page(f"pages/{page}")
    for key, value in (state or {}).items():
        at.session_state[key] = value
    for key, value in (query or {}).items():
        at.query_params[key] = value
    return clean(at.run())


def unfolded(at: AppTest) -> AppTest:
    """Every folded box opened."""
    for element in list(at._tree):
        if getattr(element, "type", "") in ("expandable", "popover") and element.key:
            at.session_state[element.key] = True
    return clean(at.run())


def test_the_test_sees_what_is_drawn_raw():
    def page():
        import streamlit as st

        from tests.hostile import PAYLOAD

        st.button("a", help=PAYLOAD)
        st.html(f"<p>{PAYLOAD}</p>")
        st.tabs([PAYLOAD, "b"])
        st.code(PAYLOAD)

    at = AppTest.from_function(page).run()
    assert [leak.split(":")[0] for leak in leaks(at)] == ["Button.help", "Html.body", "Tab.label"]


@pytest.mark.parametrize("key", list(METHODS))
def test_an_opened_run_on_the_step_page(key, made, store):
    settings, notes = settings_for(made(key).header)
    session = Session(trace=made(key), settings=settings, notes=notes, cursor=0)
    at = unfolded(opened("1_Step.py", {"draftscope": session}))
    for node in (-1, None):
        session.pick(node)
        session.go(min(session.cursor + 1, session.count - 1))
        clean(at.run())


def test_kept_runs_on_the_traces_page(made, store):
    for key in ("eagle", "plain"):
        store.keep(made(key), PAYLOAD[:190], PAYLOAD)
    at = unfolded(opened("5_Traces.py"))
    at.session_state[f"traces.picture.{which(store, store.entries()[0])}"] = True
    clean(at.run())
    at.text_input(key="traces.words").set_value("zq").run()
    clean(at.selectbox(key="traces.family").set_value(PAYLOAD).run())
    clean(named(at, "traces.delete").click().run())
    clean(at.button(key="traces.really").click().run())
    clean(named(at, "traces.open").click().run())


def test_kept_runs_compared(made, store):
    ids = [store.keep(made(key), f"{key} {PAYLOAD}"[:190], PAYLOAD) for key in ("eagle", "plain")]
    at = opened("2_Compare.py", {"compare_view": "saved"})
    at.session_state["saved_runs"] = ids
    unfolded(clean(at.run()))
    for tab in ("Numbers", "Text", "Acceptance", "Time"):
        at.session_state["saved_tabs"] = tab
        unfolded(clean(at.run()))


@pytest.mark.parametrize("page", ["1_Step.py", "2_Compare.py"])
def test_links(page, store):
    names = (
        "prompt",
        "example",
        "method",
        "target",
        "draft",
        "v",
        "temperature",
        "step",
        "seed",
        "chat",
        "view",
        "mode",
        "c1",
        "sweep",
    )
    for name in names:
        opened(page, query={name: PAYLOAD[:300], "p.length": PAYLOAD[:50], PAYLOAD[:60]: PAYLOAD[:60]})


@pytest.mark.parametrize("page", ["1_Step.py", "2_Compare.py"])
def test_names_of_models(page, store, monkeypatch):
    def refused(name):  # nothing is downloaded by a test; what the index says may be hostile, too
        raise ValueError(PAYLOAD)
        yield

    monkeypatch.setattr(fetch_job, "fetch", refused)
    for name in (PAYLOAD[:200], "/zq*zq_zq[x](y)", "zqx/zq*b*", "zq_a_/b"):
        state = {"target": FOLDER, "target_name": name, "draft": HUB, "draft_name": name, "device": PAYLOAD}
        at = opened(page, state)
        if page == "1_Step.py" and sent(at)["more"]:
            clean(asks(at))
        for key in ("compare_step", "fetch"):
            if any(button.key == key and not button.disabled for button in at.button):
                clean(at.button(key=key).click().run())


def test_prompts_of_a_file_on_the_drafter_page(store):
    prompts = tuple(Prompt(f"Once upon a time {i} {PAYLOAD}", PAYLOAD) for i in range(2))
    desk = StudyController(file=("1", f"{PAYLOAD}.txt", prompts))
    state = {"desk": desk, "study.source": "a file", "study.two": True, "study.max_tokens": 8, "study.A.method": "prompt_lookup"}
    at = opened("3_Drafter.py", state)
    clean(at.button(key="study_run").click().run())
    eventually(lambda: not desk.busy, "the study does not end")
    at = unfolded(clean(at.run()))
    assert at.metric, (desk.problem, desk.problems)
    for tab in ("Calibration", "p against q", "Rejections", "Two drafters"):
        at.session_state["find.tabs.6"] = tab
        unfolded(clean(at.run()))


@pytest.mark.parametrize("what", ["problem", "notes"])
def test_errors(what, made, store):
    settings, _ = settings_for(made("plain").header)
    session = Session(trace=made("plain"), settings=settings)
    setattr(session, what, PAYLOAD if what == "problem" else (PAYLOAD,))
    opened("1_Step.py", {"draftscope": session})
    desk = StudyController(problem=PAYLOAD)
    opened("3_Drafter.py", {"desk": desk})


def test_the_first_visit_finds_it(made, store, monkeypatch):
    """As if it were the run that ships: on Home, Step and Compare."""
    traces = tuple(
        msgspec.structs.replace(made(key), header=msgspec.structs.replace(made(key).header, family="smollm2")) for key in METHODS
    )
    monkeypatch.setattr(demo, "recorded", lambda: traces[list(METHODS).index("eagle")])
    monkeypatch.setattr(demo, "comparison", lambda: traces[:6])
    clean(AppTest.from_file(PAGES / "app.py", default_timeout=PATIENCE).run())
    for page in ("1_Step.py", "2_Compare.py"):
        unfolded(opened(page))


def test_runs_side_by_side(made, store):
    """Columns, a column that cannot run, notes of a link, and the tabs below."""
    columns = [Column(settings_for(made(key).header)[0], trace=made(key)) for key in ("plain", "eagle", "medusa", "spectr")]
    failed = Column(settings_for(made("rest").header)[0], problem=PAYLOAD)
    race = Race(columns=(*columns, failed), calls=3, notes=(PAYLOAD,))
    at = unfolded(opened("2_Compare.py", {"draftscope_race": race}))
    for tab in ("Numbers", "Text", "Acceptance", "Time"):
        at.session_state["compare_tabs"] = tab
        unfolded(clean(at.run()))


def test_a_swept_parameter(made, store):
    """Points, a point that failed, and what is wrong with the models."""
    base = replace(settings_for(made("speculative_sampling").header)[0], target=PAYLOAD[:200])
    points = [(i, Column(base, trace=made("speculative_sampling"))) for i in (1, 2)] + [(3, Column(base, problem=PAYLOAD))]
    sweep = Sweep(plan=Plan(base, "length", "Length", (1, 2, 3)), points=points, problem=PAYLOAD)
    state = {"draftscope_sweep": sweep, "compare_view": "sweep", "target": FOLDER, "target_name": PAYLOAD[:200]}
    unfolded(opened("2_Compare.py", state))


def test_files_that_are_imported(made, store):
    """Their names, what they hold, and why they are refused."""
    good = to_json(made("eagle"))
    bad = gzip.compress(msgspec.json.encode({"format": PAYLOAD, "trace": {"header": {"schema": 2}}}))
    for name, data in ((f"{PAYLOAD}.json.gz", good), (f"{PAYLOAD}.json", bad), (f"{PAYLOAD}.json", PAYLOAD.encode())):
        at = opened("5_Traces.py")
        clean(at.file_uploader(key="import").set_value((name, data, "application/json")).run())
        for key in ("import.keep", "import.open"):
            if any(button.key == key for button in at.button):
                clean(at.button(key=key).click().run())
    assert any("zq" in entry.name for entry in store.entries())
    unfolded(opened("5_Traces.py"))


def test_files_of_prompts(store):
    """Their names, their prompts and domains, and why they are refused: a row that says a name, an answer, and a role."""
    rows = ({"text": PAYLOAD, "domain": PAYLOAD}, {PAYLOAD: PAYLOAD}, {"messages": [{"role": PAYLOAD, "content": PAYLOAD}]})
    for row in rows:
        at = opened("3_Drafter.py", {"study.source": "a file"})
        file = (f"{PAYLOAD}.jsonl", json.dumps(row).encode(), "text/plain")
        unfolded(clean(at.file_uploader(key="study_file").set_value(file).run()))
    at = opened("3_Drafter.py", {"study.source": "a file"})
    clean(at.file_uploader(key="study_file").set_value((f"{PAYLOAD}.txt", b"\xff", "text/plain")).run())


def test_a_study_with_hostile_reasons(store):
    """Why prompts were skipped, and that a run could not begin."""
    desk = StudyController(problem=PAYLOAD)
    at = opened("3_Drafter.py", {"desk": desk})
    wanted = jobs(desk, tuple(Prompt(e.prompt, "x") for e in EXAMPLES.values()))
    desk.problems = {job.key: {0: PAYLOAD} for job in wanted}
    desk.jobs = wanted
    unfolded(clean(at.run()))


@pytest.mark.parametrize("page", ["1_Step.py", "2_Compare.py"])
def test_the_messages_of_a_chat(page, store):
    """In the boxes of the controls, with options of a template."""
    turns = [["system", PAYLOAD], ["user", PAYLOAD], ["assistant", PAYLOAD], ["user", PAYLOAD]]
    query = {
        "v": "1",
        "target": "smollm2",
        "chat": json.dumps(turns),
        "template": "zq_option=*b*",
        "stop": "zq*",
        "method": "plain",
    }
    unfolded(opened(page, query=query))


def test_what_a_run_says_of_its_models(made, store):
    """Notes of the loading, and those that the controls leave out."""
    settings, notes = settings_for(made("plain").header)
    live = SimpleNamespace(run=SimpleNamespace(notes=(PAYLOAD,), family=None), count=0, state="paused", busy=False, lost=False,
    problem="",
                           place=0, over=False, close=lambda: None, wait=lambda seconds: None, pause=lambda: None)  # fmt: skip
    session = Session(trace=made("plain"), settings=settings, notes=(*notes, PAYLOAD), cursor=0)
    session.live = live
    unfolded(opened("1_Step.py", {"draftscope": session}))


def test_where_a_run_was_kept(made, store):
    """Name and note of the form that keeps a run, and why it was not kept."""
    settings, notes = settings_for(made("plain").header)
    session = Session(trace=made("plain"), settings=settings, notes=notes, cursor=0)
    at = opened("1_Step.py", {"draftscope": session})
    clean(at.text_input(key="keep_name.0").set_value(PAYLOAD[:190]).run())
    clean(at.text_area(key="keep_note.0").set_value(PAYLOAD).run())
    clean(at.button(key="keep").click().run())
    at.session_state["keep_problem"] = PAYLOAD
    clean(at.run())
