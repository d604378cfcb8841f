"""For all tests of pages: a page never computes; and a first visit that finds a run of the embedded family."""

from pathlib import Path
from threading import current_thread

import pytest
from streamlit import config
from torch.nn.modules.module import register_module_forward_pre_hook

from decoding.trace import decode_trace
from pages.parts.shared import recorded_run as demo

EMBEDDED = Path(__file__).parent.parent / "data" / "embedded-run.msgpack"  # speculative sampling, paused at a rejection
SCRIPT = "ScriptRunner.scriptThread"  # the thread on which Streamlit runs a page


@pytest.fixture(autouse=True)
def no_model_on_the_thread_of_a_page():
    """A page that calls any part of a model fails its test; gives the names of what was called."""
    called: list[str] = []

    def check(module, _) -> None:
        if current_thread().name == SCRIPT:
            called.append(type(module).__name__)
            raise AssertionError(f"The page itself called a {called[-1]}; the worker should.")

    hook = register_module_forward_pre_hook(check)
    yield called
    hook.remove()
    assert not called


@pytest.fixture(autouse=True)
def error_details():
    """A public server switches them off, for the whole process."""
    shown = config.get_option("client.showErrorDetails")
    yield
    config.set_option("client.showErrorDetails", shown)


@pytest.fixture
def opens_with_embedded(monkeypatch):
    """Step opens with a recorded run of the embedded family, so that its controls make runs of that; Compare opens empty."""
    trace = decode_trace(EMBEDDED.read_bytes())
    monkeypatch.setattr(demo, "recorded", lambda: trace)
    monkeypatch.setattr(demo, "comparison", lambda: ())
