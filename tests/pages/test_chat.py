"""Chat on the pages without a browser: the switch, two turns, links and traces, a study. The models are random ones."""

import json

import pytest
from streamlit.testing.v1 import AppTest

from decoding.models.family import load
from decoding.runs.prompts import read_prompts
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.runs.study import results
from decoding.trace import Message
from pages.parts.compare import address as compare_address
from pages.parts.shared import address
from pages.parts.shared.examples import CHAT_EXAMPLES
from pages.parts.shared.settings import Settings
from tests import toys
from tests.conftest import PATIENCE
from tests.pages.test_step import ROOT, errors, opened, press, prompt_box, said, state, warnings
from tests.stepper_events import asks, stands
from viz.stepper.data import stepper_data

pytestmark = [pytest.mark.timeout(4 * PATIENCE), pytest.mark.usefixtures("opens_with_embedded")]
HOSTILE = "<script>alert(1)</script> **bold**"
HELLO = Message("user", "the cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("chatting")
    toys.save(path, toys.causal_lm("llama", vocab_size=toys.VOCAB + len(toys.MARKS)), toys.chatting())
    return str(path)


def choose(at: AppTest, target: str) -> AppTest:
    """Take a folder as the target, as a visitor does."""
    next(box for box in at.selectbox if box.label == "Target").set_value("a local folder").run()
    next(box for box in at.text_input if box.label.startswith("Target")).set_value(target).run()
    assert not at.exception
    return at


def chatting(folder: str, **values) -> AppTest:
    """The Step page with a model that has a template, and settings that are quick."""
    at = opened()
    at.selectbox("method").set_value("prompt_lookup")
    at.slider("temperature").set_value(0.0)
    at.number_input("max_tokens").set_value(6)
    return choose(at, folder)


def area(at: AppTest, label: str):
    return next((box for box in at.text_area if box.label == label), None)


def switch(at: AppTest):
    return next((box for box in at.toggle if box.label == "Chat"), None)


def test_the_switch_is_there_and_on_for_a_model_with_a_template_only(folder, folders):
    at = opened()
    assert switch(at) is None and prompt_box(at)
    assert switch(choose(at, folders("llama"))) is None
    choose(at, folder)
    assert switch(at).value is True and area(at, "User").value == "Write a haiku about rain." and area(at, "Prompt") is None
    switch(at).set_value(False).run()
    assert area(at, "User") is None and prompt_box(at).value
    assert choose(at, folders("llama")) and switch(choose(at, folder)).value is False  # as the visitor chose it


def test_two_turns(folder):
    at = chatting(folder)
    area(at, "System").set_value("a mat").run()
    area(at, "User").set_value(HOSTILE)
    press(at, "run")
    first = state(at).trace
    assert first.header.messages == (Message("system", "a mat"), Message("user", HOSTILE)) and state(at).ended
    assert "<script>" not in said(at) and not at.warning
    at.button("go_on").click().run()
    assert not at.exception and area(at, "User, turn 1").value == HOSTILE
    assert area(at, "Assistant").value == first.answer and area(at, "User, turn 2").value == ""
    assert any("Your turn" in box.value for box in at.markdown) and not [b for b in at.button if b.key == "again"]
    stands(at, state(at).cursor - 1)
    asks(at)
    assert state(at).trace is first and at.button("run").disabled and not at.error  # the turn to come does not count yet
    area(at, "User, turn 2").set_value("the dog").run()
    press(at, "run")
    second = state(at).trace.header
    assert second.messages == (*first.header.messages, Message("assistant", first.answer), Message("user", "the dog"))
    run = Run(load(folder), "prompt_lookup", prompt=second.messages, max_tokens=6)
    assert second.prompt_tokens == run.header.prompt_tokens
    at.button("chat_remove").click().run()
    assert area(at, "User").value == HOSTILE and area(at, "Assistant") is None


def test_options_of_the_template_reach_it(folder):
    at = chatting(folder)
    area(at, "Template options").set_value("loud=true, name=Tom")
    press(at, "step")
    assert state(at).trace.header.prompt.endswith("LOUD Tom<|assistant|>")
    area(at, "Template options").set_value("loud")
    press(at, "step")
    assert "written NAME=VALUE" in errors(at)


def test_special_tokens_are_chips_and_what_the_template_wrote_is_told_apart(folder):
    at = chatting(folder)
    press(at, "step")
    data = stepper_data(state(at).trace)
    shown = [
        (data["names"][str(token)][1], template, token in data["head"]["special"]) for token, template in data["head"]["prompt"]
    ]
    assert [text for text, _, special in shown if special] == ["<|user|>", "<|end|>", "<|assistant|>"]
    assert {template for _, template, special in shown if special} == {1}
    assert "".join(text for text, template, _ in shown if not template) == "Write␣a␣haiku␣about␣rain."


# -- links and traces -----------------------------------------------------------------------------------------------------


def test_a_link_carries_the_messages():
    settings = Settings(prompt="", messages=(Message("system", "a"), HELLO), template="loud=true")
    query = address.parameters(settings, 0, None)
    assert json.loads(query["chat"]) == [["system", "a"], ["user", "the cat"]] and "prompt" not in query
    found = address.parse(query)
    assert found.settings == Settings(prompt="", messages=settings.messages, template="loud=true", params=found.settings.params)
    assert "has no chat template" in found.complaints[0]
    columns = compare_address.column_parameters([settings, settings], "race")
    assert compare_address.parse(columns).settings.messages == settings.messages


def test_a_link_that_says_nothing_to_ask_asks_as_a_fresh_page_would(monkeypatch):
    """A chat where the model knows one; a plain text where it does not, or where the link has one."""
    monkeypatch.setattr(address, "has_template", lambda target: target == "smollm2")
    [message] = address.parse({"target": "smollm2"}).settings.messages
    assert message == Message("user", next(iter(CHAT_EXAMPLES.values())).prompt)
    for query in ({"target": "embedded"}, {"target": "smollm2", "prompt": "Once"}, {"target": "smollm2", "example": "story"}):
        assert not address.parse(query).settings.messages and address.parse(query).settings.prompt


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({"chat": "{"}, "not a list of messages"),
        ({"chat": "[[1]]"}, "not a list of messages"),
        ({"chat": "[" * 9000}, "not a list of messages"),
        ({"chat": json.dumps([["bot", HOSTILE]])}, "has the role 'bot'"),
        ({"chat": json.dumps([["user", "a" * 30_000]])}, "at most 20,000 are read"),
        ({"chat": '[["user","a"]]', "template": "tokenize=true"}, "'tokenize' is taken"),
    ],
)
def test_what_is_wrong_with_a_chat_in_a_link_is_left_out_and_said(query, complaint):
    place = address.parse(query)
    assert complaint in place.complaints[0] and (place.settings.messages == () or not place.settings.template)


def test_a_chat_that_is_too_long_for_a_link_is_a_sentence():
    with pytest.raises(ValueError, match="a link carries at most 4,000"):
        address.parameters(Settings(messages=(Message("user", "a" * 5000),)), 0, None)


def test_a_link_with_a_chat_waits_for_a_model_that_has_a_template(folder):
    at = opened(chat=json.dumps([["user", "the cat"]]), method="prompt_lookup", step="1", tokens="4", v="1")
    assert "The link carries a chat" in warnings(at) and state(at).recorded and not at.exception
    choose(at, folder)
    assert switch(at).value is True and area(at, "User").value == "the cat"
    assert press(at, "step") and state(at).trace.header.messages == (HELLO,)


def test_a_kept_chat_opens_with_its_messages(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    run = Run(load(folder), "prompt_lookup", prompt=[HELLO], max_tokens=3, template_options={"loud": True})
    list(run)
    Store(tmp_path).keep(run.trace, "a chat")
    at = AppTest.from_function(show, default_timeout=PATIENCE)
    at.session_state["trace"] = run.trace
    at.run()
    assert not at.exception
    settings = at.session_state["found"]
    assert settings.messages == (HELLO,) and settings.template == "loud=true" and settings.prompt == ""


def show() -> None:
    import streamlit as st

    from pages.parts.step.open_trace import settings_for

    st.session_state["found"] = settings_for(st.session_state["trace"].header)[0]


# -- the study --------------------------------------------------------------------------------------------------------------


def test_a_study_is_asked_turn_by_turn(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    at = AppTest.from_file(str(ROOT / "pages/3_Drafter.py"), default_timeout=PATIENCE)
    wanted = {"study.source": "a file", "study.A.method": "prompt_lookup", "study.temperature": 0.0, "study.max_tokens": 4}
    for key, value in (wanted | {"study.target": folder}).items():
        at.session_state[key] = value
    at.run()
    data = b'{"category": "x", "turns": ["the cat", "the dog"]}\n{"category": "y", "turns": ["a log"]}'
    at.session_state["desk"].file = ("1", "q.jsonl", tuple(read_prompts(data, "q.jsonl")))
    at.run()
    assert not at.exception and switch(at).value is True
    assert any("1 further turn, each asked behind" in box.value.replace("\\", "") for box in at.caption)
    at.button(key="study_run").click().run()
    at.session_state["desk"].live.wait(PATIENCE)
    at.run()
    assert not at.exception
    plan = at.session_state["desk"].jobs[0].plan
    found = results(Store(tmp_path), plan)
    assert plan.chat and [number for number, *_ in found] == [0, 1, 2] and at.metric[0].value == "3"
    assert found[1][3].header.messages[1] == Message("assistant", found[0][3].answer)
    assert at.metric[0].label == "turns"  # not prompts, and not counted as if they were
    at.session_state["find.tabs.5"] = "p against q"
    at.run()
    heads = [option.split(":")[0] for option in at.selectbox(key="find.heat_prompt.A").options]
    assert heads == ["1", "1, turn 2", "2"]
