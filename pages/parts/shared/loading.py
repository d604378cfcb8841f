"""Torch, transformers and the methods take seconds to import. One thread of the process does it, and the pages show what needs none
of them meanwhile and are drawn anew when all is there.

It begins when the browser says that the first page is painted: an import holds Python's lock for seconds on end, and the page
would wait for it.
"""

import gc
import html
import sys
from contextlib import suppress
from importlib import import_module
from threading import Lock, Thread
from time import monotonic

import streamlit as st

from decoding.limits import limits

LOOK = 0.5  # seconds between looks at the import
LONGEST = 15  # seconds until it begins even if the browser has not said that it painted
WAITING = "waiting_for_models"  # in the session's state: whether this drawing of the page does without the models
WHY = "Torch and the methods are still being loaded. "  # on what is disabled meanwhile
PARTS = {  # what is loaded -> modules, the largest first
    "torch": ("torch",),
    "transformers": ("decoding.models.family",),
    "the methods": ("decoding.runs.run", "decoding.methods"),
}
LARGER = "smollm2"  # that a public server offers beside the embedded ones
CLUSTER = "the cluster"  # comes last, if there is one
SCRIPT = """
export default function({ setTriggerValue }) {
  let calm = 0;  // looks in a row that found the script at its end and every element in its place
  const look = () => {
    const running = document.querySelector("[data-test-script-state=running]");
    calm = running || document.querySelector("[data-testid=stSkeleton]") ? 0 : calm + 1;
    if (calm < 3) setTimeout(look, 50); else setTriggerValue("painted", true);
  };
  look();
}
"""
painted = st.components.v2.component("draftscope_painted", html="<span></span>", js=SCRIPT)


class Importing:
    """The import and the thread that does it; a process that has torch already needs no thread and never waits."""

    def __init__(self) -> None:
        self.part = next(iter(PARTS))
        self.began: float | None = None
        self.done = False
        self._lock = Lock()

    @property
    def due(self) -> bool:
        """Whether something is still to be imported."""
        return not self.done and (self.began is not None or "torch" not in sys.modules)

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self._lock:
            if self.began is None and self.due:
                self.began = monotonic()
                import_module("pandas")  # here: two threads that enter a large package by different doors can block each other
                Thread(target=self.run, name="draftscope-import", daemon=True).start()

    def run(self) -> None:
        try:
            for self.part, modules in PARTS.items():
                for module in modules:
                    import_module(module)
            from decoding.methods import METHODS
            from decoding.runs.cluster import asked_for, cluster

            tuple(METHODS.values())
            if asked_for():
                self.part = CLUSTER
                with suppress(ValueError):  # the first run says why
                    cluster()
            if limits().public:
                from decoding.models.family_cache import EMBEDDED

                warm(*(target for target, _ in EMBEDDED))  # one at a time: a run would wait for whatever else is asked for first
            gc.freeze()  # half a million objects that stay: looking at them all in a collection holds everybody up for a second
        finally:  # what cannot be imported fails again where a page asks for it, and is said there
            self.done = True
        if limits().public:
            warm(LARGER)

    def words(self) -> str:
        """One line that says what is being loaded."""
        seconds = monotonic() - self.began if self.began is not None else 0
        if self.part == CLUSTER:
            return f"Joining {self.part}, {seconds:.0f} s …"
        return f"Loading {self.part} ({list(PARTS).index(self.part) + 1} of {len(PARTS)}), {seconds:.0f} s …"


def warm(*targets: str) -> None:
    """Open models before anybody asks for them, if they are here."""
    from decoding.models.family_cache import family
    from pages.parts.shared.settings import is_to_fetch

    for target in targets:
        with suppress(ValueError):  # the first run says why
            if not is_to_fetch(target):
                family(target)


importing = Importing()


def loading_line() -> None:
    """The line at the top of every page, and the timer that draws the page anew once all is there."""
    wait = st.session_state[WAITING] = importing.due
    drawn = monotonic()

    def look() -> None:
        if not importing.due:
            st.rerun()
        if monotonic() - drawn > LONGEST:
            importing.start()
        st.html(f'<p class="ds-wait" role="status">{html.escape(importing.words())}</p>')
        painted(key="painted", on_painted_change=importing.start, height=1)

    with st.container(key="loading"):  # there also when it is empty: what stands below keeps its place
        if wait:
            st.fragment(look, run_every=LOOK)()


def still_loading() -> bool:
    """Whether this drawing of the page has to do without the models and the methods."""
    return st.session_state.get(WAITING, False)


def wait_for_models(title: str) -> None:
    """End the page here while the models cannot be had, under its title."""
    if still_loading():
        importing.start()
        st.html(f'<h1 class="ds-title">{html.escape(title)}</h1><p class="ds-dim">{WHY}This page follows in a moment.</p>')
        st.stop()
