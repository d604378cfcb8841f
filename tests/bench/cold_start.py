"""Benchmark, not a test: how long a first visitor waits on a server that has just been started and has imported nothing.

    python -m tests.bench.cold_start [--pages Home,Step,Traces] [--rounds 3]

Every visit gets a server of its own on a free port of this machine. Prints seconds from the navigation to the first picture (the
draft tree; on Traces the list of kept runs) and to the moment all can be used, in headless Chromium; the same for a second visit
to that server, which shows what browser and machine alone take. The limit is 2 s to the picture of a cold start.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from decoding.runs.recorded_run import FIRST, read
from decoding.runs.store import Store

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = "/usr/bin/chromium"
LIMIT = 2.0  # seconds to the picture
PATIENCE = 180_000  # milliseconds
NO_LINE = "() => !document.querySelector('.st-key-loading .ds-wait')"
PAGES = {  # page -> address, what is painted first, what says that all can be used
    "Home": ("/", ".lanes .lane .counted", NO_LINE),
    "Step": (
        "/Step",
        ".st-key-tree .js-plotly-plot .main-svg",
        "() => document.querySelector('.st-key-step button:not([disabled])')",
    ),
    "Traces": ("/Traces", ".st-key-traces-open button:not([disabled])", NO_LINE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", default=",".join(PAGES), help="parted by commas")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.rounds} rounds, medians, limit {LIMIT} s to the picture"
    )
    with tempfile.TemporaryDirectory() as home, browser() as chromium:
        Store(Path(home)).keep(read(FIRST), "The recorded run", "")
        for page in options.pages.split(","):
            cold, warm = zip(*(round_of(chromium, page, home) for _ in range(options.rounds)), strict=True)
            print(f"{page:8} cold {words(cold)}   second visit {words(warm)}", flush=True)


def words(visits: tuple[tuple[float, float], ...]) -> str:
    picture, usable = (median(values) for values in zip(*visits, strict=True))
    return f"picture {picture:5.2f} s, all usable {usable:5.2f} s"


def round_of(chromium, page: str, home: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """The first and the second visit to a server of its own."""
    with server(home) as site:
        return visit(chromium, page, site), visit(chromium, page, site)


def visit(chromium, page: str, site: str) -> tuple[float, float]:
    """Seconds from the navigation to the picture, and until all can be used; in a browser profile of its own."""
    path, picture, usable = PAGES[page]
    tab = chromium.new_context(viewport={"width": 1440, "height": 900}).new_page()
    tab.set_default_timeout(PATIENCE)
    began = time.perf_counter()
    tab.goto(site + path, wait_until="commit")
    tab.locator(picture).first.wait_for()
    painted = time.perf_counter() - began
    tab.wait_for_function(usable, polling=100)
    ready = time.perf_counter() - began
    tab.context.close()
    return painted, ready


@contextmanager
def browser() -> Iterator:
    """A Chromium that has painted something before: its own start is no part of the visit."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        chromium.new_page().goto("data:text/html,<p>ready</p>")
        yield chromium
        chromium.close()


@contextmanager
def server(home: str) -> Iterator[str]:
    """The app as a new process; yields its address once the port answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port), "--server.address", "127.0.0.1",
               "--server.headless", "true"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "DRAFTSCOPE_HOME": home}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not answers(port):
            if process.poll() is not None:
                raise SystemExit(f"The server ended with code {process.returncode} before it answered.")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
