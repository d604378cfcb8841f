"""Compare in a real browser: two columns live, Play and Stop, a race, a sweep, two tabs."""

import re

import pytest
from playwright.sync_api import expect

from pages.parts.compare import small_tree
from pages.parts.shared import letter_keys as letters
from tests.conftest import PATIENCE, button, settled, stays, until

TWO = "/Compare?v=1&example=repeat&temperature=0&tokens=40&c1=plain&c2=prompt_lookup"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


def said(page) -> str:
    return page.locator(".ds-say").first.inner_text()


def wait_said(page, words: str) -> None:
    page.locator(".ds-say", has_text=words).first.wait_for()


def calls(page) -> list[int]:
    """Target calls as the columns state them."""
    return [int(n) for n in re.findall(r"(\d+) target call", " ".join(page.locator(".ds-col-state").all_inner_texts()))]


def test_step_twice_takes_both_columns_one_step_further_each(site, page):
    page.goto(site + TWO)
    for count in (1, 2):
        button(page, "Step").click()
        wait_said(page, f"After {count} target call")
        until(page, lambda count=count: calls(page) == [count, count], f"the columns do not say {count} target calls")
    expect(page.locator("svg.ds-small")).to_have_count(2)
    expect(page.locator('svg.ds-small[aria-label*="Draft tree"]')).not_to_have_count(0)
    button(page, "Back").click()
    wait_said(page, "After 1 target call each")
    page.locator("body").press("k")
    wait_said(page, "After 2 target calls")
    page.locator(".js-plotly-plot").first.wait_for()


def test_play_goes_on_by_itself_and_stop_stops(site, page):
    page.goto(site + TWO)
    button(page, "Play").click()
    until(page, lambda: max(calls(page), default=0) >= 3, "Play does not take three steps")  # a busy page may skip one
    button(page, "Stop").click()
    expect(button(page, "Stop")).to_be_disabled()
    before = stays(page, lambda: said(page))
    button(page, "Play").click()
    until(page, lambda: said(page) != before, "Play does not go on")


def test_a_race_is_recorded_and_replayed(site, page):
    page.goto((site + TWO + "&mode=race").replace("tokens=40", "tokens=12"))
    button(page, "Play").click()
    page.get_by_text(re.compile("of [0-9.]+ seconds")).first.wait_for()
    expect(page.locator(".stMain").get_by_test_id("stProgress")).to_have_count(0)
    expect(page.locator(".ds-col-state")).to_have_text([re.compile("finished after")] * 2)


def test_a_sweep_over_three_values_names_the_best(site, page):
    page.goto(site + "/Compare?v=1&view=sweep&example=repeat&temperature=0&tokens=8&method=prompt_lookup&sweep=length")
    for label, value in (("From", "1"), ("To", "3")):
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        box.press("Enter")
        settled(page)
    page.locator(".ds-say", has_text="= 1, 2, 3").wait_for()
    button(page, "Run the sweep").click()
    page.get_by_text("Best at c").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()


def test_two_tabs_do_not_disturb_each_other(site, page, context):
    other = context.new_page()
    page.goto(site + TWO)
    other.goto(site + TWO)
    button(page, "Step").click()
    wait_said(page, "After 1 target call each")
    button(page, "Step").click()
    button(other, "Step").click()
    wait_said(page, "After 2 target calls")
    wait_said(other, "After 1 target call each")
    other.close()


def test_an_older_call_of_a_component_that_comes_late_changes_nothing(page):
    """The browser makes the calls that wait for a component's code in any order, and cleans up after the older ones."""
    page.set_content('<div id="tree"><svg></svg></div><div id="letters"></div>')
    said = page.evaluate(
        """async ([tree, letters]) => {
            const said = [], code = text => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
            const draw = (await code(tree)).default, listen = (await code(letters)).default;
            for (const number of [12, 11]) draw({ parentElement: document.querySelector("#tree"),
                data: { number, alt: `tree ${number}`, width: 9, height: 9, elements: [] } });
            const call = () => listen({ parentElement: document.querySelector("#letters"), data: { letters: ["k"] },
                setTriggerValue: (what, told) => said.push([what, told.key]) });
            call();
            call()();
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "k", bubbles: true }));
            return said;
        }""",
        [small_tree.SCRIPT, letters.SCRIPT],
    )
    expect(page.locator("#tree svg")).to_have_attribute("aria-label", "tree 12")
    assert said == [["letter", "k"]]
