"""The page Methods: every method under its idea, with what was recorded of it; and what it says of itself when it is asked."""

from html import escape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from decoding.methods import GROUPS, METHODS
from decoding.runs import method_runs
from decoding.trace import decode_trace, encode
from pages.parts.gallery import link
from pages.parts.shared import address
from tests.conftest import PATIENCE
from tests.viz_samples import chain

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "pages" / "4_Methods.py"

pytestmark = pytest.mark.timeout(4 * PATIENCE)


def opened() -> AppTest:
    at = AppTest.from_file(str(PAGE), default_timeout=PATIENCE).run()
    assert not at.exception, at.exception
    return at


def bodies(at: AppTest) -> list[str]:
    return [element.proto.body for element in at.get("html")]


def test_every_method_stands_under_its_idea():
    said = bodies(opened())
    heads = [next(i for i, body in enumerate(said) if f">{group.title}</h2>" in body) for group in GROUPS.values()]
    assert heads == sorted(heads)
    for start, end, keys in zip(heads, [*heads[1:], len(said)], METHODS.grouped().values(), strict=True):
        cards = [body for body in said[start:end] if "<h3>" in body]
        assert [body.split("<h3>")[1].split("</h3>")[0] for body in cards] == [
            METHODS.title(key).replace("&", "&amp;") for key in keys
        ]


def test_a_card_has_the_tree_and_the_number_that_were_recorded():
    at, runs = opened(), method_runs.read()
    shown = [body for body in bodies(at) if "ds-tau" in body and "<style>" not in body]
    order = [key for keys in METHODS.grouped().values() for key in keys]
    for key, body in zip(order, shown, strict=True):
        assert f"<b>{runs[key].tokens[0] / runs[key].calls[0]:.1f}</b>" in body
    trees = [m.value for m in at.markdown if m.value.startswith("<div><svg")]
    for key, tree in zip(order, trees, strict=True):
        nodes, final = runs[key].trace.steps[0].nodes, runs[key].trace.steps[0].origins[-1] != "accepted"
        assert tree.count("<title>") == len(nodes) + 1 + final


def test_details_are_there_when_they_are_asked_for():
    at, eagle = opened(), METHODS["eagle"]
    assert not any(escape(eagle.algorithm[0]) in body for body in bodies(at))
    at.button(key="details_eagle").click().run()
    assert not at.exception and any(escape(eagle.algorithm[0]) in body for body in bodies(at))
    at.run()
    assert not any(escape(eagle.algorithm[0]) in body for body in bodies(at)), "closed again with the next click elsewhere"


def test_the_page_goes_without_the_recorded_runs(monkeypatch, tmp_path):
    from pages.parts.shared import recorded_run as demo

    monkeypatch.setattr(method_runs, "FILE", tmp_path / "none")
    demo.method_runs.cache_clear()
    try:
        at = opened()
        assert {f"open_{key}" for key in METHODS} <= {button.key for button in at.button}
        assert not any("<svg" in m.value for m in at.markdown)
    finally:
        demo.method_runs.cache_clear()


def test_open_in_step_opens_also_what_was_opened_last(opens_with_embedded):
    """The second press led to Step as it stood, with another method than the address named."""
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE).switch_page("pages/4_Methods.py").run()
    for _ in range(2):
        at.switch_page("pages/4_Methods.py").run()
        at.button("open_prompt_lookup").click().run()
        assert at.selectbox("method").value == "prompt_lookup"
        at.selectbox("method").set_value("plain").run()


def test_open_in_step_is_a_link_the_step_page_accepts():
    for key in METHODS:
        place = address.parse(link(key))
        assert place.complaints == () and place.settings.method == key


# -- what ships -----------------------------------------------------------------------------------------------------------


def test_every_method_was_recorded_and_opens_as_a_trace():
    runs = method_runs.read()
    assert list(runs) == list(METHODS)
    for key, shown in runs.items():
        assert decode_trace(encode(shown.trace)) == shown.trace and shown.trace.header.method == key
        assert shown.trace.header.family == method_runs.FAMILY and all(tau >= 1 for tau in shown.taus)
    assert runs["plain"].taus == (1, 1)


@pytest.mark.parametrize("key", ["prompt_lookup", "speculative_sampling"])
def test_the_numbers_are_those_of_the_runs(embedded, key):
    """All but the times of the step that is shown, which are a machine's own."""
    made, shipped = method_runs.record(embedded, key), method_runs.read()[key]
    assert (made.tokens, made.calls) == (shipped.tokens, shipped.calls)
    one, other = made.trace.steps[0], shipped.trace.steps[0]
    assert (one.tokens, one.path, [n.token for n in one.nodes]) == (other.tokens, other.path, [n.token for n in other.nodes])


def test_the_step_that_is_shown_keeps_and_refuses():
    kept, mixed = chain(3, 3), chain(2, 4)
    assert method_runs.worth(mixed) > method_runs.worth(kept)
