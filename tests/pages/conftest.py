"""For all tests of pages: a page never computes."""

from threading import current_thread

import pytest
from torch.nn.modules.module import register_module_forward_pre_hook

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
