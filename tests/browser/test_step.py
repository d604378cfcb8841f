"""The Step page in a real browser: what a visitor presses, and what is on the screen then. A missing browser is a failure."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PATIENCE = int(os.environ.get("BROWSER_PATIENCE", 90))  # seconds; generous, because nothing here is about speed
HOSTILE = "<script>document.title='owned'</script> <b>bold</b>"
LINK = "/Step?v=1&prompt=Tom+had+a+red&method=multi_candidate&p.shape=2-1&temperature=1&seed=7&tokens=24"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]


@pytest.fixture(scope="module")
def site():
    """The app on a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port), "--server.address", "127.0.0.1",
               "--server.headless", "true"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + PATIENCE
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

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert found, f"no browser: install one of {', '.join(names)}, or name it in CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, site):
    """A function that opens a tab of its own at an address of the site; errors of the page fail the test."""
    pages, problems = [], []

    def opened(path: str = "/Step", wait: bool = True):
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


def until(page, true, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if true():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{what}; the page says {page.locator('.ds-say').first.inner_text()!r}")


def shows(page, step: int) -> None:
    until(page, lambda: number(page) == step, f"step {step} is not shown")


def press(page, label: str) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name=re.compile(rf"\b{label}\b")).first.click()


def write(page, prompt: str) -> None:
    page.get_by_role("textbox", name="Prompt").fill(prompt)


def begin(page, prompt: str) -> None:
    write(page, prompt)
    press(page, "Step")
    shows(page, 1)
    until(page, lambda: "recorded" not in page.locator(".ds-badge").inner_text(), "the recorded run is still there")


def text(page) -> str:
    return page.locator(".ds-strip").first.inner_text()


def test_first_visit_is_paused_at_a_rejection(tab):
    page = tab()
    assert "recorded run" in page.locator(".ds-badge").inner_text()
    assert "rejected" in page.locator(".ds-verdict").first.inner_text()
    start = number(page)
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
    first = text(page)
    assert "dog" in first
    press(page, "Step")
    shows(page, 2)
    assert len(text(page)) > len(first)
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
    page.wait_for_timeout(1500)
    stopped = number(page)
    page.wait_for_timeout(3000)
    assert number(page) == stopped


def test_run_to_end_and_stop(tab):
    page = tab("/Step?v=1&prompt=Once+upon+a+time&method=multi_candidate&p.shape=8-4-2&temperature=2&tokens=1000&seed=3&step=1")
    shows(page, 1)
    press(page, "Run to end")
    until(page, lambda: number(page) >= 3, "the run does not go on")
    press(page, "Stop")
    page.get_by_role("button", name=re.compile("Run to end")).first.wait_for()
    page.wait_for_timeout(1500)
    stopped = number(page)
    page.wait_for_timeout(2000)
    assert number(page) == stopped < 300  # the whole run has 344 steps and takes many seconds


def test_run_to_its_end(tab):
    page = tab("/Step?v=1&prompt=Once+upon+a+time&method=plain&tokens=6&seed=3&step=1")
    shows(page, 1)
    press(page, "Run to end")
    until(page, lambda: "The run ends here" in page.locator(".ds-say").first.inner_text(), "the run does not end")
    assert number(page) <= 6
    assert page.get_by_test_id("stMain").get_by_role("button", name=re.compile(r"\bStep\b")).first.is_disabled()


def test_a_click_on_a_node_fills_the_inspector(tab):
    page = tab()
    before = page.locator(".ds-verdict").first.inner_text()
    accepted = page.locator(".st-key-tree .js-plotly-plot").evaluate(
        """plot => { const trace = plot.data.find(t => t.name === 'nodes'), l = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return { x: box.x + l.xaxis._offset + l.xaxis.d2p(trace.x[1]),
                     y: box.y + l.yaxis._offset + l.yaxis.d2p(trace.y[1]) } }"""
    )
    page.mouse.click(accepted["x"] + 20, accepted["y"])
    until(page, lambda: page.locator(".ds-verdict").first.inner_text() != before, "the inspector did not follow the click")
    assert "accepted" in page.locator(".ds-verdict").first.inner_text()
    assert "node 0" in page.locator(".ds-facts").inner_text()


def test_a_click_on_a_token_goes_to_its_step(tab):
    page = tab()
    page.locator("button.ds-tok[data-step='4']").first.click()
    shows(page, 5)


def test_a_deep_link_opens_the_same_run_and_step_again(tab):
    page = tab(LINK + "&step=3")
    shows(page, 3)
    first = text(page)
    assert "Multi-candidate" in page.locator(".ds-badge").inner_text()
    page.reload()
    page.locator(".st-key-tree .js-plotly-plot").first.wait_for()
    until(page, lambda: "Multi-candidate" in page.locator(".ds-badge").inner_text(), "the link was not opened again")
    shows(page, 3)
    assert text(page) == first


def test_the_link_of_a_step_reopens_it(tab):
    page = tab(LINK + "&step=2")
    shows(page, 2)
    press(page, "Link to this step")
    address = page.locator(".st-key-link_box code")
    address.wait_for()
    assert "step=2" in page.url and address.inner_text().strip() == page.url
    other = tab(page.url[page.url.index("/Step") :])
    shows(other, 2)
    assert text(other) == text(page)


def test_two_tabs_do_not_disturb_each_other(tab):
    one, two = tab(), tab()
    begin(one, "The cat sat on")
    begin(two, "Question: Anna has 3 apples.")
    press(one, "Step")
    press(two, "Step")
    shows(one, 2)
    shows(two, 2)
    assert "cat" in text(one) and "apples" not in text(one)
    assert "apples" in text(two) and "cat" not in text(two)


def test_rapid_clicks_never_tear_a_run(tab):
    page = tab()
    begin(page, "She went to the")
    step = page.get_by_test_id("stMain").get_by_role("button", name=re.compile(r"\bStep\b")).first
    for _ in range(6):
        step.click(no_wait_after=True)
    page.wait_for_timeout(4000)
    last = number(page)
    assert 2 <= last <= 7
    assert page.get_by_label(re.compile(r"^Step \(of")).first.input_value() == str(last)
    steps = page.locator("button.ds-tok").evaluate_all("tokens => tokens.map(token => +token.dataset.step)")
    assert steps == sorted(steps) and set(steps) == set(range(len(set(steps))))


def test_a_hostile_prompt_is_only_text(tab):
    page = tab()
    begin(page, HOSTILE)
    shown = text(page).replace("␣", " ")
    assert "<script>" in shown and "<b>" in shown
    assert page.title() != "owned" and not page.locator(".ds-strip script, .ds-strip b").count()


def test_a_link_full_of_nonsense_is_reported(tab):
    page = tab("/Step?v=1&method=%3Cb%3Ex&p.length=999&temperature=nan&target=evil/model&foo=bar")
    warnings = " ".join(page.get_by_test_id("stAlert").all_inner_texts())
    assert "There is no method" in warnings and "never loaded" in warnings and "does not know" in warnings


def test_the_methods_page_opens_a_method(tab):
    page = tab("/Methods", wait=False)
    page.locator(".st-key-open_prompt_lookup button").click()
    page.locator(".st-key-tree .js-plotly-plot").first.wait_for()
    until(page, lambda: "Prompt lookup" in page.locator(".ds-badge").inner_text(), "the method was not opened")
