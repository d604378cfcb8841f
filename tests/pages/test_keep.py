"""The button that keeps a run: what was seen is what is kept, once, and what is said of it goes when it is no longer true."""

import msgspec
import pytest

from decoding.runs.store import Store
from pages.parts.shared import keep
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.keep import mark
from pages.parts.shared.settings import settings_of
from tests.pages.test_traces import page, press, words

pytestmark = pytest.mark.usefixtures("opens_with_embedded")
STEP = "pages/1_Step.py"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    return Store(tmp_path)


def first(trace, count):
    return msgspec.structs.replace(trace, steps=trace.steps[:count])


def of_prompt(trace, prompt):
    return msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, prompt=prompt))


def shows(session, trace) -> None:
    """Another run takes the place of the one that is shown, as when it arrives or the one before is let go of."""
    with session.lock:
        session.trace, session.settings, session.runs = trace, settings_of(trace.header), session.runs + 1


@pytest.mark.parametrize("before", [False, True], ids=["never kept", "kept before"])
def test_what_took_the_place_of_a_run_is_not_kept_for_it(store, before):
    """The run was let go of while its page stood idle, or the next one arrived before it was drawn: that was kept under its
    name, or its steps were added to those that were kept."""
    at, whole = page(STEP), demo.recorded()
    session = at.session_state["draftscope"]
    shows(session, first(of_prompt(whole, "A cat sat"), 3))
    at.run()
    if before:
        press(at, "keep")
        session.trace = first(of_prompt(whole, "A cat sat"), 4)
        at.run()
    shows(session, whole)
    press(at, "keep")
    assert [(e.prompt, e.steps) for e in store.entries()] == [("A cat sat", 3)] * before
    assert "Nothing was kept" in words(at)
    press(at, "keep")  # now the run that stands there is meant
    assert [(e.prompt, e.steps) for e in store.entries()][0] == (whole.header.prompt, len(whole.steps))
    assert "Nothing was kept" not in words(at)


def test_a_run_that_is_made_anew_is_kept_once_and_keeps_its_words(store):
    at, whole = page(STEP), demo.recorded()
    session = at.session_state["draftscope"]
    shows(session, first(whole, 3))
    at.run()
    box = next(one.key for one in at.text_input if one.key.startswith("keep_name."))
    at.text_input(key=box).set_value("mine")
    press(at, "keep")
    shows(session, first(whole, 4))
    at.run()
    assert at.text_input(key=box).value == "mine" and "up to step 3" in words(at)
    press(at, "keep")
    assert [(e.name, e.steps) for e in store.entries()] == [("mine", 4)]


def test_another_run_of_the_same_settings_is_kept_beside_the_first(store):
    """On another device the same seed may give other tokens."""
    at, whole = page(STEP), demo.recorded()
    press(at, "keep")
    other = msgspec.structs.replace(whole.steps[0], tokens=(whole.steps[-1].tokens[0],) * len(whole.steps[0].tokens))
    shows(at.session_state["draftscope"], msgspec.structs.replace(whole, steps=(other, *whole.steps[1:])))
    at.run()
    press(at, "keep")
    assert store.count() == 2


def test_a_double_press_keeps_once(store, monkeypatch):
    """Both of its presses come from the same drawing of the page."""
    once = keep.press

    def twice(*given):
        once(*given)
        once(*given)

    monkeypatch.setattr(keep, "press", twice)
    press(page(STEP), "keep")
    assert store.count() == 1


def test_name_and_note_can_be_saved_after_the_run_was_kept(store):
    at = page(STEP)
    press(at, "keep")
    assert at.button(key="keep").disabled
    at.text_area(key="keep_note.0").set_value("what I saw").run()
    assert not at.button(key="keep").disabled and "to save name and note" in words(at)
    press(at, "keep")
    assert [e.note for e in store.entries()] == ["what I saw"] and at.button(key="keep").disabled


def test_a_name_that_was_written_anew_on_traces_is_known(store):
    """Step went on with the old one, and refused one's own note at every press."""
    at, whole = page(STEP), demo.recorded()
    session = at.session_state["draftscope"]
    shows(session, first(of_prompt(whole, "A cat sat"), 3))
    press(at.run(), "keep")
    entry, *_ = store.entries()
    at.switch_page("pages/5_Traces.py").run()
    store.rename(entry.id, "second name", "")
    at.switch_page(STEP).run()
    assert "Kept as “second name”" in words(at)
    box = next(area for area in at.text_area if area.key.startswith("keep_note"))
    box.set_value("what I saw").run()
    press(at, "keep")
    assert [(e.name, e.note) for e in store.entries()] == [("second name", "what I saw")]


def test_what_another_tab_has_written_is_replaced_by_the_second_press_alone(store):
    at, whole = page(STEP), demo.recorded()
    session = at.session_state["draftscope"]
    shows(session, first(of_prompt(whole, "A cat sat"), 3))
    press(at.run(), "keep")
    entry, *_ = store.entries()
    store.rename(entry.id, "of another tab", "")
    box = next(area for area in at.text_area if area.key.startswith("keep_note"))
    box.set_value("mine").run()
    press(at, "keep")
    assert "stay as they are" in words(at) and store.entries()[0].name == "of another tab"
    press(at, "keep")
    assert store.entries()[0].note == "mine" and "stay as they are" not in words(at)


def test_a_refusal_is_not_said_for_longer_than_it_is_true(store, tmp_path, monkeypatch):
    at = page(STEP)
    (tmp_path / "file").write_text("")
    at.session_state["store_folder"] = str(tmp_path / "file")
    press(at, "keep")
    assert "was not kept" in words(at)
    at.session_state["store_folder"] = str(tmp_path)
    for path in ("pages/5_Traces.py", STEP):
        at.switch_page(path).run()
    assert "was not kept" not in words(at)
    at.session_state["store_folder"] = str(tmp_path / "file")
    at.run()
    press(at, "keep")
    shows(at.session_state["draftscope"], of_prompt(demo.recorded(), "Another"))
    at.run()
    assert "was not kept" not in words(at)


def test_a_run_is_known_by_how_it_was_made_and_what_it_said():
    whole = demo.recorded()
    assert mark(whole, 2) == mark(first(whole, 2), 2) != mark(whole, 3)
    assert mark(whole) == mark(first(whole, 1)) != mark(of_prompt(whole, "Another"))
