"""Benchmark, not a test: how fast the pages are, apart from the models.

    python -m tests.bench.pages [--presses 30] [--traces 10000]

Prints, each beside its limit: six columns of 64-node trees per second; a 1,000-step trace opened; 10,000 stored traces
listed and filtered. The stepper has a benchmark of its own (`tests.bench.stepper`). Browser figures run from the click to the last
change of the page in headless Chromium, with runs that were recorded before, so that no model is waited for.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median, quantiles

from msgspec.structs import replace

from decoding.runs.store import Query, Store
from decoding.trace import Trace, decode_trace, encode

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = "/usr/bin/chromium"
NODES = 64
COMPARE_PAGE = """
import runpy
from pathlib import Path
import streamlit as st
from decoding.trace import decode_trace
from pages.parts.shared.controls import say
from pages.parts.compare.sidebar import say_columns
from pages.parts.compare.race import Column, Race
from pages.parts.shared.session import session
from pages.parts.shared.settings import settings_of
if "draftscope_race" not in st.session_state:
    traces = [decode_trace(Path(f).read_bytes()) for f in {traces!r}]
    settings = settings_of(traces[0].header)
    race = Race(columns=tuple(Column(settings, trace=t) for t in traces), pace=0.25)
    say(session(), settings)
    say_columns(race, [settings] * len(traces))
    st.session_state["draftscope_race"] = race
runpy.run_path({page!r})
"""
# Presses a button and waits until the page has been quiet for a while: milliseconds from the click to the last change.
PRESS = """
async ([name, where]) => {
  const button = [...document.querySelectorAll(".stMain button")].find(b => b.innerText.includes(name));
  if (!button || button.disabled) throw new Error("no button " + name);
  let last = null;
  const watch = new MutationObserver(() => { last = performance.now(); });
  const started = performance.now();
  button.click();
  const everything = {childList: true, subtree: true, attributes: true, characterData: true};
  for (const part of document.querySelectorAll(where)) watch.observe(part, everything);
  while (performance.now() - (last ?? started) < 500 || (last === null && performance.now() - started < 4000))
    await new Promise(resolve => setTimeout(resolve, 20));
  watch.disconnect();
  return last === null ? null : last - started;
}
"""
# Notes when the sentence above the columns changes.
WATCH = """
() => {
  window.moments = []; let before = "";
  new MutationObserver(() => {
    const now = document.querySelector(".ds-say")?.innerText;
    if (now && now !== before) { before = now; window.moments.push(performance.now()); }
  }).observe(document.querySelector(".stMain"), {childList: true, subtree: true, characterData: true});
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presses", type=int, default=30)
    parser.add_argument("--traces", type=int, default=10_000)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        bench_store(Path(folder) / "store", options.traces)
        traces = written(Path(folder), 2 * options.presses + 20)
        bench_long(Path(folder), traces[0])
        bench_columns(Path(folder), traces, options.presses)


def report(what: str, values: list[float], limit: str) -> None:
    worst = quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    print(f"{what:58}{median(values):8.0f} ms median {worst:8.0f} ms p95   limit {limit}", flush=True)


# -- material ---------------------------------------------------------------------------------------------------------


def recorded(method: str, params: dict, temperature: float, nodes: int, steps: int, seed: int = 0) -> Trace:
    """A real run of the embedded models; of its steps those with about so many nodes, again and again."""
    from decoding.models.family import load
    from decoding.runs.run import Run
    from decoding.sample import Sampling

    run = Run(load(), method, params, "Once upon a time there was a little", Sampling(temperature), seed, 96)
    for _ in zip(range(24), run):  # noqa: B905  enough to choose from
        pass
    near = sorted(run.steps, key=lambda step: abs(len(step.nodes) - nodes))[:12]
    return repeated(replace(run.trace, steps=tuple(near)), steps)


def written(folder: Path, steps: int) -> list[Path]:
    """Six of them as files."""
    files, sizes = [], []
    for seed in range(6):
        trace = recorded("token_recycling", {}, 0.8, NODES, steps, seed)
        sizes += [len(step.nodes) for step in trace.steps]
        files.append(folder / f"{seed}.trace")
        files[-1].write_bytes(encode(trace))
    print(f"trees of {min(sizes)} to {max(sizes)} nodes, {mean(sizes):.0f} on average")
    return files


def repeated(trace: Trace, steps: int) -> Trace:
    """A longer trace of the same steps."""
    many = [replace(step, ending="") for step in trace.steps * (steps // len(trace.steps) + 1)][:steps]
    many[-1] = replace(many[-1], ending="token limit")
    return replace(trace, header=replace(trace.header, max_tokens=4096), steps=tuple(many))


# -- the store --------------------------------------------------------------------------------------------------------


def bench_store(folder: Path, count: int) -> None:
    from tests.samples import sample_trace

    store = Store(folder)
    first = store.keep(sample_trace(), "run 0")
    names = [(f"run {i}", f"prompt {i} of the {'fox' if i % 97 == 0 else 'crow'}", first) for i in range(1, count)]
    with store._open() as db:  # one transaction: ten thousand would take minutes
        db.executemany(
            "INSERT INTO traces (name, note, study, created, method, family, prompt, text, steps, tokens, ended, header, "
            "pieces) SELECT ?, note, study, created, method, family, ?, text, steps, tokens, ended, header, pieces "
            "FROM traces WHERE id = ?",
            names,
        )
        db.execute(
            "INSERT INTO steps SELECT other.id, number, s.pieces, s.data FROM steps s, traces other "
            "WHERE s.trace = ? AND other.id != ?",
            (first, first),
        )
    for what, query in (
        ("listed", Query()),
        ("filtered by word", Query(words="fox")),
        ("filtered, nothing found", Query(words="wolf")),
    ):
        times = []
        for _ in range(10):
            started = time.perf_counter()
            store.entries(query), store.count(query)
            times.append(1000 * (time.perf_counter() - started))
        report(f"{count:,} stored traces {what}", times, "300 ms")


# -- pages in a browser -----------------------------------------------------------------------------------------------


@contextmanager
def page_of(script: str, folder: Path, ready: str):
    """A browser page that shows a Streamlit script, once `ready` is on the screen."""
    from playwright.sync_api import sync_playwright

    file = folder / "page.py"
    file.write_text(script)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(file),
        "--server.port",
        str(port),
        "--server.address",
        "127.0.0.1",
        "--server.headless",
        "true",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "DRAFTSCOPE_HOME": str(folder / "home")}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            wait_for_server(port)
            page.goto(f"http://127.0.0.1:{port}", wait_until="domcontentloaded")
            page.get_by_text(ready).first.wait_for(timeout=90_000)
            page.wait_for_timeout(2500)
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait()


def wait_for_server(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("Streamlit did not start.")


def presses(page, name: str, count: int, where: str = ".stMain") -> list[float]:
    page.locator(".stMain").get_by_role("button", name=name).first.wait_for()
    page.wait_for_timeout(1500)
    found = [page.evaluate(PRESS, [name, where]) for _ in range(count + 2)][2:]  # the first two warm up
    return [value for value in found if value is not None]


def bench_long(folder: Path, file: Path) -> None:
    """1,000 steps, read."""
    long = folder / "long.trace"
    long.write_bytes(encode(repeated(decode_trace(file.read_bytes()), 1000)))
    store = Store(folder / "long")
    number = store.keep(decode_trace(long.read_bytes()), "long")
    for what, read in (
        ("opened from a file", lambda: decode_trace(long.read_bytes())),
        ("opened from the store", lambda: store.open(number)),
    ):
        times = []
        for _ in range(3):
            started = time.perf_counter()
            read()
            times.append(1000 * (time.perf_counter() - started))
        report(f"1,000 steps of {NODES} nodes {what}", times, "1,000 ms")


def processor(script: str, count: int) -> list[float]:
    """Processor milliseconds of the server for a step of all columns, the whole page: what a busy machine cannot blur."""
    from streamlit.testing.v1 import AppTest

    page, found = AppTest.from_string(script, default_timeout=60).run(), []
    for _ in range(count):
        started = time.process_time()
        page.button(key="compare_step").click().run()
        found.append(1000 * (time.process_time() - started))
        assert not page.exception
    return found[2:]


def bench_columns(folder: Path, files: list[Path], count: int) -> None:
    script = COMPARE_PAGE.format(traces=[str(f) for f in files], page=str(ROOT / "pages/2_Compare.py"))
    report(f"six columns of {NODES}-node trees, one step, processor", processor(script, count), "250 ms")
    with page_of(script, folder, "The prompt, before the first step") as page:
        values = presses(page, "Step", count, "[class*=st-key-compare_cell]")
        report(f"six columns of {NODES}-node trees, one step painted", values, "250 ms (4 steps a second)")
        report("the same with the charts below", presses(page, "Step", count), "none")
        for _ in range(count):
            if page.get_by_role("button", name="Back").is_disabled():
                break
            page.get_by_role("button", name="Back").click()
            page.wait_for_timeout(200)
        page.get_by_role("button", name="Play").click()
        page.evaluate(WATCH)
        page.wait_for_timeout(8000)
        moments = page.evaluate("window.moments")[1:]
        rate = 1000 * (len(moments) - 1) / (moments[-1] - moments[0]) if len(moments) > 2 else 0.0
        print(f"six columns of {NODES}-node trees, Play at 0.25 s a step: {rate:.2f} steps a second   limit 4")


if __name__ == "__main__":
    main()
