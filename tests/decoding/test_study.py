"""A study over many prompts: stopped anywhere, resumed, nothing run twice."""

import pytest

from decoding.models.family import load
from decoding.runs import run as runs
from decoding.runs.prompts import Prompt
from decoding.runs.store import Store
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


def test_another_seed_is_another_study():
    assert Plan("embedded", "plain", (), seed=1).key != Plan("embedded", "plain", ()).key
