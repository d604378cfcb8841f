"""What a page's script says while it waits for the worker: others may run meanwhile.

On a public server few scripts run at the same time (`deploy/pace.py`, which listens here), and one that waits for a step in line
would keep its place from those who have something to draw. What it draws afterwards takes a place again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from streamlit.runtime.scriptrunner import get_script_run_ctx

listener: Callable[[str], Callable[[], None]] | None = None  # told the session; what it returns waits until the script may go on


@contextmanager
def resting() -> Iterator[None]:
    """In the block this script waits."""
    context = get_script_run_ctx()
    go_on = None if listener is None or context is None else listener(context.session_id)
    try:
        yield
    finally:
        if go_on is not None:
            go_on()
