"""Pictures on the pages, without a browser: Step draws one call by call, Compare several at once, menus take the place of the
prompt box, and Home leads there. With the real worker and the digits that ship."""

import json
import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from decoding.models import heads
from decoding.models.rasters import raster_named
from pages.parts.shared import address
from pages.parts.shared.picture_controls import asked_for
from pages.parts.shared.recorded_run import picture_pair
from pages.parts.shared.settings import settings_of
from tests.conftest import PATIENCE
from tests.pages.test_compare import checked, settle
from tests.pages.test_compare import state as race_of
from tests.pages.test_step import errors, press, said, settled, state
from tests.stepper_events import sent

ROOT = Path(__file__).parent.parent.parent
STEP, COMPARE = "pages/1_Step.py", "pages/2_Compare.py"
DRAWING = {
    "v": "1",
    "target": "digits",
    "prompt": "digit3",
    "method": "speculative_jacobi",
    "p.fill": "above",
    "p.window": "16",
    "temperature": "0",
    "tokens": "64",
}
LETTERS = re.compile(r"^[0-7?.]{8}$", re.MULTILINE)

pytestmark = [pytest.mark.timeout(4 * PATIENCE), pytest.mark.usefixtures("opens_with_embedded")]


def opened(path: str = STEP, **query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / path), default_timeout=PATIENCE)
    for key, value in query.items():
        at.query_params[key] = value
    return checked(at.run())


# -- Step --------------------------------------------------------------------------------------------------------------------


def test_a_link_draws_a_picture_call_by_call():
    at = settled(opened(**DRAWING, step="4"))
    trace = state(at).trace
    assert trace.header.raster is not None and trace.header.family == "digits" and len(trace.steps) == 4 and not errors(at)
    html = said(at)
    there = sum(len(step.tokens) for step in trace.steps)
    assert html.count('class="ds-picture"') == 2 and 'class="ds-trajectory"' in html and f"{there} of 64 after 4 calls" in html
    assert "Plain decoding after 4 calls" in html and "Plain decoding after as many calls: 4 of 64 pixels." in html
    press(at, "step")
    assert "of 64 after 5 calls" in said(at) and "after 4 calls" not in said(at)


def test_run_to_its_end_it_is_the_recorded_picture():
    at = settled(opened(**DRAWING, step="1"))
    press(at, "run")
    trace, recorded = state(at).trace, picture_pair()[1]
    assert [step.tokens for step in trace.steps] == [step.tokens for step in recorded.steps]
    assert trace.steps[-1].ending == "token limit" and "64 of 64 after 15 calls" in said(at)


def test_the_picture_has_words_letters_and_a_table():
    at = settled(opened(**DRAWING, step="6"))
    at.session_state["picture_text_box"] = True
    at.run()
    letters = next(code.value for code in at.code if LETTERS.search(code.value))
    assert len(LETTERS.findall(letters)) == 8 and len(at.dataframe) >= 1
    drawn = re.findall(r'<[^>]*role="img"[^>]*>', said(at))
    assert len(drawn) >= 3 and all(re.search('aria-label="[^"]', tag) for tag in drawn)


def test_a_text_has_the_place_of_the_picture_and_nothing_in_it():
    html = said(opened())
    assert "ds-picture" not in html and "ds-trajectory" not in html


def test_the_stepper_gets_colours():
    data = sent(settled(opened(**DRAWING, step="2")))
    assert data["head"]["picture"] and {len(name) for name in data["names"].values()} == {2, 3}
    assert json.dumps(data["names"]).count("#") >= 2


# -- what can be asked for -----------------------------------------------------------------------------------------------------


def test_menus_take_the_place_of_the_prompt_box():
    at = settled(opened(**DRAWING, step="1"))
    assert not [box for box in at.text_area if box.label == "Prompt"]
    menu = next(box for box in at.selectbox if box.label == "Picture of")
    assert list(menu.options) == list(raster_named("digits").asks[0]) and menu.value == "digit3"
    menu.set_value("digit7").run()
    assert not at.exception and "settings have changed" in " ".join(box.value for box in at.markdown)
    press(at, "again")
    assert state(at).trace.header.prompt == "digit7" and state(at).trace.header.max_tokens == 64


def test_a_prompt_that_was_typed_is_there_again_behind_a_picture():
    """The word of a picture stood in its place: back at a text the prompt was "digit7"."""
    at = opened()
    box = next(area for area in at.text_area if area.label == "Prompt")
    box.set_value("Tom had a red ball").run()
    at.selectbox("target").set_value("digits").run()
    menu = next(box for box in at.selectbox if box.label == "Picture of")
    menu.set_value("digit7").run()
    assert next(box for box in at.selectbox if box.label == "Picture of").value == "digit7"
    at.selectbox("target").set_value("embedded").run()
    assert next(area for area in at.text_area if area.label == "Prompt").value == "Tom had a red ball"
    at.selectbox("target").set_value("digits").run()
    assert next(box for box in at.selectbox if box.label == "Picture of").value == "digit7"


@pytest.mark.parametrize("prompt", ["Once upon a time", "<script>alert(1)</script>"])
def test_a_link_that_asks_for_no_picture_is_a_sentence_and_the_menus_offer_one_that_is(prompt):
    raster = raster_named("digits")
    assert asked_for(prompt, raster) == "digit0" and asked_for("digit9", raster) == "digit9"
    at = settled(opened(**(DRAWING | {"prompt": prompt}), step="1"))
    assert "digits draws only what it was taught" in errors(at) and "<script>alert" not in said(at)
    assert next(box for box in at.selectbox if box.label == "Picture of").value == "digit0"
    press(at, "step")
    assert state(at).trace.header.prompt == "digit0" and not errors(at)


@pytest.mark.parametrize(
    "method, words", [("eagle", "there is none for the pictures"), ("universal_assisted", "digits draws pictures")]
)
def test_a_method_that_cannot_draw_is_a_sentence(method, words, monkeypatch, tmp_path):
    monkeypatch.setenv("DRAFTSCOPE_CACHE", str(tmp_path))  # without the heads that other tests made, or would make here
    monkeypatch.setattr(heads, "find", heads.find.real)
    at = settled(opened(**(DRAWING | {"method": method}), step="1"))
    shown = " ".join(box.value for box in (*at.error, *at.warning)).replace("\\", "")
    assert words in shown and state(at).trace.header.family != "digits"


def test_a_link_guides_a_picture_and_the_page_says_that_its_law_is_another():
    at = settled(opened(**DRAWING, guidance="2.5", step="2"))
    trace = state(at).trace
    assert trace.header.sampling.guidance == 2.5 and len(trace.steps) == 2 and "guidance 2.5" in said(at)
    assert address.parameters(settings_of(trace.header), 2, None)["guidance"] == "2.5"
    at.slider("guidance").set_value(1.0).run()
    assert not at.exception and "settings have changed" in " ".join(box.value for box in at.markdown)
    press(at, "again")
    assert state(at).trace.header.sampling.guidance == 1 and "another law" not in said(at)


def test_guidance_where_it_cannot_be_is_a_sentence():
    at = settled(opened(guidance="2", step="1", prompt="Tom had"))
    assert "embedded writes text. Guidance other than 1" in errors(at)
    assert "guidance" not in {slider.key for slider in at.slider}, "the slider is for pictures"
    assert any("guidance: “11” was left out" in complaint for complaint in address.parse({"guidance": "11"}).complaints)


# -- Compare -------------------------------------------------------------------------------------------------------------------


def test_every_column_draws_its_picture():
    query = {key: value for key, value in DRAWING.items() if key not in ("method", "p.fill", "p.window")}
    columns = {"c1": "plain", "c2": "jacobi", "c2.fill": "above", "c3": "speculative_jacobi", "c3.fill": "above", "c4": "dyspec"}
    page = opened(COMPARE, **query, view="columns", **columns)
    for _ in range(3):
        settle(checked(page.button(key="compare_step").click().run()))
    html = "\n".join(element.proto.body for element in page.get("html"))
    parts = [column.trace for column in race_of(page).columns]
    assert html.count('class="ds-picture"') == 4 and all(part is not None and len(part.steps) == 3 for part in parts)
    for part in parts:
        assert f"{sum(len(step.tokens) for step in part.steps)} of 64 after 3 calls" in html
    assert html.count("✓ exact") == 3, "greedy: every method draws the same pixels so far"


# -- Home ----------------------------------------------------------------------------------------------------------------------


def pictures_of(at: AppTest) -> dict:
    found = [e.proto for e in at.get("bidi_component") if e.proto.component_name == "draftscope_pictures"]
    return json.loads(found[0].json) if found else {}


def test_home_plays_a_picture_and_leads_to_one_that_is_drawn_here():
    at = opened("app.py")
    data = pictures_of(at)
    assert [len(lane["calls"]) for lane in data["lanes"]] == [64, 15] and data["waits"]
    assert data["result"] == "The same 64 pixels: 64 calls of the model, or 15."
    assert any("Two recorded runs of digits" in box.value and "no model is running" in box.value for box in at.caption)
    link = address.parameters(settings_of(picture_pair()[1].header), 5, None)
    place = address.parse(link)
    assert place.complaints == () and place.settings.target == "digits" and place.settings.prompt == "digit3"
    assert not at.button("open_picture").click().run().exception


@pytest.mark.parametrize("target, pixels", [("digits", 64), ("shapes", 144)])
def test_a_link_that_names_no_tokens_draws_the_whole_picture(target, pixels):
    assert address.parse({"v": "1", "target": target}).settings.max_tokens == pixels
    assert address.parse({"v": "1", "target": target, "tokens": "20"}).settings.max_tokens == 20


def test_without_the_recorded_pictures_home_is_as_it_was(monkeypatch):
    monkeypatch.setattr("pages.parts.shared.recorded_run.picture_pair", lambda: None)
    at = opened("app.py")
    assert not pictures_of(at) and at.button("open_step")
