"""The Step page in a real browser: what a visitor presses, and what is on the screen then. A missing browser is a failure."""

import re

import pytest
from playwright.sync_api import expect

from pages.parts.shared import recorded_run as demo
from tests.browser.on_step import back, call, go_on, next_button, prompt, shows, text, written
from tests.conftest import PATIENCE, at_rest, forget, settled, stays, until

HOSTILE = "<script>document.title='owned'</script> <b>bold</b>"
HELD = """const make = URL.createObjectURL.bind(URL);
URL.createObjectURL = made => make(made.type !== "text/javascript" ? made
    : new Blob([`import "${location.origin}/held.js";\\n`, made], { type: made.type }));"""
EMBEDDED = "/Step?v=1&example=once"  # the controls speak of the embedded family; the recorded run is shown until Step
LINK = "/Step?v=1&prompt=Tom+had+a+red&method=multi_candidate&p.shape=2-1&temperature=1&seed=7&tokens=24"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


@pytest.fixture
def tab(context, site):
    """A function that opens a tab of its own at an address of the site; errors of the page fail the test."""
    pages, problems = [], []

    def opened(path: str = EMBEDDED, wait: bool = True):
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        pages.append(page)
        page.goto(site + path)
        if wait:
            page.locator(".stp .box").first.wait_for()
        return page

    yield opened
    for page in pages:
        assert not page.locator('[data-testid="stException"]').count()
        forget(page)
    assert not problems


def press(page, label: str) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name=re.compile(rf"\b{label}\b")).first.click()


def begin(page, words: str) -> None:
    """Write a prompt and press Start: the first step of a run of its own."""
    prompt(page).fill(words)
    prompt(page).press("Control+Enter")
    expect(page.locator(".st-key-stale")).to_be_visible()
    expect(next_button(page)).to_have_count(1)  # until all is drawn, what has moved down stands there twice
    expect(next_button(page)).to_contain_text("Start")
    page.keyboard.press("Escape")  # the popover
    go_on(page)
    shows(page, 1)
    expect(page.locator(".ds-badge").first).not_to_contain_text("recorded")


def reads(page, *words: str) -> None:
    for word in words:
        until(page, lambda word=word: word in text(page), f"{word!r} is not in the text")


def test_first_visit_is_paused_at_a_rejection(tab):
    page = tab("/Step")
    expect(page.locator(".st-key-recording")).to_contain_text(f"A recording of {demo.title()}")
    expect(page.locator(".ds-badge").first).to_contain_text("recorded run")
    expect(page.locator('.phase[aria-pressed="true"]')).to_have_text("3 Judge")
    expect(page.locator(".stp .line")).to_contain_text("refused")
    start = at_rest(page, lambda: call(page))
    assert start == demo.pause_at() + 1 and not written(page)
    go_on(page)  # first the call to its end
    shows(page, start)
    go_on(page)
    shows(page, start + 1)
    page.keyboard.press("ArrowLeft")
    shows(page, start)
    page.keyboard.press("k")
    shows(page, start + 1)
    page.keyboard.press("j")
    shows(page, start)
    heard = page.locator(".stp [aria-label]").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert len(heard) > 50 and not [label for label in heard if any(mark in label for mark in "␣↵⇥")]


def test_step_back_and_forward_of_a_real_run(tab):
    page = tab()
    begin(page, "One day a little dog")
    reads(page, "dog")
    first = text(page)
    expect(next_button(page)).to_contain_text("Step")
    go_on(page)
    shows(page, 2)
    until(page, lambda: len(text(page)) > len(first), "the text did not grow")
    back(page)
    shows(page, 1)
    until(page, lambda: text(page) == first, "the text did not shrink")
    go_on(page)
    shows(page, 2)


def test_what_stands_below_follows_the_reader(tab):
    page = tab("/Step")
    start = at_rest(page, lambda: call(page))
    box = page.get_by_label(re.compile(r"^Step \(of")).first
    expect(box).to_have_value(str(start))
    settled(page)
    page.keyboard.press("ArrowLeft")
    expect(box).to_have_value(str(start - 1))
    box.fill("3")
    box.press("Enter")
    shows(page, 3)  # and the other way round


def test_play_and_pause(tab):
    page = tab()
    begin(page, "Tom had a red ball")
    page.locator('.stp [data-do="play"]').click()
    until(page, lambda: call(page) >= 3, "playing does not move")
    page.locator('.stp [data-do="play"]').click()
    expect(page.locator('.stp [data-do="play"]')).to_contain_text("Play")
    settled(page)
    stays(page, lambda: call(page))


def test_play_over_other_settings_shows_the_run_again_and_makes_none(tab):
    """At its end another one was made in its place, which nobody had asked for."""
    page = tab("/Step?v=1&prompt=Once+upon+a+time&method=plain&tokens=4&seed=3&step=3")
    shows(page, 3)
    prompt(page).fill("Tom had a red ball")
    prompt(page).press("Control+Enter")
    expect(page.locator(".st-key-stale")).to_be_visible()
    page.keyboard.press("Escape")
    settled(page)
    page.locator('.stp [data-do="play"]').click()
    expect(page.locator('.stp [data-do="play"]')).to_contain_text("Pause")
    expect(page.locator('.stp [data-do="play"]')).to_contain_text("Play")
    settled(page)
    expect(page.locator(".st-key-stale")).to_be_visible()
    shows(page, 3)


def test_run_to_end_and_stop(tab):
    page = tab("/Step?v=1&prompt=Once+upon+a+time&method=multi_candidate&p.shape=8-4-2&temperature=2&tokens=1000&seed=3&step=1")
    shows(page, 1)
    press(page, "Run to end")
    until(page, lambda: call(page) >= 3, "the run does not go on")
    press(page, "Stop")
    page.get_by_role("button", name=re.compile("Run to end")).first.wait_for()
    assert stays(page, lambda: call(page)) < 300  # the whole run has 344 steps and takes many seconds


def test_run_to_its_end(tab):
    page = tab("/Step?v=1&prompt=Once+upon+a+time&method=plain&tokens=6&seed=3&step=1")
    shows(page, 1)
    press(page, "Run to end")
    expect(page.locator(".stp .under")).to_contain_text("The run ends here")
    assert call(page) <= 6
    expect(next_button(page)).to_be_disabled()
    expect(page.locator(".st-key-ending")).to_contain_text("The run is over")
    page.get_by_role("button", name=re.compile("The same prompt with")).click()
    expect(page.locator(".ds-badge").first).not_to_contain_text("Plain")
    shows(page, 1)


def test_a_click_on_a_node_tells_of_it_and_the_page_hears(tab):
    page, node = tab("/Step"), demo.recorded().steps[demo.pause_at()].path[0]
    settled(page)
    why = page.locator(".why h3")
    expect(why).to_contain_text("refused")
    page.locator(f'.box[data-n="{node}"]').click()
    expect(why).to_contain_text("kept")
    expect(page.locator(".stp .line")).to_contain_text("kept")
    page.get_by_role("tab", name="Numbers").click()
    word = page.locator(f'.box[data-n="{node}"] .tok').inner_text().strip()
    expect(page.get_by_text(re.compile("^Probabilities where")).first).to_contain_text(word)


def test_a_click_on_a_token_goes_to_its_step(tab):
    page = tab("/Step")
    page.locator(".tokens [data-step='4']").first.click()
    shows(page, 5)


def test_the_stepper_stands_at_the_step_of_the_page_however_late_its_code_comes(tab):
    """The browser makes the calls that wait for the code of the component in any order: one of an older step may be the last."""
    page, held = tab("/Step"), []
    page.add_init_script(HELD)
    page.route("**/held.js", lambda route: held.append(route))
    page.reload()
    until(page, lambda: held, "the code of the stepper was not asked for")
    box = page.get_by_label(re.compile(r"^Step \(of")).first
    for step in (7, 3, 9, 5):
        box.fill(str(step))
        box.press("Enter")
        settled(page)
    assert not page.locator(".stp").count()
    for route in held:
        route.fulfill(content_type="text/javascript", body="")
    shows(page, 5)
    stays(page, lambda: written(page))
    page.locator("h1").first.click()  # out of the box, where letters are written
    page.keyboard.press("j")
    shows(page, 4)


def test_a_deep_link_opens_the_same_run_and_step_again(tab):
    page = tab(LINK + "&step=3")
    shows(page, 3)
    expect(page.locator(".ds-badge").first).to_contain_text("Multi-candidate")
    first = at_rest(page, lambda: text(page))
    page.reload()
    page.locator(".stp .box").first.wait_for()
    expect(page.locator(".ds-badge").first).to_contain_text("Multi-candidate")
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
    go_on(one)
    go_on(two)
    shows(one, 2)
    shows(two, 2)
    reads(one, "cat")
    reads(two, "apples")
    assert "apples" not in text(one) and "cat" not in text(two)


def test_rapid_clicks_never_tear_a_run(tab):
    page = tab()
    begin(page, "She went to the")
    for _ in range(6):
        page.keyboard.press("k")  # at once, whether a step is under way or not

    def whole() -> bool:
        last = call(page)
        steps = page.locator(".tokens [data-step]").evaluate_all("tokens => tokens.map(token => +token.dataset.step)")
        box = page.get_by_label(re.compile(r"^Step \(of")).first.input_value()
        return 2 <= last <= 7 and box == str(last) and steps == sorted(steps) and set(steps) == set(range(len(set(steps))))

    settled(page)
    until(page, whole, "stepper, box and text do not agree")
    shows(page, stays(page, lambda: call(page)))
    assert whole()


def test_a_hostile_prompt_is_only_text(tab):
    page = tab()
    begin(page, HOSTILE)
    reads(page, "<script>", "<b>")
    assert page.title() != "owned" and not page.locator(".stp script, .tokens b").count()


def test_a_link_full_of_nonsense_is_reported(tab):
    page = tab("/Step?v=1&method=%3Cb%3Ex&p.length=999&temperature=nan&target=evil/model&foo=bar")
    for words in ("There is no method", "never loaded", "does not know"):
        expect(page.get_by_test_id("stAlert").filter(has_text=words)).not_to_have_count(0)


def test_the_methods_page_opens_a_method(tab):
    page = tab("/Methods", wait=False)
    page.locator(".st-key-open_prompt_lookup button").click()
    page.locator(".stp .box").first.wait_for()
    expect(page.locator(".ds-badge").first).to_contain_text("Prompt lookup")
