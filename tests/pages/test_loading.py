"""Pages while torch is being imported: what they show without it, that they import none of it, and what becomes of a visitor's
changes once it is there."""

import os
import subprocess
import sys
from pathlib import Path
from time import monotonic

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

from decoding.methods import GROUPS, METHODS
from decoding.models import family_cache
from decoding.runs.store import Store
from pages.parts.shared import loading, settings
from pages.parts.shared import recorded_run as demo
from tests.conftest import named
from tests.stepper_events import sent, stands

ROOT = Path(__file__).parent.parent.parent
STEP, TRACES = "pages/1_Step.py", "pages/5_Traces.py"
NEED_MODELS = ("run", "live")
WITHOUT_TORCH = """
import importlib, pkgutil, sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} was imported.")

sys.meta_path.insert(0, Refusing())
from streamlit.testing.v1 import AppTest
import pages.parts, viz
from decoding.methods import GROUPS, METHODS
from decoding.runs import store, trace_files, worker
from pages.parts.shared import recorded_run as demo
from viz.replay.replay import replay_html
from tests.stepper_events import sent, stands

for package in (viz, pages.parts):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
assert all(METHODS.title(key) and key in METHODS for key in METHODS)

def checked(at):
    assert not at.exception, at.exception
    return at

trace = demo.recorded()
store.Store(store.default_folder()).keep(trace, "kept", "")
at = checked(AppTest.from_file("app.py", default_timeout=60).run())
assert at.get("bidi_component"), "home shows no lanes"
at = checked(at.switch_page("pages/5_Traces.py").run())
at = checked(next(b for b in at.button if str(b.key).startswith("traces.open")).click().run())
at = checked(at.switch_page("pages/1_Step.py").run())  # AppTest does not follow st.switch_page
assert at.session_state["draftscope"].trace == trace and at.session_state["draftscope"].cursor == 0
from tests.stepper_events import sent, stands
at = checked(stands(at, 1))
assert at.session_state["draftscope"].cursor == 1 and sent(at)["steps"]
assert trace_files.from_json(trace_files.to_json(trace)) == trace
for frame in (trace_files.nodes_frame(trace), trace_files.steps_frame(trace)):
    assert trace_files.to_parquet(frame)
assert replay_html(trace, "kept")
print([name for name in sys.modules if name.partition(".")[0] in ("torch", "transformers")])
"""


def test_home_traces_and_a_stored_trace_need_no_torch(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DRAFTSCOPE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_registry_lists_methods_as_they_are():
    assert list(METHODS) == sorted(METHODS, key=lambda key: (METHODS[key].year, key))
    assert [METHODS.title(key) for key in METHODS] == [method.title for method in METHODS.values()]
    assert [(METHODS.group(key), METHODS.line(key)) for key in METHODS] == [(one.group, one.line) for one in METHODS.values()]
    assert list(METHODS.grouped()) == list(GROUPS) and all(METHODS.grouped().values())
    assert sorted(sum(METHODS.grouped().values(), ())) == sorted(METHODS)
    assert "no such" not in METHODS and METHODS.get("no such") is None


@pytest.fixture
def importing(monkeypatch):
    """An import that is under way until the test sets `done`."""
    under_way = loading.Importing()
    under_way.began = monotonic()
    monkeypatch.setattr(loading, "importing", under_way)
    return under_way


def page(path: str) -> AppTest:
    at = AppTest.from_file("../../app.py", default_timeout=60).switch_page(path).run()
    assert not at.exception, at.exception
    return at


def said(at: AppTest) -> str:
    return " ".join(e.proto.body for e in at.get("html"))


def prompt(at: AppTest):
    return next(box for box in at.text_area if box.label == "Prompt")


def test_a_process_that_has_torch_never_waits():
    assert "torch" in sys.modules and not loading.Importing().due
    at = page(STEP)
    assert "Loading" not in said(at) and not at.button(key="run").disabled


def test_step_shows_the_recorded_run_and_says_what_is_loaded(importing, smollm2_folder):
    at = page(STEP)
    assert "Loading torch (1 of 3)" in said(at) and sent(at)["steps"] and not sent(at)["more"]
    assert all(
        at.button(key=key).disabled and at.button(key=key).help.replace("\\", "").startswith(loading.WHY) for key in NEED_MODELS
    )
    start = at.session_state["draftscope"].cursor
    stands(at, start - 1)
    assert not at.exception and at.session_state["draftscope"].cursor == start - 1


@pytest.mark.usefixtures("opens_with_embedded")
def test_what_a_visitor_did_meanwhile_stays(importing):
    at = page(STEP)
    stands(at, at.session_state["draftscope"].cursor - 1)
    prompt(at).set_value("Tom had a red").run()
    at.slider(key="temperature").set_value(0.35).run()
    cursor = at.session_state["draftscope"].cursor
    importing.done = True
    at.run()
    assert not at.exception and "Loading" not in said(at) and sent(at)["more"]
    assert prompt(at).value == "Tom had a red" and at.slider(key="temperature").value == 0.35
    assert at.session_state["draftscope"].cursor == cursor
    assert at.selectbox(key="method").value == "speculative_sampling"
    assert at.number_input(key="param.speculative_sampling.length").value == demo.recorded().header.params["length"]


@pytest.mark.usefixtures("opens_with_embedded")
def test_a_stored_trace_opened_meanwhile_gets_its_parameters_later(importing, tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    trace = demo.recorded()
    params = {"length": 7, "no such": 1}
    trace = msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, params=params, prompt="A kept prompt"))
    Store(tmp_path).keep(trace, "kept", "")
    at = page(TRACES)
    named(at, "traces.open").click().run()
    at = at.switch_page(STEP).run()
    assert not at.exception and at.session_state["draftscope"].trace == trace
    assert prompt(at).value == "A kept prompt" and not at.warning
    importing.done = True
    at.run()
    assert not at.exception and at.number_input(key="param.speculative_sampling.length").value == 7
    assert "no parameter" in at.warning[0].value


def test_a_link_is_opened_once_the_methods_are_there(importing):
    at = AppTest.from_file(str(ROOT / STEP), default_timeout=60)
    at.query_params["method"], at.query_params["p.shape"] = "multi_candidate", "2-1"
    at.run()
    assert not at.exception and at.session_state["draftscope"].opened == ""
    importing.done = True
    at.run()
    assert not at.exception and at.selectbox(key="method").value == "multi_candidate"


@pytest.mark.parametrize("path", ["pages/2_Compare.py", "pages/3_Drafter.py", "pages/4_Methods.py"])
def test_pages_that_need_the_methods_say_so_and_follow(importing, path):
    at = page(path)
    assert "follows in a moment" in said(at)
    importing.done = True
    at.run()
    assert not at.exception and "follows in a moment" not in said(at)


def test_an_import_that_fails_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(loading, "PARTS", {"torch": ("no_such_module",)})
    broken = loading.Importing()
    with pytest.raises(ModuleNotFoundError):
        broken.run()
    assert broken.done and not broken.due


@pytest.mark.parametrize("mode", ["public", "local"])
def test_a_public_server_has_the_embedded_models_before_others_are_asked_for(monkeypatch, mode):
    opened = []
    monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
    monkeypatch.setattr(family_cache, "family", lambda *names: opened.append(names))
    monkeypatch.setattr(loading.gc, "freeze", lambda: None)
    began = loading.Importing()
    began.run()
    larger = [] if settings.is_to_fetch("smollm2") else [("smollm2",)]  # when pages go on
    assert began.done and opened == ([(target,) for target, _ in family_cache.EMBEDDED] + larger if mode == "public" else [])


def test_a_larger_model_is_opened_when_pages_go_on(monkeypatch):
    """It takes Python's time for seconds, and nobody may want it."""
    opened, began = [], loading.Importing()
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr(settings, "is_to_fetch", lambda name: name != "smollm2")
    monkeypatch.setattr(family_cache, "family", lambda name: opened.append((name, began.done)))
    monkeypatch.setattr(loading.gc, "freeze", lambda: None)
    began.run()
    assert opened == [("smollm2", True)]
