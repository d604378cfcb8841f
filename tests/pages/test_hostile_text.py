"""A trace, a store, a link and prompts whose every text is markup of all kinds: on no page is any of it drawn as markup.

Every special character of the payload follows the letters zq, so that one that reaches Markdown or HTML unescaped is found by
looking for the pair.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from streamlit.testing.v1 import AppTest

from decoding.methods import METHODS
from decoding.runs import fetch_job
from decoding.runs.prompts import Prompt
from decoding.runs.run import Run
from decoding.runs.store import Store
from decoding.sample import Sampling
from decoding.trace import Message, Step, Trace
from pages.parts.drafter.controller import StudyController
from pages.parts.shared.controls import FOLDER, HUB
from pages.parts.shared.session import Session
from pages.parts.step.open_trace import settings_for
from tests.conftest import PATIENCE, eventually

PAGES = Path(__file__).parent.parent.parent
MARKS = (
    "**b**", "_i_", "[t](http://evil.test/a)", "![p](http://evil.test/p.png)", "$x^2$", ":red[r]", ":smile:", ":material/home:",
    "<img src=http://evil.test/q onerror=alert(1)>", '"onmouseover="x', "`c`", "# h", "| a |", "\n- l", "~~s~~", "&lt;", "\\",
)  # fmt: skip
PAYLOAD = " ".join(re.sub(r"([^\w\s])", r"zq\1", mark) for mark in MARKS)
LEAK = re.compile(r"zq[!-/:-@\[^-`{-~]")  # a special character that no backslash stands before
TAG = re.compile(r"""zq(<img|"onmouse)""")
NOT_MARKDOWN = {  # (message, field): drawn as text, or read by the component alone
    ("Code", "code_text"), ("TextInput", "default"), ("TextInput", "value"), ("TextInput", "placeholder"), ("TextArea", "default"),
    ("TextArea", "value"), ("TextArea", "placeholder"), ("Selectbox", "options"), ("Selectbox", "raw_value"),
    ("Selectbox", "placeholder"), ("MultiSelect", "options"), ("MultiSelect", "raw_values"), ("MultiSelect", "placeholder"),
    ("Html", "body"), ("PlotlyChart", "spec"), ("PlotlyChart", "config"), ("PlotlyChart", "alt"), ("BidiComponent", "json"),
    ("BidiComponent", "mixed"), ("Dataframe", "columns"), ("Dataframe", "alt"), ("Arrow", "alt"), ("DownloadButton", "url"),
}  # fmt: skip


def strings(proto) -> Iterator[tuple[str, str, str]]:
    """(message, field, text) of every string inside."""
    for field, value in proto.ListFields():
        several = value if field.is_repeated else [value]
        for one in several:
            if isinstance(one, str):
                yield proto.DESCRIPTOR.name, field.name, one
            elif hasattr(one, "ListFields"):
                yield from strings(one)


def leaks(at: AppTest) -> list[str]:
    """What of the payload would be drawn as markup on the page."""
    found = []
    for element in at._tree:
        proto = getattr(element, "proto", None)
        for message, field, text in strings(proto) if hasattr(proto, "ListFields") else ():
            if field in ("id", "key", "form_id", "element_id") or "zq" not in text:
                continue
            wrong = TAG if (message, field) == ("Html", "body") else LEAK if (message, field) not in NOT_MARKDOWN else None
            if wrong and (hit := wrong.search(text)):
                found.append(f"{message}.{field}: …{text[max(0, hit.start() - 60) : hit.end() + 20]}…")
    return found


def clean(at: AppTest) -> AppTest:
    assert not at.exception, at.exception
    assert not (found := leaks(at)), "\n".join(found)
    return at


def hostile(trace: Trace) -> Trace:
    """The trace with markup in every text."""
    replaced = msgspec.structs.replace

    def changed(step: Step) -> Step:
        nodes = (replaced(n, source=n.source + PAYLOAD, scores={**n.scores, PAYLOAD: 0.5}) for n in step.nodes)
        return replaced(step, nodes=tuple(nodes), facts={**step.facts, PAYLOAD: 1.0})

    header = replaced(
        trace.header, family=PAYLOAD, prompt=PAYLOAD, device=PAYLOAD, dtype=PAYLOAD, versions={PAYLOAD: PAYLOAD},
        messages=(Message("user", PAYLOAD),), template_options={"zq_option": PAYLOAD},
    )  # fmt: skip
    marks = (MARKS * (len(trace.token_bytes) // len(MARKS) + 1))[: len(trace.token_bytes)]
    pieces = {token: re.sub(r"([^\w\s])", r"zq\1", mark).encode() for token, mark in zip(trace.token_bytes, marks, strict=True)}
    return Trace(header, pieces, tuple(map(changed, trace.steps)))


@pytest.fixture(scope="module")
def made(embedded):
    """method -> a short run of it with hostile text; made when first asked for."""
    known: dict[str, Trace] = {}

    def make(key: str) -> Trace:
        if key not in known:
            run = Run(embedded, key, prompt="Tom had a red hat. Tom had a red", sampling=Sampling(0.8), max_tokens=12)
            known[key] = hostile([run for _ in run][-1].trace)
        return known[key]

    return make


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path))
    return Store(tmp_path)


def opened(page: str, state: dict | None = None, query: dict | None = None) -> AppTest:
    at = AppTest.from_file(PAGES / "app.py", default_timeout=PATIENCE).switch_page(f"pages/{page}")
    for key, value in (state or {}).items():
        at.session_state[key] = value
    for key, value in (query or {}).items():
        at.query_params[key] = value
    return clean(at.run())


def unfolded(at: AppTest) -> AppTest:
    """Every folded box opened."""
    for element in list(at._tree):
        if getattr(element, "type", "") in ("expandable", "popover") and element.key:
            at.session_state[element.key] = True
    return clean(at.run())


def test_the_test_sees_what_is_drawn_raw():
    def page():
        import streamlit as st

        from tests.pages.test_hostile_text import PAYLOAD

        st.button("a", help=PAYLOAD)
        st.html(f"<p>{PAYLOAD}</p>")
        st.tabs([PAYLOAD, "b"])
        st.code(PAYLOAD)

    at = AppTest.from_function(page).run()
    assert [leak.split(":")[0] for leak in leaks(at)] == ["Button.help", "Html.body", "Tab.label"]


@pytest.mark.parametrize("key", list(METHODS))
def test_an_opened_run_on_the_step_page(key, made, store):
    settings, notes = settings_for(made(key).header)
    session = Session(trace=made(key), settings=settings, notes=notes, cursor=0)
    at = unfolded(opened("1_Step.py", {"draftscope": session}))
    for node in (-1, None):
        session.pick(node)
        session.go(min(session.cursor + 1, session.count - 1))
        clean(at.run())


def test_kept_runs_on_the_traces_page(made, store):
    for key in ("eagle", "plain"):
        store.keep(made(key), PAYLOAD[:190], PAYLOAD)
    at = unfolded(opened("5_Traces.py"))
    at.session_state["traces.picture.2"] = True
    clean(at.run())
    at.text_input(key="traces.words").set_value("zq").run()
    clean(at.selectbox(key="traces.family").set_value(PAYLOAD).run())
    clean(at.button(key="traces.delete").click().run())
    clean(at.button(key="traces.really").click().run())
    clean(at.button(key="traces.open").click().run())


def test_kept_runs_compared(made, store):
    ids = [store.keep(made(key), f"{key} {PAYLOAD}"[:190], PAYLOAD) for key in ("eagle", "plain")]
    at = opened("2_Compare.py", {"compare_view": "saved"})
    at.session_state["saved_runs"] = ids
    unfolded(clean(at.run()))
    for tab in ("Numbers", "Text", "Acceptance", "Time"):
        at.session_state["saved_tabs"] = tab
        unfolded(clean(at.run()))


@pytest.mark.parametrize("page", ["1_Step.py", "2_Compare.py"])
def test_links(page, store):
    names = (
        "prompt",
        "example",
        "method",
        "target",
        "draft",
        "v",
        "temperature",
        "step",
        "seed",
        "chat",
        "view",
        "mode",
        "c1",
        "sweep",
    )
    for name in names:
        opened(page, query={name: PAYLOAD[:300], "p.length": PAYLOAD[:50], PAYLOAD[:60]: PAYLOAD[:60]})


@pytest.mark.parametrize("page", ["1_Step.py", "2_Compare.py"])
def test_names_of_models(page, store, monkeypatch):
    def refused(name):  # nothing is downloaded by a test; what the index says may be hostile, too
        raise ValueError(PAYLOAD)
        yield

    monkeypatch.setattr(fetch_job, "fetch", refused)
    for name in (PAYLOAD[:200], "/zq*zq_zq[x](y)", "zqx/zq*b*", "zq_a_/b"):
        state = {"target": FOLDER, "target_name": name, "draft": HUB, "draft_name": name, "device": PAYLOAD}
        at = opened(page, state)
        for key in ("step", "compare_step", "fetch"):
            if any(button.key == key and not button.disabled for button in at.button):
                clean(at.button(key=key).click().run())


def test_prompts_of_a_file_on_the_drafter_page(store):
    prompts = tuple(Prompt(f"Once upon a time {i} {PAYLOAD}", PAYLOAD) for i in range(2))
    desk = StudyController(file=("1", f"{PAYLOAD}.txt", prompts))
    state = {"desk": desk, "study.source": "a file", "study.two": True, "study.max_tokens": 8, "study.A.method": "prompt_lookup"}
    at = opened("3_Drafter.py", state)
    clean(at.button(key="study_run").click().run())
    eventually(lambda: not desk.busy, "the study does not end")
    at = unfolded(clean(at.run()))
    assert at.metric, (desk.problem, desk.problems)
    for tab in ("Calibration", "p against q", "Rejections", "Two drafters"):
        at.session_state["find.tabs.5"] = tab
        unfolded(clean(at.run()))


@pytest.mark.parametrize("what", ["problem", "notes"])
def test_errors(what, made, store):
    settings, _ = settings_for(made("plain").header)
    session = Session(trace=made("plain"), settings=settings)
    setattr(session, what, PAYLOAD if what == "problem" else (PAYLOAD,))
    opened("1_Step.py", {"draftscope": session})
    desk = StudyController(problem=PAYLOAD)
    opened("3_Drafter.py", {"desk": desk})
