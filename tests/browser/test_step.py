"""The Step page in a real browser: what a visitor presses, and what is on the screen then. A missing browser is a failure."""

import re

import pytest
from playwright.sync_api import expect

from pages.parts.shared import recorded_run as demo
from pages.parts.step.text_strip import SCRIPT
from tests.conftest import PATIENCE, at_rest, settled, stays, until

HOSTILE = "<script>document.title='owned'</script> <b>bold</b>"
HELD = """const make = URL.createObjectURL.bind(URL);
URL.createObjectURL = made => make(made.type !== "text/javascript" ? made
    : new Blob([`import "${location.origin}/held.js";\\n`, made], { type: made.type }));"""
EMBEDDED = "/Step?v=1&example=once"  # the controls speak of the embedded family; the recorded run is shown until Step
LINK = "/Step?v=1&prompt=Tom+had+a+red&method=multi_candidate&p.shape=2-1&temperature=1&seed=7&tokens=24"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


@pytest.fixture
def tab(browser, site):
    """A function that opens a tab of its own at an address of the site; errors of the page fail the test."""
    pages, problems = [], []

    def opened(path: str = EMBEDDED, wait: bool = True):
        page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        pages.append(page)
        page.goto(site + path)
        if wait:
            page.locator(".st-key-tree .js-plotly-plot").first.wait_for()
        return page

    yield opened
    for page in pages:
        assert not page.locator('[data-testid="stException"]').count()
        page.context.close()
    assert not problems


def number(page) -> int:
    """The step that is shown, as its sentence says; 0 before the first."""
    found = re.match(r"Step (\d+):", page.locator(".ds-say").first.inner_text())
    return int(found[1]) if found else 0


def marked(page) -> int:
    """The step that the text stands at, as its tokens are marked; 0 where none is."""
    steps = page.locator("button.ds-now").evaluate_all("tokens => tokens.map(token => +token.dataset.step)")
    return steps[0] + 1 if steps else 0


def shows(page, step: int) -> None:
    """The sentence and the text stand at this step."""
    until(page, lambda: number(page) == step, f"step {step} is not shown")
    until(page, lambda: marked(page) == step, f"the text does not stand at step {step}")


def press(page, label: str) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name=re.compile(rf"\b{label}\b")).first.click()


def write(page, prompt: str) -> None:
    page.get_by_role("textbox", name="Prompt").fill(prompt)


def begin(page, prompt: str) -> None:
    write(page, prompt)
    press(page, "Step")
    shows(page, 1)
    expect(page.locator(".ds-badge")).not_to_contain_text("recorded")


def text(page) -> str:
    return page.locator(".ds-strip").first.inner_text()


def reads(page, *words: str) -> None:
    for word in words:
        until(page, lambda word=word: word in text(page), f"{word!r} is not in the text")


def test_first_visit_is_paused_at_a_rejection(tab):
    page = tab("/Step")
    expect(page.locator(".st-key-recording")).to_contain_text(f"A recording of {demo.title()}")
    expect(page.locator(".ds-badge")).to_contain_text("recorded run")
    expect(page.locator(".ds-verdict").first).to_contain_text("turned down")
    start = at_rest(page, lambda: number(page))
    press(page, "Next")
    shows(page, start + 1)
    page.keyboard.press("ArrowLeft")
    shows(page, start)
    page.keyboard.press("k")
    shows(page, start + 1)
    page.keyboard.press("j")
    shows(page, start)


def test_step_back_and_forward_of_a_real_run(tab):
    page = tab()
    begin(page, "One day a little dog")
    reads(page, "dog")
    first = text(page)
    press(page, "Step")
    shows(page, 2)
    until(page, lambda: len(text(page)) > len(first), "the text did not grow")
    press(page, "Back")
    shows(page, 1)
    press(page, "Forward")
    shows(page, 2)


def test_play_and_pause(tab):
    page = tab()
    begin(page, "Tom had a red ball")
    press(page, "Play")
    until(page, lambda: number(page) >= 3, "playing does not move")
    press(page, "Pause")
    page.get_by_role("button", name=re.compile("Play")).first.wait_for()
    stays(page, lambda: number(page))


def test_run_to_end_and_stop(tab):
    page = tab("/Step?v=1&prompt=Once+upon+a+time&method=multi_candidate&p.shape=8-4-2&temperature=2&tokens=1000&seed=3&step=1")
    shows(page, 1)
    press(page, "Run to end")
    until(page, lambda: number(page) >= 3, "the run does not go on")
    press(page, "Stop")
    page.get_by_role("button", name=re.compile("Run to end")).first.wait_for()
    assert stays(page, lambda: number(page)) < 300  # the whole run has 344 steps and takes many seconds


def test_run_to_its_end(tab):
    page = tab("/Step?v=1&prompt=Once+upon+a+time&method=plain&tokens=6&seed=3&step=1")
    shows(page, 1)
    press(page, "Run to end")
    until(page, lambda: "The run ends here" in page.locator(".ds-say").first.inner_text(), "the run does not end")
    assert number(page) <= 6
    expect(page.get_by_test_id("stMain").get_by_role("button", name=re.compile(r"\bStep\b")).first).to_be_disabled()


def test_a_click_on_a_node_fills_the_inspector(tab):
    page, node = tab("/Step"), demo.recorded().steps[demo.pause_at()].path[0]
    settled(page)
    verdict = page.locator(".ds-verdict").first
    before = at_rest(page, verdict.inner_text)
    where = """(plot, node) => { const trace = plot.data.find(t => t.name === 'nodes'), l = plot._fullLayout;
        if (!trace || !l?.xaxis?.d2p) return null;
        const box = plot.getBoundingClientRect();
        return { x: box.x + l.xaxis._offset + l.xaxis.d2p(trace.x[node + 1]),
                 y: box.y + l.yaxis._offset + l.yaxis.d2p(trace.y[node + 1]) } }"""
    # what is drawn above it, the text for one, may come later and moves it down
    accepted = at_rest(page, lambda: page.locator(".st-key-tree .js-plotly-plot").evaluate(where, node))
    page.mouse.click(accepted["x"] + 20, accepted["y"])
    expect(verdict).not_to_have_text(before)
    expect(verdict).to_contain_text("kept")
    expect(page.locator(".ds-facts")).to_contain_text(f"node {node}")


def test_a_click_on_a_token_goes_to_its_step(tab):
    page = tab("/Step")
    page.locator("button.ds-tok[data-step='4']").first.click()
    shows(page, 5)


def test_the_text_stands_at_the_step_of_the_page_however_late_its_code_comes(tab):
    """The browser makes the calls that wait for the code of the component in any order: one of an older step may be the last."""
    page, held = tab("/Step"), []
    page.add_init_script(HELD)
    page.route("**/held.js", lambda route: held.append(route))
    page.reload()
    until(page, lambda: held, "the code of the text was not asked for")
    start = at_rest(page, lambda: number(page))
    back = min(4, start - 1)
    for step in (*range(start - 1, start - back - 1, -1), *range(start - back + 1, start + 2)):
        press(page, "Back" if step < number(page) else "Forward")
        until(page, lambda step=step: number(page) == step, f"step {step} is not shown")
    assert not page.locator(".ds-strip").count()
    held[0].fulfill(content_type="text/javascript", body="")
    shows(page, start + 1)
    stays(page, lambda: marked(page))
    shows(page, start + 1)
    page.keyboard.press("j")
    shows(page, start)


def test_an_older_call_of_the_text_changes_nothing(browser):
    """The same without the page: the code as it is sent, called with the newer data first."""
    page = browser.new_page()
    page.set_content('<div id="here"><div class="ds-box"></div></div>')
    said = page.evaluate(
        """async (script) => {
            const said = [], parentElement = document.querySelector("#here");
            const tokens = [0, 1, 2].map(step => ({ text: "t" + step, origin: "plain", step, title: "", group: null }));
            const { default: draw } = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
            const call = (number, now) => draw({
                data: { number, now, key: String(now), tokens: tokens.slice(0, now + 1), before: false, behind: false },
                parentElement, setTriggerValue: (what, told) => said.push([number, what, told.key]) });
            call(12, 2);
            call(12, 2)?.();  // of another theme, and cleaned up while the element stays
            call(11, 0)?.();  // of the step before: it comes last
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "k", bubbles: true }));
            return said;
        }""",
        SCRIPT,
    )
    assert text(page) == "t0t1t2" and marked(page) == 3
    assert said == [[12, "letter", "step"]]
    page.close()


def test_a_deep_link_opens_the_same_run_and_step_again(tab):
    page = tab(LINK + "&step=3")
    shows(page, 3)
    expect(page.locator(".ds-badge")).to_contain_text("Multi-candidate")
    first = at_rest(page, lambda: text(page))
    page.reload()
    page.locator(".st-key-tree .js-plotly-plot").first.wait_for()
    expect(page.locator(".ds-badge")).to_contain_text("Multi-candidate")
    shows(page, 3)
    until(page, lambda: text(page) == first, f"the text is not {first!r} again")


def test_the_link_of_a_step_reopens_it(tab):
    page = tab(LINK + "&step=2")
    shows(page, 2)
    press(page, "Link to this step")
    address = page.locator(".st-key-link_box code")
    until(page, lambda: "step=2" in page.url and address.inner_text().strip() == page.url, "the address bar has no such link")
    other = tab(page.url[page.url.index("/Step") :])
    shows(other, 2)
    until(other, lambda: text(other) == text(page), "the texts differ")


def test_two_tabs_do_not_disturb_each_other(tab):
    one, two = tab(), tab()
    begin(one, "The cat sat on")
    begin(two, "Question: Anna has 3 apples.")
    press(one, "Step")
    press(two, "Step")
    shows(one, 2)
    shows(two, 2)
    reads(one, "cat")
    reads(two, "apples")
    assert "apples" not in text(one) and "cat" not in text(two)


def test_rapid_clicks_never_tear_a_run(tab):
    page = tab()
    begin(page, "She went to the")
    step = page.get_by_test_id("stMain").get_by_role("button", name=re.compile(r"\bStep\b")).first
    for _ in range(6):
        step.click(no_wait_after=True)

    def whole() -> bool:
        last = number(page)
        steps = page.locator("button.ds-tok").evaluate_all("tokens => tokens.map(token => +token.dataset.step)")
        box = page.get_by_label(re.compile(r"^Step \(of")).first.input_value()
        return 2 <= last <= 7 and box == str(last) and steps == sorted(steps) and set(steps) == set(range(len(set(steps))))

    settled(page)
    until(page, whole, "sentence, box and text do not agree")
    shows(page, stays(page, lambda: number(page)))
    assert whole()


def test_a_hostile_prompt_is_only_text(tab):
    page = tab()
    begin(page, HOSTILE)
    reads(page, "<script>", "<b>")
    assert page.title() != "owned" and not page.locator(".ds-strip script, .ds-strip b").count()


def test_a_link_full_of_nonsense_is_reported(tab):
    page = tab("/Step?v=1&method=%3Cb%3Ex&p.length=999&temperature=nan&target=evil/model&foo=bar")
    for words in ("There is no method", "never loaded", "does not know"):
        expect(page.get_by_test_id("stAlert").filter(has_text=words)).not_to_have_count(0)


def test_the_methods_page_opens_a_method(tab):
    page = tab("/Methods", wait=False)
    page.locator(".st-key-open_prompt_lookup button").click()
    page.locator(".st-key-tree .js-plotly-plot").first.wait_for()
    expect(page.locator(".ds-badge")).to_contain_text("Prompt lookup")
