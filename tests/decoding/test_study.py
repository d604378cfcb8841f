"""A study over many prompts: stopped anywhere, resumed, nothing run twice."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from time import monotonic

import pytest

from decoding.models.family import load
from decoding.runs import run as runs
from decoding.runs.prompts import Prompt
from decoding.runs.store import PATIENCE, Query, Store
from decoding.runs.study import Plan, Study, results
from decoding.sample import Sampling


@pytest.fixture(scope="module")
def family():
    return load()


PLAN = Plan(
    "embedded",
    "prompt_lookup",
    (Prompt("Once upon a time", "typed"), Prompt("Question: Tom has", "typed"), Prompt("word " * 3000, "too long")),
    sampling=Sampling(0),
    max_tokens=6,
)


def test_a_study_runs_every_prompt_and_says_which_it_skipped(family, tmp_path):
    store = Store(tmp_path)
    study = Study(family, PLAN, store)
    list(study)
    assert study.ended
    for _, trace, *_ in results(store, PLAN):
        entry, *_ = store.entries_of([trace])
        store.rename(trace, entry.name, "a note of somebody's own")
    assert [(number, domain) for number, _, domain, _ in results(store, PLAN)] == [(0, "typed"), (1, "typed")]
    assert "context holds" in study.problems[2]


def test_a_stopped_study_goes_on_where_it_stopped(family, tmp_path):
    store = Store(tmp_path)
    whole = [trace.text_bytes() for *_, trace in results_of(family, Store(tmp_path / "whole"))]
    first = Study(family, PLAN, store)
    while not first.finished:
        next(first)
    next(first)  # in the middle of the second prompt
    kept = results(store, PLAN)[0][1]
    second = Study(family, PLAN, store)
    assert second.finished == {0}
    list(second)
    found = results(store, PLAN)
    assert found[0][1] == kept  # not run again
    assert [trace.text_bytes() for *_, trace in found] == whole


def test_a_run_that_cannot_be_read_hides_no_other(family, tmp_path, monkeypatch):
    store = Store(tmp_path)
    (_, first, *_), (_, second, *_) = results_of(family, store)
    with closing(sqlite3.connect(store.path)) as db, db:
        db.execute("UPDATE steps SET data = x'00' WHERE trace = ? AND number = 0", (first,))
    damaged: dict[int, str] = {}
    assert [number for number, *_ in results(store, PLAN, damaged)] == [1]
    assert list(damaged) == [0] and "damaged" in damaged[0]
    with pytest.raises(ValueError, match="damaged"):
        results(store, PLAN)
    read = Store.open

    def deleted(own, trace):
        own.delete(second)
        return read(own, trace)

    monkeypatch.setattr(Store, "open", deleted)
    assert results(store, PLAN, damaged) == [] and list(damaged) == [0]


class Broken(Exception):
    """What nobody foresaw."""


@pytest.mark.parametrize("error", [Broken("the state is odd"), IndexError("list index out of range"), ValueError("a sentence")])
@pytest.mark.parametrize("where", ["at the start", "in the middle"])
def test_whatever_one_prompt_raises_is_its_result_and_not_the_end(family, tmp_path, monkeypatch, error, where):
    """It is counted, said in words, and run again by the next study; the other prompts are run."""
    real, broken = runs.Run.__next__ if where == "in the middle" else runs.Run.__init__, PLAN.prompts[0].text

    def breaks(run, *given, **more):
        text = run.header.prompt if where == "in the middle" else given[3]
        if text == broken and (where == "at the start" or len(run.steps) == 2):
            raise error
        return real(run, *given, **more)

    monkeypatch.setattr(runs.Run, real.__name__, breaks)
    store = Store(tmp_path)
    study = Study(family, PLAN, store)
    list(study)
    assert study.ended and set(study.problems) == {0, 2} and study.finished == {1}
    said = str(error) if isinstance(error, ValueError) else f"The step failed: {type(error).__name__}: {error}"
    assert study.problems[0] == said
    assert [number for number, *_ in results(store, PLAN)] == [1]
    monkeypatch.undo()
    again = Study(family, PLAN, store)
    list(again)
    assert again.finished == {0, 1} and set(again.problems) == {2}


def results_of(family, store):
    list(Study(family, PLAN, store))
    return results(store, PLAN)


@pytest.mark.parametrize("at", [1, 2, "last"])
def test_a_step_that_others_hold_up_is_written_when_they_have_done(family, tmp_path, at):
    """Turns go by meanwhile, in which others have theirs; nothing is lost, and nothing is there twice."""
    plan = replace(PLAN, prompts=PLAN.prompts[:2])
    whole = list(Study(family, plan, Store(tmp_path / "whole")))
    store = Store(tmp_path)
    study, steps, waited = Study(family, plan, store), [], False
    count = len(whole) if at == "last" else at
    while len(steps) < len(whole):
        if len(steps) == count - 1 and not waited:
            with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                waited = True
                for _ in range(3):
                    began = monotonic()
                    assert study.turn() is None and monotonic() - began < PATIENCE / 2
                other.execute("ROLLBACK")
        if (step := study.turn()) is not None:
            steps.append(step)
    assert waited and not study.problems
    kept = [trace.steps for *_, trace in results(store, plan)]
    assert [step.tokens for step in sum(kept, ())] == [step.tokens for step in whole] and store.count() == len(kept)


def test_who_never_has_done_is_said(family, tmp_path, monkeypatch):
    monkeypatch.setattr("decoding.runs.writing.PATIENCE", 0.2)
    store = Store(tmp_path)
    study = Study(family, PLAN, store)
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        while not study.problems:
            study.turn()
    assert "another program is writing there" in study.problems[0]


def test_another_seed_is_another_study():
    assert Plan("embedded", "plain", (), seed=1).key != Plan("embedded", "plain", ()).key


STUDY = """
import sys
from pathlib import Path
from decoding.models.family import load
from decoding.runs.store import PATIENCE, Query, Store
from decoding.runs.study import Study
from tests.decoding.test_study import PLAN
for count, _ in enumerate(Study(load(), PLAN, Store(Path(sys.argv[1])))):
    print(count + 1, flush=True)
"""


def test_a_killed_study_loses_at_most_a_step(tmp_path):
    """And the steps of its half of a prompt go once the prompt was run to its end."""
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, "-c", STUDY, str(tmp_path)], stdout=subprocess.PIPE, env=env, text=True)
    for line in running.stdout:
        if int(line) == 3:
            running.kill()
            break
    running.communicate()
    store = Store(tmp_path)
    assert sum(entry.steps for entry in store.entries()) >= 3
    family = load()
    list(Study(family, PLAN, store))
    assert sorted(entry.name for entry in store.entries()) == ["prompt 1", "prompt 2"] and store.finished(PLAN.key) == 2


@pytest.mark.parametrize("turns", [(1, 1), (3, 1), (1, 4)])
def test_the_same_study_twice_at_once_counts_once(family, tmp_path, turns):
    store = Store(tmp_path)
    going = [Study(family, PLAN, store) for _ in range(2)]
    while not all(study.ended for study in going):
        for study, count in zip(going, turns, strict=True):
            for _ in range(count):
                next(study, None)
    assert [number for number, *_ in results(store, PLAN)] == [0, 1] and store.count(Query(study=PLAN.key)) == 2
    assert going[0].kept == going[1].kept and set(going[0].problems) == set(going[1].problems) == {2}


def test_doubles_of_an_older_store_count_once(family, tmp_path):
    store = Store(tmp_path)
    first = results_of(family, store)
    for number, _, domain, trace in first:
        store.keep(trace, PLAN.names[number], domain, PLAN.key)
    assert results(store, PLAN) == first and Study(family, PLAN, store).finished == {0, 1} and store.finished(PLAN.key) == 2
