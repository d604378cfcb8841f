"""Shared by all tests: no network, one thread, the families that take a moment to make, and how a page in a browser is read.

A page answers when it can, and so does the worker: what is expected after an action is polled for, by `until`, `eventually` or
Playwright's `expect`, never read once.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: an unknown id must fail at once

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from streamlit.components.v2 import manifest_scanner

from decoding.methods import byte_drafting, s2d
from decoding.models import fetching, heads, number_format
from decoding.models.cache_folder import cache_folder
from decoding.models.family import Family, load
from decoding.retrieval import default_datastore
from decoding.training import conversations, fit, precision
from tests import gguf_samples, toys

ROOT = Path(__file__).parent.parent
OWN_CACHE = cache_folder()  # of whoever runs the tests: what takes long to fetch is fetched once
PATIENCE = int(os.environ.get("BROWSER_PATIENCE", 120))  # seconds; generous, because no test of a page is about speed

torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other


@pytest.fixture(scope="session", autouse=True)
def small_datastores(tmp_path_factory):
    """Stores of the retrieval methods are built in a moment, and not in the user's cache folder."""
    os.environ["DRAFTSCOPE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    default_datastore.LIMIT = 200_000


@pytest.fixture(scope="session", autouse=True)
def one_scan_for_components():
    """Every `AppTest` asks all packages that are installed whether they hold components of Streamlit, for a quarter of a second;
    the answer is always the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(scope="session", autouse=True)
def toy_heads(small_datastores):
    """Random models have the heads they need; those of the embedded family are the shipped ones."""
    heads.find = toys.heads_on_demand(heads.find)


@pytest.fixture(autouse=True)
def own_heads():
    """Runs share the heads of their target, and some tests change theirs."""
    heads._shared.clear()


@pytest.fixture(scope="session", autouse=True)
def toy_sorted_drafts():
    """Random models have the sorted draft model they need; that of the embedded families is the shipped one."""
    s2d.find = toys.sorted_on_demand(s2d.find)


@pytest.fixture(scope="session", autouse=True)
def toy_byte_drafts():
    """Random models draft bytes with their own draft models; the shipped drafter serves the others."""
    byte_drafting.find = toys.own_drafts_for_bytes(byte_drafting.find)


@pytest.fixture(scope="session", autouse=True)
def the_same_numbers_on_every_processor():
    """Some are quick at bfloat16, in which models are trained there, and read if that is timed as the quicker."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (precision, fit, conversations):
            patch.setattr(module, "quick_at_bfloat16", lambda device: device.type != "cpu")
        patch.setattr(number_format, "has_bfloat16", lambda: False)
        yield


@pytest.fixture(scope="session")
def embedded() -> Family:
    return load("embedded", device="cpu")


@pytest.fixture(scope="session")
def smollm2_folder(small_datastores):
    """The real model, fetched into the cache of whoever runs the tests and found in their own; skips where it cannot be had."""
    inside = cache_folder() / "models" / "smollm2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRAFTSCOPE_CACHE", str(OWN_CACHE))
        try:
            for _ in fetching.fetch("smollm2"):
                pass
        except ValueError as error:
            pytest.skip(f"the model smollm2 is not here and cannot be had: {error}")
        outside = fetching.fetched("smollm2")
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.symlink_to(outside, target_is_directory=True)
    return inside


@pytest.fixture(scope="session")
def smollm2(smollm2_folder) -> Family:
    """SmolLM2-135M-Instruct, in float32 on the CPU."""
    return load("smollm2", device="cpu")


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory) -> Path:
    """A random Llama in a GGUF file."""
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    gguf_samples.write(file)
    return file


@pytest.fixture(scope="session")
def tokenizer():
    return toys.tokenizer()


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tokenizer):
    """kind -> folder with a random model of that architecture and a tokenizer; made when first asked for."""
    made = {}

    def folder(kind: str) -> str:
        if kind not in made:
            path = tmp_path_factory.mktemp(kind)
            toys.save(path, toys.causal_lm(kind), tokenizer)
            made[kind] = str(path)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def families(folders):
    """kind -> a loaded family whose draft model is its target with noise on the weights; made when first asked for."""
    made = {}

    def family(kind: str) -> Family:
        if kind not in made:
            made[kind] = toys.with_draft(load(folders(kind), device="cpu"))
        return made[kind]

    return family


@pytest.fixture(scope="session")
def llama(families) -> Family:
    return families("llama")


def eventually(true: Callable[[], object], what: str) -> None:
    """Look again and again until `true` holds; `what` is the complaint if it never does."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


# -- a real browser -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The app on a free port of this machine, with an empty home, and nothing fetched."""
    nothing = str(tmp_path_factory.mktemp("nothing-fetched"))
    with serving_app(tmp_path_factory.mktemp("home"), DRAFTSCOPE_CACHE=nothing) as address:
        yield address


@contextmanager
def serving_app(home: Path, *program: str, script: str = "app.py", **environment: str) -> Iterator[str]:
    """The app while the block runs; its address.

    Args:
        program: what Python is to start in place of Streamlit, and its arguments in front of Streamlit's.
        script: what Streamlit is to run.
        environment: variables beside those that are always set.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, *(program or ("-m", "streamlit")), "run", script, "--server.port", str(port),
               "--server.address", "127.0.0.1", "--server.headless", "true"]  # fmt: skip
    known = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DRAFTSCOPE_HOME": str(home)}
    server = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | known | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < end and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser():
    """Chromium; a missing one is a failure."""
    from playwright.sync_api import expect, sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert found, f"no browser: install one of {', '.join(names)}, or name it in CHROMIUM"
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser):
    """A browser for one tab after the other: it has the code of the pages already, which is half of what a page takes to come."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    yield context
    context.close()


@pytest.fixture
def page(context):
    """An empty tab of somebody who was never here; a page that shows a traceback fails the test."""
    page = context.new_page()
    yield page
    assert not page.get_by_text("Traceback").count()
    forget(page)


def forget(page) -> None:
    """Close a tab; nothing that it left behind is found by the next one."""
    if page.url.startswith("http"):
        page.evaluate("localStorage.clear()")
    page.close()
    page.context.clear_cookies()


def button(page, name: str):
    """The button whose label begins with `name`, behind its icon."""
    return page.locator(".stMain").get_by_role("button", name=re.compile(rf"^\W*(\w+\s)?{name}\b")).first


def until(page, true: Callable[[], object], what: str) -> None:
    """Look again and again until `true` holds.

    Args:
        what: the complaint if it never does.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if true():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{what}; the page says {page.locator('.ds-say').all_inner_texts()}")


def at_rest(page, read: Callable[[], Any]) -> Any:
    """What `read` finds, once it has found the same, and not None, five times in a row."""
    found: list[Any] = []

    def same() -> bool:
        found.append(read())
        return found[-1] is not None and found[-5:] == 5 * found[-1:]

    until(page, same, "the page does not come to rest")
    return found[-1]


def settled(page) -> None:
    """Until the script of the page has run through, and no other run of it follows at once."""
    idle = page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')
    at_rest(page, lambda: idle.count() or None)


def stays(page, read: Callable[[], Any], seconds: float = 3) -> Any:
    """What `read` finds when the page has settled; it has to find the same for `seconds`."""
    settled(page)
    before, end = read(), time.monotonic() + seconds
    while time.monotonic() < end:
        assert read() == before
        page.wait_for_timeout(100)
    return before


def named(at, key: str):
    """The button of this key, or of one that goes on with what it is about."""
    (found,) = [button for button in at.button if str(button.key) == key or str(button.key).startswith(f"{key}.")]
    return found
