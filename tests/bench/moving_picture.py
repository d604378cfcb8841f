"""The moving picture of the README: a real run, filmed. Neither a test nor a benchmark.

    python -m tests.bench.moving_picture [--method eagle] [--params tree=sampled] [--example once] [--steps 10]

Starts the app on a free port, opens the Step page in headless Chromium, presses Step, and joins the screenshots. Make it anew
when the Step page looks different.
"""

import argparse
import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.bench.pages import CHROMIUM, ROOT, wait_for_server

SIZE = {"width": 1200, "height": 960}
PATIENCE = 120  # seconds until a page shows what is expected
MILLISECONDS = (1400, 3500)  # a picture stays; the last one before it begins again
MOST_BYTES = 1_500_000
FLAT = ".stApp header { display: none } .stMainBlockContainer { padding-top: 1.5rem !important }"  # no empty head


def main() -> None:
    parser = argparse.ArgumentParser(description="The moving picture of the README: a real run, filmed.")
    parser.add_argument("--method", default="eagle")
    parser.add_argument("--example", default="once", help="key of an example of the Step page")
    parser.add_argument("--params", nargs="*", default=["tree=sampled"], metavar="NAME=VALUE", help="parameters of the method")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / ".github" / "step.webp")
    options = parser.parse_args()
    link = {"v": 1, "example": options.example, "method": options.method, "temperature": options.temperature, "seed": options.seed}
    link |= {f"p.{name}": value for name, value in (given.split("=") for given in options.params)}
    with step_page(urlencode(link | {"tokens": 64, "step": 1})) as page:
        pictures = list(filmed(page, options.steps))
    size = join(pictures, options.out)
    print(f"{options.out}: {len(pictures)} pictures, {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"That is more than {MOST_BYTES:,} bytes; take fewer steps.")


@contextmanager
def step_page(query: str) -> Iterator[Page]:
    """The Step page of an app of its own, opened at a link."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port), "--server.address", "127.0.0.1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        [*command, "--server.headless", "true"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_server(port)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(f"http://127.0.0.1:{port}/Step?{query}")
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait()


def filmed(page: Page, steps: int) -> Iterator[Image.Image]:
    """A picture of every step, from the first on, each taken when the page has come to rest."""
    shows(page, 1)
    page.add_style_tag(content=FLAT)
    for step in range(1, steps + 1):
        if step > 1:
            button(page).click()
            shows(page, step)
        page.mouse.move(0, 0)  # no button looks hovered
        yield at_rest(page)
        if button(page).is_disabled():  # the text has ended
            return


def button(page: Page):
    return page.locator(".st-key-step").get_by_role("button").first


def shows(page: Page, step: int) -> None:
    until = time.monotonic() + PATIENCE
    said = page.locator(".ds-say").first
    while not re.match(rf"Step {step}:", said.inner_text()):
        if time.monotonic() > until:
            raise TimeoutError(f"Step {step} is not shown; the page says {said.inner_text()!r}.")
        page.wait_for_timeout(100)


def at_rest(page: Page) -> Image.Image:
    """A screenshot that equals the one half a second before it."""
    before = b""
    for _ in range(2 * PATIENCE):
        page.wait_for_timeout(500)
        now = page.screenshot()
        if now == before:
            return Image.open(io.BytesIO(now)).convert("RGB")
        before = now
    raise TimeoutError("The page does not come to rest.")


def join(pictures: list[Image.Image], out: Path) -> int:
    """Write them as one animated WebP; returns its bytes."""
    stay = [MILLISECONDS[0]] * (len(pictures) - 1) + [MILLISECONDS[1]]
    first, *others = pictures
    first.save(out, save_all=True, append_images=others, duration=stay, loop=0, lossless=True, quality=90, method=6)
    return out.stat().st_size


if __name__ == "__main__":
    main()
