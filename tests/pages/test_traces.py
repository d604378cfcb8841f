"""The Traces page and the Keep button, without a browser: list, filters, open, rename, delete, import, damaged files."""

import datetime
import io
import time
import zipfile
from types import SimpleNamespace

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

from decoding.runs.store import Query, Store
from decoding.runs.trace_files import to_json
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.clock import local
from pages.parts.shared.in_turn import Later
from pages.parts.shared.keep import Kept, added, suggestion
from pages.parts.shared.settings import settings_of
from pages.parts.step.open_trace import settings_for
from pages.parts.traces import importing
from pages.parts.traces.everything import archive
from pages.parts.traces.exports import file_name
from pages.parts.traces.trace_list import midnight, which
from tests.conftest import PATIENCE, named
from tests.samples import sample_trace
from tests.viz_samples import HOSTILE, chain, trace_of
from viz.replay.replay import replay_html

HARMFUL = "<script>alert(1)</script> **bold** :red[x] $x$"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    return Store(tmp_path)


def page(path="pages/5_Traces.py") -> AppTest:
    at = AppTest.from_file("../../app.py", default_timeout=PATIENCE).switch_page(path).run()
    assert not at.exception, at.exception
    return at


def press(at: AppTest, key: str) -> AppTest:
    named(at, key).click().run()
    assert not at.exception, at.exception
    return at


def words(at: AppTest) -> str:
    elements = [*at.markdown, *at.caption, *at.info, *at.success, *at.error, *at.warning, *at.get("html")]
    return "\n".join(str(getattr(e, "value", None) or getattr(e.proto, "body", "")) for e in elements)


def other(trace, **header):
    return msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, **header))


@pytest.mark.parametrize("said", [None, "", "America/Los_Angeles", "America", "../../etc/passwd", "x\0y", "Nowhere/At_All"])
def test_times_are_those_of_the_readers_clock(monkeypatch, said):
    """A browser in Los Angeles read that a run had been kept on the next day."""
    monkeypatch.setattr("pages.parts.shared.clock.st", SimpleNamespace(context=SimpleNamespace(timezone=said)))
    moment = datetime.datetime(2026, 12, 1, 0, 37, tzinfo=datetime.UTC).timestamp()
    here = datetime.datetime.fromtimestamp(moment)
    assert local(moment) == (datetime.datetime(2026, 11, 30, 16, 37) if said == "America/Los_Angeles" else here)
    day = local(moment).date()
    assert midnight(day) <= moment < midnight(day, 1)


def test_an_empty_store_says_what_to_do(store):
    assert "Nothing is kept yet" in words(page())


def test_a_folder_that_cannot_be_written_is_a_sentence(store, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    at = page()
    at.text_input(key="traces.folder").set_value(str(tmp_path / "file")).run()
    assert not at.exception and "cannot be kept" in at.error[0].value


def test_the_tree_of_a_step_is_offered_as_a_graph(store):
    kept = store.keep(sample_trace(), "first of them")
    at = page()
    at.session_state[f"traces.picture.{which(store, store.entries_of([kept])[0])}"] = True
    at.run()
    labels = [button.label for button in at.get("download_button")]
    assert not at.exception and {"GraphML", "Node-link JSON"} <= set(labels)


def test_another_folder_is_another_list(store, tmp_path):
    Store(tmp_path / "other").keep(sample_trace(), "elsewhere")
    at = page()
    at.text_input(key="traces.folder").set_value(str(tmp_path / "other")).run()
    assert "elsewhere" in words(at)


def test_the_list_is_searched_and_filtered(store):
    store.keep(sample_trace(), "first of them", "about cats")
    store.keep(other(sample_trace(), method="plain"), "second")
    store.keep(sample_trace(), "prompt 1", study="abc")
    at = page()
    assert "2 of 3 traces" in words(at)  # a debug run's traces are shown on demand
    at.text_input(key="traces.words").set_value("cats").run()
    assert "1 of 3 traces" in words(at) and "first of them" in words(at)
    at.selectbox(key="traces.method").set_value("plain").run()
    assert "None of the 3 traces matches" in words(at)
    press(at, "traces.clear")
    assert "3 traces" in words(at)


def test_after_a_study_alone_no_filter_is_blamed(store):
    for i in range(3):
        store.keep(sample_trace(), f"prompt {i}", study="abc")
    at = page()
    assert "No run was kept by hand yet" in words(at) and "Drafter made 3" in words(at)
    assert "matches" not in words(at) and "filter" not in words(at)
    press(at, "traces.show_studies")
    assert "3 traces" in words(at)


def test_days_include_both_ends(store):
    store.keep(sample_trace(), "today")
    at = page()
    today = time.strftime("%Y-%m-%d")
    at.date_input(key="traces.since").set_value(today)
    at.date_input(key="traces.until").set_value(today).run()
    assert not at.exception and "today" in words(at)


def test_many_traces_come_in_pages(store):
    for number in range(23):
        store.keep(trace_of(chain()), f"run {number:02}")
    at = page()
    assert "Page 1 of 2" in words(at) and len(at.selectbox(key="traces.chosen").options) == 20
    at.session_state["traces.page"] = 2
    at.run()
    assert "Page 2 of 2" in words(at) and len(at.selectbox(key="traces.chosen").options) == 3


def test_a_trace_opens_on_the_step_page_without_a_model(store):
    store.keep(demo.recorded(), "the recorded one")
    at = press(page(), "traces.open")
    session = at.session_state["draftscope"]
    assert session.recorded and session.live is None and session.trace == demo.recorded() and session.cursor == 0
    assert "recorded run" in words(at)


def test_a_trace_of_another_family_opens_too(store):
    store.keep(other(sample_trace(), family="/models/big + /models/small"), "foreign")
    at = press(page(), "traces.open")
    assert at.session_state["draftscope"].settings.target == "/models/big"
    assert "is not loaded" in words(at)


@pytest.mark.parametrize("header", [{"method": "from the future"}, {"max_tokens": 0}, {"max_tokens": 10**15}], ids=str)
def test_a_header_that_cannot_be_shown_is_a_sentence(store, header):
    store.keep(other(sample_trace(), **header), "odd")
    at = press(page(), "traces.open")
    assert at.error and at.session_state["draftscope"].trace is demo.recorded()


def test_a_hostile_header_moves_no_control_out_of_its_range(store):
    trace = sample_trace()
    sampling = replace_sampling(trace, temperature=1e308, top_k=10**6, top_p=0.001, guidance=float("nan"))
    store.keep(other(sampling, seed=-1, params={"length": 10**9, "x": "y"}, prompt=HARMFUL), HARMFUL, HARMFUL)
    at = press(page(), "traces.open")
    session = at.session_state["draftscope"]
    assert session.trace.header.seed == -1
    assert len(session.notes) >= 4
    assert HARMFUL not in "\n".join(e.value for e in [*at.markdown, *at.caption, *at.warning])


def test_a_header_that_cannot_be_is_a_sentence_and_the_session_stays(store):
    trace = sample_trace()
    store.keep(replace_sampling(trace, top_k=-5), "odd", "")
    at = page()
    before = at.session_state["draftscope"].trace
    press(at, "traces.open")
    assert "sampling.top_k" in " ".join(box.value for box in at.error).replace("\\", "")
    assert at.session_state["draftscope"].trace is before


def replace_sampling(trace, **values):
    return other(trace, sampling=msgspec.structs.replace(trace.header.sampling, **values))


def test_of_two_runs_of_one_name_and_minute_the_selected_one_is_deleted(store):
    """The box took the other one for it with the next press: it knows an option by what it says."""
    ids = [store.keep(sample_trace(), "plain: Once") for _ in range(3)]
    at = page()
    assert len(set(at.selectbox(key="traces.chosen").options)) == 3
    at.selectbox(key="traces.chosen").set_value(ids[1]).run()
    press(press(at, "traces.delete"), "traces.really")
    assert [e.id for e in store.entries()] == [ids[2], ids[0]]


def test_a_mark_in_the_table_does_not_stay_when_the_lines_are_others(store):
    """The browser marks a line by its number: another run stood under the mark of one that was deleted."""
    for number in range(23):
        store.keep(trace_of(chain()), f"run {number:02}")
    at = page()
    before = at.dataframe[0].proto.id
    at.run()
    assert at.dataframe[0].proto.id == before
    seen = {before}
    store.delete(store.entries()[4].id)
    for change in (
        lambda: None,
        lambda: at.session_state.__setitem__("traces.page", 2),
        lambda: at.session_state.__setitem__("traces.words", "7"),
    ):
        change()
        at.run()
        assert not at.exception and at.dataframe[0].proto.id not in seen
        seen.add(at.dataframe[0].proto.id)


def test_the_form_says_what_was_written_on_another_page(store):
    """It went on with name and note of before, and refused what was written then."""
    number = store.keep(sample_trace(), "old", "short")
    at = page()
    at.switch_page("pages/1_Step.py").run()
    store.rename(number, "new", "longer")
    at.switch_page("pages/5_Traces.py").run()
    assert box(at, "name").value == "new" and box(at, "note").value == "longer"
    renamed(at, "new", "longer still")
    assert [e.note for e in store.entries()] == ["longer still"] and not at.warning


def test_name_and_note_can_be_changed(store):
    number = store.keep(sample_trace(), "old")
    at = renamed(page(), "new", "why")
    assert [(e.id, e.name, e.note) for e in store.entries()] == [(number, "new", "why")]
    assert box(at, "name").value == "new" and box(at, "note").value == "why"


def box(at: AppTest, which: str):
    """Of the form: name or note."""
    (found,) = [one for one in [*at.text_input, *at.text_area] if str(one.key).startswith(f"traces.{which}.")]
    return found


def renamed(at: AppTest, name: str, note: str) -> AppTest:
    box(at, "name").set_value(name)
    box(at, "note").set_value(note)
    return press(at, "traces.rename")


def test_what_another_tab_wrote_is_not_written_over(store):
    """An older form put the old name and the old note back, and said nothing."""
    number = store.keep(sample_trace(), "old", "short")
    at = page()
    store.rename(number, "theirs", "long")
    renamed(at, "mine", "short and more")
    assert [(e.name, e.note) for e in store.entries()] == [("theirs", "long")]
    assert "another tab" in at.warning[0].value and [one.value for one in at.code] == ["mine\nshort and more"]
    assert box(at, "name").value == "theirs" and box(at, "note").value == "long"
    renamed(at, "mine", "long and short")
    assert [(e.name, e.note) for e in store.entries()] == [("mine", "long and short")] and not at.warning


def test_a_form_says_what_another_store_has_under_the_same_id(store, tmp_path):
    """As with a visitor who takes another browser's runs: their name and note were written over by one's own."""
    other_store = Store(tmp_path / "other")
    assert store.keep(sample_trace(), "mine", "my note") == other_store.keep(sample_trace(), "theirs", "their note")
    at = page()
    assert box(at, "note").value == "my note"
    at.session_state["store_folder"] = str(other_store.folder)
    at.run()
    assert box(at, "name").value == "theirs" and box(at, "note").value == "their note"


def test_a_run_of_a_study_keeps_its_name(store):
    """The study knows it by that: under another prompt's it would stand for that one."""
    number = store.keep(sample_trace(), "prompt 4", "", study="x")
    at = press(page(), "traces.show_studies")
    assert box(at, "name").disabled
    box(at, "note").set_value("a note")
    press(at, "traces.rename")
    assert [(e.id, e.name, e.note) for e in store.entries()] == [(number, "prompt 4", "a note")]


def test_what_was_deleted_elsewhere_is_not_renamed_in_silence(store):
    number = store.keep(sample_trace(), "old")
    store.delete(number)
    with pytest.raises(ValueError, match="deleted"):
        store.rename(number, "new", "")


def test_what_is_pressed_for_a_run_counts_for_no_other(store):
    """The form of the next run said “saved” of what was written for one that another tab had deleted, and Delete asked for that."""
    other, gone = store.keep(sample_trace(), "one", "its note"), store.keep(sample_trace(), "two")
    at = page()
    assert box(at, "name").value == "two"
    store.delete(gone)
    renamed(at, "two", "a long note")
    assert [(e.id, e.name, e.note) for e in store.entries()] == [(other, "one", "its note")] and "are saved" not in words(at)
    assert "deleted meanwhile" in at.warning[0].value and [one.value for one in at.code] == ["two\na long note"]
    assert not press(at, "traces.orphan.done").code
    gone = store.keep(sample_trace(), "two")
    at = page()
    store.delete(gone)
    press(at, "traces.delete")
    assert "will be gone for good" not in words(at) and store.count() == 1


def test_delete_asks_first(store):
    store.keep(sample_trace(), "going")
    at = press(page(), "traces.delete")
    assert store.count() == 1
    press(at, "traces.really")
    assert store.count() == 0 and "is deleted" in words(at)


def test_delete_can_be_taken_back(store):
    store.keep(sample_trace(), "staying")
    press(press(page(), "traces.delete"), "traces.leave")
    assert store.count() == 1


def test_token_text_is_never_markup(store):
    trace = trace_of(chain(), token_bytes=HOSTILE, prompt_tokens=tuple(HOSTILE))
    store.keep(other(trace, prompt=HARMFUL), HARMFUL, HARMFUL)
    at = page()
    assert all("<script>" not in getattr(e.proto, "body", "") for e in at.get("html"))
    assert all(HARMFUL not in e.value for e in [*at.markdown, *at.caption])
    assert "<script>alert" not in replay_html(store.open(store.entries()[0].id), HARMFUL)


# -- import -----------------------------------------------------------------------------------------------------------------


def upload(at: AppTest, name: str, data: bytes) -> AppTest:
    at.file_uploader(key="import").set_value((name, data, "application/json")).run()
    assert not at.exception, at.exception
    return at


def test_an_exported_trace_is_imported_and_kept(store):
    at = upload(page(), "run.json.gz", to_json(sample_trace()))
    assert not at.error
    press(at, "import.keep")
    assert [e.name for e in store.entries()] == ["run"]
    assert store.open(store.entries()[0].id) == sample_trace()
    press(at, "import.keep")  # the second click of a double-click
    assert store.count() == 1 and "is kept already" in words(at)
    store.delete(store.entries()[0].id)
    press(at, "import.keep")
    assert store.count() == 1


def test_an_imported_trace_opens_without_being_kept(store):
    at = press(upload(page(), "run.json.gz", to_json(demo.recorded())), "import.open")
    assert at.session_state["draftscope"].trace == demo.recorded() and store.count() == 0


def test_the_file_of_all_runs_has_their_notes(store):
    """Whoever deleted all of them then had lost what was written of them."""
    noted, bare = store.keep(sample_trace(), "Übung: one", "look at step 3"), store.keep(sample_trace(), "two")
    with zipfile.ZipFile(io.BytesIO(archive(store))) as files:
        names = files.namelist()
        (note,) = [files.read(name).decode() for name in names if name.endswith(".note.txt")]
    assert note == "Übung: one\n\nlook at step 3\n"
    assert len(names) == 3 and sum(name.startswith(f"{noted}_") for name in names) == 2 and f"{bare}_two.json.gz" in names


def test_the_file_of_all_runs_says_what_the_names_of_its_files_cannot(store):
    """A name without a Latin letter stood nowhere, nor which study a run was of."""
    store.keep(sample_trace(), "说明")
    store.keep(sample_trace(), "prompt_1", study="abc")
    with zipfile.ZipFile(io.BytesIO(archive(store))) as files:
        notes = [files.read(name).decode() for name in files.namelist() if name.endswith(".note.txt")]
    assert sorted(notes) == ["prompt_1\nof the study abc\n\n\n", "说明\n\n\n"]


DAMAGED = {
    "text": b"hello",
    "cut short": to_json(sample_trace())[:-40],
    "not a trace": b'{"format": "draftscope-trace", "trace": {"steps": 3}}',
    "markup": b'{"format": "<script>alert(1)</script>", "trace": 0}',
    "empty": b"",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_a_sentence_and_changes_nothing(store, kind):
    at = upload(page(), "run.json", DAMAGED[kind])
    assert at.error[0].value.startswith("The file was not imported")
    assert store.count() == 0 and at.session_state["draftscope"].trace is demo.recorded()
    assert not [b for b in at.button if str(b.key).startswith("import.")]


@pytest.mark.parametrize("refuses", ["reading", "check_replayed"])
def test_a_refusal_that_passes_can_be_tried_again(store, monkeypatch, refuses):
    """It was remembered with the file, which had to be taken away and chosen again."""

    def full(*given):
        raise Later("Others are read first. Try again in a minute.")

    with monkeypatch.context() as patch:
        patch.setattr(importing, refuses, full)
        at = upload(page(), "run.json.gz", to_json(sample_trace()))
        assert "Try again in a minute" in at.error[0].value
        assert "Try again in a minute" in press(at, "import.again").error[0].value
    press(at, "import.again")
    assert not at.error and named(at, "import.keep")


# -- keep -------------------------------------------------------------------------------------------------------------------


def test_the_shown_run_is_kept_with_name_and_note(store):
    at = page("pages/1_Step.py")
    runs = at.session_state["draftscope"].runs
    at.text_input(key=f"keep_name.{runs}").set_value("my run")
    at.text_area(key=f"keep_note.{runs}").set_value("look at step 3")
    press(at, "keep")
    (entry,) = store.entries(Query(study=""))
    assert (entry.name, entry.note, entry.ended) == ("my run", "look at step 3", True)
    assert store.open(entry.id) == demo.recorded()
    assert "Kept as" in words(at)


def test_keeping_again_adds_what_has_come_since(store):
    whole = demo.recorded()
    half = msgspec.structs.replace(whole, steps=whole.steps[:3])
    number = added(store, None, half, "run", "")
    kept = Kept(0, store.folder, number, 3, "run", "")
    assert added(store, kept, whole, "run", "done") == number
    assert store.open(number) == whole and store.count() == 1
    store.delete(number)
    assert added(store, kept, whole, "run", "") != number


def elsewhere_and_back(at: AppTest) -> None:
    for path in ("pages/4_Methods.py", "pages/1_Step.py"):
        at.switch_page(path).run()
        assert not at.exception, at.exception


@pytest.mark.parametrize("here", [False, True], ids=["as it was", "changed here too"])
def test_keeping_again_leaves_name_and_note_that_were_written_on_traces(store, here):
    at, whole = page("pages/1_Step.py"), demo.recorded()
    runs = at.session_state["draftscope"].runs
    number = store.keep(msgspec.structs.replace(whole, steps=whole.steps[:3]), "run", "")
    at.session_state["draftscope"].kept = Kept(runs, store.folder, number, 3, "run", "")
    elsewhere_and_back(at)
    store.rename(number, "better", "why it is worth a look")
    if here:
        at.text_area(key=f"keep_note.{runs}").set_value("another note")
    press(at, "keep")
    (entry,) = store.entries()
    assert (entry.name, entry.note, entry.steps) == ("better", "why it is worth a look", len(whole.steps))
    assert ("stay as they are" in words(at)) == here


def test_the_boxes_of_a_kept_run_begin_with_its_name_and_note(store):
    """The browser forgets them on another page, and the next press put the suggestion in the place of the name."""
    at = page("pages/1_Step.py")
    runs = at.session_state["draftscope"].runs
    at.text_input(key=f"keep_name.{runs}").set_value("mine")
    at.text_area(key=f"keep_note.{runs}").set_value("look")
    press(at, "keep")
    elsewhere_and_back(at)
    assert at.text_input(key=f"keep_name.{runs}").value == "mine" and at.text_area(key=f"keep_note.{runs}").value == "look"


def test_a_run_that_cannot_be_kept_is_a_sentence(store, tmp_path, monkeypatch):
    at = page("pages/1_Step.py")
    (tmp_path / "file").write_text("")
    at.session_state["store_folder"] = str(tmp_path / "file")
    press(at, "keep")
    assert "was not kept" in words(at)


def test_names_to_begin_with_and_of_files():
    assert suggestion(sample_trace()).startswith("speculative sampling")
    assert file_name("../../etc/passwd") == "etc_passwd"


def test_the_settings_of_a_trace_are_those_it_was_made_with():
    settings, notes = settings_for(demo.recorded().header)
    assert not notes and settings.same_run(settings_of(demo.recorded().header))
