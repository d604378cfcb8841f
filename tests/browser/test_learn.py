"""Learn in a real browser: a lesson by keys alone, as on a projector; and a class of two tabs that votes."""

import re

import pytest
from playwright.sync_api import expect

from pages.parts.learn.learn import lessons, runs
from tests.conftest import PATIENCE, settled, until
from viz.lessons.handout import handout

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


@pytest.fixture
def tab(browser, site):
    """A function that opens a tab of its own; errors of the page fail the test."""
    pages, problems = [], []

    def opened(path: str, width: int = 1024, height: int = 768):
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        pages.append(page)
        page.goto(site + path)
        expect(page.locator(".lsn-title").first).to_be_visible()
        return page

    yield opened
    for page in pages:
        assert not page.get_by_text(re.compile("Traceback|BidiComponent Error")).count()
        page.context.close()
    assert not problems


def at_card(page, lesson: int, card: int) -> None:
    """The card is shown, its question if it has one, and the script has come to rest."""
    expect(page.locator(".lsn-kicker").first).to_have_text(re.compile(rf"^Lesson {lesson} of .*, card {card} of "))
    expect(page).to_have_url(re.compile(rf"lesson={lesson}&card={card}"))
    settled(page)


def test_a_lesson_is_gone_through_by_keys_alone(tab):
    """The second one: what is guessed, checked, written; each picture says what its card speaks of."""
    page = tab("/Learn?lesson=2&card=1&view=class")
    cards = lessons()[1].cards
    for number, card in enumerate(cards, 1):
        at_card(page, 2, number)
        expect(page.get_by_role("heading", name=card.title)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if card.question is None:
            expect(page.locator(".lsn-ask")).to_have_count(0)
            page.keyboard.press("ArrowRight")
            continue
        expect(page.locator(".stp[data-phase='2']")).to_have_count(0)  # nothing is given away
        expect(page.locator(".st-key-learn-option-0 button")).to_be_visible()
        page.keyboard.press(card.question.keys[card.question.right])
        expect(page.locator(".lsn-reveal")).to_contain_text("As you said")
        expect(page.locator(".stp[data-phase='2']")).to_be_visible()
        settled(page)
        page.keyboard.press("ArrowRight")
    at_card(page, 3, 1)
    page.keyboard.press("ArrowLeft")
    at_card(page, 2, len(cards))
    expect(page.get_by_test_id("stSidebar")).to_be_hidden()


def test_ten_thousand_draws_end_on_p_and_the_wrong_rule_does_not(tab):
    number = next(i for i, card in enumerate(lessons()[3].cards, 1) if card.picture == "draws:both")
    page = tab(f"/Learn?lesson=4&card={number}&view=class")
    at_card(page, 4, number)
    expect(page.locator(".drw .far")).to_have_text("Nothing was drawn yet.")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".drw[data-after='10000']")).to_be_visible()
    far = re.findall(r"([\d.]+)\s%", page.locator(".drw .far").inner_text())
    assert float(far[0]) < 2 < 5 < float(far[1])


def test_two_tabs_vote_and_see_the_votes_when_the_teacher_shows_the_answer(tab):
    lesson, card = next((i, k) for i, one in enumerate(lessons()) for k, c in enumerate(one.cards) if c.question)
    teacher = tab("/Learn")
    teacher.get_by_role("button", name="Teach a class").click()
    at_card(teacher, 1, 1)
    code = re.search(r"class=([A-Z0-9]+)", teacher.url)[1]
    pupils = [tab(f"/Learn?class={code}", 390, 844) for _ in range(2)]
    for _ in range(card):
        teacher.keyboard.press("ArrowRight")
    at_card(teacher, lesson + 1, card + 1)
    for pupil, option in zip(pupils, (0, 2), strict=True):
        expect(pupil.locator(f".st-key-learn-option-{option} button")).to_be_visible()  # the pupils follow by themselves
        settled(pupil)
        pupil.locator(f".st-key-learn-option-{option} button").click()
        expect(pupil.get_by_text("Your vote is in")).to_be_visible()
        expect(pupil.locator(".lsn-tally")).to_have_count(0)
    expect(teacher.get_by_text("2 votes")).to_be_visible()
    expect(teacher.locator(".lsn-tally")).to_have_count(0)
    teacher.keyboard.press("ArrowRight")
    for page in (teacher, *pupils):
        expect(page.locator(".lsn-tally")).to_be_visible()
        until(
            page, lambda page=page: page.locator(".lsn-tally b:not(.lsn-tok)").all_inner_texts() == ["1", "0", "1", "0"], "no votes"
        )


def counts(page) -> list[str]:
    return page.locator(".lsn-tally b:not(.lsn-tok)").all_inner_texts()


def test_every_handout_prints_on_one_page(browser, tmp_path):
    """Opened from the disk: its own policy lets it be drawn as it should."""
    page, problems = browser.new_page(), []
    page.on("console", lambda message: problems.append(message.text))
    for number, lesson in enumerate(lessons(), 1):
        file = tmp_path / f"{number}.html"
        file.write_text(handout(lesson, number, runs()), encoding="utf-8")
        page.goto(file.as_uri())
        assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))) == 1, lesson.title
    page.close()
    assert not problems
