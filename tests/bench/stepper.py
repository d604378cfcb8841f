"""Benchmark, not a test: how fast the stepper is in a real browser, apart from the models.

    python -m tests.bench.stepper [--presses 20] [--sizes 64,768]

Real drafts of about so many nodes are recorded first (DySpec, embedded models), then shown in headless Chromium:

- Back and Forward in an exported replay, which is the same component: from the press until script and layout are done, and until
  the picture is painted; Play at four calls a second: the time between two pictures.
- A press on Step behind the last call, on the page itself: from the press until the new tree is painted. The worker hands out
  recorded calls, so that what is measured is the page: browser, server, and the way between them.
"""

import argparse
import os
import tempfile
from pathlib import Path

from decoding.trace import Trace, encode
from tests.bench.pages import CHROMIUM, ROOT, page_of, recorded, report
from viz.replay.replay import replay_html

GOALS = {64: "150 ms, p95 250", 768: "400 ms"}
STEP_PAGE = """
import runpy
from pathlib import Path
import streamlit as st
from msgspec.structs import replace
from decoding.trace import decode_trace
from pages.parts.shared import session as sessions
from pages.parts.shared.controls import say
from pages.parts.shared.settings import settings_of

class Played:
    "A job whose turns were taken before."
    notes = ()
    def __init__(self, whole):
        self.whole, self.steps = whole, []
    @property
    def trace(self):
        return replace(self.whole, steps=tuple(self.steps))
    @property
    def ended(self):
        return len(self.steps) == len(self.whole.steps)
    def __next__(self):
        self.steps.append(self.whole.steps[len(self.steps)])
        return self.steps[-1]

if "draftscope" not in st.session_state:
    trace = decode_trace(Path({trace!r}).read_bytes())
    made = sessions.Session()
    settings = settings_of(trace.header)
    say(made, settings)
    made.live = made.begin("cpu", lambda member=None: Played(trace), 1)
    made.coming, made.live, made.coming_settings = made.live, None, settings
    made.goal = 0
    st.session_state["draftscope"] = made
runpy.run_path({page!r})
"""
# Presses a button of the stepper: milliseconds until script and layout are done, and until it is painted.
MOVE = """
async (stepper, what) => {
  const started = performance.now();
  stepper.querySelector(`[data-do="${what}"]`).click();
  stepper.getBoundingClientRect();
  const laid = performance.now() - started;
  await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
  return [laid, performance.now() - started];
}
"""
# Plays for so long: the milliseconds between two pictures.
PLAY = """
async (stepper, ms) => {
  stepper.querySelector("select").value = "fast";
  stepper.querySelector('[data-do="play"]').click();
  const gaps = [], end = performance.now() + ms;
  for (let before = performance.now(); before < end;) {
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - before); before = now;
  }
  stepper.querySelector('[data-do="play"]').click();
  return gaps.slice(2);
}
"""
# Asks for another call: milliseconds until its tree is painted.
ASK = """
async stepper => {
  const before = stepper.dataset.step, started = performance.now();
  stepper.querySelector('[data-do="next"]').click();
  while (stepper.dataset.step === before) {
    if (performance.now() - started > 20000) throw new Error("no step came");
    await new Promise(requestAnimationFrame);
  }
  await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - started;
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=20)
    parser.add_argument("--sizes", type=lambda said: [int(size) for size in said.split(",")], default=[64, 768])
    options = parser.parse_args()
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            trace = recorded_trees(size, 2 * options.presses + 8)
            nodes = sorted(len(step.nodes) for step in trace.steps)
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; trees of {nodes[0]} to {nodes[-1]} nodes", flush=True)
            local(Path(folder), trace, size, options.presses)
            asked(Path(folder), trace, size, options.presses)


def recorded_trees(size: int, steps: int) -> Trace:
    """A run whose drafts have about so many nodes, as long as it is wanted."""
    return recorded("dyspec", {"nodes": size}, 0.8, size, steps)


def local(folder: Path, trace: Trace, size: int, presses: int) -> None:
    """What asks nobody, in a file of its own."""
    from playwright.sync_api import sync_playwright

    file = folder / "replay.html"
    file.write_text(replay_html(trace))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(file.as_uri())
        stepper = page.locator(".stp").first
        stepper.locator(".box").first.wait_for()
        for what in ("next", "back"):
            found = []
            for _ in range(presses + 2):
                found.append(stepper.evaluate(MOVE, what))
                page.wait_for_timeout(60)
            laid, painted = zip(*found[2:], strict=True)  # the first two warm up
            report(f"{what.capitalize()} at {size} nodes, script and layout", list(laid), "33 ms")
            report(f"{what.capitalize()} at {size} nodes, painted", list(painted), "33 ms")
        report(f"Play at {size} nodes, between two pictures", stepper.evaluate(PLAY, 5000), "33 ms")
        browser.close()


def asked(folder: Path, trace: Trace, size: int, presses: int) -> None:
    """Another step, of the page's own server."""
    file = folder / "whole.trace"
    file.write_bytes(encode(trace))
    script = STEP_PAGE.format(trace=str(file), page=str(ROOT / "pages/1_Step.py"))
    with page_of(script, folder, "Step by step") as page:
        stepper = page.locator(".stp").first
        stepper.locator(".box").first.wait_for(timeout=90_000)
        page.locator(".st-key-loading .ds-wait").wait_for(state="detached", timeout=90_000)
        found = []
        for _ in range(presses + 2):
            page.wait_for_timeout(1500)
            found.append(stepper.evaluate(ASK))
        report(f"Step asked for and painted at {size} nodes", found[2:], GOALS.get(size, "none"))


if __name__ == "__main__":
    main()
