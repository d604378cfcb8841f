"""Whether the script of a page is at work. One that says nothing may wait for something, and then others should run meanwhile, or
it computes, and then they should not. Python does not tell, but the kernel does."""

from pathlib import Path
from threading import Thread
from time import thread_time
from typing import Any

from streamlit import runtime
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner

TIMES = "/proc/self/task/{}/schedstat"  # nanoseconds of a processor come first
_ended: dict[str, float] = {}  # a session -> seconds of a processor that those of its scripts had that have ended


def script_of(session: str) -> Thread | None:
    """The thread on which the script of a session runs now; None if none does, or Streamlit cannot be asked."""
    manager = sessions()
    found = None if manager is None else manager.get_active_session_info(session)
    runner = None if found is None else getattr(found.session, "_scriptrunner", None)
    return getattr(runner, "_script_thread", None)


def is_gone(session: str) -> bool:
    """Whether Streamlit, if it can be asked, knows no page of a session: then nobody is told when a script of it has ended."""
    return (manager := sessions()) is not None and manager.get_active_session_info(session) is None


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


def computed(session: str) -> float:
    """Seconds of a processor that the scripts of a session have had so far."""
    return _ended.get(session, 0.0) + (processor(script_of(session)) or 0.0)


def forget(session: str) -> None:
    """It is gone, and what its scripts had counts no more."""
    _ended.pop(session, None)


def bound() -> None:
    """Have the threads of scripts leave behind how long they computed: most of them are gone before anybody asks."""
    whole = getattr(ScriptRunner._run_script_thread, "whole", ScriptRunner._run_script_thread)

    def run_script_thread(runner: ScriptRunner) -> None:
        try:
            whole(runner)
        finally:
            _ended[runner._session_id] = _ended.get(runner._session_id, 0.0) + thread_time()

    run_script_thread.whole = whole  # type: ignore[attr-defined]
    ScriptRunner._run_script_thread = run_script_thread
