"""A public server as its visitors find it: limits, what is theirs, what errors say, links that wait for a click."""

import ast
import gzip
import io
import json
import os
import re
import sqlite3
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from threading import Event, Semaphore
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace as replaced
from streamlit.testing.v1 import AppTest

from decoding import limits as rules
from decoding.limits import PUBLIC, Common, Refused, Whole, check_models, limits
from decoding.methods import METHODS
from decoding.models import places
from decoding.models.chat import checked_messages, checked_options, read_options
from decoding.models.ends import stop_ids
from decoding.models.rasters import check_asked
from decoding.runs import log as runs_log
from decoding.runs import visitors as visitors_of
from decoding.runs.failures import sentence, shows_the_machine, told
from decoding.runs.prompts import Prompt, read_prompts
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.study import Plan as StudyPlan
from decoding.runs.study import Study
from decoding.runs.timed import Timed
from decoding.runs.trace_files import from_json, to_json
from decoding.runs.visitors import file_for, folder_of, forget, is_key, new_key, store_of
from decoding.runs.worker import Live, Once
from decoding.trace import SCHEMA, Pruned, Raster, Row, Trace
from pages.parts.compare.race import AGAIN as again_of_columns
from pages.parts.compare.race import Column, Race
from pages.parts.compare.sweep import Plan, Sweep
from pages.parts.drafter import sidebar
from pages.parts.drafter.controller import Job, StudyController
from pages.parts.shared import in_turn, runs, tabs, visitor
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.address import parse
from pages.parts.shared.files import on_demand
from pages.parts.shared.session import AGAIN, Session
from pages.parts.shared.settings import Settings
from pages.parts.shared.side_job import Question, SideJobs
from pages.parts.shared.tabs import GRACE, Tabs
from pages.parts.step.open_trace import settings_for
from pages.parts.traces import importing
from pages.parts.traces.everything import archive
from tests.conftest import PATIENCE, eventually
from tests.decoding.test_trace_memory import size
from tests.pages.test_recorded_runs import checked
from tests.samples import sample_trace
from tests.stepper_events import asks
from tests.test_imports import ROOT
from tests.viz_samples import trace_of
from viz.stepper.data import stepper_data

APP = Path(__file__).parent.parent.parent / "app.py"
ALICE, BOB = "a" * 43, "b" * 43


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    monkeypatch.setenv("DRAFTSCOPE_LOG", str(tmp_path / "log.jsonl"))
    monkeypatch.setattr(visitors_of, "STARTED", -(10**9))  # the clock of a machine that has just begun is not believed
    return tmp_path


def page(name: str, who: str = "", state: dict | None = None, **query: str) -> AppTest:
    """A page as a visitor finds it; `who` is the key that the browser has."""
    at = AppTest.from_file(str(APP), default_timeout=PATIENCE).switch_page(f"pages/{name}")
    for key, value in (({visitor.KEY: who} if who else {}) | (state or {})).items():
        at.session_state[key] = value
    for key, value in query.items():
        at.query_params[key] = value
    return checked(at.run())


def everything(at: AppTest) -> str:
    """All text that was sent to the browser."""
    protos = (getattr(element, "proto", None) for element in at._tree)
    return "\n".join(str(proto) for proto in protos if proto is not None).replace("\\\\", "")


def text(at: AppTest) -> str:
    elements = [*at.markdown, *at.caption, *at.info, *at.success, *at.error, *at.warning, *at.get("html")]
    return "\n".join(str(getattr(e, "value", None) or getattr(e.proto, "body", "")) for e in elements).replace("\\", "")


def logged(home: Path) -> list[dict]:
    file = home / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def keys(at: AppTest) -> set[str]:
    return {element.key for element in at._tree if getattr(element, "key", None)}


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1_Step.py", "2_Compare.py", "3_Drafter.py", "4_Methods.py", "5_Traces.py"])
def test_every_page_says_the_limits_and_names_no_folder(name, home):
    at = page(name)
    assert limits().words in text(at)
    assert str(home) not in everything(at)
    assert not {"traces.folder", "target_name", "draft_name", "device", "dtype", "study.device", "fetch"} & keys(at)


def test_a_mode_that_is_neither_shows_nothing(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "open")
    at = page("5_Traces.py")
    assert "must be local or public" in text(at) and "traces.words" not in keys(at)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Settings(max_tokens=257), "at most 256 tokens"),
        (Settings(prompt="a" * 4001), "this one has 4,001"),
        (Settings(target="/etc"), "offers the models"),
        (Settings(target="org/model"), "offers the models"),
        (Settings(draft="../x"), "the draft model “../x” is none of them"),
        (Settings(device="cuda:7"), "chooses device"),
        (Settings(method="token_recycling", params={"nodes": 80}), ""),
        (Settings(method="dyspec", params={"nodes": 768}), "at most 80 drafted tokens per step"),
    ],
)
def test_settings_beyond_the_limits_are_a_sentence(settings, said):
    assert said in settings.problem() and bool(said) == bool(settings.problem())


def test_a_sweep_has_so_many_runs(monkeypatch):
    base = Settings(method="speculative_sampling")
    plan = Plan(base, "length", "Length", tuple(range(1, 9)), seeds=2)
    assert not plan.problem
    more = replace(plan, seeds=3)
    assert more.problem == "This demo sweeps a parameter in at most 16 runs; these are 24. Take fewer points or seeds."
    state = Sweep()
    state.start(more)
    assert not state.points and state.plan is None
    at = page("2_Compare.py", state={"compare_view": "sweep", "sweep.points": 16, "sweep.seeds": 5})
    checked(at.selectbox(key="target").set_value("embedded").run())
    assert "at most 16 runs" in text(at) and at.button(key="sweep_run").disabled
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert not more.problem


def test_a_model_that_is_not_here_is_not_to_be_fetched(home, monkeypatch):
    """A visitor has no terminal and no button: another model is offered."""
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(home / "cache"))
    asked = Settings(target="smollm2")
    assert asked.problem() == "This demo does not have SmolLM2 135M Instruct; choose another model under Model."
    with pytest.raises(ValueError, match="This demo does not have SmolLM2 135M Instruct; choose another model"):
        places.place("smollm2")
    at = page("1_Step.py")
    at.session_state["draftscope"].start(replace(asked, method="plain"))
    checked(at.run())
    assert "This demo does not have SmolLM2 135M Instruct" in text(at) and "step_instead" in keys(at)
    assert "draftscope fetch" not in everything(at) and not {key for key in keys(at) if key.endswith("fetch")}
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert "draftscope fetch smollm2" in asked.problem()


def test_no_folder_is_looked_for(home, monkeypatch):
    """A folder that is there and one that is not give the same words."""
    (home / "there").mkdir()
    words = [Settings(target=str(home / name)).problem().replace(name, "") for name in ("there", "missing")]
    assert words[0] == words[1]


def test_a_link_beyond_the_limits_is_refused_and_not_cut():
    place = parse({"tokens": "4096", "prompt": "a" * 4001, "method": "dyspec", "p.nodes": "768", "target": "/etc"})
    assert place.settings.max_tokens == Settings().max_tokens and place.settings.prompt == Settings().prompt
    assert place.settings.target == "embedded" and "nodes" not in place.settings.params
    said = " ".join(place.complaints)
    assert "from 1 to 256" in said and "longer than 4,000" in said and "at most 80 drafted" in said and "never loaded" in said


def test_an_opened_trace_of_another_model_loads_nothing(home):
    settings, notes = settings_for(trace_of(family=str(home)).header)
    session = Session(trace=sample_trace(), settings=settings, notes=notes)
    at = page("1_Step.py", state={"draftscope": session})
    assert at.selectbox(key="target").value == "embedded"
    assert "offers the models" in settings.problem()


def test_one_visitor_has_so_many_jobs_and_all_have_so_many(monkeypatch):
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, jobs_each=1, jobs_near=2, whole=Whole(jobs=Common(3))))
    all_tabs = Tabs(lambda tab: True)
    monkeypatch.setattr(runs, "tabs", all_tabs)
    who, where, held = "", "", []
    monkeypatch.setattr(runs, "cleanup", lambda: all_tabs.tab(who, who, where))
    for who, where in (("alice", "here"), ("bob", "here"), ("dan", "there")):  # noqa: B007  whose tab it is
        live = runs.handed("auto", lambda: Once(lambda: time.sleep(0.5)))
        live.state = "waiting"  # at work, without a worker
        held.append(live)
        with pytest.raises(ValueError, match="1 runs at work"):
            runs.handed("auto", lambda: Once(int))
    who, where = "carol", "here"
    with pytest.raises(ValueError, match="works for 2 runs of your network"):
        runs.handed("auto", lambda: Once(int))
    where = "there"
    with pytest.raises(ValueError, match="works for 3 runs now"):
        runs.handed("auto", lambda: Once(int))
    with pytest.raises(ValueError, match="chooses the device"):
        runs.handed("cpu", lambda: Once(int))


# -- what is theirs ---------------------------------------------------------------------------------------------------


def test_a_job_that_stands_still_is_one_more_when_it_goes_on(monkeypatch):
    """One address had 84 at work where 40 may be, and 80 of all: it made them one after the other, and had them go on at once."""
    all_tabs = Tabs(lambda tab: True)
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, jobs_each=1))
    monkeypatch.setattr(runs, "tabs", all_tabs)
    monkeypatch.setattr(runs, "cleanup", lambda: all_tabs.tab("alice", "alice", "here"))
    settings, desk, question = Settings("plain"), StudyController(), Question("panel", 0, "auto", lambda: Once(int), "", "")
    make = lambda: runs.handed("auto", lambda: Once(lambda: time.sleep(0.5)))  # noqa: E731
    session, column, sides = Session(), Column(settings, make()), SideJobs()
    sweep = Sweep(
        plan=Plan(settings, "temperature", "Temperature", (0.0, 1.0)),
        points=[(0.0, Column(settings, make())), (1.0, Column(settings))],
    )
    session.live, sides.under_way["panel"] = make(), (question, make())
    desk.live, desk.jobs, desk.folder = make(), (), None
    first = make()
    first.state = "waiting"  # at work, without a worker

    def go_on() -> list[str]:
        session.ask(3)
        column.enter(), column.ask(3)
        sides.go_on(question)
        desk.resume(desk.live, inf)
        sweep.points[0][1].enter()
        sweep.running = True
        sweep.sync()
        return [session.problem, column.problem, sides.problem, desk.problem, sweep.points[0][1].problem]

    assert all("1 runs at work" in said for said in go_on())
    assert not sweep.running and not sweep.points[1][1].problem and session.goal is None
    assert {one.state for one in (session.live, column.live, desk.live, sides.lives[0], sweep.lives[0])} == {"paused"}
    first.state = "ended"
    column.enter(), column.ask(1)
    assert not column.problem and column.live.busy
    column.close()


def test_columns_of_a_comparison_go_on_all_or_none(monkeypatch):
    all_tabs = Tabs(lambda tab: True)
    monkeypatch.setattr(runs, "tabs", all_tabs)
    monkeypatch.setattr(runs, "cleanup", lambda: all_tabs.tab("alice", "alice", "here"))
    monkeypatch.setattr(Live, "reach", lambda live, count: setattr(live, "state", "waiting"))  # at work, without a worker
    made = [[runs.handed("auto", lambda: Once(int), race) for _ in range(6)] for race in ("one", "other", "third")]
    refused = 0
    for live in sum(made, []):
        try:
            runs.reach(live, 1)
        except Refused:
            refused += 1
    assert [sum(live.busy for live in race) for race in made] == [6, 6, 0] and refused == 6


def test_the_more_pages_wait_for_an_end_the_less_often_each_is_drawn(monkeypatch):
    """Twenty growing runs, drawn as often as one alone is, had a class of thirty wait for 15 s a step."""
    all_tabs, now, lives = Tabs(lambda tab: True), [0.0], []
    monkeypatch.setattr(runs, "tabs", all_tabs)
    monkeypatch.setattr(runs, "monotonic", lambda: now[0])
    session, drawn = Session(), Counter()
    monkeypatch.setattr(Session, "look", lambda self: (now[0],))
    for number in range(20):
        lives.append(Standing(0, busy=True))
        all_tabs.tab(f"{number}", f"{number}").lives.add(lives[-1])
        for goal in (inf, 3):  # 0.05 seconds of a processor each
            session.goal = goal
            session.was_drawn(("before",), 0.05, 0.05)
            began = now[0]
            while not session.due():
                now[0] += 0.01
            drawn[goal, number + 1] = now[0] - began
    assert [drawn[3, count] for count in (1, 20)] == pytest.approx([0.11] * 2, abs=0.02)
    assert [drawn[inf, count] for count in (1, 4, 20)] == pytest.approx([0.11, 0.41, 2.01], abs=0.02)
    session.goal, session.asked_at = inf, now[0]
    assert session.rarer(0.4) == pytest.approx(0.4 * 20 / runs.FEW)


def test_pages_ask_for_steps_through_one_door():
    found = {file.name for file in (ROOT / "pages").rglob("*.py") if re.search(r"live\.(reach|ask)\(", file.read_text("utf-8"))}
    assert found == {"runs.py"}


def test_whoever_comes_when_others_have_all_they_may_has_some_jobs(monkeypatch):
    """240 tabs of ten addresses pressed Next as fast as they could, and nobody else could begin a run any more."""
    all_tabs, had, held = Tabs(lambda tab: True), Counter(), []
    monkeypatch.setattr(runs, "tabs", all_tabs)
    monkeypatch.setattr(runs, "cleanup", lambda: all_tabs.tab(who, who, where))
    for where in [f"192.0.2.{i}" for i in range(10)] * 2 + ["198.51.100.1"]:
        for who in [f"{where} {i}" for i in range(12)]:  # noqa: B007  whose tab it is
            with suppress(Refused):
                for _ in range(PUBLIC.jobs_each):
                    held.append(live := runs.handed("auto", lambda: Once(int)))
                    live.state, had[where] = "waiting", had[where] + 1
    jobs = PUBLIC.whole.jobs
    assert had.pop("198.51.100.1") == jobs.least
    assert sum(had.values()) <= jobs.most - jobs.spare + len(had) * jobs.least and min(had.values()) >= jobs.least


def test_two_visitors_never_see_each_others_runs(home):
    store_of(home, ALICE, 30).keep(sample_trace(), "run of alice", "her note")
    mine, other = page("5_Traces.py", ALICE), page("5_Traces.py", BOB)
    assert "run of alice" in everything(mine) and "run of alice" not in everything(other)
    assert "Nothing is kept yet" in text(other)
    for name in ("2_Compare.py", "3_Drafter.py"):
        at = page(name, BOB, {"compare_view": "saved", "store_folder": str(folder_of(home, ALICE)), "saved_runs": [1]})
        assert "alice" not in everything(at)


def test_the_folder_of_the_state_opens_no_other_place(home):
    Store(home / "elsewhere").keep(sample_trace(), "secret")
    at = page("5_Traces.py", BOB, {"store_folder": str(home / "elsewhere"), "traces.folder": str(home / "elsewhere")})
    assert "secret" not in everything(at)


def test_what_is_kept_on_the_step_page_is_found_by_the_same_visitor_alone(home):
    at = page("1_Step.py", ALICE)
    checked(at.button(key="keep").click().run())
    assert "for 30 days, at most 50 runs" in text(page("1_Step.py", BOB))
    assert store_of(home, ALICE, 30).count() == 1 and store_of(home, BOB, 30).count() == 0
    assert Store(home).count() == 0


def test_a_key_reaches_no_other_folder(home):
    for key in ("", "..", "../../x", "a" * 31, "a" * 65, "a" * 40 + "/", "a" * 40 + "\n", None, 3):
        assert not is_key(key)
        with pytest.raises((ValueError, TypeError)):
            folder_of(home, key)
    assert is_key(new_key()) and new_key() != new_key()
    assert ALICE not in str(folder_of(home, ALICE))


def test_the_browsers_key_is_taken_and_a_forged_one_is_not(monkeypatch):
    for sent, taken in ((ALICE, True), ("../../etc", False), ("", False), (None, False)):
        monkeypatch.setattr(visitor, "cookie", lambda sent=sent: sent)
        found = page("5_Traces.py").session_state[visitor.KEY]
        assert is_key(found) and (found == sent) is taken


def test_my_link_is_taken_after_a_click_and_leaves_the_address(home):
    store_of(home, ALICE, 30).keep(sample_trace(), "run of alice")
    at = page("5_Traces.py", BOB, visitor=ALICE)
    assert "visitor" not in at.query_params and "run of alice" not in everything(at)
    checked(at.button(key="visitor_leave").click().run())
    assert at.session_state[visitor.KEY] == BOB and "visitor_take" not in keys(at)
    at = page("5_Traces.py", BOB, visitor=ALICE)
    checked(at.button(key="visitor_take").click().run())
    assert at.session_state[visitor.GIVEN] == ALICE and at.session_state[visitor.KEY] == BOB  # until the browser has it
    assert "visitor_take" not in keys(at)
    assert "visitor_take" not in keys(page("5_Traces.py", BOB, visitor="../../etc"))


def test_all_can_be_downloaded_and_deleted(home):
    for who in (ALICE, BOB):
        store_of(home, who, 30).keep(sample_trace(), who)
    at = page("5_Traces.py", ALICE, {"traces.everything": True})
    assert f"?visitor={ALICE}" in at.code[0].value
    assert len(zipfile.ZipFile(io.BytesIO(archive(store_of(home, ALICE, 30)))).namelist()) == 1
    checked(at.button(key="traces.all.delete").click().run())
    checked(at.button(key="traces.all.really").click().run())
    assert "Nothing is kept yet" in text(at)
    assert store_of(home, ALICE, 30).count() == 0 and store_of(home, BOB, 30).count() == 1


def test_so_many_files_are_made_at_once_for_a_visitor(monkeypatch):
    """Also when it breaks, a place is free again; nobody waits for another's."""
    who = [ALICE]
    monkeypatch.setattr(visitor, "key", lambda: who[0])
    going, inside = Event(), Semaphore(0)

    def slow() -> str:
        inside.release()
        assert going.wait(PATIENCE)
        raise OSError

    with ThreadPoolExecutor(PUBLIC.files) as threads:
        at_work = [threads.submit(on_demand(slow)) for _ in range(PUBLIC.files)]
        for _ in at_work:
            assert inside.acquire(timeout=PATIENCE)
        mine = on_demand(lambda: "alice")
        who[0] = BOB
        bobs = on_demand(lambda: "bob")
        with pytest.raises(rules.Refused, match="at most 2 files"):
            mine()
        assert bobs() == "bob"
        monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, files_near=PUBLIC.files))
        with pytest.raises(rules.Refused, match="for one network"):
            bobs()
        monkeypatch.setattr(visitor, "address", lambda: "192.0.2.8")
        assert on_demand(lambda: "elsewhere")() == "elsewhere"
        going.set()
    assert all(isinstance(one.exception(), OSError) for one in at_work) and mine() == "alice"


def test_what_is_imported_and_opened_counts_as_held(home, monkeypatch):
    """A small file may be a large trace: one in every tab would fill the memory. The same one twice in a tab is one."""
    monkeypatch.setattr(runs, "tabs", Tabs(lambda tab: True))
    trace, data = sample_trace(), to_json(sample_trace())
    at = page("5_Traces.py", ALICE)
    shown, *_ = runs.tabs.held(ALICE, "")  # of a first visit
    at.file_uploader(key="import").set_value(("run.json.gz", data, "application/gzip")).run()
    assert runs.tabs.held(ALICE, "") == (shown + tabs.weight(trace),) * 3 > (shown,) * 3
    at.button(key="import.open").click().run()
    assert at.session_state["draftscope"].trace == trace and runs.tabs.held(ALICE, "")[0] == tabs.weight(trace)
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, held=2 * tabs.weight(trace) - 1, held_near=9 * tabs.weight(trace)))
    file = SimpleNamespace(file_id="x", size=len(data), getvalue=lambda: data)
    monkeypatch.setattr(visitor, "key", lambda: ALICE)
    assert "The runs on your pages hold" in importing.read(file).problem
    monkeypatch.setattr(visitor, "key", lambda: BOB)
    assert importing.read(file).trace == trace
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, held_near=2 * tabs.weight(trace) - 1))
    assert "The runs on the pages of your network hold" in importing.read(file).problem
    monkeypatch.setattr(visitor, "address", lambda: "192.0.2.8")
    assert importing.read(file).trace == trace
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, whole=Whole(held=Common(2 * tabs.weight(trace) - 1))))
    assert "has room for" in importing.read(file).problem


def test_who_holds_little_goes_on_however_much_others_hold(monkeypatch):
    """Others imported at the same moment until all was full, and the run of everybody at work was ended."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    all_ = Tabs(lambda tab: True)
    held = {"a": 0, "b": 0}
    monkeypatch.setattr(tabs.RunCleanup, "nbytes", property(lambda tab: held[tab.address]))
    lives = {}
    for since, name in enumerate(held):
        tab = all_.tab(name, name, name)
        lives[name] = live = Standing(-since, busy=True)
        tab.lives.add(live)
    half = PUBLIC.whole.held.most // 2
    for there, mine, ended in ((half, half, []), (2 * half, half, ["a"]), (half, 3 * half, ["b"]), (4 * half, 10, ["a"])):
        held |= {"a": there, "b": mine}
        for live in lives.values():
            live.said = None
        monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, held=10 * half, held_near=10 * half))
        all_.measure()
        assert [name for name, live in lives.items() if live.said] == ended and all(
            live.said in (None, tabs.STOPPED) for live in lives.values()
        )


def test_an_address_has_a_part_of_the_memory_and_a_class_has_several(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    all_, most = Tabs(lambda tab: True), PUBLIC.whole.held.most
    assert all_.part("school") == most
    for i in range(10):
        all_.tab(f"t{i}", f"t{i}", f"192.0.2.{i}")
    assert all_.part("school") == all_.part("192.0.2.1") * 10 // 11 == most // 11
    for i in range(30):
        all_.tab(f"p{i}", f"p{i}", "school")
    assert all_.part("school") == most * PUBLIC.shares // (10 + PUBLIC.shares)


def test_pages_that_stand_still_let_go_when_all_is_full_and_say_so(monkeypatch):
    """Forty uploads filled the memory of all, and a class of thirty was told that there was room for one run."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    all_, pages, lives = Tabs(lambda tab: True), {}, []
    for name, traces, where in (("old", 3, "x"), ("older", 3, "x"), ("pupil", 1, "y"), ("other", 1, "z")):
        pages[name] = importing.Imported(name, trace=replaced(sample_trace(), steps=sample_trace().steps * traces))
        tab = all_.tab(name, name, where)
        tab.kept["imported"] = pages[name]
        tab.lives.add(
            live := Standing(tabs.monotonic() + {"old": 2000, "older": 1000}.get(name, 0))
        )  # asked after they were opened
        live.run = None
        lives.append(live)
    weights = {name: tabs.weight(pages[name].trace) for name in ("old", "older", "pupil", "other")}
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, whole=Whole(held=Common(sum(weights.values()) - 1))))
    all_.measure()
    assert [name for name in weights if pages[name].trace is None] == ["older"] and pages["older"].problem == tabs.LET_GO
    all_.measure()
    assert pages["old"].trace is not None


@pytest.mark.parametrize("file", ["1_Step.py", "2_Compare.py"])
def test_a_run_that_was_let_go_of_is_said_to_be_and_can_be_asked_for_again(home, file):
    at = page(file, ALICE, v="1", method="plain", tokens="4", c1="plain", c2="prompt_lookup", mode="end")
    key, end = {"1_Step.py": ("draftscope", "run"), "2_Compare.py": ("draftscope_race", "compare_play")}[file]
    owner = at.session_state[key]
    weighs = lambda: sum(map(tabs.weight, (live.run for live in owner.lives)))  # noqa: E731

    def run() -> None:
        at.button(key=end).click().run()
        eventually(lambda: checked(at.run()) and not owner.busy and owner.lives, "it never came to its end")

    run()
    assert weighs()
    owner.let_go(tabs.LET_GO)
    assert not owner.lives and not owner.replayed
    assert "was let go of" in text(checked(at.run()))
    run()
    assert weighs() and "was let go of" not in text(at)


def test_a_run_that_was_let_go_of_is_made_again_up_to_where_its_reader_stood(embedded):
    """Whoever stood at step 4 pressed Next, found themselves at step 1, and was not told why."""
    session, settings = Session(), Settings(method="plain", max_tokens=12)
    session.start(settings, 3)
    eventually(lambda: session.sync() or (session.count == 4 and not session.busy), "no steps came")
    before = session.trace.steps
    session.let_go(tabs.LET_GO)
    session.advance(settings)
    eventually(lambda: session.sync() or (session.count == 5 and session.goal is None), "it was not made again")
    assert session.cursor == 4 and [one.tokens for one in session.trace.steps[:4]] == [one.tokens for one in before]
    assert session.notes == (AGAIN,)
    session.advance(settings)
    assert not session.notes
    session.run_to_end(settings)
    eventually(lambda: session.sync() or (session.ended and session.at_end), "it did not come to its end")
    steps = session.count
    session.let_go(tabs.LET_GO)
    session.advance(settings)
    eventually(lambda: session.sync() or (session.count == steps and session.goal is None), "it was not made again")
    assert session.notes == (AGAIN,) and session.at_end and session.ended, "nothing was asked for beyond its end"
    session.let_go(tabs.LET_GO)
    session.advance(replace(settings, max_tokens=6))
    eventually(lambda: session.sync() or session.count == 1, "no step came")
    assert not session.notes and session.cursor == 0, "another run is not the one that made room"
    session.close()


def test_columns_that_were_let_go_of_are_made_again_up_to_where_they_stood(monkeypatch, embedded):
    monkeypatch.setattr(runs, "cleanup", tabs.RunCleanup)
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    race, wanted = Race(), [Settings(method=method, max_tokens=12) for method in ("plain", "prompt_lookup")]

    def step(asked: list[Settings]) -> None:
        race.step(asked)
        eventually(lambda: race.sync() or not race.moving, "no step came")

    for _ in range(3):
        step(wanted)
    assert race.calls == 3
    race.let_go(tabs.LET_GO)
    assert race.problem == tabs.LET_GO and not race.lives and not race.replayed and not any(e.count for e in race.columns)
    step(wanted)
    assert race.calls == 4 and race.notes == (again_of_columns,) and not race.problem
    step(wanted)
    assert race.calls == 5 and not race.notes
    race.let_go(tabs.LET_GO)
    step([replace(settings, max_tokens=6) for settings in wanted])
    assert race.calls == 1 and not race.notes
    race.reset()


@pytest.mark.parametrize("file", sorted(one.name for one in (ROOT / "pages").glob("[0-9]*.py")))
def test_a_page_that_holds_nothing_is_not_said_to_have_been_let_go_of(monkeypatch, file):
    monkeypatch.setattr(runs, "tabs", all_ := Tabs(lambda tab: True))
    at = page(file, ALICE)
    for tab in all_.of(ALICE):
        tab.let_go(tabs.LET_GO)
    assert "was let go of" not in text(checked(at.run()))


def test_a_trace_that_was_just_opened_is_younger_than_a_run_that_stands_for_an_hour(monkeypatch):
    """It counted as never asked for, and was let go of first."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    all_, trace = Tabs(lambda tab: True), sample_trace()
    old, new = (all_.tab(name, name, "x") for name in ("old", "new"))
    old.lives.add(live := Standing(tabs.monotonic() - 3600))
    live.run, old.kept["page"] = trace, SimpleNamespace(let_go=live.close)
    new.kept["imported"] = opened = importing.Imported("new", trace=trace)
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, held_near=int(1.5 * tabs.weight(trace))))
    all_.measure()
    assert live.said == tabs.LET_GO and opened.trace is trace
    first = new.since
    all_.measure()
    assert live.since < first == new.since, "it is as old as its opening, not as the last look"
    opened.trace = None
    assert new.nbytes == new.since == 0


def test_what_a_run_holds_is_counted_once_as_it_grows():
    """Steps that were counted are not looked at again; a run that has fewer than before is another one."""
    steps = list(sample_trace().steps)
    run = SimpleNamespace(steps=steps[:1])
    tab, live = tabs.RunCleanup(), Closing()
    live.run = run
    tab.lives.add(live)
    assert tab.nbytes == tabs.weight(run) == tab.nbytes > 0
    run.steps[0] = None  # as it would be seen if it were counted again
    run.steps.append(steps[1])
    assert tab.nbytes == tabs.weight(SimpleNamespace(steps=steps[:2]))
    run.steps[:] = steps[1:2]
    assert tab.nbytes == tabs.weight(run)
    tab.kept["x"] = SimpleNamespace(replayed=(sample_trace(),))
    assert tab.nbytes == tabs.weight(run) + tabs.weight(sample_trace())


def test_what_is_measured_counts_in_every_round_and_afterwards(embedded):
    """Compare's rounds lay in memory, and were counted nowhere."""
    tab, live = tabs.RunCleanup(), Closing()
    live.run = timed = Timed([lambda: Run(embedded, "prompt_lookup", prompt="Tom and Tom and", max_tokens=8)] * 2, rounds=2)
    tab.lives.add(live)
    for _ in timed:
        held = [run for found in timed._traces for run in found] + [timed._run] * (timed._run is not None)
        assert tab.nbytes == sum(map(tabs.weight, held))
    assert tab.nbytes == 4 * tabs.weight(timed.traces[0]) > 0
    race = Race(columns=tuple(Column(Settings(), trace=trace) for trace in timed.traces))
    assert all(mine is its for mine, its in zip(race.replayed, timed.traces, strict=True))


class Standing:
    """A run that has keys and values."""

    def __init__(self, since: float, busy: bool = False) -> None:
        self.since, self.busy, self.nbytes, self.said, self.group = since, busy, 10, None, self

    def close(self, problem: str = "") -> None:
        self.said = problem


def test_runs_that_stand_still_let_go_of_their_memory_when_there_is_too_little(monkeypatch):
    """Those of whoever holds more than a fair part, and of these first what stands longest; who is at work is told so, if nothing
    else helps. Two addresses that filled the whole had the runs of all others dropped."""
    here, there, far = (tabs.RunCleanup(name, name, address) for name, address in (("a", "x"), ("b", "x"), ("c", "y")))
    limits_of = lambda **more: replace(PUBLIC, **{"caches": 30, "caches_near": 60, "whole": Whole()} | more)  # noqa: E731
    given = {"old": (here, 1, False), "older": (here, 0, False), "busy": (here, 2, True), "first": (there, 5, True),
             "last": (there, 6, True), "far": (far, 3, False)}  # fmt: skip
    for more, closed in (
        ({}, {}),
        ({"caches": 20}, {"older": ""}),
        ({"caches": 10}, {"older": "", "old": "", "last": tabs.FULL}),
        ({"caches_near": 30}, {"older": "", "old": ""}),
        ({"whole": Whole(caches=50)}, {"older": ""}),
        ({"whole": Whole(caches=30)}, {"older": "", "old": "", "last": tabs.FULL}),
        ({"whole": Whole(caches=10)}, {"older": "", "old": "", "far": "", "last": tabs.FULL, "first": tabs.FULL}),
    ):
        monkeypatch.setattr(rules, "PUBLIC", limits_of(**more))
        lives = {name: Standing(since, busy) for name, (_, since, busy) in given.items()}
        tabs.thin([(given[name][0], live) for name, live in lives.items()])
        assert {name: live.said for name, live in lives.items() if live.said is not None} == closed


def test_a_class_does_not_pay_for_ten_who_hold_more_each(monkeypatch):
    """Ten idle tabs on smollm2, one at each of ten addresses: of 25 pupils, twelve lost their place in the run and their clicks."""
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, whole=Whole(caches=100)))
    takers = [tabs.RunCleanup(f"t{i}", f"t{i}", f"192.0.2.{i}") for i in range(10)]
    pupils = [tabs.RunCleanup(f"p{i}", f"p{i}", "school") for i in range(25)]
    held = [(tab, Standing(0)) for tab in takers] + [(tab, Standing(1)) for tab in pupils]
    for tab, live in held:
        live.nbytes = 9 if tab in takers else 1
    tabs.thin(held)
    assert {live.said for tab, live in held if tab in pupils} == {None}
    assert sum(live.said is None for tab, live in held if tab in takers) == 8


def test_a_column_that_stands_while_others_are_at_work_is_at_work(monkeypatch):
    """Or the whole comparison would stop."""
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, caches=20))
    tab = tabs.RunCleanup("a", "a", "x")
    columns = [Standing(0), Standing(1, busy=True)]
    columns[0].group = columns[1].group
    alone = Standing(5)
    tabs.thin([(tab, live) for live in (*columns, alone)])
    assert [live.said for live in (*columns, alone)] == [None, None, ""]


@pytest.mark.parametrize("problem", ["", tabs.FULL], ids=["stood still", "was at work"])
def test_a_run_that_was_let_go_is_made_again_at_the_next_step_and_keeps_its_place(embedded, problem):
    """Pupils stood at step 12, pressed Next, and found themselves at step 1."""
    session, settings = Session(), Settings(method="plain", max_tokens=12)
    session.start(settings, 2)
    eventually(lambda: session.sync() or (session.count == 3 and not session.busy), "no steps came")
    before = session.trace.steps
    session.live.close(problem)
    session.sync()
    session.go(2)
    session.advance(settings)
    session.drop_coming()
    session.coming = SimpleNamespace(count=1, state="working", problem="", busy=True, trace=None, close=lambda: None)
    session.sync()  # as long as it has fewer steps than are shown
    assert (session.count, session.cursor) == (3, 2) and session.coming is not None
    session.coming.state, session.coming.problem = "failed", tabs.FULL  # let go of again
    session.sync()
    assert (session.count, session.cursor) == (3, 2) and session.coming is None and session.problem == tabs.FULL
    session.advance(settings)
    eventually(lambda: session.sync() or session.count == 4, session.problem or "no step came")
    assert session.cursor == 3 and not session.problem
    assert [step.tokens for step in session.trace.steps[:3]] == [step.tokens for step in before]


def test_what_is_shipped_takes_the_memory_of_nobody():
    assert not Race(columns=tuple(Column(Settings(), trace=trace) for trace in demo.comparison())).replayed
    session = Session()
    session.open_recorded()
    assert session.trace is demo.recorded() and not session.replayed


MANY = 16_000  # small things; a step may have no more candidates
TOKENS = tuple(range(10**6, 10**6 + MANY))
LEFT_OUT = tuple(Pruned(token, -1, token / 7) for token in TOKENS)
FULL = {
    "prompt": lambda trace: replaced(trace, header=replaced(trace.header, prompt_tokens=tuple(range(10**6, 10**6 + MANY)))),
    "special tokens": lambda trace: replaced(
        trace, header=replaced(trace.header, special_tokens=tuple(range(10**6, 10**6 + MANY)))
    ),
    "stop tokens": lambda trace: replaced(trace, header=replaced(trace.header, stop=tuple(range(10**6, 10**6 + MANY)))),
    "vocabulary": lambda trace: replaced(trace, token_bytes={10**6 + i: b"%d" % i for i in range(MANY)}),
    "pieces": lambda trace: replaced(trace, token_bytes={10**6 + i: b"%1000d" % i for i in range(MANY)}),
    "words": lambda trace: replaced(trace, header=replaced(trace.header, prompt="\U0001f40d" * 2**20)),
    "scores": lambda trace: with_nodes(trace, lambda i: {"scores": {f"{i} {j}": i / (j + 7) for j in range(64)}}),
    "sources": lambda trace: with_nodes(trace, lambda i: {"source": f"{i:0900d}"}),
    "facts": lambda trace: replaced(
        trace, steps=tuple(replaced(trace.steps[0], facts={f"{i} {j:0100d}": j / 7 for j in range(64)}) for i in range(MANY // 64))
    ),
    "names": lambda trace: replaced(
        trace,
        token_bytes={token: b"\xff%06d" % token for token in TOKENS},
        steps=tuple(replaced(trace.steps[0], nodes=(), rows=(narrow(i),)) for i in range(0, MANY, 8)),
    ),
    "rows": lambda trace: replaced(trace, steps=(replaced(trace.steps[0], rows=(wide(),)),)),
    "left out": lambda trace: replaced(
        trace, steps=(replaced(trace.steps[0], pruned=tuple(Pruned(10**6 + i, -1, i / MANY) for i in range(MANY))),)
    ),
}


def with_nodes(trace: Trace, parts: Callable[[int], dict[str, Any]]) -> Trace:
    """The trace with one step of 512 nodes, each with such parts."""
    step = trace.steps[0]
    return replaced(trace, steps=(replaced(step, nodes=tuple(replaced(step.nodes[0], **parts(i)) for i in range(512))),))


def narrow(first: int) -> Row:
    """With eight candidates."""
    p = tuple(i / (MANY * 9) for i in range(first + 1, first + 9))
    return Row(TOKENS[first : first + 8], p, None, p, 1.0, 0.5, 1.0, None)


def wide() -> Row:
    """With many candidates."""
    p, q, residual = (tuple(i / (MANY * more) for i in range(MANY)) for more in (1, 3, 7))
    return Row(TOKENS, p, q, residual, 1.0, 0.5, 1.0, None)


@pytest.mark.parametrize("what", FULL)
def test_all_that_a_trace_is_made_of_counts_as_held(what):
    """One that weighs megabytes has few steps, and few nodes in them. A page keeps what the stepper draws of it, too."""
    trace = FULL[what](sample_trace())
    seen: set[int] = set()
    weight = size(trace, seen) + size(stepper_data(trace), seen)
    assert MANY * 32 < weight <= tabs.weight(trace)


UPLOAD = SimpleNamespace(file_id="x", size=1, getvalue=lambda: b"x")


def test_one_trace_is_read_at_a_time(monkeypatch):
    """Whoever sends many has them read one after the other: each may take hundreds of megabytes meanwhile."""
    now, most = [], []

    def slow(data: bytes) -> None:
        now.append(1)
        most.append(len(now))
        time.sleep(0.01)
        now.pop()
        raise ValueError("no trace")

    monkeypatch.setattr(importing, "from_json", slow)
    here = iter(f"192.0.2.{i % 4}" for i in range(8))
    monkeypatch.setattr(in_turn, "cleanup", lambda: SimpleNamespace(address=next(here)))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(importing.read, [UPLOAD] * 8))
    assert most == [1] * 8 and all(one.trace is None and "no trace" in one.problem for one in found)


def test_who_sends_many_files_waits_for_them_alone(monkeypatch):
    """A visitor elsewhere waits for the one that is being read, and not for those behind it, nor while it breathes."""
    read, reading, go_on, breath = [], Event(), Event(), Event()
    where = threading.local()

    def slow(data: bytes) -> None:
        read.append(where.address)
        reading.set()
        assert go_on.wait(PATIENCE)
        raise ValueError("no trace")

    def send(address: str) -> str:
        where.address = address
        return importing.read(UPLOAD).problem

    monkeypatch.setattr(importing, "from_json", slow)
    monkeypatch.setattr(in_turn, "sleep", lambda seconds: where.address == "bad" and breath.wait(PATIENCE))
    monkeypatch.setattr(in_turn, "cleanup", lambda: SimpleNamespace(address=where.address))
    with ThreadPoolExecutor(9) as threads:
        bad = [threads.submit(send, "bad") for _ in range(8)]
        assert reading.wait(PATIENCE)
        good = threads.submit(send, "good")
        go_on.set()
        assert "no trace" in good.result(PATIENCE) and read == ["bad", "good"] and not any(one.done() for one in bad)
        breath.set()
    assert read == ["bad", "good"] + ["bad"] * 7


def test_a_file_of_prompts_takes_no_more_memory_than_a_tab_has(home):
    """14.5 kB that were 40 MB in every tab that read them; a table of a thousand questions is read."""
    rows = [{"instruction": "a" * 480 + "\U0001f600"} for _ in range(10_000)]
    with pytest.raises(ValueError, match=r"at most 2 MB of memory; the first \d+ of this one take 2\.\d MB"):
        read_prompts(gzip.compress(json.dumps(rows).encode()), "x.json.gz")
    some = "".join(json.dumps({"question": f"{i} " + "What is half of that? " * 12}) + "\n" for i in range(1_319))
    assert len(read_prompts(some.encode(), "gsm8k.jsonl")) == 1_319


def test_who_had_no_turn_comes_before_those_who_had_one(monkeypatch):
    """Files of 24 addresses, again and again, had an honest one of another wait for half a minute."""
    read, reading, go_on = [], Semaphore(0), Semaphore(0)
    where = threading.local()

    def slow(data: bytes) -> None:
        read.append(where.address)
        reading.release()
        assert go_on.acquire(timeout=PATIENCE)
        raise ValueError("no trace")

    def send(address: str, times: int = 1) -> None:
        where.address = address
        for _ in range(times):
            assert "no trace" in importing.read(UPLOAD).problem

    monkeypatch.setattr(importing, "from_json", slow)
    monkeypatch.setattr(in_turn, "sleep", lambda seconds: None)
    monkeypatch.setattr(in_turn, "cleanup", lambda: SimpleNamespace(address=where.address))
    turns = in_turn.Turns("No.")
    monkeypatch.setattr(importing, "reading", turns.turn)
    with ThreadPoolExecutor(6) as threads:
        done = [threads.submit(send, f"192.0.2.{i}", 3) for i in range(5)]
        for _ in range(5):  # each of them had a turn, and waits for the next
            assert reading.acquire(timeout=PATIENCE)
            go_on.release()
        assert reading.acquire(timeout=PATIENCE)
        eventually(lambda: len(turns._waiting) == 4, "they do not wait")
        done.append(threads.submit(send, "198.51.100.1"))
        eventually(lambda: len(turns._waiting) == 5, "it does not wait")
        for _ in range(11):
            go_on.release()
        for one in done:
            one.result(PATIENCE)
    assert len(set(read[:5])) == 5 and read[6] == "198.51.100.1"


def test_who_would_wait_for_long_is_told_so(monkeypatch):
    monkeypatch.setattr(in_turn, "PATIENCE", 0.01)
    monkeypatch.setattr(importing, "from_json", lambda data: pytest.fail("read beside another"))
    with in_turn.reading(), ThreadPoolExecutor(1) as threads:
        assert "would have to wait for long" in threads.submit(importing.read, UPLOAD).result(PATIENCE).problem


def test_every_file_that_is_made_on_demand_has_its_place():
    """A download button without one is a way around it."""
    for file in (APP.parent / "pages").rglob("*.py"):
        buttons = [
            call
            for call in ast.walk(ast.parse(file.read_text()))
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "download_button"
        ]
        for button in buttons:
            assert isinstance(made := button.args[1], ast.Call) and getattr(made.func, "id", "") == "on_demand", file


def test_what_is_old_is_forgotten(home, monkeypatch):
    began, here = visitors_of.BEGAN, time.time()

    def days_later(days: int) -> None:
        monkeypatch.setattr(time, "time", lambda: here + days * 86_400)
        monkeypatch.setattr(visitors_of, "BEGAN", began + days * 86_400)

    store_of(home, ALICE, 30).keep(sample_trace(), "old")
    days_later(31)
    store_of(home, ALICE, 30)
    eventually(lambda: not [*folder_of(home, ALICE).parent.iterdir()], "nothing was forgotten")
    store_of(home, ALICE, 30).keep(sample_trace(), "new")
    assert not visitors_of.due(home)  # at most once an hour
    days_later(71)
    assert [folder.name for folder in forget(home, 30)] == [folder_of(home, ALICE).name]


def test_who_comes_back_while_the_old_are_removed_loses_nothing(home, monkeypatch):
    """All folders were looked at first and removed one after the other: a run that was kept in between was gone."""
    here, whole = time.time(), visitors_of.removed
    for key in (ALICE, BOB):
        Store(folder_of(home, key)).keep(sample_trace(), "old")
        for file in (folder := folder_of(home, key)).iterdir():
            os.utime(file, (here - 31 * 86_400,) * 2)
        os.utime(folder, (here - 31 * 86_400,) * 2)

    def removed(folder: Path, days: int) -> bool:
        if folder == folder_of(home, BOB):
            Store(folder).keep(sample_trace(), "new")
        return whole(folder, days)

    monkeypatch.setattr(visitors_of, "removed", removed)
    assert [folder.name for folder in forget(home, 30)] == [folder_of(home, ALICE).name]
    assert [entry.name for entry in Store(folder_of(home, BOB)).entries()] == ["new", "old"]
    assert [folder.name for folder in (home / "visitors").iterdir()] == [folder_of(home, BOB).name]


def test_the_old_are_removed_beside_the_page(home, monkeypatch):
    """Of a hundred thousand visitors that takes longer than a page may compute: it was ended each time, and nothing ever went."""
    went_on = Event()
    monkeypatch.setattr(visitors_of, "forget", lambda root, days: went_on.wait(PATIENCE))
    monkeypatch.setattr(visitors_of, "STARTED", time.monotonic() - visitors_of.SETTLED)
    visitors_of._looked.pop(home, None)
    assert store_of(home, ALICE, 30).count() == 0
    went_on.set()


def test_a_clock_that_is_ahead_when_the_server_begins_has_nothing_forgotten(home, monkeypatch):
    """As on a machine that has no battery, or was asleep: it is right some minutes later."""
    store_of(home, ALICE, 30).keep(sample_trace(), "a run")
    began, here = visitors_of.BEGAN, time.time()
    monkeypatch.setattr(time, "time", lambda: here + 400 * 86_400)
    monkeypatch.setattr(visitors_of, "BEGAN", began + 400 * 86_400)
    monkeypatch.setattr(visitors_of, "STARTED", time.monotonic())
    assert not visitors_of.due(home) and store_of(home, ALICE, 30).count() == 1


def test_a_clock_that_is_wrong_for_a_moment_has_nothing_forgotten(home, monkeypatch):
    store_of(home, ALICE, 30).keep(sample_trace(), "a run")
    here = time.time()
    monkeypatch.setattr(time, "time", lambda: here + 400 * 86_400)
    assert forget(home, 30) == [] and store_of(home, ALICE, 30).count() == 1


def test_nothing_is_deleted_while_a_file_of_it_is_made(home, monkeypatch):
    """Half of the runs were in the file then, and none in the store."""
    store = store_of(home, ALICE, 30)
    for name in ("one", "two"):
        store.keep(sample_trace(), name)
    at = page("5_Traces.py", ALICE, {"traces.everything": True})
    with file_for(ALICE):
        checked(at.button(key="traces.all.delete").click().run())
        checked(at.button(key="traces.all.really").click().run())
    assert "so none was deleted" in everything(at) and store.count() == 2
    checked(at.button(key="traces.all.delete").click().run())
    checked(at.button(key="traces.all.really").click().run())
    assert store.count() == 0


def test_nobody_has_the_turn_while_they_wait_for_a_place(monkeypatch):
    """Where places were short they had it for ten seconds each and did nothing: a file was shown after twenty."""
    where, comes_back, done = threading.local(), Event(), []

    @contextmanager
    def resting():
        yield
        if where.address == "slow":
            assert comes_back.wait(PATIENCE)

    monkeypatch.setattr(in_turn, "resting", resting)
    monkeypatch.setattr(in_turn, "CALL", 0.05)
    monkeypatch.setattr(in_turn, "cleanup", lambda: SimpleNamespace(address=where.address))
    turns, busy, go_on = in_turn.Turns("No."), Event(), Event()

    def take(address: str) -> None:
        where.address = address
        with turns.turn():
            done.append(address)
            if address == "first":
                busy.set()
                assert go_on.wait(PATIENCE)

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(take, "first")
        assert busy.wait(PATIENCE)
        slow = threads.submit(take, "slow")
        eventually(lambda: len(turns._waiting) == 1, "nobody waits")
        other = threads.submit(take, "other")
        eventually(lambda: len(turns._waiting) == 2, "the other does not wait")
        go_on.set()
        first.result(PATIENCE), other.result(PATIENCE)
        assert done == ["first", "other"]
        comes_back.set()
        slow.result(PATIENCE)
    assert done == ["first", "other", "slow"] and not turns._waiting and not turns._near


def test_a_file_of_all_runs_holds_all_or_there_is_none(home):
    store = store_of(home, ALICE, 30)
    first = store.keep(sample_trace(), "one")
    damaged = store.keep(sample_trace(), "two")
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE traces SET header = x'00' WHERE id = ?", (damaged,))
    names = zipfile.ZipFile(io.BytesIO(archive(store))).namelist()
    assert sorted(names) == [f"{first}_one.json.gz", f"{damaged}_two.damaged.txt"]
    whole = store.open
    store.open = lambda trace: store.delete(trace) or whole(trace)
    with pytest.raises(ValueError, match="deleted"):
        archive(store)


def test_a_full_disk_keeps_nothing_new(home, monkeypatch):
    """Neither of who comes anew nor of who has kept before; what is there stays."""
    store_of(home, ALICE, 30).keep(sample_trace(), "a run")
    monkeypatch.setattr("decoding.runs.visitors.LEAST_FREE", 2**80)
    with pytest.raises(ValueError, match="nearly full"):
        store_of(home, BOB, 30)
    with pytest.raises(ValueError, match="nearly full"):
        store_of(home, ALICE, 30).keep(sample_trace(), "another")
    at = page("3_Drafter.py", ALICE)
    at.button(key="study_run").click().run()
    assert "nearly full" in text(at) and at.session_state["desk"].live is None
    study = study_of_a_page(store_of(home, ALICE, 30))  # one that is at work keeps no more either
    assert not list(study) and "nearly full" in study.problems[0]
    assert store_of(home, ALICE, 30).count() == 1


def study_of_a_page(store: Store) -> Study:
    plan = StudyPlan("embedded", "plain", (Prompt("Once", "typed"),), max_tokens=2)
    return Job("A", Settings(method="plain", max_tokens=2), plan, plan.key).maker(store)(None)


def test_a_store_that_is_locked_is_a_sentence_without_a_place(home, monkeypatch):
    store = store_of(home, ALICE, 30)
    store.keep(sample_trace(), "a run")
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            ValueError, match="The traces of this visitor could not be read or written: another program is writing"
        ) as error:
            store.hurried(0.05).keep(sample_trace(), "another")
    assert str(home) not in str(error.value) and told(error.value) == str(error.value)


def test_on_a_server_of_ones_own_there_is_one_owner(home, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    Store(home).keep(sample_trace(), "kept before")
    at = page("5_Traces.py")
    assert "kept before" in everything(at) and visitor.KEY not in at.session_state
    assert "traces.folder" in keys(at) and "traces.everything" not in keys(at)


# -- what errors say --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("There is no folder '/srv/models/x' for the target."),
        ValueError("Traces cannot be kept in 'C:\\Users\\x': full."),
        OSError(2, "No such file or directory", "/etc/shadow"),
        RuntimeError("boom at line 3"),
        ValueError("It lies in ~/x/y."),
    ],
)
def test_an_error_shows_nothing_of_the_machine(error, home):
    for said in (told(error), sentence(error)):
        number = re.search(r"number ([0-9a-f]{8})", said)[1]
        assert not shows_the_machine(said) and "boom" not in said
        line = next(line for line in logged(home) if line["number"] == number)
        assert line["event"] == "failed" and str(error) in line["error"]


def test_a_sentence_for_the_visitor_stays_a_sentence(home):
    assert told(ValueError("The seed must be 3; it is “4/5”.")) == "The seed must be 3; it is “4/5”."
    assert logged(home)[-1]["event"] == "refused" and "said" not in logged(home)[-1]


TAUGHT = Raster(2, 2, ("#000000", "#ffffff"), (("red", "any"), ("circle",)))
QUOTING: dict[str, Callable[[str], Any]] = {  # what quotes a visitor's words in its refusal
    "stop token": lambda words: stop_ids((words,), 9, lambda text: [1, 2], {}),
    "trace": lambda words: from_json(json.dumps({"format": words, "trace": {"header": {"schema": SCHEMA}}}).encode()),
    "picture": lambda words: check_asked(TAUGHT, words, "digits"),
    "role": lambda words: checked_messages([{"role": words, "content": "x"}]),
    "message": lambda words: checked_messages([{"role": "user", "content": [words]}]),
    "template option": lambda words: checked_options({words: 1}),
    "template options": lambda words: read_options(words.replace(",", "")),
    "model": lambda words: check_models(words),
    "parameter": lambda words: METHODS["plain"].checked({words: 1}),
    "file of prompts": lambda words: read_prompts(b"\xff", words),
    "speaker": lambda words: read_prompts(json.dumps([{"messages": [{"role": words}]}]).encode(), "x.json"),
    "method of a trace": lambda words: settings_for(replaced(sample_trace().header, method=words.replace("\n", " "))),
    "column": lambda words: read_prompts(json.dumps([{words: 1}]).encode(), "x.json"),
}


@pytest.mark.parametrize("words", ["</s> and", "a /etc/passwd", "<|/x.py|>", "I live in\nnowhere at /home/x"])
@pytest.mark.parametrize("door", QUOTING)
def test_words_of_the_visitor_that_look_like_a_path_are_said_and_not_logged(door, words, home):
    """A prompt of two lines stood in the log, as its repr has a backslash, and its visitor was told a number."""
    with pytest.raises(ValueError) as caught:
        QUOTING[door](words)
    said = words.encode("unicode_escape").decode()
    for found in (told(caught.value), sentence(caught.value)):
        assert said in found or words in found or " ".join(words.split()) in found
    there = "".join(json.dumps(line) for line in logged(home))
    assert words not in there and said not in there and {line["event"] for line in logged(home)} == {"refused"}


def test_locally_all_is_said(monkeypatch, home):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    assert told(ValueError("No '/a/b'.")) == "No '/a/b'." and not logged(home)


def test_a_store_that_cannot_be_written_is_a_number(home):
    (home / "visitors").write_text("in the way")
    with pytest.raises(ValueError) as caught:
        store_of(home, ALICE, 30).keep(sample_trace(), "a run")
    said = told(caught.value)
    assert "under the number" in said and str(home) not in said
    at = page("1_Step.py", ALICE)
    at.button(key="keep").click().run()
    assert "under the number" in text(at) and str(home) not in everything(at)


def test_a_tab_that_was_reloaded_knows_that_its_run_is_kept(home):
    """It kept a second copy at the next press."""
    at, again = page("1_Step.py", ALICE), page("1_Step.py", ALICE)
    at.button(key="keep").click().run()
    again.session_state["draftscope"] = at.session_state["draftscope"]  # as it is given back
    checked(again.run())
    assert again.button(key="keep").disabled and "Kept as" in text(again) and store_of(home, ALICE, 30).count() == 1


@pytest.mark.parametrize("name", ["1_Step.py", "2_Compare.py", "3_Drafter.py", "4_Methods.py", "5_Traces.py"])
def test_whoever_only_looks_leaves_nothing_on_the_disk(name, home):
    page(name, ALICE)
    assert not (home / "visitors").exists()
    store = store_of(home, ALICE, 30)
    assert (store.count(), store.filled, store.entries(), store.families(), store.forget()) == (0, 0, [], [], 0)
    with pytest.raises(ValueError, match="no trace 1"):
        store.open(1)
    assert not (home / "visitors").exists() and store.keep(sample_trace(), "a run") == 1 and store.count() == 1


def test_no_page_shows_the_text_of_an_error_by_itself():
    allowed = {"settings.py", "address.py", "setup.py", "sweep.py"}  # checks of what a visitor said, before any file is looked at
    for file in (APP.parent / "pages").rglob("*.py"):
        if file.name not in allowed:
            assert not re.search(r"str\(error\)|\{error[!}]", file.read_text()), file


def test_a_run_is_a_line_in_the_log_without_its_prompt(home, monkeypatch):
    for switched in ("0", "1"):
        monkeypatch.setenv("DRAFTSCOPE_LOG_PROMPTS", switched)
        at = page("1_Step.py", ALICE)
        session = at.session_state["draftscope"]
        asks(at)
        session.start(Settings(prompt="my secret", method="plain", max_tokens=4), 0)
        eventually(lambda s=session: not s.busy, "the run does not end")
        line = next(line for line in reversed(logged(home)) if line["event"] == "run")
        assert line["method"] == "plain" and line["max_tokens"] == 4
        assert (line.get("prompt") == "my secret") is (switched == "1")


def test_refusals_without_end_do_not_fill_the_disk(home, monkeypatch):
    """So many lines a minute, and how many were left out."""
    now = 600.0
    monkeypatch.setattr(runs_log.time, "monotonic", lambda: now)
    monkeypatch.setattr(runs_log, "_minute", runs_log.Minute())
    for _ in range(runs_log.A_MINUTE + 50):
        runs_log.log("refused", why="too many connections")
    runs_log.log("run", method="plain")
    now += 60
    runs_log.log("failed", kind="x")
    runs_log.log("refused", why="y")
    *_, run, failed, last = lines = logged(home)
    assert len(lines) == runs_log.A_MINUTE + 3 and run["event"] == "run"
    assert failed["left_out"] == 50 and "left_out" not in last


def test_new_keys_do_not_fill_the_disk(home, monkeypatch):
    """Whoever throws the key away is a new visitor, and has all the room of one."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(visitors_of, "_keepers", {})
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, keepers_near=2))
    trace, late = sample_trace(), store_of(home, "c" * 43, 30, "here")
    for key in "ab":
        for _ in range(2):
            store_of(home, key * 43, 30, "here").keep(trace, "kept")
    for refused in (lambda: late.keep(trace, "x"), lambda: late.begin(trace.header, {}, "x"), late.begun):
        with pytest.raises(rules.Refused, match="2 new visitors of one network a day"):
            refused()
    assert not late.path.exists() and store_of(home, ALICE, 30, "here").keep(trace, "more") == 3
    store_of(home, "d" * 43, 30, "there").begun()
    now += 86_400
    assert late.keep(trace, "x") == 1 and list(visitors_of._keepers) == ["here"]


def test_a_study_begins_only_where_it_is_kept(monkeypatch):
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, keepers_near=0))
    at = page("3_Drafter.py", BOB)
    at.button(key="study_run").click().run()
    assert "new visitors of one network" in text(checked(at)) and not at.session_state["desk"].busy


def test_more_prompts_than_are_studied_are_refused_before_a_plan_is_made_of_them(monkeypatch):
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, prompts=2))
    at = page("3_Drafter.py", BOB)
    assert "at most 2 prompts at a time" in text(at) and at.button(key="study_run").disabled
    at.number_input(key="study.most").set_value(2).run()
    assert not at.button(key="study_run").disabled


def test_a_file_that_cannot_be_read_is_read_once(monkeypatch):
    """Each drawing of the page would read it again, and all pages stand still meanwhile."""
    read = []

    def broken(data, name):
        read.append(name)
        raise ValueError(f"{name} is none.")

    monkeypatch.setattr(sidebar, "read_prompts", broken)
    at = page("3_Drafter.py", BOB, {"study.source": "a file"})
    at.file_uploader(key="study_file").set_value(("a.csv", b"x", "text/csv")).run()
    for _ in range(3):
        assert "a.csv is none." in text(checked(at.run()))
    at.file_uploader(key="study_file").set_value(("b.csv", b"x", "text/csv")).run()
    assert read == ["a.csv", "b.csv"]


# -- links, and other visitors ----------------------------------------------------------------------------------------


def test_a_link_runs_nothing_without_a_click():
    at = page("1_Step.py", v="1", prompt="Tom had a red", method="plain", tokens="8", step="4096")
    assert not at.session_state["draftscope"].busy and at.session_state["draftscope"].coming is None
    at = page("1_Step.py", v="1", prompt="Tom had a red", method="plain", tokens="8", step="3")
    session = at.session_state["draftscope"]
    assert session.coming is None and "step 3 of a run of Plain" in text(at)
    at.button(key="linked_go").click().run()
    eventually(lambda: not session.busy and (checked(at.run()), session.cursor == 2)[1], "the click makes no run")
    assert "linked_go" not in keys(at)


def test_a_link_to_a_prompt_runs_nothing_either():
    at = page("1_Step.py", v="1", prompt="Tom had a red", method="plain", tokens="8", step="0")
    session = at.session_state["draftscope"]
    assert session.coming is None and not session.busy and "leads to the prompt of a run of Plain" in text(at)
    at.button(key="linked_go").click().run()
    eventually(lambda: not session.busy and (checked(at.run()), session.count == 1)[1], "the click makes no run")
    assert session.cursor == -1


def test_a_long_link_waits_for_a_click_on_every_server(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    at = page("1_Step.py", v="1", prompt="Tom had a red", method="plain", tokens="4096", step="4096")
    assert at.session_state["draftscope"].coming is None and "linked_go" in keys(at)


def test_who_clears_the_caches_stops_nobody():
    from streamlit.runtime.caching import cache_data, cache_resource

    there = {"alice", "bob"}
    now = [0.0]
    all_tabs = Tabs(lambda tab: tab in there, every=1e9, clock=lambda: now[0])
    lives = {tab: Closing() for tab in there}
    for tab, live in lives.items():
        all_tabs.tab(tab, tab).lives.add(live)
    cache_data.clear()
    cache_resource.clear()
    all_tabs.look()
    assert not any(live.closed for live in lives.values())
    there.remove("bob")
    all_tabs.look()
    now[0] += GRACE
    all_tabs.look()
    assert lives["bob"].closed and not lives["alice"].closed


def test_nothing_in_a_cache_of_streamlits_stops_work_when_it_is_cleared():
    for file in (APP.parent / "pages").rglob("*.py"):
        assert "on_release" not in file.read_text() or file.name == "tabs.py", file
    assert "on_release=" not in Path(tabs.__file__).read_text()


class Closing:
    """A job that can be closed."""

    busy = closed = False
    nbytes, since, run, group = 0, 0.0, None, None

    def close(self, problem: str = "") -> None:
        self.closed = True


def test_saved_runs_that_are_compared_count_as_held(home, monkeypatch):
    """In every tab anew, and no longer than they are chosen; one too many is named, and the others are compared."""
    monkeypatch.setattr(runs, "tabs", Tabs(lambda tab: True))
    store, weight = store_of(home, ALICE, 30), tabs.weight(sample_trace())
    ids = [store.keep(sample_trace(), name) for name in ("one", "two", "three")]
    at = page("2_Compare.py", ALICE, v="1", view="saved")
    before, *_ = runs.tabs.held(ALICE, "")
    monkeypatch.setattr(rules, "PUBLIC", replace(PUBLIC, held=before + 2 * weight))
    for chosen, held in ((ids[:2], 2), (ids, 2), (ids[:1], 1)):
        checked(at.multiselect(key="saved_runs").set_value(chosen).run())
        assert runs.tabs.held(ALICE, "")[0] == before + held * weight
        assert ("three: The runs on your pages hold" in text(at)) == (len(chosen) > held)
        assert bool(at.get("plotly_chart")) == (held == 2)
