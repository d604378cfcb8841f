"""Compare in a real browser: two columns live, Play and Stop, a race, a sweep, two tabs."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
TWO = "/Compare?v=1&example=repeat&temperature=0&tokens=40&c1=plain&c2=prompt_lookup"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The app on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "app.py",
        "--server.port",
        str(port),
        "--server.address",
        "127.0.0.1",
        "--server.headless",
        "true",
    ]
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "DRAFTSCOPE_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(120_000)
    yield page
    assert not page.get_by_text("Traceback").count()
    page.close()


def button(page, name: str):
    return page.locator(".stMain").get_by_role("button", name=re.compile(rf"^\W*(\w+\s)?{name}\b")).first


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
        assert calls(page) == [count, count]
    assert page.locator("svg.ds-small").count() == 2
    assert "Draft tree" in "".join(tree.get_attribute("aria-label") for tree in page.locator("svg.ds-small").all())
    button(page, "Back").click()
    wait_said(page, "After 1 target call each")
    page.locator("body").press("k")
    wait_said(page, "After 2 target calls")
    page.locator(".js-plotly-plot").first.wait_for()


def test_play_goes_on_by_itself_and_stop_stops(site, page):
    page.goto(site + TWO)
    button(page, "Play").click()
    wait_said(page, "After 3 target calls")
    button(page, "Stop").click()
    page.wait_for_timeout(1500)
    before = said(page)
    page.wait_for_timeout(1500)
    assert said(page) == before
    button(page, "Play").click()
    page.wait_for_function("before => document.querySelector('.ds-say').innerText !== before", arg=before)


def test_a_race_is_recorded_and_replayed(site, page):
    page.goto((site + TWO + "&mode=race").replace("tokens=40", "tokens=12"))
    button(page, "Play").click()
    page.get_by_text(re.compile("of [0-9.]+ seconds")).first.wait_for()
    page.wait_for_function("() => !document.querySelector('.stMain [data-testid=stProgress]')")
    assert all("finished after" in words for words in page.locator(".ds-col-state").all_inner_texts())


def test_a_sweep_over_three_values_names_the_best(site, page):
    page.goto(site + "/Compare?v=1&view=sweep&example=repeat&temperature=0&tokens=8&method=prompt_lookup&sweep=length")
    for label, value in (("From", "1"), ("To", "3")):
        box = page.get_by_label(label, exact=True)
        box.fill(value)
        box.press("Enter")
    page.locator(".ds-say", has_text="= 1, 2, 3").wait_for()
    button(page, "Run the sweep").click()
    page.get_by_text("Best at c").wait_for()
    page.locator(".js-plotly-plot").wait_for()


def test_two_tabs_do_not_disturb_each_other(site, page, browser):
    other = browser.new_page()
    page.goto(site + TWO)
    other.goto(site + TWO)
    button(page, "Step").click()
    wait_said(page, "After 1 target call each")
    button(page, "Step").click()
    button(other, "Step").click()
    wait_said(page, "After 2 target calls")
    wait_said(other, "After 1 target call each")
    other.close()
