"""The button that brings a model: offered where it is not here, a job of the worker with a bar and Stop, none once it is here."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from decoding.models import fetching
from decoding.models.catalogue import PAIRS
from decoding.models.memory import needs
from decoding.models.progress import Progress
from decoding.runs import fetch_job
from tests.conftest import eventually
from tests.test_imports import ROOT
from viz.tokens import as_markdown


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path))
    return tmp_path


def step_page() -> AppTest:
    return AppTest.from_file(str(ROOT / "pages/1_Step.py"), default_timeout=300).run()


def slow(name: str):
    """A fetch that goes on until it is dropped."""
    while True:
        yield Progress("downloading", 30, 93)


def test_the_button_fetches_and_stop_ends_it(cache, monkeypatch):
    monkeypatch.setattr(fetch_job, "fetch", slow)
    monkeypatch.setattr(fetch_job, "TURN", 0.01)
    at = step_page()
    assert at.button("fetch").label == "A real model, 93 MB, once"
    at.button("fetch").click().run()
    tab = at.session_state["draftscope.fetching"]
    live = tab.live
    eventually(lambda: live.count > 1, "the worker does not fetch")
    at.run()
    assert live.run.trace.share == pytest.approx(30 / 93)
    at.button("stop_fetch").click().run()
    eventually(lambda: live.state == "closed", "Stop does not end it")
    assert at.button("fetch").label == "A real model, 93 MB, once" and not at.exception


def test_what_cannot_be_had_is_said(cache, monkeypatch):
    def refused(name):
        raise ValueError("No index leads there.")
        yield

    monkeypatch.setattr(fetch_job, "fetch", refused)
    at = step_page()
    at.button("fetch").click().run()
    eventually(lambda: (tab := at.session_state["draftscope.fetching"]).live is None or tab.live.over, "it goes on")
    at.run()
    assert any("No index leads there" in one.value for one in at.warning) and not at.exception


def test_a_model_that_is_not_here_can_be_chosen_and_is_refused_with_what_helps(cache):
    at = step_page()
    at.selectbox("target").set_value("smollm2").run()
    assert any("SmolLM2 135M Instruct is not on this machine yet" in one.value for one in at.warning) and not at.exception


def test_once_it_is_here_there_is_no_button_and_its_memory_is_told(cache, folders):
    (cache / "models").mkdir()
    (cache / "models" / "smollm2").symlink_to(folders("llama"))
    whole = cache / "models" / "smollm2" / fetching.WHOLE
    whole.write_text("here")
    try:
        at = step_page()
        at.selectbox("target").set_value("smollm2").run()
        assert "fetch" not in [one.key for one in at.button]
        found = needs(whole.parent, 4)
        assert any(as_markdown(str(found)) in one.value for one in at.caption) and not at.exception
    finally:
        whole.unlink()


def finished(place):
    """A fetch that leaves a folder where the real one would."""

    def fetch(name: str):
        yield Progress("downloading", 30, 93)
        folder, model = place
        (folder / "models").mkdir(exist_ok=True)
        (folder / "models" / "smollm2").symlink_to(model)
        yield Progress("done", 93, 93)

    return fetch


@pytest.fixture
def brought(cache, folders, monkeypatch):
    """Pressing the button of a page brings a model in a moment."""
    whole = Path(folders("llama")) / fetching.WHOLE
    whole.write_text("here")
    monkeypatch.setattr(fetch_job, "fetch", finished((cache, folders("llama"))))
    yield
    whole.unlink()


def fetched(at: AppTest) -> AppTest:
    at.button("fetch").click().run()
    eventually(lambda: (tab := at.session_state["draftscope.fetching"]).live is None or tab.live.over, "it goes on")
    return at.run()


def test_what_was_fetched_is_chosen_by_itself(brought):
    at = fetched(step_page())
    assert at.selectbox("target").value == "smollm2"
    assert "fetch" not in [one.key for one in at.button] and not at.exception
    assert at.selectbox("target").set_value("embedded").run().run().selectbox("target").value == "embedded"


def test_it_is_not_where_another_was_chosen_meanwhile(brought):
    at = step_page()
    at.button("fetch").click().run()
    at.selectbox("target").set_value("embedded-small").run()
    eventually(lambda: (tab := at.session_state["draftscope.fetching"]).live is None or tab.live.over, "it goes on")
    assert at.run().selectbox("target").value == "embedded-small" and not at.exception


def test_drafter_has_the_button_too(brought):
    at = AppTest.from_file(str(ROOT / "pages/3_Drafter.py"), default_timeout=300).run()
    at = fetched(at)
    assert at.text_input("study.target").value == "smollm2" and not at.exception


def test_recommended_pairs_fill_the_fields(cache):
    at = step_page()
    menu = next(one for one in at.selectbox if one.label == "Recommended on the Hub")
    assert menu.value is None and len(menu.options) == len(PAIRS)
    assert "Qwen3 8B + EAGLE head · 16 GB, Apache-2.0" in menu.options
    pair = ("HuggingFaceTB/SmolLM2-360M-Instruct", "smollm2")
    menu.set_value(pair).run()
    assert (at.text_input("target_name").value, at.selectbox("draft").value) == pair  # the second is a name of ours
    menu = next(one for one in at.selectbox if one.label == "Recommended on the Hub")
    assert menu.value == pair
    assert any("0.4 B parameters, about 724 MB to download" in one.value.replace("\\", "") for one in at.caption)
    assert at.button("fetch").label == as_markdown(f"Fetch {pair[0]}") and not at.exception
    menu.set_value(("Qwen/Qwen3-8B", "RedHatAI/Qwen3-8B-speculator.eagle3")).run()
    at.selectbox("method").set_value("eagle").run()
    assert not any("needs a head" in one.value for one in at.warning) and not at.exception
