"""The recorded first run: shipped with the app, made by `python -m decoding.runs.recorded_run`."""

from functools import cache

from decoding.runs.recorded_run import FILE, instructive
from decoding.trace import Trace, decode_trace


@cache
def recorded() -> Trace | None:
    """The trace, or None where it is missing or of another schema: the page then opens empty."""
    try:
        return decode_trace(FILE.read_bytes())
    except (OSError, ValueError):
        return None


def pause_at() -> int:
    """Index of the step the first visit opens at."""
    trace = recorded()
    return (instructive(trace) or 0) if trace else -1
