"""The Compare page without a browser: columns, buttons, modes, sweep, saved runs, links; with the embedded models."""

import time
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from decoding.methods import METHODS
from decoding.models.family import EMBEDDED
from decoding.runs.store import Store
from pages.parts.compare import address as compare_address
from pages.parts.compare import saved
from pages.parts.compare.race import FIRST, Column, Race, names
from pages.parts.compare.sweep import Plan, Sweep, spread, sweepable
from pages.parts.shared.runs import RunCleanup
from pages.parts.shared.settings import Settings
from tests.conftest import PATIENCE, eventually
from tests.samples import sample_trace

PAGE = Path(__file__).parent.parent.parent / "pages" / "2_Compare.py"

pytestmark = pytest.mark.usefixtures("opens_with_embedded")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    return tmp_path


def opened(**query) -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=PATIENCE)
    for key, value in query.items():
        page.query_params[key.replace("__", ".")] = value
    return checked(page.run())


def checked(page: AppTest) -> AppTest:
    assert not page.exception, page.exception
    return page


def settle(page: AppTest) -> AppTest:
    """Look until nothing moves; AppTest has no timers."""
    eventually(lambda: not moving(page) or not moving(checked(page.run())), "it never came to rest")
    return page


def moving(page: AppTest) -> bool:
    sweep = page.session_state["draftscope_sweep"] if "draftscope_sweep" in page.session_state else None  # noqa: SIM401
    return page.session_state["draftscope_race"].moving or bool(sweep and sweep.running)


def press(page: AppTest, key: str) -> AppTest:
    return settle(checked(page.button(key=key).click().run()))


def markup(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def two_columns(**more) -> AppTest:
    return opened(v="1", example="once", tokens="16", c1="plain", c2="prompt_lookup", **more)


def state(page: AppTest) -> Race:
    return page.session_state["draftscope_race"]


# -- columns ----------------------------------------------------------------------------------------------------------


def test_the_first_visit_offers_plain_decoding_and_says_what_to_do():
    page = opened()
    assert "press Step or Play" in markup(page)
    assert [page.selectbox(key=f"compare.{slot}.method").value for slot in range(len(FIRST))] == list(FIRST)
    assert not page.get("plotly_chart")


def test_step_twice_takes_every_column_two_steps_further():
    page = two_columns()
    for calls in (1, 2):
        press(page, "compare_step")
        assert [column.count for column in state(page).columns] == [calls, calls]
        assert f"After {calls} target call" in markup(page)


def test_back_only_looks_and_step_shows_again():
    page = two_columns()
    press(press(page, "compare_step"), "compare_step")
    press(page, "compare_back")
    assert state(page).calls == 1 and [e.count for e in state(page).columns] == [2, 2]
    press(page, "compare_step")
    assert state(page).calls == 2 and [e.count for e in state(page).columns] == [2, 2]


def test_each_to_its_end_then_the_numbers():
    page = two_columns(mode="end")
    press(page, "compare_play")
    assert all(column.ended for column in state(page).columns)
    page.session_state["compare_tabs"] = "Numbers"
    checked(page.run())
    table = page.dataframe[0].value
    assert list(table["run"]) == ["Plain decoding", "Prompt lookup"]
    assert table["measured speed-up"].notna().all()
    assert page.button(key="compare_play").disabled and page.button(key="compare_step").disabled


def test_a_measurement_that_cannot_be_says_why(monkeypatch):
    """It was refused without a word, and so was one that broke."""
    page = two_columns(mode="end")
    press(page, "compare_play")
    monkeypatch.setattr(Race, "begin", lambda race, *_: setattr(race, "problem", "This demo works for *too* many runs now."))
    press(page, "compare_measure")
    assert [error.value for error in page.error] == [r"This demo works for \*too\* many runs now\."]
    press(page, "compare_reset")
    assert not page.error


def test_without_plain_decoding_no_measured_speed_up():
    page = opened(v="1", example="once", tokens="8", c1="prompt_lookup", c2="token_recycling", mode="end")
    press(page, "compare_play")
    page.session_state["compare_tabs"] = "Numbers"
    checked(page.run())
    assert page.dataframe[0].value["measured speed-up"].isna().all()
    assert any("stays empty" in caption.value for caption in page.caption)
    press(page, "compare_add_plain")
    assert page.selectbox(key=f"compare.{state(page).slots[-1]}.method").value == "plain"


@pytest.mark.parametrize("tab", ["Progress", "Text", "Acceptance", "Time"])
def test_every_chart_has_an_alternative_text(tab):
    page = two_columns(mode="end", temperature="0")
    press(page, "compare_play")
    page.session_state["compare_tabs"] = tab
    checked(page.run())
    charts = page.get("plotly_chart")
    assert charts and all(len(chart.proto.alt) > 20 for chart in charts)


def test_greedy_texts_are_exact_and_sampled_ones_are_not_compared():
    page = two_columns(mode="end", temperature="0")
    press(page, "compare_play")
    page.session_state["compare_tabs"] = "Text"
    checked(page.run())
    words = " ".join(element.value for element in page.markdown)
    assert "is exact" in words.replace("\\", "")
    page = two_columns(mode="end", temperature="1")
    press(page, "compare_play")
    page.session_state["compare_tabs"] = "Text"
    checked(page.run())
    assert "distribution" in " ".join(element.value for element in page.markdown)


def test_a_race_is_recorded_one_run_after_the_other_and_then_replayed():
    page = two_columns(mode="race")
    press(page, "compare_step")
    race = state(page)
    assert race.recorded and 0 < race.clock < race.longest
    first = race.clock
    press(page, "compare_step")
    assert race.clock > first
    press(page, "compare_back")
    assert race.clock == first
    press(page, "compare_play")
    assert race.clock == pytest.approx(race.longest) and not race.playing


def test_changed_settings_keep_the_runs_until_step_and_unchanged_columns_for_good():
    page = two_columns()
    press(page, "compare_step")
    plain = state(page).columns[0]
    checked(page.number_input(key=f"param.compare.{state(page).slots[1]}.prompt_lookup.length").set_value(3).run())
    assert "The settings have changed" in " ".join(element.value for element in page.markdown)
    assert len(state(page).columns) == 2 and state(page).columns[1].count == 1
    press(page, "compare_step")
    assert state(page).columns[0] is plain
    assert state(page).columns[1].settings.full_params["length"] == 3


def test_add_and_remove_columns_within_two_and_six():
    page = two_columns()
    assert page.button(key=f"compare_remove_{state(page).slots[0]}").disabled
    for _ in range(4):
        press(page, "compare_add")
    assert len(state(page).slots) == 6 and page.button(key="compare_add").disabled
    press(page, f"compare_remove_{state(page).slots[0]}")
    assert len(state(page).slots) == 5


def test_reset_forgets_the_runs_and_frees_the_worker():
    page = two_columns()
    press(page, "compare_step")
    lives = [column.live for column in state(page).columns]
    press(page, "compare_reset")
    assert not state(page).columns and all(live.state == "closed" for live in lives)


def test_an_empty_prompt_is_a_sentence_in_every_column():
    page = two_columns()
    checked(next(box for box in page.text_area if box.label == "Prompt").set_value("  ").run())
    press(page, "compare_step")
    assert markup(page).count("The prompt is empty") == 2


# -- the state object, with the worker of the embedded models --------------------------------------------------------


def race_of(*methods: str, tokens: int = 400, **more) -> tuple[Race, list[Settings]]:
    return Race(**more), [Settings(method=method, max_tokens=tokens) for method in methods]


@pytest.fixture
def bare(monkeypatch):
    """A race outside of Streamlit has no tab that could close."""
    monkeypatch.setattr("pages.parts.shared.runs.cleanup", RunCleanup)


def test_stop_takes_effect_within_one_step(bare):
    race, wanted = race_of("plain", "prompt_lookup", mode="end")
    race.play(wanted)
    eventually(lambda: all(column.live.count for column in race.columns), "the runs do not begin")
    race.stop()
    counts = [column.live.count for column in race.columns]
    for column in race.columns:
        column.live.wait(PATIENCE)
    assert all(column.live.count - before <= 1 for column, before in zip(race.columns, counts, strict=True))
    assert not race.moving
    race.reset()


def test_rapid_presses_coalesce_and_tear_nothing(bare):
    race, wanted = race_of("plain", "prompt_lookup")
    for _ in range(20):
        race.step(wanted)
    for column in race.columns:
        column.live.wait(PATIENCE)
    race.sync()
    assert race.calls == 1 and [column.count for column in race.columns] == [1, 1]
    race.reset()


def test_in_a_race_runs_are_taken_one_after_the_other(bare):
    race, wanted = race_of("plain", "prompt_lookup", tokens=24, mode="race")
    race.play(wanted)
    while race.goal == inf:
        first, second = race.columns
        if second.live.count:
            assert first.live.state == "ended"
        time.sleep(0.01)
        race.sync()
    assert race.recorded and race.playing
    race.reset()


def test_nothing_else_begins_while_the_columns_are_measured(bare):
    """A step with other columns put one method's run under the title of another, or killed the page for good."""
    race, wanted = race_of("plain", "prompt_lookup", tokens=6)
    race.measure(wanted)
    others = race_of("token_recycling", "prompt_lookup", "plain", tokens=6)[1]
    for press in (race.step, race.play, race.measure):
        press(others)
    assert race.matches(wanted) and not any(column.live.busy for column in race.columns)
    eventually(lambda: race.sync() or race.timing is None, "the measurement does not end")
    assert [column.trace.header.method for column in race.columns] == ["plain", "prompt_lookup"]
    assert race.recorded and all(column.rounds for column in race.columns)
    race.step(others)
    eventually(lambda: race.sync() or not race.moving, "no step came")
    assert [column.trace.header.method for column in race.columns] == [settings.method for settings in others]
    race.reset()


def test_what_was_measured_belongs_to_the_columns_that_it_was_begun_for(bare):
    """Whatever the columns are when it ends; also where a press comes before the page has looked."""
    race, wanted = race_of("plain", "prompt_lookup", tokens=6)
    race.measure(wanted)
    eventually(lambda: not race.timing.busy, "the measurement does not end")
    measured = race.columns
    race.step(wanted[1:] + race_of("token_recycling", "plain", tokens=6)[1])
    eventually(lambda: race.sync() or not race.moving, "no step came")
    assert [column.trace.header.method for column in measured] == ["plain", "prompt_lookup"]
    assert all(column.trace.header.method == column.settings.method for column in race.columns)
    race.reset()


def test_step_and_play_are_off_while_the_columns_are_measured():
    page = two_columns()
    checked(page.button(key="compare_measure").click().run())
    assert page.button(key="compare_step").disabled and page.button(key="compare_play").disabled
    checked(settle(page).run())
    assert not page.button(key="compare_play").disabled


def test_one_failing_column_does_not_stop_the_others(bare):
    race, wanted = race_of("plain", "prompt_lookup", tokens=8, mode="end")
    wanted[1] = Settings(method="prompt_lookup", target="/no/such/folder", max_tokens=8)
    race.play(wanted)
    eventually(lambda: race.sync() or not race.moving, "the race does not end")
    assert race.columns[0].ended and "/no/such/folder" in race.columns[1].problem


def test_a_method_that_the_models_cannot_serve_is_a_sentence():
    column = Column(Settings(method="speculative_sampling", target="some/model"))
    column.enter()
    assert "draft model" in column.problem and column.live is None


def test_names_tell_columns_of_one_method_apart():
    columns = [Settings(method="plain"), *(Settings(method="prompt_lookup", params={"length": n}) for n in (3, 7, 7))]
    assert len(set(names(columns))) == 4
    assert names(columns)[0] == METHODS["plain"].title and "length 3" in names(columns)[1]


# -- sweep ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_method_can_be_swept_over_all_its_numbers(method):
    for name, (label, low, high) in sweepable(method).items():
        assert label and low < high, name
        for at in spread(low, high, 4):
            assert low <= at <= high


def test_a_sweep_runs_every_value_and_names_the_best():
    page = opened(v="1", view="sweep", example="repeat", method="prompt_lookup", tokens="12", sweep="length")
    for key, value in {"low": 1, "high": 3}.items():
        checked(page.number_input(key=f"sweep.{key}.prompt_lookup.length").set_value(value).run())
    press(page, "sweep_run")
    sweep: Sweep = page.session_state["draftscope_sweep"]
    assert [at for at, _ in sweep.runs] == [1, 2, 3]
    assert "Best at c" in " ".join(element.value for element in page.markdown)
    assert len(page.get("plotly_chart")[0].proto.alt) > 20


def test_a_stopped_sweep_goes_on_where_it_was(bare):
    sweep = Sweep()
    sweep.start(Plan(Settings(method="prompt_lookup", max_tokens=300), "length", "Length", (1, 2)))
    eventually(lambda: sweep.points[0][1].live.count, "the sweep does not begin")
    sweep.stop()
    sweep.points[0][1].live.wait(PATIENCE)
    taken = sweep.points[0][1].live.count
    sweep.sync()
    assert not sweep.running and not sweep.points[1][1].count
    sweep.go_on()
    assert sweep.points[0][1].live.count >= taken
    sweep.stop()
    for _, column in sweep.points:
        column.close()


@pytest.mark.parametrize("failed", [[0], [1], [0, 1]])
def test_a_sweep_goes_on_with_the_runs_that_failed(bare, failed):
    """Only all of them anew was offered."""
    sweep = Sweep()
    sweep.start(Plan(Settings(method="prompt_lookup", max_tokens=3), "length", "Length", (1, 2)))
    eventually(lambda: sweep.sync() or not sweep.running, "the sweep does not end")
    assert not sweep.missing
    for number in failed:
        settings = sweep.points[number][1].settings
        sweep.points[number] = sweep.points[number][0], Column(settings, problem="The memory was full.")
    assert sweep.missing and sweep.now is None
    sweep.go_on()
    eventually(lambda: sweep.sync() or not sweep.running, "the sweep does not go on")
    assert not sweep.missing and len(sweep.runs) == 2


def test_the_way_on_is_offered_where_a_run_of_a_sweep_failed():
    page = opened(v="1", view="sweep", method="prompt_lookup", tokens="4", sweep="length")
    for key, value in {"low": 1, "high": 2}.items():
        checked(page.number_input(key=f"sweep.{key}.prompt_lookup.length").set_value(value).run())
    press(page, "sweep_run")
    sweep: Sweep = page.session_state["draftscope_sweep"]
    assert "sweep_go_on" not in [button.key for button in page.button]
    sweep.points[1] = sweep.points[1][0], Column(sweep.points[1][1].settings, problem="The memory was full.")
    assert "Stopped after 1 of 2 runs" in markup(checked(page.run()))
    press(page, "sweep_go_on")
    assert len(sweep.runs) == 2 and "Stopped after" not in markup(page)


# -- saved runs ------------------------------------------------------------------------------------------------------


def test_no_saved_run_is_said_and_so_is_what_to_do():
    page = opened(v="1", view="saved")
    assert "No run has been kept yet" in page.info[0].value


def test_saved_runs_that_are_called_alike_are_told_apart():
    """Streamlit knows an option by its words: of three alike one could be chosen, and another one than was clicked."""
    same = dict.fromkeys(("name", "method"), "plain") | {"tokens": 3, "created": 0.0}
    found = saved.labels({i: SimpleNamespace(**same | {"tokens": 3 + (i == 9)}) for i in (7, 8, 9)})
    assert len(set(found.values())) == 3 and [text.endswith(f"no. {i}") for i, text in found.items()] == [True, True, False]


def test_saved_runs_are_compared_without_a_model():
    store = Store()
    ids = [store.keep(sample_trace(), name) for name in ("one", "two")]
    page = opened(v="1", view="saved")
    checked(page.multiselect(key="saved_runs").set_value(ids).run())
    assert page.get("plotly_chart")
    checked(page.text_input(key="saved_words").set_value("nothing like it").run())
    assert page.multiselect(key="saved_runs").value == ids


def test_a_kept_comparison_is_found_again():
    page = two_columns()
    press(page, "compare_step")
    press(page, "compare_keep")
    assert {entry.name for entry in Store().entries()} == {"Compare: Plain decoding", "Compare: Prompt lookup"}


def test_a_comparison_that_is_kept_again_adds_what_has_come_since():
    """A double click kept all of it twice, without a word: of the fifty runs of a visitor that was twelve."""
    page = two_columns()
    press(page, "compare_step")
    press(page, "compare_keep")
    assert "Kept 2 runs" in captions(page)
    press(page, "compare_keep")
    assert "These 2 runs are kept already" in captions(page)
    press(page, "compare_step")
    press(page, "compare_keep")
    assert [entry.steps for entry in Store().entries()] == [2, 2] and "Kept 2 runs" in captions(page)
    for entry in Store().entries():
        Store().delete(entry.id)
    press(page, "compare_keep")
    assert len(Store().entries()) == 2


def captions(page) -> str:
    return " ".join(one.value for one in page.caption)


# -- links ------------------------------------------------------------------------------------------------------------


def test_a_link_brings_the_columns_back():
    columns = [Settings(method="plain", seed=7), Settings(method="prompt_lookup", params={"length": 3}, seed=7)]
    place = compare_address.parse(compare_address.column_parameters(columns, "race"))
    assert place.mode == "race" and not place.complaints
    assert [found.same_run(asked) for found, asked in zip(place.columns, columns, strict=True)] == [True, True]


def test_a_sweep_link_brings_the_method_and_its_parameter_back():
    settings = Settings(method="prompt_lookup", params={"ngram": 2})
    place = compare_address.parse(compare_address.sweep_parameters(settings, "length", (2, 5, 9, 12), 3))
    assert place.view == "sweep" and place.parameter == "length" and place.settings.same_run(settings)
    assert place.swept == {"from": 2, "to": 12, "points": 4, "seeds": 3} and not place.complaints


def test_a_sweep_link_brings_its_range_back_within_what_there_is():
    """Whoever opened it found another one, though the button says that it finds the same settings."""
    settings = Settings(method="prompt_lookup")
    page = opened(**compare_address.sweep_parameters(settings, "length", (2, 5, 9, 12), 3))
    numbers = {box.key: box.value for box in page.number_input}
    ends = [numbers[f"sweep.{end}.prompt_lookup.length"] for end in ("low", "high")]
    assert (*ends, numbers["sweep.points"], numbers["sweep.seeds"]) == (2, 12, 4, 3)
    page = opened(v="1", view="sweep", method="prompt_lookup", sweep="length", **{"from": "nan", "to": "1e9", "points": "99"})
    assert "has to be a number" in "".join(warning.value for warning in page.warning)
    numbers = {box.key: box for box in page.number_input}
    assert numbers["sweep.high.prompt_lookup.length"].value == numbers["sweep.high.prompt_lookup.length"].max
    assert numbers["sweep.points"].value == numbers["sweep.points"].max


@pytest.mark.parametrize(
    "query",
    [
        {"c1": "plain", "c2": "no_such_method", "c3": "prompt_lookup"},
        {"c1": "plain", "c2": "prompt_lookup", "c2.length": "9999"},
        {"c1": "plain", "c2": "prompt_lookup", "c2.<script>": "1"},
        {"c1": "plain", "c2.length": "3", "c3": "plain"},
        {"view": "everything"},
        {"mode": "<b>fast</b>"},
        {"temperature": "nan", "c1": "plain", "c2": "plain"},
        {"target": "evil/model", "c1": "plain", "c2": "plain"},
        {"v": "9"},
        {"c1": "plain"},
    ],
)
def test_a_bad_part_of_a_link_is_complained_about_and_left_out(query):
    place = compare_address.parse({"v": "1", **query})
    assert place.complaints
    assert place.settings.target == "embedded" and place.view in compare_address.VIEWS and place.mode in compare_address.MODES
    for settings in place.columns:
        assert not settings.problem()


def test_a_bad_link_opens_the_page_with_a_warning():
    page = opened(v="1", c1="plain", c2="<img src=x>", c3="prompt_lookup")
    assert page.warning and "<img" not in markup(page)
    assert len(state(page).slots) == 2


def test_a_target_of_ones_own_breaks_no_menu():
    """Every column and the sweep: the menus keep their labels, and say why a method cannot run."""
    folder = str(EMBEDDED / "target")
    page = opened()
    page.selectbox(key="target").set_value("a local folder").run()
    page.text_input(key="target_name").set_value(folder).run()
    assert not page.exception and any("needs a draft model" in warning.value for warning in page.warning)
    page.selectbox(key="target").set_value("embedded").run()
    assert not page.exception and not any("needs a draft model" in warning.value for warning in page.warning)
