"""Whether the script of a page is at work. One that says nothing may wait for something, and then others should run meanwhile, or
it computes, and then they should not. Python does not tell, but the kernel does."""

from pathlib import Path
from threading import Thread
from typing import Any

from streamlit import runtime

TIMES = "/proc/self/task/{}/schedstat"  # nanoseconds of a processor come first


def script_of(session: str) -> Thread | None:
    """The thread on which the script of a session runs now; None if none does, or Streamlit cannot be asked."""
    manager = sessions()
    found = None if manager is None else manager.get_active_session_info(session)
    runner = None if found is None else getattr(found.session, "_scriptrunner", None)
    return getattr(runner, "_script_thread", None)


def is_over(session: str) -> bool:
    """Whether no script of a session runs, as far as Streamlit knows that session and can be asked."""
    return sessions() is not None and ((script := script_of(session)) is None or not script.is_alive())


def sessions() -> Any:
    """Streamlit's, if it runs."""
    return getattr(runtime.get_instance() if runtime.exists() else None, "_session_mgr", None)


def processor(thread: Thread | None) -> float | None:
    """Seconds that a thread had of a processor; None if it is at its end, or the system does not tell."""
    if thread is None or not thread.is_alive():
        return None
    try:
        return int(Path(TIMES.format(thread.native_id)).read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return None
