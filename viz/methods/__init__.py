"""Pictures of one method each: what is called X has its own in `X.py`, found by name and registered nowhere else.

A file may have `guesses_html(trace, cursor)`: what its heads guessed at one step as bars, so that the same step of two methods can
stand one below the other; and `silence(trace, cursor, say)`: why it guessed nothing at one step, as the end of a sentence.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from decoding.trace import Trace
from viz.tokens import Say, quoted


@cache
def pictures_of(method: str) -> ModuleType | None:
    """The method's own pictures; None if it has none. The name may come from any trace."""
    known = {module.name for module in iter_modules(__path__) if not module.ispkg}
    return import_module(f"{__name__}.{method}") if method in known else None


def guesses_html(trace: Trace, cursor: int) -> str:
    """The guesses of the heads at one step as bars: HTML; "" for methods without such bars, and where a trace lacks the numbers."""
    bars = getattr(pictures_of(trace.header.method), "guesses_html", None)
    return bars(trace, cursor) if bars else ""


def silence(trace: Trace, cursor: int, say: Say = quoted) -> str:
    """Why nothing was guessed at a step, as the end of a sentence; plain text, "" where that is not known."""
    if trace.is_plain or trace.steps[cursor].nodes:
        return ""
    why = getattr(pictures_of(trace.header.method), "silence", None)
    return why(trace, cursor, say) if why else ""
