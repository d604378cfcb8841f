"""The recorded runs that the pages open with: shipped with the app, made by `python -m decoding.runs.recorded_run`."""

from functools import cache

from decoding.looks import Look
from decoding.models.catalogue import MODELS
from decoding.runs import lesson_runs, recorded_comparison, recorded_looks, recorded_pair, recorded_pictures, recorded_study
from decoding.runs import method_runs as kept
from decoding.runs.recorded_run import instructive
from decoding.trace import Trace


@cache
def recorded() -> Trace | None:
    """The run that Step opens with; None where it is missing or of another schema: the page then opens empty."""
    try:
        return lesson_runs.read("story")
    except (OSError, ValueError):
        return None


def title() -> str:
    """Whose they are."""
    trace = recorded()
    return MODELS[trace.header.family].title if trace else ""


@cache
def comparison() -> tuple[Trace, ...]:
    """Those that Compare opens with, all of one question; () if one is missing."""
    try:
        return tuple(map(recorded_comparison.read, recorded_comparison.METHODS))
    except (OSError, ValueError):
        return ()


@cache
def comparison_times() -> recorded_comparison.Times | None:
    """What the rounds of that comparison took; None if that is missing."""
    try:
        return recorded_comparison.times()
    except (OSError, ValueError):
        return None


@cache
def study() -> recorded_study.Recording | None:
    """That which Drafter opens with; None if a run of it is missing."""
    try:
        return recorded_study.read()
    except (OSError, ValueError):
        return None


@cache
def look(lens: str) -> Look | None:
    """What a lens saw at the place where the recorded run pauses; None where that was not recorded, or is damaged."""
    try:
        return recorded_looks.read(lens)
    except (OSError, ValueError):
        return None


def is_shipped(trace: Trace) -> bool:
    """Whether it is one that Step or Compare opens with: all sessions share it, and it takes the memory of none."""
    return any(trace is one for one in (recorded(), *comparison()))


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


@cache
def picture_pair() -> tuple[Trace, Trace] | None:
    """The same of one picture."""
    try:
        return recorded_pictures.read()
    except (OSError, ValueError):
        return None


@cache
def method_runs() -> dict[str, kept.Shown]:
    """What the page Methods shows of each; {} where it is missing or of another schema."""
    try:
        return kept.read()
    except (OSError, ValueError):
        return {}
