"""The recorded runs: what ships, what a first visitor finds on Home, Step and Compare, and the ways on from there."""

from dataclasses import asdict
from pathlib import Path
from statistics import median_low

import pytest
from msgspec.structs import replace
from streamlit.testing.v1 import AppTest

from decoding.lenses import LENSES
from decoding.methods import METHODS
from decoding.models.catalogue import SMOLLM2
from decoding.runs import lesson_runs, recorded_comparison, recorded_looks, recorded_run
from decoding.trace import Message
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.absent import INSTEAD
from pages.parts.shared.examples import EXAMPLES
from pages.parts.shared.fetching import REAL
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings, settings_of
from tests.conftest import PATIENCE, eventually
from tests.stepper_events import asks, sent, stands

ROOT = Path(__file__).parent.parent.parent
STEP, COMPARE = "pages/1_Step.py", "pages/2_Compare.py"
OFFERED = f"**{SMOLLM2.title} is not on this machine yet**, so nothing was run"

pytestmark = pytest.mark.timeout(4 * PATIENCE)


@pytest.fixture
def nothing_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path))


def opened(path: str, **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / path), default_timeout=PATIENCE)
    for key, value in query.items():
        at.query_params[key] = value
    return checked(at.run())


def checked(at: AppTest) -> AppTest:
    assert not at.exception, at.exception
    return at


def press(at: AppTest, key: str) -> AppTest:
    """A button of the page; "step" is the stepper's own, where another step is to be made."""
    return checked(asks(at) if key == "step" else at.button(key=key).click().run())


def keys(at: AppTest) -> set[str]:
    return {button.key for button in at.button}


def words(at: AppTest) -> str:
    said = " ".join(element.value for element in (*at.markdown, *at.caption, *at.warning, *at.error))
    return (said + " ".join(element.proto.body for element in at.get("html"))).replace("\\", "")


def until_run(at: AppTest, there) -> AppTest:
    """Draws nothing while a model works or is opened, which would only take the processor from it."""
    session = at.session_state["draftscope"]
    eventually(lambda: not session.busy and checked(at.run()) and there(), "the run did not come")
    return at


# -- what ships -----------------------------------------------------------------------------------------------------------


def test_what_ships_is_one_question_answered_by_every_method():
    traces = tuple(map(recorded_run.read, recorded_run.METHODS))
    assert [trace.header.method for trace in traces] == list(recorded_run.METHODS)
    one = traces[0].header
    for trace in traces:
        header = trace.header
        assert header.family == SMOLLM2.name and header.messages[-1].content == recorded_run.QUESTION
        assert (header.messages, header.seed, header.sampling) == (one.messages, one.seed, one.sampling)
        assert header.params == settings_of(header).full_params, "the controls say all that the run was made with"
        assert trace.steps[-1].ending and settings_of(header).problem() in ("", Settings(target=SMOLLM2.name).problem())
    assert sum(file.stat().st_size for file in recorded_run.FOLDER.iterdir()) < 1e6


def test_the_first_one_is_paused_where_a_word_is_turned_down_for_a_word_by_a_die_that_fell_near():
    trace = demo.recorded()
    step = trace.steps[demo.pause_at()]
    refused = next(node for node in step.nodes if node.verdict == "rejected")
    words = [trace.token_bytes[token] for token in (refused.token, step.tokens[-1])]
    assert step.path and step.origins[-1] == "correction" and all(map(recorded_run.is_word, words))
    assert 0 < refused.u - refused.p / refused.q < 0.15 and refused.p > recorded_run.PLAUSIBLE
    assert recorded_run.lesson(step, trace.token_bytes) == max(recorded_run.lesson(s, trace.token_bytes) for s in trace.steps)


def test_a_word_turned_down_for_a_word_teaches_more_than_half_a_word_whatever_the_margin():
    trace = demo.recorded()
    step = trace.steps[demo.pause_at()]
    assert recorded_run.lesson(step, dict.fromkeys(trace.token_bytes, b" word")) > 1
    assert recorded_run.lesson(step, dict.fromkeys(trace.token_bytes, b"ing")) < 1
    refused = next(i for i, node in enumerate(step.nodes) if node.verdict == "rejected")
    wide = list(step.nodes)
    wide[refused] = replace(wide[refused], u=0.99)
    assert recorded_run.lesson(replace(step, nodes=tuple(wide)), trace.token_bytes) < recorded_run.lesson(step, trace.token_bytes)


def forgotten() -> None:
    for one in (demo.recorded, demo.comparison, demo.comparison_times):
        one.cache_clear()


def test_a_damaged_recording_leaves_the_pages_empty(monkeypatch, tmp_path):
    monkeypatch.setattr(recorded_run, "FOLDER", tmp_path)
    monkeypatch.setattr(lesson_runs, "FOLDER", tmp_path)
    lesson_runs.file_of("story").write_bytes(b"\x1f\x8bnothing")
    forgotten()
    try:
        assert demo.recorded() is None and demo.comparison() == () and demo.title() == "" and demo.pause_at() == -1
        assert not opened("app.py").get("plotly_chart") and not opened(STEP).get("plotly_chart")
        assert "press Step or Play" in words(opened(COMPARE))
    finally:
        forgotten()


# -- Home and Step --------------------------------------------------------------------------------------------------------


def test_home_says_whose_run_it_shows(nothing_fetched):
    assert f"Two recorded runs of {SMOLLM2.title}, replayed" in words(opened("app.py"))


def test_without_the_model_step_shows_the_recording_and_names_every_way_on(nothing_fetched):
    at = opened(STEP)
    session = at.session_state["draftscope"]
    assert session.trace is demo.recorded() and session.live is None and session.cursor == demo.pause_at()
    assert f"A recording of **{SMOLLM2.title}**" in words(at) and sent(at)["at"] == [demo.pause_at(), 2, None]
    assert at.button("recording_fetch").label == REAL and at.button("recording_instead").label == INSTEAD
    assert "live" not in keys(at) and not at.error
    stands(at, demo.pause_at() + 1)
    assert session.cursor == demo.pause_at() + 1 and session.live is None and "A recording of" in words(at)


@pytest.mark.parametrize("button", ["step", "run"])
def test_a_run_without_its_model_is_a_sentence_and_the_recording_stays(nothing_fetched, button):
    at = opened(STEP)
    at.slider("temperature").set_value(0.5).run()
    press(at, button)
    session = at.session_state["draftscope"]
    assert OFFERED in words(at) and {"step_fetch", "step_instead"} <= keys(at)
    assert session.trace is demo.recorded() and session.live is None and session.coming is None
    press(at, "put_back")
    stands(at, demo.pause_at() - 1)
    asks(at)
    assert OFFERED not in words(at) and session.cursor == demo.pause_at()


def test_the_embedded_family_is_run_instead_only_when_it_is_asked_for(nothing_fetched):
    at = opened(STEP)
    session = at.session_state["draftscope"]
    at.number_input("max_tokens").set_value(20).run()
    press(at, "step")
    assert session.trace is demo.recorded() and OFFERED in words(at)
    press(at, "step_instead")
    until_run(at, lambda: session.coming is None and session.live is not None)
    header, settings = session.trace.header, session.settings
    assert header.family == "embedded" and not header.messages and header.method == demo.recorded().header.method
    assert (settings.temperature, settings.seed) == (recorded_run.TEMPERATURE, demo.recorded().header.seed)
    assert at.selectbox("target").value == "embedded" and OFFERED not in words(at)


def test_words_of_ones_own_go_along_to_the_embedded_family_and_an_example_does_not():
    example = settings_of(demo.recorded().header).on_embedded()
    assert (example.prompt, example.messages, example.target) == (EXAMPLES["once"].prompt, (), "embedded")
    mine = Settings(target=SMOLLM2.name, messages=(Message("user", "the cat"),), prompt="", seed=7)
    assert mine.on_embedded() == Settings(prompt="the cat", seed=7)


def test_once_the_model_was_brought_the_run_that_was_meant_can_begin(nothing_fetched, tmp_path):
    at = opened(STEP)
    at.number_input("max_tokens").set_value(20).run()
    press(at, "step")
    (tmp_path / "models" / "smollm2").mkdir(parents=True)
    (tmp_path / "models" / "smollm2" / "draftscope.md").write_text("here")
    checked(at.run())
    assert "The model is here now" in words(at) and {"step_run"} <= keys(at) and "step_fetch" not in keys(at)


def test_with_the_model_it_goes_on_live_at_the_same_place(smollm2_folder):
    at = opened(STEP)
    session, recording = at.session_state["draftscope"], demo.recorded()
    assert "recording_fetch" not in keys(at) and at.button("live").label == "Run it live"
    press(at, "live")
    until_run(at, lambda: session.live is not None and session.goal is None)
    header = session.trace.header
    assert (header.family, header.messages, header.seed) == ("smollm2", recording.header.messages, recording.header.seed)
    assert session.cursor == demo.pause_at() and "A recording of" not in words(at)
    assert session.trace.steps[0].tokens == recording.steps[0].tokens


# -- Compare ----------------------------------------------------------------------------------------------------------------


def test_compare_opens_with_a_finished_comparison_that_can_be_played(nothing_fetched):
    at = opened(COMPARE)
    race = at.session_state["draftscope_race"]
    assert [column.settings.method for column in race.columns] == list(recorded_comparison.METHODS) and race.at_end
    assert all(title in words(at) for title in (METHODS[key].title for key in recorded_comparison.METHODS))
    assert at.slider("temperature").value == 0 and "needed" in words(at) and "median of 3" in words(at)
    assert words(at).count("✓ exact") == 3 and "✓ reference" in words(at) and "ds-lane" in words(at)
    assert f"A recording of **{SMOLLM2.title}**" in words(at) and at.button("compare_instead").label == INSTEAD
    assert "settings have changed" not in words(at) and at.get("plotly_chart")
    press(at, "compare_play")
    assert race.playing and all(column.live is None for column in race.columns)
    press(at, "compare_stop")
    press(at, "compare_back")
    press(at, "compare_step")
    assert all(column.live is None for column in race.columns) and not race.absent


def test_the_greedy_comparison_leaves_the_controls_of_step_as_they_were(nothing_fetched):
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE)
    checked(at.run())
    checked(at.switch_page(COMPARE).run())
    assert at.slider("temperature").value == 0 and "settings have changed" not in words(at)
    checked(at.switch_page(STEP).run())
    assert at.slider("temperature").value == recorded_run.TEMPERATURE and "settings have changed" not in words(at)
    checked(at.switch_page(COMPARE).run())
    assert at.slider("temperature").value == 0 and "settings have changed" not in words(at)


def test_the_recorded_comparison_is_of_one_work_and_its_times_are_those_of_its_rounds():
    traces, times = demo.comparison(), demo.comparison_times()
    assert times is not None and list(times.ms) == [trace.header.method for trace in traces] == list(recorded_comparison.METHODS)
    assert len({trace.text_bytes() for trace in traces}) == 1, "greedy: every method writes the same text"
    for trace in traces:
        assert trace.steps[-1].ending and trace.header.sampling.temperature == 0
        assert sum(step.times.total for step in trace.steps) == pytest.approx(median_low(times.ms[trace.header.method]), abs=0.1)
        assert len(times.ms[trace.header.method]) >= 3
    assert sum(file.stat().st_size for file in recorded_comparison.folder().iterdir()) < 4e5


def test_a_comparison_without_its_model_keeps_the_recording_and_can_be_run_with_the_embedded_family(nothing_fetched):
    at = opened(COMPARE)
    race = at.session_state["draftscope_race"]
    at.slider("temperature").set_value(0.0).run()
    at.number_input("max_tokens").set_value(6).run()
    press(at, "compare_step")
    assert OFFERED in words(at) and all(column.trace is not None for column in race.columns)
    press(at, "compare_instead")
    until_run(at, lambda: all(column.count for column in race.columns))
    assert {column.trace.header.family for column in race.columns} == {"embedded"} and not race.absent
    assert {column.settings.max_tokens for column in race.columns} == {6} and "A recording of" not in words(at)


def test_after_reset_a_comparison_names_every_way_on(nothing_fetched):
    at = opened(COMPARE)
    press(press(at, "compare_reset"), "compare_step")
    assert OFFERED in words(at) and {"compare_fetch", "compare_instead"} <= keys(at)


def test_a_link_or_other_settings_open_no_recording():
    at = opened(COMPARE, v="1", example="once", c1="plain", c2="prompt_lookup")
    assert not at.session_state["draftscope_race"].columns and "press Step or Play" in words(at)
    at = AppTest.from_file(str(ROOT / COMPARE), default_timeout=PATIENCE)
    at.session_state["draftscope"] = Session()
    assert not checked(at.run()).session_state["draftscope_race"].columns


def test_a_sweep_names_every_way_on(nothing_fetched):
    at = opened(COMPARE, v="1", view="sweep", target=SMOLLM2.name, tokens="4", method="prompt_lookup", sweep="length")
    assert OFFERED in words(at) and at.button("sweep_run").disabled
    press(at, "sweep_instead")
    sweep = at.session_state["draftscope_sweep"]
    until_run(at, lambda: sweep.points and not sweep.running)
    assert {trace.header.family for _, trace in sweep.runs} == {"embedded"} and OFFERED not in words(at)


# -- Lenses ------------------------------------------------------------------------------------------------------------


SEEN = sorted(file.name.removesuffix(".msgpack.gz") for file in recorded_looks.FOLDER.iterdir())


def lenses(lens: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE).switch_page("pages/6_Lenses.py")
    at.query_params["lens"] = lens
    return checked(at.run())


@pytest.mark.parametrize("lens", SEEN)
def test_what_lenses_saw_is_of_the_recorded_run(lens):
    trace, look = demo.recorded(), recorded_looks.read(lens)
    assert trace is not None and lens in LENSES and look.done and look.key == lens and look.family == trace.header.family
    assert recorded_looks.place(trace) == (look.step, look.node) and look.params == asdict(LENSES[lens].params())
    assert recorded_looks.file_of(lens).stat().st_size < 100_000


@pytest.mark.parametrize("lens", SEEN)
def test_a_first_visit_of_lenses_sees_it_without_a_model(nothing_fetched, lens):
    at = lenses(lens)
    assert "Recorded, like the run" in words(at) and at.get("plotly_chart") and not at.session_state["draftscope_lenses"].lives
    at.session_state["draftscope"].go(0)
    at.run()
    assert "Recorded, like the run" not in words(checked(at))


def test_a_damaged_look_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(recorded_looks, "FOLDER", tmp_path)
    demo.look.cache_clear()
    recorded_looks.file_of(SEEN[0]).write_bytes(b"nothing")
    assert demo.look(SEEN[0]) is None and demo.look("no such lens") is None
    demo.look.cache_clear()
