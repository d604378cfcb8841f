"""The recorded runs that the pages open with: shipped with the app, made by `python -m decoding.runs.recorded_run`."""

from functools import cache

from decoding.models.catalogue import MODELS
from decoding.runs import recorded_pair
from decoding.runs.recorded_run import FIRST, METHODS, instructive, read
from decoding.trace import Trace


@cache
def of(method: str) -> Trace | None:
    """A trace, or None where it is missing or of another schema: the page then opens empty."""
    try:
        return read(method)
    except (OSError, ValueError):
        return None


def recorded() -> Trace | None:
    """The one that Home and Step open with."""
    return of(FIRST)


def title() -> str:
    """Whose they are."""
    trace = recorded()
    return MODELS[trace.header.family].title if trace else ""


def comparison() -> tuple[Trace, ...]:
    """Those that Compare opens with, all of one question; () if one is missing."""
    traces = tuple(trace for method in METHODS if (trace := of(method)) is not None)
    return traces if len(traces) == len(METHODS) else ()


def pause_at() -> int:
    """Index of the step the first visit opens at."""
    trace = recorded()
    return (instructive(trace) or 0) if trace else -1


@cache
def pair() -> tuple[Trace, Trace] | None:
    """The ordinary and the speculative run of one question that Home plays; None where one is missing or of another schema."""
    try:
        return recorded_pair.read()
    except (OSError, ValueError):
        return None
