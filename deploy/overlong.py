"""What a page's script computes: it is slow from some time on, and is ended where it takes too long without a word.

Few scripts run at the same time (`deploy/pace.py`), and the picture of a trace that was made for it can take a hundred times as
long as any of a run: ten tabs with such a one kept everybody from their pages for half a minute. So whoever computes for more than
COMPUTES seconds of a processor without saying anything is interrupted: Python raises `Overlong` on that thread, and the page says
so in the place of the picture. A page that is closed needs nothing any more, and is ended sooner. What one call into a library
takes is not interrupted, and neither is an import, of which a half would stay behind, nor who is just taking a lock.
"""

import ctypes
import logging
import sys
import threading
from threading import Thread

import streamlit as st

from decoding.limits import Refused
from decoding.runs.failures import told
from deploy.working import processor
from viz.tokens import as_markdown

COMPUTES = 1.5  # seconds of a processor; the largest pictures of runs take some tenths
CLOSED = 1.0  # of a page that is closed; to keep the largest run takes half of that
SLOW = 0.5  # of a whole script
LOCKS = (threading.__file__, logging.__file__)  # where locks are taken
IMPORTS = "importlib._bootstrap"  # in the names of the files of what imports


class Overlong(Refused):
    """What was to be drawn takes this server too long."""

    def __init__(self) -> None:  # Python makes it, without arguments
        super().__init__("What is to be drawn here takes this demo too long. Look at a smaller run, or at another step of it.")


class Watched:
    """The script of a tab."""

    def __init__(self) -> None:
        self.script: Thread | None = None
        self._began = self._had = 0.0  # seconds of a processor when it began, and at its last word, as far as is known
        self._spoke = False

    def began(self, script: Thread | None) -> None:
        self.script, self._spoke = script, True
        self._began = processor(script) or 0.0

    def spoke(self) -> None:
        self._spoke = True

    @property
    def alive(self) -> bool:
        return self.script is not None and self.script.is_alive()

    @property
    def slow(self) -> bool:
        """Whether it has computed for long, whatever it said."""
        return (processor(self.script) or 0.0) - self._began > SLOW

    def look(self, most: float = COMPUTES) -> bool:
        """Interrupt it if it has computed for more seconds than that since its last word, or the last look; whether it was."""
        script = self.script
        if script is None or script.ident is None or (had := processor(script)) is None:
            return False
        if self._spoke or is_importing(script.ident):
            self._spoke, self._had = False, had
        if had - self._had <= most or takes_lock(script.ident):
            return False
        self._had = had  # where somebody takes it for another error, and goes on
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(script.ident), ctypes.py_object(Overlong))
        return True


def is_importing(thread: int) -> bool:
    """Whether a thread imports something."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if IMPORTS in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def takes_lock(thread: int) -> bool:
    """Whether a thread is taking or giving back a lock that is written in Python, as a condition's is, or a log's: interrupted
    behind the lock itself it would never give that back, and all would wait for it."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_code.co_filename in LOCKS


def handled(error: Exception) -> bool:
    """Whether an error that a page let through is this one, which is said; for `st.App`."""
    if isinstance(error, Overlong):
        st.error(as_markdown(told(error)), icon=":material/hourglass_disabled:")
    return isinstance(error, Overlong)
