"""What a page's script says before it waits for the worker: others may run meanwhile.

On a public server few scripts run at the same time (`deploy/pace.py`, which listens here), and one that waits for a step in line
would keep its place from those who have something to draw.
"""

from collections.abc import Callable

from streamlit.runtime.scriptrunner import get_script_run_ctx

listener: Callable[[str], None] | None = None  # told the session


def rests() -> None:
    """This script waits from now on."""
    if listener is not None and (context := get_script_run_ctx()) is not None:
        listener(context.session_id)
