"""The stepper: the data it is fed, and in a browser that it moves, lights up, fits and tells, all by itself."""

import json
import re

import msgspec
import pytest
from playwright.sync_api import expect

from decoding.trace import Row
from tests.conftest import until
from tests.viz_samples import HOSTILE, chain, grown, node, row, small_tree, step_of, trace_of
from viz.replay.replay import replay_html
from viz.stepper.assets import script, style
from viz.stepper.data import END, LIGHT, MARK, opening, run_key, sentences, stepper_data, unmarked
from viz.style import LOOKS, SERIES
from viz.verdicts import NARROW


def recorded(step):
    """The step with a distribution wherever something hangs."""
    parents = {item.parent for item in step.nodes} | {step.end_row - 1}
    tokens = tuple({item.token for item in step.nodes} | {0, 1, 2})
    p = tuple(1 / len(tokens) for _ in tokens)
    rows = tuple(row(tokens, p, q=p[::-1]) if i - 1 in parents else None for i in range(len(step.nodes) + 1))
    return msgspec.structs.replace(step, rows=rows)


TRACE = trace_of(recorded(chain(3)), recorded(small_tree()), recorded(step_of()), recorded(chain(5)))
BIG = grown((6, 24, 60, 90, 100, 120), (0, 6, 30), (90,))  # 400 nodes


# -- what it is fed -----------------------------------------------------------------------------------------------------


def test_every_node_is_there_with_its_numbers_and_its_words():
    step = stepper_data(TRACE)["steps"][1]
    assert len(step["nodes"]) == 8 and step["depth"] == 4
    parent, token, verdict, p, q, u, border, says, decimals, numbers, source = step["nodes"][1]
    assert (parent, token, verdict, p, q, u, border) == (-1, 1, 0, 0.2, 0.5, 0.31, 0.4)
    words = step["strings"]
    assert words[numbers] == "0.31 × 0.50 = 0.155 < 0.20: accepted" and words[source] == "from draft model"
    assert f"50{NARROW}% sure of {MARK}1{END}" in words[says] and f"0.50 sure of {MARK}1{END}" in words[decimals]
    assert step["tokens"] == [[1, 0, 1], [3, 0, 3], [7, 2, 8]], "the kept nodes and the correction"
    assert step["line"].startswith("Step 2: 2 of 8 drafted tokens accepted")
    assert step["rows"]["0"][5] == "entropy of p 1.00 bits"


def test_a_growing_run_is_sent_step_by_step():
    whole, rest = stepper_data(TRACE), stepper_data(TRACE, 3)
    assert rest["head"] is None and rest["from"] == 3 and rest["steps"] == whole["steps"][3:]
    assert set(rest["names"]) <= set(whole["names"]) and "1" in whole["names"]
    grown_by_one = msgspec.structs.replace(TRACE, steps=(*TRACE.steps, chain(2)))
    assert stepper_data(grown_by_one)["steps"][:4] == whole["steps"], "a step never changes"
    assert run_key(TRACE) == run_key(grown_by_one) != run_key(TRACE, 1)


@pytest.mark.parametrize(("most", "parts"), [(0, [1] * 4), (len(TRACE.steps[0].nodes), None), (10**6, [4])])
def test_a_long_run_is_drawn_in_parts(most, parts):
    """No part has more nodes than that, but for a single step that has; together they are all."""
    whole, found = stepper_data(TRACE), []
    while not found or len(found) < len(whole["steps"]):
        part = stepper_data(TRACE, len(found), most=most)
        assert part["count"] == 4 and part["from"] == len(found) and part["steps"]
        assert len(part["steps"]) == 1 or sum(len(step["nodes"]) for step in part["steps"]) <= most
        assert parts is None or len(part["steps"]) == parts.pop(0)
        found += part["steps"]
    assert found == whole["steps"] and not parts


def test_a_long_run_leaves_out_bars_where_nothing_was_judged():
    step = recorded(grown((30, 70), (0,), (31,)))
    count = LIGHT // len(step.nodes) + 1
    many = stepper_data(trace_of(*[step] * count))["steps"][0]
    all_of_one = stepper_data(trace_of(step))["steps"][0]
    judged = {"0", "1"}
    assert set(many["rows"]) == judged < set(all_of_one["rows"])


def test_opens_on_the_rejection_whose_die_came_nearest_to_the_border():
    assert opening(chain(3)) == 3 and opening(chain(5)) == 5 and opening(step_of()) == 0
    assert opening(step_of([node(0)], (0,), None)) == 0
    far, near, sure = (node(i, verdict="rejected", u=u, p=p) for i, (u, p) in enumerate([(0.9, 0.2), (0.43, 0.2), (0.9, 0.0)]))
    assert opening(step_of([far, near, sure], (), "correction")) == 1


def test_numbers_json_does_not_have():
    odd = Row((0, 1), (float("nan"), float("inf")), None, (0.0, 0.0), float("nan"), None, None, None)
    bad = [node(0, p=float("nan"), u=float("inf"), scores={"x": float("-inf")}, verdict="rejected")]
    step = stepper_data(trace_of(step_of(bad, (), "correction", rows=(odd, None))))["steps"][0]
    assert step["rows"]["0"][1] == [None, None] and step["nodes"][0][3:6] == [None, 0.5, None]
    json.dumps(step, allow_nan=False)


def test_missing_pieces_are_shown_by_their_id():
    assert stepper_data(trace_of(step_of(final_token=999)))["names"]["999"] == ["#999", "#999"]


def test_half_characters_are_joined():
    trace = trace_of(step_of(final_token=104), step_of(final_token=105), token_bytes=HOSTILE)
    assert stepper_data(trace)["joined"] == [[2, 4, "é"]]


@pytest.mark.parametrize(
    ("step", "phase", "words"),
    [
        (chain(3), "guess", "The small model guesses 5 tokens ahead: ␣the ␣little ␣cat ␣sat ␣on"),
        (small_tree(), "guess", "The small model guesses 8 tokens as a tree, up to 4 ahead, beginning with ␣the, ␣little, ␣cat."),
        (step_of(), "guess", "Nothing was guessed: the large model goes on alone."),
        (chain(3), "check", "One call of the large model reads all 5 guesses at once."),
        (chain(3), "judge", "3 of 5 guesses kept."),
        (chain(3), "write", "4 tokens for one call: 3 kept guesses and ␣was of the large model's own."),
        (chain(5), "write", "6 tokens for one call: 5 kept guesses and ␣was, which the same call gives on top."),
        (chain(0), "write", "1 token for one call: ␣was of the large model's own."),
        (step_of(), "write", "One token for one call: ␣was."),
    ],
)
def test_each_phase_has_its_sentence(step, phase, words):
    assert unmarked(sentences(step)[phase], stepper_data(trace_of(step))["names"]) == words


def test_colours_are_those_of_the_app():
    sheet = style()
    for state, name in (
        ("accepted", "accepted"),
        ("rejected", "rejected"),
        ("not judged", "unjudged"),
        ("correction", "correction"),
    ):
        assert f"--{name}: {LOOKS[state].color}" in sheet
    assert f"--bonus: {LOOKS['bonus'].color}" in sheet and f"--p: {SERIES['p']}" in sheet and f"--q: {SERIES['q']}" in sheet


def test_the_script_builds_no_markup_and_asks_nobody():
    for bad in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "XMLHttpRequest", "import("):
        assert bad not in script()
    assert "url(" not in style() and "@import" not in style()


# -- in a browser -------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(browser, tmp_path):
    """opened(trace) -> a page with the stepper by itself, as the replay has it; errors of the page fail the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page, trouble = context.new_page(), []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))

    def open_(trace, **size):
        if size:
            page.set_viewport_size(size)
        path = tmp_path / "replay.html"
        path.write_text(replay_html(trace), encoding="utf-8")
        page.goto(path.as_uri())
        return page

    yield open_
    context.close()
    assert not trouble


def stands(page, call: int, phase: int = 4) -> None:
    expect(page.locator(".stp .count")).to_have_text(re.compile(f"^call {call} of"))
    expect(page.locator('.phase[aria-pressed="true"]')).to_have_text(re.compile(f"^{phase} "))


def box(page, index: int):
    return page.locator(f'.box[data-n="{index}"]')


@pytest.mark.browser
def test_buttons_keys_and_the_strip_of_calls_step(opened):
    page = opened(TRACE)
    stands(page, 1)
    page.locator('[data-do="next"]').click()
    stands(page, 2)
    for key, step in [("ArrowRight", 3), ("k", 4), ("K", 4), ("j", 3), ("ArrowLeft", 2)]:
        page.keyboard.press(key)
        stands(page, step)
    page.locator(".scrub").focus()
    page.keyboard.press("ArrowRight")
    stands(page, 3)  # once: the strip's own key, not twice
    page.keyboard.press("End")
    stands(page, 4)
    expect(page.locator('[data-do="next"]')).to_be_disabled()
    strip = page.locator(".scrub").bounding_box()
    page.mouse.click(strip["x"] + strip["width"] * 0.3, strip["y"] + 10)
    stands(page, 2)
    expect(page.locator(".scrub")).to_have_attribute("aria-valuetext", "Call 2 of 4: 3 tokens")


@pytest.mark.browser
def test_a_call_goes_phase_by_phase(opened):
    page = opened(TRACE)
    page.keyboard.press("k")
    stands(page, 2)
    written = page.locator(".tokens .tok:not(.later):not(.ghost)")
    expect(written).to_have_count(2 + 4 + 3)
    page.keyboard.press("1")
    stands(page, 2, 1)
    expect(page.locator(".stp .line")).to_contain_text("The small model guesses 8 tokens as a tree")
    expect(written).to_have_count(2 + 4)
    expect(box(page, 8)).to_be_hidden()  # the correction is not there yet
    expect(box(page, 1)).to_have_attribute("aria-label", re.compile("guessed with 50"))
    page.keyboard.press("Shift+ArrowRight")
    stands(page, 2, 2)
    expect(page.locator(".stp .line")).to_have_text("One call of the large model reads all 8 guesses at once.")
    expect(page.locator(".ghost.checked").first).to_be_visible()
    page.keyboard.press("Shift+ArrowRight")
    stands(page, 2, 3)
    expect(box(page, 8)).to_be_visible()
    expect(box(page, 1)).to_have_attribute("aria-label", re.compile("^little: kept"))
    expect(page.locator(".ghost.accepted")).to_have_count(2)
    page.keyboard.press("ArrowRight")  # first the call to its end
    stands(page, 2, 4)
    expect(page.locator(".tokens .now")).to_have_count(3)
    page.keyboard.press("1")
    page.keyboard.press("Shift+ArrowLeft")
    stands(page, 1, 4)


@pytest.mark.browser
def test_play_runs_to_the_end_and_stops(opened):
    page = opened(TRACE)
    page.locator(".pace").select_option("fast")
    page.keyboard.press("p")
    stands(page, 4)
    expect(page.locator('[data-do="play"]')).to_contain_text("Play")
    page.locator(".pace").select_option("phases")
    page.locator('[data-do="play"]').click()  # from the end it starts over
    stands(page, 1, 2)
    page.locator('[data-do="play"]').click()
    expect(page.locator('[data-do="play"]')).to_have_text(re.compile("^Play"))


@pytest.mark.browser
def test_arrows_walk_the_tree_enter_pins_and_escape_lets_go(opened):
    page = opened(TRACE)
    page.keyboard.press("k")
    stands(page, 2)
    box(page, 1).focus()
    page.keyboard.press("ArrowRight")
    expect(box(page, 3)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(box(page, 4)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(box(page, 1)).to_be_focused()
    stands(page, 2)  # the page's own arrows were not meant
    page.keyboard.press("Enter")
    expect(box(page, 1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".why h3")).to_have_text(re.compile("little kept"))
    expect(page.locator(".stp .line")).to_contain_text("The die says 0.31, below 0.40: kept.")
    expect(page.locator(".die")).to_have_attribute("aria-label", "The die says 0.31 on a rule from 0 to 1; kept below 0.40.")
    page.keyboard.press("Escape")
    expect(box(page, 1)).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Tab")
    expect(page.locator(".box:focus")).to_have_count(0)  # no trap


@pytest.mark.browser
def test_what_means_the_same_lights_up_together(opened):
    page = opened(TRACE)
    page.keyboard.press("k")
    page.locator(".twin summary").click()
    page.locator('.tokens .tok[data-step="1"]').first.hover()
    for other in (box(page, 1), page.locator('tr[data-n="1"]')):
        expect(other).to_have_class(re.compile(r"\blit\b"))
    expect(page.locator(".why h3")).to_have_text(re.compile("little kept"))
    expect(page.locator(".scrub .glow")).to_have_attribute("width", re.compile(r"0\.7"))
    box(page, 3).hover()
    expect(page.locator('.tokens .tok[data-step="1"]').nth(1)).to_have_class(re.compile(r"\blit\b"))
    expect(box(page, 1)).not_to_have_class(re.compile(r"\blit\b"))
    page.mouse.move(2, 2)
    expect(page.locator(".box.lit")).to_have_count(0)


@pytest.mark.browser
def test_a_token_of_the_text_leads_to_its_call(opened):
    page = opened(TRACE)
    page.keyboard.press("End")
    stands(page, 4)
    page.locator('.tokens [data-step="1"]').first.click()
    stands(page, 2)
    expect(page.locator(".tokens .later")).to_have_count(7)
    expect(page.locator('.tokens [tabindex="0"]')).to_have_count(1)
    page.locator('.tokens [tabindex="0"]').focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    stands(page, 1)


@pytest.mark.browser
def test_probabilities_are_said_as_the_reader_chooses(opened):
    page = opened(TRACE)
    page.keyboard.press("k")
    expect(page.locator(".stp .line")).to_contain_text("50")
    page.locator(".unit").click()
    expect(page.locator(".stp .line")).to_contain_text("was 0.50 sure of")
    page.reload()
    page.keyboard.press("k")
    expect(page.locator(".stp .line")).to_contain_text("was 0.50 sure of")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_the_tree_fits_its_place_and_nothing_spills(opened, width):
    """Boxes lie inside the tree, labels inside their boxes, no letter is smaller than 13 px, and verdicts are never cut."""
    page = opened(trace_of(recorded(chain(3)), recorded(grown((4, 8, 6), (0, 4), (12,)))), width=width, height=900)
    for call in (1, 2):
        stands(page, call)
        found = page.evaluate("""() => {
          const view = document.querySelector(".treeview").getBoundingClientRect(), out = [];
          for (const box of document.querySelectorAll(".box")) {
            const b = box.getBoundingClientRect();
            if (b.left < view.left - 1 || b.right > view.right + 1) out.push(["wide", box.getAttribute("aria-label")]);
            for (const part of box.querySelectorAll(".head, .bars, .note")) {
              const p = part.getBoundingClientRect();
              const beyond = p.left < b.left - 1 || p.right > b.right + 1 || p.bottom > b.bottom + 1 || p.top < b.top - 1;
              if (p.width && beyond) out.push(["spills", part.className, p.top - b.top, b.bottom - p.bottom]);
            }
            const verdict = box.querySelector(".verdict");
            if (verdict && verdict.scrollWidth > verdict.clientWidth + 1) out.push(["cut", verdict.textContent]);
            for (const letter of [box, ...box.querySelectorAll(".tok, .value, .what")])
              if (letter.textContent && parseFloat(getComputedStyle(letter).fontSize) < 14) out.push(["small", letter.className]);
          }
          if (document.documentElement.scrollWidth > innerWidth) out.push(["page", document.documentElement.scrollWidth]);
          return out; }""")
        assert found == []
        page.keyboard.press("k")


@pytest.mark.browser
def test_a_giant_is_folded_opened_zoomed_and_fitted(opened):
    page = opened(trace_of(BIG, BIG))
    boxes = page.locator(".box")
    until(page, lambda: 0 < boxes.count() < 120, "a tree of 400 nodes is not folded")
    judged = page.locator(".box.accepted, .box.rejected")
    expect(judged).to_have_count(4)
    for _ in range(60):  # every fold can be opened, by the keyboard
        if not page.locator(".box.folded").count():
            break
        page.locator(".box.folded").first.focus()
        page.keyboard.press("Enter")
    expect(boxes).to_have_count(402)  # 400 and the root, and the correction
    page.get_by_role("button", name="Fit the tree").click()
    expect(page.locator(".tree")).to_have_class(re.compile("level0"))
    page.get_by_role("button", name="More detail").click()
    expect(page.locator(".tree")).to_have_class(re.compile("level1"))
    view = page.locator(".treeview")
    middle = view.bounding_box()
    page.mouse.move(middle["x"] + 300, middle["y"] + 200)
    page.mouse.down()
    page.mouse.move(middle["x"] + 300, middle["y"] + 60, steps=4)
    page.mouse.up()
    until(page, lambda: view.evaluate("v => v.scrollTop") > 50, "the tree cannot be dragged")


@pytest.mark.browser
def test_reduced_motion_has_stills_only(browser, tmp_path):
    """With it nothing is ever animated; without it, a phase is."""
    path = tmp_path / "replay.html"
    path.write_text(replay_html(TRACE), encoding="utf-8")
    counted = """const animate = Element.prototype.animate;
        Element.prototype.animate = function (...x) { window.moves = (window.moves || 0) + 1; return animate.apply(this, x); };"""
    moves = {}
    for motion in ("reduce", "no-preference"):
        page = browser.new_page(reduced_motion=motion)
        page.add_init_script(counted)
        page.goto(path.as_uri())
        assert not page.evaluate("window.moves || 0"), "nothing moves by itself"
        for key in ("k", "1", "2", "3", "4"):
            page.keyboard.press(key)
        stands(page, 2)
        moves[motion] = page.evaluate("window.moves || 0")
        page.close()
    assert moves["reduce"] == 0 < moves["no-preference"]


CALLS = """async (script) => {
    const said = [], parentElement = document.querySelector("#here");
    const { default: draw } = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
    const report = { setTriggerValue: (what, told) => said.push([what, told.key, told.have]), setStateValue: () => 0 };
    window.call = (data) => draw({ data, parentElement, ...report });
    window.said = said;
}"""


@pytest.fixture
def mounted(browser):
    """The code as it is sent to Streamlit's page, and a function that calls it."""
    page = browser.new_page()
    page.set_content(f'<style>{style()}</style><div id="here"><div class="stp-place"></div></div>')
    page.evaluate(CALLS, script())
    parts = dict.fromkeys(("sentence", "phases", "text", "tree", "bars", "table", "transport"), True)
    usual = {"key": "s", "mode": "full", "large": False, "lights": [], "keys": True, "show": parts, "empty": "", "order": 1}
    usual |= {"at": [0, 3, None], "more": True, "busy": False, "again": False, "run": "one"}

    def call(number: int, start: int = 0, stop: int = 4, **other) -> None:
        part = msgspec.structs.replace(TRACE, steps=TRACE.steps[:stop])
        page.evaluate("data => { window.call(data); }", stepper_data(part, start) | usual | {"number": number} | other)

    yield page, call
    page.close()


@pytest.mark.browser
def test_an_older_call_changes_nothing(mounted):
    """A browser that still loads the code makes the calls that wait for it in any order."""
    page, call = mounted
    call(12, at=[2, 3, None])
    call(11, order=0, at=[0, 3, None])
    stands(page, 3)


@pytest.mark.browser
def test_a_press_that_went_down_with_the_connection_can_be_made_again(mounted):
    """Nothing comes, and nothing says that it is at work; soon after a press another one asks for no more."""
    page, call = mounted
    page.clock.install()
    call(1, at=[3, 3, None])
    page.keyboard.press("k")
    page.keyboard.press("k")
    page.clock.fast_forward(1000)
    page.keyboard.press("k")
    asked = [one for one in page.evaluate("said") if one[0] == "ask"]
    page.clock.fast_forward(10_000)
    page.keyboard.press("k")
    again = [one for one in page.evaluate("said") if one[0] == "ask"]
    assert len(asked) == 1 and again == asked * 2


@pytest.mark.browser
def test_steps_are_sent_once_and_what_is_missing_is_asked_for(mounted):
    page, call = mounted
    call(1, stop=2)
    call(2, 2, 3)  # only what is new
    expect(page.locator(".stp .count")).to_have_text("call 1 of 3")
    page.keyboard.press("k")
    page.keyboard.press("k")
    stands(page, 3)
    page.keyboard.press("k")  # behind the last one: asked of the page, once
    page.keyboard.press("k")
    assert page.evaluate("said") == [["ask", "step", 3]]
    call(3, 3, 4)
    stands(page, 4)
    call(4, 2, 4, run="two")  # another run, whose first steps never came
    assert page.evaluate("said")[-1] == ["ask", "resend", 0]


@pytest.mark.browser
def test_a_long_run_comes_in_parts_and_then_stands_where_it_should(mounted):
    """What is not there yet is asked for, once for each part, and again where the question went down with the connection."""
    page, call = mounted
    page.clock.install()
    call(1, stop=2, count=4, at=[3, 1, None], more=False)
    assert page.evaluate("said") == [["ask", "resend", 2]]
    stands(page, 2, 2)  # the last that is there
    call(2, stop=2, count=4, at=[3, 1, None], more=False)  # the same again: it was asked for
    page.clock.fast_forward(10_000)
    assert page.evaluate("said") == [["ask", "resend", 2]] * 2
    call(3, 2, 4, at=[3, 1, None], more=False)
    stands(page, 4, 2)
    page.keyboard.press("j")
    call(4, 4, 4, at=[3, 1, None], more=False)
    stands(page, 3)
    page.clock.fast_forward(10_000)
    assert page.evaluate("said") == [["ask", "resend", 2]] * 2


@pytest.mark.browser
def test_steps_behind_a_gap_are_not_taken_for_those_in_it(mounted):
    page, call = mounted
    call(1, stop=1)
    call(2, 3, 4)
    assert page.evaluate("said") == [["ask", "resend", 1]]
    call(3, 1, 4, at=[3, 3, None], order=2)
    stands(page, 4)


@pytest.mark.browser
def test_the_page_moves_the_reader_only_when_it_changes_its_mind(mounted):
    page, call = mounted
    call(1, at=[1, 2, None])
    stands(page, 2, 3)
    page.keyboard.press("End")
    stands(page, 4)
    call(2, at=[1, 2, None], lights=["die"])  # the same order: lights only
    stands(page, 4)
    call(3, at=[1, 2, 1], order=2, lights=["die", "node:1", "phase:2"])
    stands(page, 2, 3)
    expect(page.locator(".die")).to_have_class(re.compile("lit"))
    expect(box(page, 1)).to_have_class(re.compile("lit"))
