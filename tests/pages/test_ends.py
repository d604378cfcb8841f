"""Stop tokens of one's own, and going on behind the end of the text: controls, links, traces that are opened, studies."""

import pytest

from decoding.runs.prompts import Prompt
from decoding.runs.run import Run
from decoding.sample import Sampling
from pages.parts.compare import address as compare_address
from pages.parts.drafter.sidebar import job
from pages.parts.shared import address
from pages.parts.shared.settings import MAX_STOP, Settings, settings_of
from pages.parts.step.open_trace import settings_for
from tests.conftest import PATIENCE
from tests.pages.test_step import opened, press, settled, state, warnings
from tests.stepper_events import sent

pytestmark = [pytest.mark.timeout(4 * PATIENCE), pytest.mark.usefixtures("opens_with_embedded")]
OF_ONE_S_OWN = Settings(temperature=0.0, stop_tokens="\\n\n.\n#7", ignore_end=True)


def test_the_controls_say_them_and_the_run_ends_there():
    at = opened()
    at.slider("temperature").set_value(0.0).run()
    at.text_area("stop_tokens").set_value(".").run()
    press(at, "run")
    trace = state(at).trace
    assert trace.steps[-1].ending == "stop token" and trace.text_bytes().endswith(b".") and trace.text_bytes().count(b".") == 1
    assert sent(at)["steps"][-1]["ending"] == "stop token"
    at.text_area("stop_tokens").set_value("two words").run()
    at.toggle("ignore_end").set_value(True).run()
    press(at, "step")
    assert "'two words' is" in state(at).problem and "tokens for this model" in state(at).problem
    at.text_area("stop_tokens").set_value("").run()
    press(at, "step")
    assert state(at).trace.header.ignore_end and not state(at).trace.header.stop and not at.exception


def test_what_cannot_be_a_stop_is_said_at_once():
    at = opened()
    at.text_area("stop_tokens").set_value("x" * 101).run()
    assert "has 1 to 100 characters; one has 101" in warnings(at) and not at.exception


def test_links_carry_them():
    assert {"stop", "ignore_end"}.isdisjoint(address.parameters(Settings(), 0, None))
    query = address.parameters(OF_ONE_S_OWN, 0, None)
    place = address.parse(query)
    assert (place.settings.stop_tokens, place.settings.ignore_end, place.complaints) == (OF_ONE_S_OWN.stop_tokens, True, ())
    found = compare_address.parse(compare_address.column_parameters([OF_ONE_S_OWN, OF_ONE_S_OWN], "race"))
    assert {(one.stop_tokens, one.ignore_end) for one in found.columns} == {
        (OF_ONE_S_OWN.stop_tokens, True)
    } and not found.complaints


@pytest.mark.parametrize(
    "query, said",
    [
        ({"stop": "x" * 101}, "stop: “xxx"),
        ({"stop": "\n".join("a" * (i + 1) for i in range(33))}, "at most 32 stop tokens"),
        ({"stop": "x\n" * MAX_STOP}, "at most 2,000 are read"),
        ({"ignore_end": "yes"}, "ignore_end: “yes” was left out. It must be True or False."),
    ],
)
def test_a_link_with_others_leaves_them_out(query, said):
    place = address.parse(query)
    assert said in " ".join(place.complaints) and (place.settings.stop_tokens, place.settings.ignore_end) == ("", False)
    at = opened(**query)
    assert not at.exception


def test_a_trace_is_opened_with_them(embedded):
    run = Run(embedded, "plain", prompt="Once", sampling=Sampling(0), max_tokens=4, stop=[14, 2], ignore_end=True)
    for settings in (settings_of(run.header), settings_for(run.header)[0]):
        assert (settings.stop_tokens, settings.ignore_end) == ("#2\n#14", True)


def test_studies_with_other_ends_are_others():
    prompts = (Prompt("Once", "a"),)
    plan = job(OF_ONE_S_OWN, prompts, "A").plan
    assert (plan.stop, plan.ignore_end) == (("\n", ".", 7), True)
    assert plan.key != job(Settings(temperature=0.0), prompts, "A").plan.key


def test_a_link_is_run_with_them():
    at = settled(opened(method="plain", temperature="0", stop="#14", step="3", prompt="Once upon a time"))
    assert state(at).trace.header.stop == (14,) and not at.exception


def test_the_field_for_stop_tokens_and_the_button_stop_are_two():
    """Both are on the page while a run goes on."""
    at = settled(opened(method="plain", temperature="0", prompt="Once upon a time"))
    at.button("run").click().run()
    assert not at.exception and at.text_area("stop_tokens").value == ""
    keys = [widget.key for widget in (*at.button, *at.text_area, *at.toggle, *at.checkbox, *at.number_input, *at.text_input)]
    assert len(keys) == len(set(keys))
