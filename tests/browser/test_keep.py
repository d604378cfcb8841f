"""Drafter and Traces in a real browser: a debug run over 50 prompts, save, reload, replay, export, import."""

import json
import re

import pytest
from playwright.sync_api import TimeoutError, expect

from decoding.runs.trace_files import from_json
from tests.browser.on_step import go_on, shows
from tests.conftest import PATIENCE, settled

pytestmark = [pytest.mark.browser, pytest.mark.timeout(8 * PATIENCE)]

WORDS = (
    "Once upon a time",
    "Tom had a red hat. Tom had a red",
    "Question: Tom has 3",
    "def add(a, b):",
    "The fox said to the crow",
)


def text_of(page, words: str):
    return page.locator(".stMain").get_by_text(re.compile(words)).first


def keep_as(page, site: str, name: str) -> None:
    """Keep the recorded run from the Step page."""
    page.goto(f"{site}/Step")
    page.get_by_role("button", name="Keep this run").wait_for()
    settled(page)  # the charts above it come later and move it down
    page.get_by_role("button", name="Keep this run").press("Enter")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Note", exact=True).fill("from the browser test")
    page.get_by_label("Note", exact=True).press("Control+Enter")
    settled(page)
    page.get_by_role("button", name=re.compile(r"\bKeep$")).last.press("Enter")  # the popover may hang below the window
    page.get_by_text(re.compile("Kept as")).first.wait_for()


def select(page, name: str) -> None:
    """Find a trace on the Traces page by its name."""
    page.get_by_role("textbox", name="Search").fill(name)
    page.get_by_role("textbox", name="Search").press("Enter")
    text_of(page, "^1 of |^1 trace").wait_for()
    page.locator(".ds-verdict", has_text=name).wait_for()


def downloaded(page, press, folder):
    """The file behind a button, saved in `folder`; a press that falls into a rerun of the page is lost, so it is pressed again."""
    settled(page)
    for patience in (15_000, 30_000, 120_000):
        try:
            with page.expect_download(timeout=patience) as arriving:
                press()
        except TimeoutError:
            continue
        file = folder / arriving.value.suggested_filename
        arriving.value.save_as(file)
        return file
    raise AssertionError("no file came")


def test_a_debug_run_over_fifty_prompts_leads_to_a_rejection(site, page, tmp_path):
    file = tmp_path / "question.jsonl"
    lines = [{"turns": [f"{WORDS[i % len(WORDS)]} {i}"], "category": WORDS[i % len(WORDS)].split()[0]} for i in range(50)]
    file.write_text("\n".join(map(json.dumps, lines)))
    page.goto(f"{site}/Drafter")
    page.get_by_role("radio", name="a file").or_(page.get_by_role("button", name="a file")).first.click()
    page.locator('input[type="file"]').set_input_files(file)
    text_of(page, "^50 prompts, one drafter").wait_for()
    settled(page)  # the recorded study is drawn as well
    page.get_by_role("combobox", name=re.compile("Drafter A")).fill("Token Rec")  # a long menu draws only what is in sight
    page.get_by_role("option", name="Token Recycling").click()
    page.get_by_text("Sampling and length").click()
    page.get_by_role("spinbutton", name="Token limit").fill("8")
    page.get_by_role("spinbutton", name="Token limit").press("Enter")
    text_of(page, "at most 8 tokens each").wait_for()
    settled(page)
    page.get_by_role("button", name=re.compile(r"\bRun$")).click()
    text_of(page, "all runs are there").wait_for(timeout=400_000)
    page.get_by_role("tab", name="Rejections").click()
    sentence = page.locator(".ds-say").last
    sentence.filter(has_text="the drafter wrote").wait_for()
    page.get_by_role("button", name="Open this step").click()
    page.wait_for_url(re.compile("/Step"))
    page.locator(".ds-badge", has_text="recorded run · Token Recycling").wait_for()
    page.locator(".stp .line", has_text="refused").wait_for()


def test_a_run_that_was_kept_is_found_after_a_reload_and_replayed(site, page):
    keep_as(page, site, "kept in the browser")
    page.reload()
    page.goto(f"{site}/Traces")
    select(page, "kept in the browser")
    page.get_by_role("button", name="Open on the Step page").click()
    page.wait_for_url(re.compile("/Step"))
    shows(page, 1)
    go_on(page)
    shows(page, 2)
    settled(page)
    page.locator("body").press("j")
    shows(page, 1)
    expect(page.locator(".ds-badge").first).to_contain_text("recorded run")


def test_the_exported_replay_runs_from_disk_without_a_network(site, page, browser, tmp_path):
    keep_as(page, site, "to be exported")
    page.goto(f"{site}/Traces")
    select(page, "to be exported")
    file = downloaded(page, page.get_by_role("button", name="Replay (HTML)").click, tmp_path)
    context = browser.new_context(offline=True)
    asked, errors = [], []
    context.route(
        "**/*",
        lambda route: (asked.append(route.request.url), route.continue_() if route.request.url == file.as_uri() else route.abort()),
    )
    alone = context.new_page()
    alone.on("pageerror", lambda error: errors.append(str(error)))
    alone.goto(file.as_uri())
    shows(alone, 1)
    alone.keyboard.press("ArrowRight")
    shows(alone, 2)
    assert "to be exported" in alone.title()
    assert asked == [file.as_uri()] and not errors
    context.close()


def test_the_exported_json_is_the_trace_and_comes_back(site, page, tmp_path):
    keep_as(page, site, "there and back")
    page.goto(f"{site}/Traces")
    select(page, "there and back")
    file = downloaded(page, page.get_by_role("button", name=re.compile(r"\bJSON$")).click, tmp_path)
    assert from_json(file.read_bytes()).steps
    page.locator('input[type="file"]').set_input_files(file)
    page.get_by_role("button", name="Open it").click()
    page.wait_for_url(re.compile("/Step"))
    expect(page.locator(".ds-badge").first).to_contain_text("recorded run")
    expect(page.locator(".stp .line")).not_to_be_empty()


@pytest.mark.parametrize("data", [b"hello", b"\x1f\x8b\x08\x00broken", b'{"format": "draftscope-trace", "trace": {}}'])
def test_a_damaged_file_is_a_sentence(site, page, tmp_path, data):
    file = tmp_path / "run.json"
    file.write_bytes(data)
    page.goto(f"{site}/Traces")
    page.locator('input[type="file"]').set_input_files(file)
    page.get_by_text(re.compile("The file was not imported")).wait_for()
    settled(page)
    assert not page.get_by_role("button", name="Keep it").count()


def test_a_tree_is_saved_as_svg(site, page, tmp_path):
    keep_as(page, site, "as a picture")
    page.goto(f"{site}/Traces")
    select(page, "as a picture")
    page.get_by_text("Picture of a tree").click()
    page.get_by_role("radio", name="SVG").or_(page.get_by_role("button", name="SVG")).first.click()
    save = page.locator('.modebar-btn[data-title="Download plot"]').first  # as long as it is one of a PNG its name says so
    save.wait_for(state="attached")
    file = downloaded(page, lambda: save.click(force=True), tmp_path)
    assert file.suffix == ".svg" and "<svg" in file.read_text()


def test_delete_asks_before_it_does(site, page):
    keep_as(page, site, "to be deleted")
    page.goto(f"{site}/Traces")
    select(page, "to be deleted")
    page.get_by_role("button", name=re.compile(r"\bDelete$")).click()
    page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_role("button", name=re.compile(r"\bDelete$")).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete for good").click()
    page.get_by_text(re.compile("is deleted")).wait_for()
