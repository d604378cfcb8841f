"""What a visitor does on the Step page, and what the stepper shows then."""

import re

from playwright.sync_api import Locator, Page, expect

from tests.conftest import until


def go_on(page: Page) -> None:
    """The stepper's own button: Next, Step or Start."""
    next_button(page).click()


def next_button(page: Page) -> Locator:
    return page.locator('.stp [data-do="next"]')


def back(page: Page) -> None:
    page.locator('.stp [data-do="back"]').click()


def call(page: Page) -> int:
    """The number of the call that is shown; 0 at the prompt."""
    return int(page.locator(".stp").first.get_attribute("data-step") or 0)


def shows(page: Page, number: int) -> None:
    """The bar, the text and the page around it stand at this call."""
    expect(page.locator(".stp .count")).to_have_text(re.compile(rf"^call {number} of "))
    until(page, lambda: written(page) == number, f"the text does not stand at call {number}")


def written(page: Page) -> int:
    """The call whose tokens are outlined in the text; 0 where none are: its tokens are still ghosts."""
    steps = page.locator(".tokens .now").evaluate_all("tokens => tokens.map(token => +token.dataset.step)")
    return steps[0] + 1 if steps else 0


def text(page: Page) -> str:
    """What stands in the text, spaces and all."""
    return page.locator(".stp .tokens").first.inner_text()


def prompt(page: Page, name: str | re.Pattern[str] = "Prompt") -> Locator:
    """A box of the prompt, whose popover is opened if it is not."""
    box = page.get_by_role("textbox", name=name)
    if not box.count() or not box.first.is_visible():
        page.locator(".st-key-prompt_box button").first.click()
    expect(box.first).to_be_visible()
    return box.first


def settings(page: Page) -> Locator:
    """The popover with the rest of the settings, opened."""
    inside = page.get_by_text("Sampling and length", exact=True)
    if not inside.count() or not inside.first.is_visible():
        page.locator(".st-key-more_box button").first.click()
    expect(inside.first).to_be_visible()
    return page.get_by_test_id("stPopoverBody")
