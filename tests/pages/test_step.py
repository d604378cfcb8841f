"""Home, Step and Methods without a browser: AppTest runs the scripts, the worker runs the real embedded models."""

import html
import re
import shutil
from pathlib import Path
from threading import Event

import pytest
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from decoding.methods import METHODS
from decoding.models.family import EMBEDDED
from decoding.trace import Header, SamplingData, Trace
from pages.parts.shared import address, stepper
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.examples import EXAMPLES
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from pages.parts.step.step_view import OTHER
from tests import toys
from tests.conftest import PATIENCE, eventually
from tests.stepper_events import asks, sent, stands

ROOT = Path(__file__).parent.parent.parent
STEP = ROOT / "pages" / "1_Step.py"
PARTS = "".join(file.read_text() for file in (ROOT / "pages/parts").rglob("*.py"))
FOLDED = set(re.findall(r'key="(\w+_(?:box|charts))"', PARTS))
HOSTILE = "<script>alert(1)</script>"

pytestmark = [pytest.mark.timeout(4 * PATIENCE), pytest.mark.usefixtures("opens_with_embedded")]


def opened(page: Path = STEP, **query: str) -> AppTest:
    at = AppTest.from_file(str(page), default_timeout=PATIENCE)
    for key, value in query.items():
        at.query_params[key] = value
    return at.run()


def state(at: AppTest) -> Session:
    return at.session_state["draftscope"]


def settled(at: AppTest) -> AppTest:
    """Run until the worker owes nothing: AppTest has no timers. What it did last is drawn; nothing is while it works, which would
    only take the processor from it."""

    def rested() -> bool:
        session = state(at)
        if session.busy:
            return False
        rests = session.coming is None and session.goal is None  # asked before the page is drawn
        at.run()
        return rests

    eventually(rested, "the run did not settle")
    return at


def prompt_box(at: AppTest):
    return next(box for box in at.text_area if box.label == "Prompt")


def press(at: AppTest, key: str) -> AppTest:
    """A button of the page; "step" is the stepper's own, behind the last step that was taken."""
    return settled(asks(at) if key == "step" else at.button(key).click().run())


def errors(at: AppTest) -> str:
    return " ".join(box.value for box in at.error).replace("\\", "")


def warnings(at: AppTest) -> str:
    return " ".join(box.value for box in at.warning).replace("\\", "")


def said(at: AppTest) -> str:
    return " ".join(e.proto.body for e in at.get("html"))


@pytest.mark.parametrize("page", ["app.py", "pages/1_Step.py", "pages/4_Methods.py"])
def test_every_page_runs(page):
    assert not opened(ROOT / page).exception


def test_first_open_shows_the_recorded_run_paused_at_a_rejection():
    at = opened()
    assert state(at).trace is demo.recorded() and state(at).live is None
    assert any(node.verdict == "rejected" for node in state(at).step.nodes)
    assert "recorded run" in said(at)
    assert sent(at)["at"] == [demo.pause_at(), 2, None] and len(sent(at)["steps"]) == state(at).count, "in the phase that judges"


def test_every_picture_has_words():
    at = opened()
    at.session_state["tally_charts"] = True
    charts = at.run().get("plotly_chart")
    assert len(charts) == 2 and all(chart.proto.alt for chart in charts)  # behind the tally
    drawn = re.findall(r'<[^>]*role="img"[^>]*>', said(at))
    assert drawn and all(re.search('aria-label="[^"]', tag) for tag in drawn)  # the phases


def test_a_browser_that_says_how_much_it_has_does_not_bring_the_page_back():
    """It says so late, where the page has gone on since."""
    at = opened()
    session, (step, phase, node) = state(at), sent(at)["at"]
    session.go(step + 1)
    stands(at, step, phase, node, have=session.count)
    assert session.cursor == step + 1 and not at.exception


def test_what_stands_below_the_stepper_follows_the_reader_and_moves_nobody():
    at = opened()
    start, before = state(at).cursor, sent(at)
    stands(at, start - 1, 1)
    session = state(at)
    assert (session.cursor, session.phase, session.node) == (start - 1, 1, None) and session.live is None
    assert sent(at) == before, "nothing new for the browser, so nothing is sent to it"
    stands(at, start + 1, 3, 0, have=session.count)
    assert state(at).selected == 0 and sent(at)["order"] == before["order"]
    assert sent(at)["steps"] == [] and sent(at)["from"] == session.count, "what it has is not sent again"


def test_the_page_moves_the_reader_where_it_has_gone_itself():
    at = opened()
    order = sent(at)["order"]
    next(box for box in at.number_input if box.label.startswith("Step (of")).set_value(3).run()
    assert sent(at)["at"] == [2, 3, None] and sent(at)["order"] > order


@pytest.mark.parametrize(
    "odd",
    [
        {"step": True}, {"step": -2}, {"step": "1"}, {"step": 2**40}, {"phase": 4}, {"phase": None}, {"node": 1.5}, {"node": -2},
        {"run": "another"}, {"order": 0},
    ],
)  # fmt: skip
def test_what_a_browser_says_of_itself_is_checked(odd):
    at = opened()
    where = (state(at).cursor, state(at).phase, state(at).node)
    stands(at, **({"step": 0} | odd))
    assert not at.exception and (state(at).cursor, state(at).phase, state(at).node) == where


def test_a_browser_that_lost_what_it_had_gets_it_again():
    at = opened()
    stands(at, 0, have=state(at).count)
    assert sent(at)["steps"] == []
    asks(at, "resend", have=0)
    assert len(sent(at)["steps"]) == state(at).count and sent(at)["head"] and state(at).live is None


def test_a_long_run_is_sent_in_parts(monkeypatch):
    """Whatever a browser says that it has, no more is drawn for it at once."""
    monkeypatch.setattr(stepper, "PART", 4)
    at = opened()
    count, found = state(at).count, len(sent(at)["steps"])
    assert 0 < found < sent(at)["count"] == count
    while found < count:
        asks(at, "resend", have=found)
        part = sent(at)
        assert part["from"] == found and (len(part["steps"]) == 1 or sum(len(step["nodes"]) for step in part["steps"]) <= 4)
        found += len(part["steps"])
    asks(at, "resend", have=0)
    assert 0 < len(sent(at)["steps"]) < count and not at.exception


def what_the_browser_has(at: AppTest):
    """The page as the browser knows it, with the values that it would send."""
    for box in (*at.selectbox, *at.number_input, *at.text_area):
        box.set_value(box.value)
    return at._tree


def test_a_browser_that_lags_behind_does_not_bring_the_old_prompt_back():
    """A press that comes before the browser has heard of a box that the page changed sends the old one along."""
    at = opened()
    known = what_the_browser_has(at)
    prompt_box(at).set_value("The cat sat on the").run()
    at._tree = known  # the new prompt, and the menu on the example of the old one
    press(at, "step")
    assert state(at).settings.prompt == "The cat sat on the" and not state(at).recorded
    known = what_the_browser_has(at)
    chosen = next(key for key in EXAMPLES if EXAMPLES[key].prompt != Settings().prompt)
    next(box for box in at.selectbox if box.label == "Example").set_value(chosen).run()
    at._tree = known  # the menu on the new example, and the old prompt
    press(at, "step")
    assert state(at).settings.prompt == EXAMPLES[chosen].prompt


def test_an_own_prompt_and_step_make_a_real_run():
    at = opened()
    prompt_box(at).set_value("The cat sat on the").run()
    assert at.button("again").label == "Start again with these settings"
    assert state(at).trace is demo.recorded(), "a changed control must not wipe the run"
    press(at, "step")
    assert state(at).trace.header.prompt == "The cat sat on the" and state(at).count == 1
    press(at, "step")
    assert state(at).count == 2 and state(at).cursor == 1
    stands(at, 0)
    asks(at, step=0)
    assert state(at).count == 2 and state(at).cursor == 1, "a step that was taken is shown again, not computed"
    assert sent(at)["more"] and not sent(at)["again"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_embedded_family_runs_to_its_end(method):
    at = opened(v="1", tokens="5")
    at.selectbox("method").set_value(method).run()
    press(at, "run")
    session = state(at)
    assert not at.exception and not session.problem, session.problem
    assert session.trace.header.method == method and session.ended and session.at_end
    for box in FOLDED:
        at.session_state[box] = True  # everything that is folded away is drawn as well
    at.run()
    for step in range(session.cursor - 1, -1, -1):
        stands(at, step)
        assert not at.exception and state(at).cursor == step
    assert not at.exception, at.exception[0].value
    assert all(chart.proto.alt for chart in at.get("plotly_chart"))


def test_another_method_is_asked_at_the_very_step():
    at = opened(v="1", prompt="Tom had a red", method="clover", tokens="24", temperature="0", step="3")
    settled(at)
    at.session_state["views.clover"] = OTHER
    at.run()
    at.selectbox("another_method").set_value("medusa").run()
    press(at, "another_ask")
    session = state(at)
    answer = session.answer()
    assert answer.header.method == "medusa" and len(answer.steps) == 1 and session.settings.method == "clover"
    before = session.trace.steps[:2]
    assert answer.header.prompt_tokens == session.trace.header.prompt_tokens + tuple(t for s in before for t in s.tokens)
    assert "Medusa drafts" in " ".join(box.value for box in at.caption)
    bars = " ".join(element.proto.body for element in at.get("html"))
    assert bars.count("<b>head 1") == 2  # Medusa, and Clover below it
    stands(at, state(at).cursor - 1)
    assert state(at).answer() is None and not at.exception  # it belongs to the step it was asked at


def test_a_model_of_ones_own_from_nothing_to_a_run_and_back(tmp_path):
    """Choosing a folder used to break the page: the menu of methods had lost the label that was chosen."""
    folder = shutil.copytree(EMBEDDED / "target", tmp_path / "mine")
    weights = load_file(folder / "model.safetensors")
    wrapped = {f"_orig_mod.{name}": values for name, values in weights.items()}
    save_file(wrapped, folder / "model.safetensors", metadata={"format": "pt"})
    at = opened()
    at.selectbox(key="target").set_value("a local folder").run()
    at.text_input(key="target_name").set_value(str(folder)).run()
    assert not at.exception and at.selectbox(key="method").value == "speculative_sampling"
    at.text_input(key="target_name").set_value("/no/such/<b>folder</b>").run()
    (said,) = {plain_words(warning.value) for warning in at.warning}
    assert said == "There is no folder '/no/such/<b>folder</b>' for the target." and "<b>" not in at.warning[0].value
    at.text_input(key="target_name").set_value(str(folder)).run()
    assert any("needs a draft model" in warning.value for warning in at.warning)
    assert any(caption.value.startswith("Not with these models: ") for caption in at.caption)
    at.selectbox(key="method").set_value("prompt_lookup").run()
    press(at, "step")
    assert not at.exception and state(at).trace.header.family == str(folder)
    assert any("that was taken off" in caption.value for caption in at.caption)
    at.selectbox(key="target").set_value("embedded").run()
    at.selectbox(key="method").set_value("speculative_sampling").run()
    assert not at.exception and not at.warning


def test_a_draft_model_with_nearly_the_same_tokens(tmp_path):
    """One token of it has another name; the others are shared, which the page says."""
    folder = shutil.copytree(EMBEDDED / "draft", tmp_path / "draft")
    for file in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        file.write_text(file.read_text().replace("<|endoftext|>", "<|over|>"))
    at = opened()
    at.selectbox(key="draft").set_value("a local folder").run()
    at.text_input(key="draft_name").set_value(str(folder)).run()
    press(at, "step")
    assert not at.exception and not errors(at)
    step = state(at).trace.steps[0]
    assert {node.source for node in step.nodes} == {"draft model"} and all(node.q for node in step.nodes)
    notes = [plain_words(caption.value) for caption in at.caption if "in 1 of 4,096 entries" in plain_words(caption.value)]
    assert len(notes) == 2, "with the run, and with the settings of the model"


def test_a_draft_model_with_another_tokenizer(tmp_path):
    """That the tokenizers differ is known once the models are loaded: the method that was chosen says so, and which one works."""
    toys.save(tmp_path, toys.causal_lm("gpt2"), toys.tokenizer())
    at = opened()
    at.selectbox(key="target").set_value("a local folder").run()
    at.text_input(key="target_name").set_value(str(tmp_path)).run()
    at.selectbox(key="draft").set_value("embedded").run()
    press(at, "step")
    assert not at.exception
    for words in (errors(at), warnings(at.run())):
        assert "another tokenizer" in words and "Universal assisted drafting" in words
    at.selectbox(key="method").set_value("universal_assisted").run()
    assert not at.warning
    press(at, "step")
    assert not at.exception and not errors(at)
    trace = state(at).trace
    assert trace.header.method == "universal_assisted"
    assert {node.source for step in trace.steps for node in step.nodes} == {"draft model, re-encoded"}
    assert sum("(280 against 4,096)" in plain_words(caption.value) for caption in at.caption) == 2
    (others,) = [words for caption in at.caption if (words := plain_words(caption.value)).startswith("Not with these models: ")]
    assert "Speculative sampling" in others and "Universal" not in others and "Prompt lookup" not in others


def plain_words(markdown: str) -> str:
    """What escaped text says."""
    return html.unescape(re.sub(r"\\(.)", r"\1", markdown))


def test_new_data_of_a_component_have_a_higher_number():
    def script():
        import streamlit as st

        from pages.parts.shared.setup import numbered

        st.session_state["numbers"] = [numbered("text", {"now": step})["number"] for step in (7, 7, 8, 7)]

    first, again, second, third = AppTest.from_function(script, default_timeout=PATIENCE).run().session_state["numbers"]
    assert first == again < second < third


def test_a_press_that_is_told_twice_is_heard_once():
    """A timer of the page that runs out while a component's event waits to be sent sends it as well."""

    def script():
        import streamlit as st

        from pages.parts.shared.setup import first_told

        told = [("k", 5.0), ("k", 5.0), ("k", 6.5), ("j", 7.0), ("k", 6.5), ("j", 7.0), ("j", 9)]
        heard = [first_told("strip", {"key": key, "at": at}) for key, at in told]
        other = [
            first_told("bar", {"key": "k", "at": 5.0}),
            *(first_told("bar", odd) for odd in (None, "k", {}, {"key": 1, "at": 8})),
        ]
        st.session_state["heard"] = [heard, other]

    heard, other = AppTest.from_function(script, default_timeout=PATIENCE).run().session_state["heard"]
    assert heard == ["k", None, "k", "j", None, None, "j"]
    assert other == ["k", None, None, None, None]


def test_the_tree_is_offered_as_a_graph():
    at = opened()
    at.session_state["tree_table_box"] = True
    at.run()
    assert not at.exception and [button.label for button in at.get("download_button")] == ["GraphML", "Node-link JSON"]


def test_reset_shows_the_recorded_run_again_and_keeps_the_settings():
    at = opened()
    prompt_box(at).set_value("The cat sat on the").run()
    press(at, "step")
    assert state(at).trace is not demo.recorded()
    at.button("reset").click().run()
    assert not at.exception and state(at).trace is demo.recorded() and state(at).cursor == demo.pause_at()
    assert prompt_box(at).value == "The cat sat on the" and sent(at)["again"], "Start makes the run that the settings say"


def test_without_a_recorded_run_there_is_the_prompt_and_a_start(monkeypatch):
    monkeypatch.setattr(demo, "recorded", lambda: None)
    at = opened()
    assert state(at).trace is None and sent(at)["again"] and sent(at)["empty"].startswith("The prompt: ")
    press(at, "step")
    assert state(at).count == 1


def test_the_end_of_a_run_says_what_to_do_next():
    at = opened()
    at.number_input("max_tokens").set_value(8).run()
    press(at, "run")
    assert state(at).ended and not sent(at)["more"]
    press(at, "next_longer")
    assert state(at).trace.header.max_tokens == 16 and at.number_input("max_tokens").value == 16
    press(at, "run")
    first = state(at).trace.header
    press(at, "next_method")
    other = state(at).trace.header
    assert other.method != first.method and other.prompt == first.prompt and at.selectbox("method").value == other.method


def test_methods_stand_under_their_ideas():
    at = opened()
    assert {button.key for button in at.button} >= {f"idea_{key}" for key in METHODS}
    press(at, "idea_prompt_lookup")
    assert at.selectbox("method").value == "prompt_lookup" and sent(at)["again"]


def test_put_the_settings_back():
    at = opened()
    at.selectbox("method").set_value("plain").run()
    at.button("put_back").click().run()
    assert at.selectbox("method").value == state(at).settings.method
    assert "put_back" not in [button.key for button in at.button]


def test_an_empty_prompt_is_a_sentence_and_the_run_before_stays():
    at = opened()
    before = state(at).trace
    prompt_box(at).set_value("   ").run()
    asks(at)
    assert "The prompt is empty" in errors(at) and state(at).trace is before


def test_a_prompt_beyond_the_context_is_a_sentence_and_the_run_before_stays():
    at = opened()
    before = state(at).trace
    prompt_box(at).set_value("word " * 3000).run()
    press(at, "step")
    assert "context holds" in errors(at) and state(at).trace is before


def test_an_unknown_model_is_a_sentence_and_the_run_before_stays():
    at = opened()
    before = state(at).trace
    at.selectbox("target").set_value("a local folder").run()
    at.text_input("target_name").set_value("/no/such/folder").run()
    at.selectbox("method").set_value("plain").run()
    press(at, "step")
    assert "/no/such/folder" in errors(at) and state(at).trace is before


def test_a_method_the_models_cannot_serve_says_why():
    at = opened()
    at.selectbox("target").set_value("a local folder").run()
    assert "Name the folder or the Hub id of the target" in warnings(at)
    at.text_input(key="target_name").set_value(str(EMBEDDED / "target")).run()
    assert "needs a draft model" in warnings(at)


def test_a_hostile_prompt_is_only_text():
    at = opened()
    prompt_box(at).set_value(HOSTILE).run()
    press(at, "step")
    assert state(at).trace.header.prompt == HOSTILE
    assert HOSTILE not in said(at) and HOSTILE not in " ".join(m.value for m in at.markdown)


def test_a_link_opens_the_same_run_at_the_same_step():
    settings = Settings(prompt="Tom had a red", method="multi_candidate", params={"shape": "2-1"}, seed=7, max_tokens=24)
    query = address.parameters(settings, 3, 1)
    first, second = (settled(opened(**query)) for _ in range(2))
    assert state(first).cursor == 2 and state(first).node == 1 and not state(first).notes
    assert [s.tokens for s in state(first).trace.steps[:3]] == [s.tokens for s in state(second).trace.steps[:3]]
    assert prompt_box(first).value == "Tom had a red" and first.selectbox("method").value == "multi_candidate"


def test_a_link_to_the_prompt_opens_the_run_at_its_prompt():
    """It opened none: the page showed the recorded run, and said that the settings had changed."""
    settings = Settings(prompt="Tom had a red", method="prompt_lookup", max_tokens=8)
    at = settled(opened(**address.parameters(settings, 0, None)))
    assert state(at).settings.same_run(settings) and state(at).cursor == -1 and state(at).count == 1
    assert "put_back" not in {button.key for button in at.button}


def test_the_link_button_writes_what_parse_reads():
    at = opened()
    at.button("link").click().run()
    query = {key: value if isinstance(value, str) else value[-1] for key, value in at.query_params.items()}
    place = address.parse(query)
    assert place.complaints == () and place.step == state(at).cursor + 1
    assert place.settings.same_run(state(at).settings)


BAD = {
    "method": HOSTILE,
    "p.length": "999",
    "p.nonsense": "1",
    "temperature": "nan",
    "top_p": "1e99",
    "top_k": "-1",
    "seed": "9" * 30,
    "tokens": "1_0",
    "step": "x",
    "node": "-7",
    "example": "../../etc/passwd",
    "target": "evil/model",
    "draft": "/etc",
    "foo": "bar",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_in_a_link_is_reported_and_left_out(name):
    place = address.parse({"v": "1", name: BAD[name]})
    assert len(place.complaints) == 1
    assert place.settings.same_run(Settings()) and place.settings.target == "embedded" and place.settings.draft is None


def test_a_link_carries_the_embedded_draft_model():
    settings = Settings(target="smollm2", draft="embedded", method="universal_assisted")
    place = address.parse(address.parameters(settings, 1, None))
    assert not place.complaints and place.settings.same_run(settings) and not address.left_out(settings)


def test_what_a_link_leaves_out_of_the_models_is_said():
    assert "runs on the embedded family" in address.left_out(Settings(target="/my/model"))
    assert "your own draft model" in address.left_out(Settings(target="smollm2", draft="/my/draft"))
    assert not address.left_out(Settings(target="smollm2"))


def test_a_link_full_of_nonsense_is_reported_and_the_page_stands():
    at = opened(**BAD)
    assert not at.exception and "never loaded" in warnings(at) and "There is no method" in warnings(at)
    assert state(at).trace is demo.recorded() and state(at).live is None


def test_a_link_of_another_version_is_reported():
    at = opened(v="99", method="plain")
    assert not at.exception and "version" in warnings(at)


def test_good_values_beside_bad_ones_are_used():
    place = address.parse({"method": "prompt_lookup", "p.ngram": "5", "p.length": "0", "temperature": "0.5"})
    assert place.settings.method == "prompt_lookup" and place.settings.params == {"ngram": 5}
    assert place.settings.temperature == 0.5 and len(place.complaints) == 1


def test_a_prompt_too_long_for_a_link_is_refused():
    with pytest.raises(ValueError, match="link carries at most"):
        address.parameters(Settings(prompt="x" * 5000), 1, None)


@pytest.mark.parametrize("key", EXAMPLES)
def test_examples_fit_into_links(key):
    settings = Settings(prompt=EXAMPLES[key].prompt)
    assert address.parse(address.parameters(settings, 1, None)).settings.prompt == settings.prompt


def test_a_failed_run_leaves_the_one_before():
    session = Session(trace=demo.recorded(), settings=Settings(), cursor=2)
    session.start(Settings(method="speculative_sampling", params={"length": 0}))
    assert session.problem and session.trace is demo.recorded() and session.cursor == 2 and session.coming is None


def test_what_was_said_of_a_run_goes_with_it(embedded):
    """That a model was not loaded, or that a run had ended before the step of a link, stood over all later runs."""
    session = Session(trace=demo.recorded(), settings=Settings(), notes=("Said of the recorded run.",))
    session.start(Settings(method="plain", max_tokens=3), 8, notes=("Said of the first.",))
    assert session.notes == ("Said of the recorded run.",)
    eventually(lambda: session.sync() or (session.ended and session.goal is None), "the run did not end")
    assert session.notes[0] == "Said of the first." and "ends at step 3" in session.notes[1] and len(session.notes) == 2
    session.run_to_end(Settings(method="plain", max_tokens=2))
    eventually(lambda: session.sync() or session.count == 2, "the next run did not end")
    assert not session.notes
    session.close()


def test_why_a_run_cannot_be_is_not_hidden_by_how_the_one_before_broke(embedded):
    session = Session()
    session.start(Settings(method="plain", max_tokens=9), 1)
    eventually(lambda: session.sync() or (session.count == 2 and not session.busy), "no steps came")
    session.live.close("The memory was full.")
    session.sync()
    assert session.problem == "The memory was full."
    session.run_to_end(Settings(method="plain", max_tokens=0))
    said = session.problem
    session.sync()
    assert session.problem == said and said != "The memory was full."
    session.close()


def test_who_looks_back_can_still_stop_a_run_to_its_end(embedded):
    """Stop was gone, and the run went on."""
    session, settings = Session(), Settings(method="plain", max_tokens=1500, ignore_end=True)
    session.run_to_end(settings)
    eventually(lambda: session.sync() or session.count > 3, "no steps came")
    session.stand(1, 3, None)
    session.sync()
    assert session.busy and session.far and session.long and session.cursor == 1
    session.stop()
    eventually(lambda: session.sync() or not session.busy, "it went on")
    assert session.cursor == 1 and not session.far and not session.ended
    session.advance(settings)
    assert session.cursor == 2 and not session.busy
    session.close()


def test_a_run_whose_models_take_long_can_be_stopped_before_its_first_step(embedded, monkeypatch):
    """Behind Start and Next there was no Stop while models were loaded or a datastore was built."""
    go_on, session = Event(), Session(trace=demo.recorded(), settings=Settings())
    real = Settings.maker

    def held(settings, *given):
        made = real(settings, *given)

        def make(*where):
            assert go_on.wait(PATIENCE)
            return made(*where)

        return make

    monkeypatch.setattr(Settings, "maker", held)
    monkeypatch.setattr("pages.parts.shared.session.UNSAID", 0.05)
    session.start(Settings(method="plain", max_tokens=4))
    eventually(lambda: session.sync() or session.far, "it could not be stopped")
    session.stop()
    go_on.set()
    eventually(lambda: session.sync() or session.coming is None, "it went on")
    assert session.trace is demo.recorded() and not session.far and session.goal is None


def test_the_cursor_never_leaves_the_trace():
    session = Session(trace=demo.recorded(), settings=Settings(), cursor=0)
    session.go(10**9)
    assert session.cursor == session.count - 1
    session.go(-(10**9))
    assert session.cursor == -1 and session.step is None


def test_a_trace_without_steps_can_be_shown():
    header = Header("plain", {}, "embedded", SamplingData(1.0, 0, 1.0), 0, "x", (1,), 8, "cpu", "float32", {})
    session = Session(trace=Trace(header, {1: b"x"}, ()), settings=Settings(), cursor=-1)
    assert session.step is None and session.selected is None and session.root == 1 and not session.ended


def test_home_leads_to_the_stepper():
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE).run()
    at.button("open_step").click().run()
    assert not at.exception and "draftscope" in at.session_state
