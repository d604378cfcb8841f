"""The first visit to a server that has imported nothing yet: the recorded run is painted while torch is still being loaded."""

import re

import pytest
from playwright.sync_api import expect

from pages.parts.shared import recorded_run as demo
from pages.parts.shared.absent import INSTEAD
from tests.browser.on_step import back, go_on, next_button, prompt, shows
from tests.conftest import PATIENCE, until
from viz.lanes.lanes import result
from viz.lanes.pictures import picture_result

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]

# What stands on the page in the moment the draft tree is painted: whoever looks later may find torch loaded.
WATCH = """
const watch = new MutationObserver(() => {
  const stepper = [...document.querySelectorAll("*")].find((e) => e.shadowRoot?.querySelector(".stp .box"));
  const run = document.querySelector(".st-key-run button"), title = document.querySelector(".ds-title");
  if (!stepper || !run || !title) return;  // they may come a moment behind the tree
  watch.disconnect();
  const line = document.querySelector(".st-key-loading .ds-wait");
  window.atFirst = { line: line ? line.innerText : "", disabled: run.disabled, title: title.offsetTop };
});
watch.observe(document, { childList: true, subtree: true, attributes: true });
// what happens in a shadow root is not observed
setInterval(() => { if (!window.atFirst) document.documentElement.dataset.look = String(performance.now()); }, 30);
"""


def test_the_recorded_run_is_there_before_torch_is(page, site):
    page.add_init_script(WATCH)
    page.goto(f"{site}/Step")
    until(page, lambda: page.evaluate("window.atFirst"), "no tree was painted")
    found = page.evaluate("window.atFirst")
    assert found["line"].startswith("Loading ") and found["disabled"]
    expect(page.locator(".ds-badge")).to_contain_text("recorded run")
    prompt(page, "User").fill("Tom had a red")
    prompt(page, "User").press("Control+Enter")
    page.keyboard.press("Escape")
    back(page)
    shows(page, demo.pause_at())
    expect(page.locator(".st-key-loading .ds-wait")).to_have_count(0)
    expect(next_button(page)).to_contain_text("Start")
    shows(page, demo.pause_at())
    expect(prompt(page, "User")).to_have_value("Tom had a red")
    page.keyboard.press("Escape")
    assert page.evaluate("document.querySelector('.ds-title').offsetTop") == found["title"], "the page jumped"
    go_on(page)
    expect(page.locator(".st-key-step_absent")).to_contain_text("is not on this machine yet")
    expect(page.locator(".st-key-step_absent")).to_contain_text("A real model, 93 MB, once")
    expect(page.locator(".ds-badge")).to_contain_text("recorded run")
    expect(instead := page.get_by_role("button", name=INSTEAD)).to_have_count(
        1
    )  # while a page is drawn anew the old one stands there too
    instead.click()
    expect(page.locator(".ds-badge")).not_to_contain_text("recorded run")
    expect(prompt(page)).to_have_value("Tom had a red")


def test_home_plays_two_runs_on_one_clock_and_can_be_paused(page, site):
    page.goto(site)
    race = page.locator(".stp.lanes:not(.pictures)")
    lanes, said = race.locator(".lane"), race.locator(".result")
    ordinary, speculative = demo.pair()
    expect(lanes).to_have_count(2)
    race.get_by_role("button", name="Pause").click()
    expect(race).to_have_attribute("data-state", "paused")
    race.get_by_role("button", name="Again").click()
    race.get_by_role("button", name="Pause").click()
    for _ in range(len(ordinary.steps)):
        race.get_by_role("button", name="Next call").click()
    expect(said).to_be_visible()
    expect(said).to_have_text(result(ordinary, speculative))
    for lane, trace in zip(lanes.all(), (ordinary, speculative), strict=True):
        expect(lane.locator(".counted b")).to_have_text(str(len(trace.steps)))
        expect(lane.locator(".tokens")).to_have_text(trace.answer)
    page.get_by_role("button", name="Show me one call").click()
    expect(page).to_have_url(re.compile("/Step"))


def test_home_draws_a_picture_once_it_is_in_sight(page, site):
    """Before that it waits; at its end both lanes hold the recorded pixels, and Step draws such a one."""
    page.goto(site)
    race, (ordinary, speculative) = page.locator(".stp.lanes.pictures"), demo.picture_pair()
    expect(race).to_have_attribute("data-state", "paused")
    race.scroll_into_view_if_needed()
    expect(race).to_have_attribute("data-state", "playing")
    race.get_by_role("button", name="Pause").click()
    for _ in range(len(ordinary.steps)):
        if race.get_attribute("data-state") != "over":
            race.get_by_role("button", name="Next call").click()
    expect(race.locator(".result")).to_have_text(picture_result(ordinary, speculative))
    palette = ordinary.header.raster.palette
    greys = [f"rgb({int(palette[token][1:3], 16)}" for step in ordinary.steps for token in step.tokens]
    for lane, trace in zip(race.locator(".lane").all(), (ordinary, speculative), strict=True):
        expect(lane.locator(".counted b")).to_have_text(str(len(trace.steps)))
        drawn = lane.locator(".field i").evaluate_all("all => all.map((one) => getComputedStyle(one).backgroundColor)")
        assert [colour.partition(",")[0] for colour in drawn] == greys
    page.get_by_role("button", name="Draw one, call by call").click()
    expect(page).to_have_url(re.compile("target=digits"))
    expect(page.locator(".ds-picture").first).to_have_attribute("aria-label", re.compile("of 64 after 5 calls"))


@pytest.mark.parametrize(("width", "closed"), [(390, "true"), (1024, "false")])
def test_the_rail_does_not_lie_over_the_page_of_a_phone(page, site, width, closed):
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(site)
    expect(page.get_by_role("heading", name="Let something cheap guess ahead")).to_be_visible()
    expect(page.get_by_test_id("stSidebar")).to_have_attribute("data-collapsed", closed)
