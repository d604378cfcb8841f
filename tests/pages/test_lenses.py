"""The Lenses page without a browser: it looks at the run of Step, answers, follows the reader, says why not, and is linked to."""

from math import inf
from threading import Event

import pytest
from streamlit.testing.v1 import AppTest

from decoding.lenses import LENSES
from decoding.limits import PUBLIC
from decoding.runs.lens_run import LensRun
from decoding.trace import decode_trace
from pages.parts.lenses import lens_view
from pages.parts.lenses.desk import FREE, Desk
from pages.parts.lenses.seen import as_json
from pages.parts.shared import address, runs
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from tests.conftest import PATIENCE, eventually
from tests.pages.conftest import EMBEDDED
from tests.pages.test_step import ROOT
from viz.lenses import pictures_of

pytestmark = [pytest.mark.timeout(4 * PATIENCE), pytest.mark.usefixtures("opens_with_embedded")]


def opened(**query: str) -> AppTest:
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE).switch_page("pages/6_Lenses.py")
    for key, value in query.items():
        at.query_params[key] = value
    return at.run()


def desk(at: AppTest) -> Desk:
    return at.session_state["draftscope_lenses"]


def settled(at: AppTest) -> AppTest:
    """Run until nothing is being looked at, and what was seen last is drawn."""

    def rested() -> bool:
        here = desk(at)
        if here.busy or here.session.busy:
            return False
        rests = here.session.coming is None
        at.run()
        return rests

    eventually(rested, "the look did not end")
    assert not at.exception
    return at


def press(at: AppTest, key: str) -> AppTest:
    return settled(at.button(key).click().run())


def keys(at: AppTest) -> set[str]:
    return {button.key for button in at.button}


def drawn(at: AppTest) -> str:
    return " ".join([*(html.proto.body for html in at.get("html")), *(box.value for box in (*at.caption, *at.warning, *at.error))])


SMALL = {"hyperfitting": {"l.length": "16"}, "byte_level": {"l.meter": "False"}}  # looks that would take many seconds


def chosen(lens: str, **query: str) -> AppTest:
    return opened(lens=lens, **query)


def test_every_lens_has_a_card_with_its_question_and_nothing_is_computed_before_it_is_asked():
    at = opened()
    assert not at.exception and {f"card_{key}" for key in LENSES} <= keys(at) and "lens_look" in keys(at)
    for key in LENSES:
        assert LENSES[key].title in at.button(f"card_{key}").label.replace("\\", "")
        assert LENSES[key].asks in at.button(f"card_{key}").label.replace("\\", "")
    assert not desk(at).lives and not desk(at).seen


@pytest.mark.parametrize("lens", LENSES)
def test_a_look_is_a_sentence_a_picture_a_table_and_files(lens):
    at = press(chosen(lens, **SMALL.get(lens, {})), "lens_look")
    assert not at.error, drawn(at)
    about, look = desk(at).seen[lens]
    assert look.done and look.key == lens and about[0] == lens and as_json(look).startswith(b"{")
    assert "rows read by the target" in drawn(at) and "lens_look" not in keys(at)
    assert {"lens_json", "lens_look_file"} <= {one.key for one in at.get("download_button")}
    pictures = pictures_of(lens)
    figure = pictures.figure(look, False)  # none where a prompt has no words to fuse, which is then what the sentence says
    assert bool(at.get("plotly_chart")) == (figure is not None) or "No two tokens" in pictures.sentence(look)


def press_card(at: AppTest, lens: str) -> AppTest:
    return at.button(f"card_{lens}").click().run()


def test_a_changed_parameter_marks_what_was_seen_and_the_button_looks_again():
    at = press(chosen("byte_level", **SMALL["byte_level"]), "lens_look")
    before = desk(at).seen["byte_level"][1]
    at.number_input("param.lens.byte_level.cut").set_value(2).run()
    assert "what was seen before" in drawn(at) and "lens_look" in keys(at)
    press(at, "lens_look")
    after = desk(at).seen["byte_level"][1]
    assert after.params["cut"] == 2 and after.text == before.text[: len(after.text)] != before.text
    at.text_input("param.lens.byte_level.typed").set_value("xq").run()
    assert desk(press(at, "lens_look")).seen["byte_level"][1].text.endswith(b"xq")


def test_a_cheap_lens_follows_the_reader_once_it_was_asked():
    at = press_card(opened(), "byte_level")
    at.toggle("param.lens.byte_level.meter").set_value(False).run()
    press(at, "lens_look")
    before, steps = desk(at).cursor.step, len(at.session_state["draftscope"].trace.steps)
    for step in (place for place in (-1, 0, steps - 1) if place != before):  # near the beginning it is cheap, at the end it is not
        asked = desk(at).seen["byte_level"][1].step
        at.session_state["draftscope"].go(step)
        settled(at.run())
        here = desk(at)
        assert here.seen["byte_level"][1].step == (step if here.cost.rows <= FREE else asked), here.cost


def test_stop_ends_a_look_and_it_can_go_on():
    at = press_card(opened(), "byte_level")
    at.button("lens_look").click().run()
    live = desk(at).lives[0] if desk(at).lives else None
    if live is not None and live.busy:
        desk(at).stop()
        live.wait(PATIENCE)
        assert live.state in ("paused", "ended")
        live.ask(inf)
    settled(at)
    assert desk(at).seen["byte_level"][1].done


def test_a_closed_tab_ends_the_look(monkeypatch):
    tab = runs.RunCleanup()
    monkeypatch.setattr(runs, "cleanup", lambda: tab)
    at = press_card(opened(), "infinigram")
    at.button("lens_look").click().run()
    lives = list(tab.lives)
    tab.release()
    for live in lives:
        live.wait(PATIENCE)
        assert live.over
    assert lives


def test_roles_are_counted_with_the_method_of_the_run():
    """This family writes a token for a thought, and only the first one is its own choice: one call, and a sentence that says so."""
    at = press(press_card(opened(), "diagram_of_thought"), "lens_look")
    own = sum(one.greedy > 0 for one in desk(at).seen["diagram_of_thought"][1].thoughts)
    assert "lens_by_role" in keys(at) and own
    press(at, "lens_by_role")
    assert "lens_by_role" not in keys(at) and at.dataframe[-1].value["thoughts"].sum() == own
    assert any(one.value.startswith("Accepted of the judged") for one in at.markdown)


def test_what_comes_and_goes_moves_nothing_below_it():
    """What moves up stands at its old place too until all below it is drawn: seconds, under load."""
    at = chosen("<script>")
    place = place_of_block(at.main, "lens_buttons")
    assert place and desk(at).notes
    desk(at).notes = ()
    assert place_of_block(at.run().main, "lens_buttons") == place and "There is no lens" not in drawn(at)
    desk(at).problem = desk(at).session.problem = "Something failed."
    assert place_of_block(at.run().main, "lens_buttons") == place and drawn(at).count("Something failed") == 2


def place_of_block(block, key: str) -> tuple[int, ...]:
    """Where a container stands on the page; () if it does not."""
    for i, child in getattr(block, "children", {}).items():
        if getattr(child, "key", None) == key:
            return (i,)
        if inside := place_of_block(child, key):
            return (i, *inside)
    return ()


# -- links -------------------------------------------------------------------------------------------------------------


def test_a_link_opens_the_run_the_place_the_lens_and_its_parameters():
    settings = Settings(prompt="Once upon a time", method="speculative_sampling", max_tokens=16)
    at = chosen("byte_level", **address.parameters(settings, 2, 0), **SMALL["byte_level"], **{"l.cut": "3", "l.typed": "x"})
    settled(at)
    here = desk(at)
    assert here.lens == "byte_level" and here.params.cut == 3 and here.params.typed == "x" and not here.notes
    assert here.session.settings.prompt == "Once upon a time" and here.cursor == (1, 0)
    press(at, "lens_look")
    press(at, "lens_link")
    assert at.query_params["lens"] == "byte_level" and at.query_params["l.cut"] == "3"


def test_what_a_link_cannot_say_is_said_and_left_out():
    at = chosen("<script>", **{"l.cut": "3"})
    assert "There is no lens" in drawn(at).replace("\\", "") and "<script>" not in drawn(at)
    at = chosen("byte_level", **{"l.cut": "999", "l.nonsense": "1", "l.temperature": "x"})
    told = drawn(at).replace("\\", "")
    assert not at.exception and all(name in told for name in ("l.cut", "l.nonsense", "l.temperature"))
    assert desk(at).params == LENSES["byte_level"].params()


def test_a_link_to_the_prompt_opens_the_run_that_it_names():
    at = settled(chosen("byte_level", **address.parameters(Settings(prompt="Tom had a red", max_tokens=8), 0, None)))
    assert desk(at).session.settings.prompt == "Tom had a red" and desk(at).cursor.step == -1


def test_a_run_that_is_made_is_waited_for_also_where_the_lens_is_refused(monkeypatch):
    """The page had no timer there, so what a link had begun never came into sight."""
    drawn_lines = []
    monkeypatch.setattr(lens_view, "progress", lambda here: drawn_lines.append(here))
    monkeypatch.setattr(Desk, "refusal", lambda self: "" if self.session.settings.prompt == "Tom had a red" else "It cannot be.")
    at = chosen("byte_level", **address.parameters(Settings(prompt="Tom had a red", max_tokens=8), 1, None))
    settled(at)
    assert drawn_lines and desk(at).session.settings.prompt == "Tom had a red"


def test_a_look_at_a_run_that_goes_on_keeps_its_stop_and_is_shown():
    """Every step made another question of it: what had been asked had no Stop any more, and its answer was thrown away."""
    settings = Settings(prompt="Once upon a time", method="speculative_sampling", max_tokens=24)
    at = settled(chosen("byte_level", **address.parameters(settings, 2, 0), **SMALL["byte_level"]))
    here = desk(at)
    before = here.about
    here.look_at()
    ((asked, live),) = here.under_way.values()
    with here.session.lock:
        here.session.live.ask(1)
    here.session.live.wait(PATIENCE)
    here.session.sync()
    assert here.session.count == before[2] + 1 and here.about == before and here.begun(here.question) is live
    live.wait(PATIENCE)
    settled(at)
    assert here.about[2] == before[2] + 1
    look, answers = here.found()
    assert look is not None and look.step == 1 and not answers
    assert "or the run changed" in drawn(at) or here.seen["byte_level"][0][2] == here.about[2]  # or it has followed by itself


def test_a_look_stays_where_it_was_asked_while_a_run_goes_to_its_end(embedded, monkeypatch):
    """The run moved the place with every step: the look had no Stop and was never shown."""
    monkeypatch.setattr(Desk, "look_at", lambda self: None)
    session = Session()
    here = Desk(session=session, lens="byte_level")
    session.run_to_end(Settings(prompt="Once upon a time", method="plain", max_tokens=400, ignore_end=True))
    eventually(lambda: session.sync() or session.count > 3, "no steps came")
    at = session.cursor
    here.look_here()
    session.sync()
    eventually(lambda: session.sync() or session.count > at + 3, "it does not go on")
    assert session.cursor == at and session.far
    here.close(), session.close()


def test_a_look_of_another_lens_can_be_stopped(monkeypatch):
    monkeypatch.setattr(Desk, "follows", lambda self: False)
    at = press_card(opened(), "critical_tokens")
    go_on, take = Event(), LensRun.turn

    def held(self):
        assert go_on.wait(PATIENCE)
        return take(self)

    monkeypatch.setattr(LensRun, "turn", held)
    at.button("lens_look").click().run()
    ((_, live),) = desk(at).under_way.values()
    at.button("card_byte_level").click().run()
    assert at.button("stop_other_lens_other").label == f"Stop: {LENSES['critical_tokens'].title}"
    at.button("stop_other_lens_other").click().run()
    go_on.set()
    live.wait(PATIENCE)
    assert not live.busy


def test_step_leads_to_the_place_that_it_shows():
    at = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE).switch_page("pages/1_Step.py").run()
    session = at.session_state["draftscope"]
    session.go(1)
    at.run()
    at.button("look_closer").click().run()
    assert desk(at).cursor == (1, session.selected) and "lens_look" in keys(at)


def test_the_page_asks_about_the_run_that_the_tab_shows_now():
    """Behind a reload it went on with the recorded one, while Step showed the tab's own again."""
    at = press(chosen("critical_tokens"), "lens_look")
    before, other = desk(at), Session()
    other.open_recorded()
    other.go(1)
    at.session_state["draftscope"] = other
    at.run()
    assert not at.exception and desk(at) is before and before.session is other and not before.seen
    assert before.cursor.step == 1


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_without_a_run_the_page_says_so(monkeypatch):
    from pages.parts.shared import recorded_run as demo

    monkeypatch.setattr(demo, "recorded", lambda: None)
    at = opened()
    assert not at.exception and "no run to look at" in drawn(at)


def test_a_public_server_refuses_a_long_look(monkeypatch):
    """At the door, with the numbers; whoever looks knows why."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    trace = decode_trace(EMBEDDED.read_bytes())
    at = press_card(opened(), "infinigram")
    rows = desk(at).cost.rows
    assert rows <= (PUBLIC.look or 0) and trace.steps
    monkeypatch.setattr("decoding.limits.PUBLIC", type(PUBLIC)(**{**vars(PUBLIC), "look": rows - 1}))
    press(at, "lens_look")
    assert f"reads at most {rows - 1:,} rows" in drawn(at).replace("\\", "")
