"""What the kept runs of a study say, as tables; read once and shared by all views of the Drafter page."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd
import streamlit as st

from decoding.runs.prompts import Prompt
from decoding.runs.recorded_study import PROMPTS
from decoding.runs.store import Store
from decoding.runs.study import Plan
from decoding.runs.study import results as runs_of
from decoding.trace import Trace
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.in_turn import looking
from viz.drafter.judgements import DrafterRun, judgements, per_prompt
from viz.drafter.rejections import alarms
from viz.drafter.verdict import verdict
from viz.words import stage

MOST, MINUTES = 4, "10m"  # of all sessions together, in memory: each may be some 160 MB


@dataclass(frozen=True)
class Findings:
    """One drafter over all finished prompts. Only to be looked at: all sessions share it."""

    prompts: tuple[Prompt, ...]  # what every run of the plan is asked, finished or not
    names: tuple[str, ...]  # of these runs: "3", or "3, turn 2"
    judged: pd.DataFrame  # one line per judged token
    tallies: pd.DataFrame  # one line per prompt
    alarms: tuple[str, ...]
    verdict: tuple[str, ...]  # what is wrong with it, at most three lines
    stage: str  # model, device and number format of the runs
    damaged: tuple[tuple[str, str], ...] = ()  # name of a run that cannot be read, and why


@st.cache_resource(max_entries=MOST, ttl=MINUTES, show_spinner="Reading the runs …")
def found_in(folder: str, key: str, stamp: tuple[int, int], _plan: Plan) -> Findings:
    """The findings of a plan in the state that `stamp` names.

    Args:
        key: of the plan, which says all that is in it.

    Raises:
        ValueError: the runs cannot be read now, or others come first for too long (Later).
    """
    with looking():
        damaged: dict[int, str] = {}
        found = findings_of(_plan.asked, runs_of(Store(Path(folder), later=True), _plan, damaged), _plan.names)
    return replace(found, damaged=tuple((_plan.names[number], why) for number, why in damaged.items()))


def findings_of(prompts: Sequence[Prompt], runs: Sequence[DrafterRun], names: Sequence[str] = ()) -> Findings:
    """
    Args:
        names: of the runs of a plan; without them every prompt is one, and they are counted.
    """
    judged = judgements(runs)
    short = tuple(name.removeprefix("prompt ") for name in names) or tuple(f"{i + 1}" for i in range(len(prompts)))
    return Findings(
        tuple(prompts), short, judged, per_prompt(runs), tuple(alarms(runs)), verdict(judged), stage(run[3].header for run in runs)
    )


def called(runs: pd.Series, names: Sequence[str]) -> pd.Series:
    """What runs are called that are counted from 0: numbers, which sort as such, where every prompt is one run.

    >>> list(called(pd.Series([0, 1]), ("1", "2"))), list(called(pd.Series([1]), ("1", "1, turn 2")))
    ([1, 2], ['1, turn 2'])
    """
    return runs + 1 if all(map(str.isdigit, names)) else runs.map(dict(enumerate(names)))


@cache
def recorded_findings() -> Findings:
    """Those of the recorded study, which is there."""
    study = demo.study()
    assert study is not None
    return findings_of(PROMPTS, study.runs)


@dataclass(frozen=True)
class KeptRuns:
    """The runs of a store, each read once."""

    folder: Path

    def open(self, trace: int) -> Trace:
        return opened(str(self.folder), trace)


@st.cache_resource(max_entries=MOST, ttl=MINUTES, show_spinner=False)
def opened(folder: str, trace: int, state: Hashable = None) -> Trace:
    """One kept run, to look at, in a state that tells it from itself with fewer steps."""
    return Store(Path(folder), later=True).open(trace)
