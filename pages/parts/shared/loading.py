"""Torch, transformers and the methods take seconds to import. One thread of the process does it once the first page is on a screen;
the pages show what needs none of them meanwhile, and are drawn anew when all is there."""

import html
import sys
from importlib import import_module
from threading import Lock, Thread
from time import monotonic

import streamlit as st

LOOK = 0.5  # seconds between looks at the import; also what the browser gets for painting before it begins
WAITING = "waiting_for_models"  # in the session's state: whether this drawing of the page does without the models
WHY = "Torch and the methods are still being loaded. "  # on what is disabled meanwhile
PARTS = {  # what is loaded -> modules, the largest first
    "torch": ("torch",),
    "transformers": ("decoding.models.family",),
    "the methods": ("decoding.runs.run", "decoding.methods"),
}


class Importing:
    """The import and the thread that does it; a process that has torch already needs no thread and never waits."""

    def __init__(self) -> None:
        self.part = next(iter(PARTS))
        self.began: float | None = None
        self._done = False
        self._lock = Lock()

    @property
    def due(self) -> bool:
        """Whether something is still to be imported."""
        return not self._done and (self.began is not None or "torch" not in sys.modules)

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self._lock:
            if self.began is None and self.due:
                self.began = monotonic()
                Thread(target=self._run, name="draftscope-import", daemon=True).start()

    def _run(self) -> None:
        try:
            for self.part, modules in PARTS.items():
                for module in modules:
                    import_module(module)
            from decoding.methods import METHODS

            tuple(METHODS.values())
        finally:  # what cannot be imported fails again where a page asks for it, and is said there
            self._done = True

    def words(self) -> str:
        """One line that says what is being loaded."""
        seconds = monotonic() - self.began if self.began is not None else 0
        return f"Loading torch, transformers and the methods, {seconds:.0f} s … (now: {self.part})"


importing = Importing()


def loading_line() -> None:
    """The line at the top of every page, and the timer that draws the page anew once all is there.

    The import begins with the timer's first look, which comes from the browser: it would keep the page from being painted.
    """
    wait = st.session_state[WAITING] = importing.due
    whole = [True]  # this run of the page; the timer's runs come after it

    def look() -> None:
        if not whole:
            importing.start()
        whole.clear()
        if not importing.due:
            st.rerun()
        st.html(f'<p class="ds-wait" role="status">{html.escape(importing.words())}</p>')

    with st.container(key="loading"):  # there also when it is empty: what stands below keeps its place
        if wait:
            st.fragment(look, run_every=LOOK)()


def still_loading() -> bool:
    """Whether this drawing of the page has to do without the models and the methods."""
    return st.session_state.get(WAITING, False)


def wait_for_models(title: str) -> None:
    """End the page here while the models cannot be had, under its title."""
    if still_loading():
        st.html(f'<h1 class="ds-title">{html.escape(title)}</h1><p class="ds-dim">{WHY}This page follows in a moment.</p>')
        st.stop()
