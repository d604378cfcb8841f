"""A study over many prompts: stopped anywhere, resumed, nothing run twice."""

import pytest

from decoding.models.family import load
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


def results_of(family, store):
    list(Study(family, PLAN, store))
    return results(store, PLAN)


def test_another_seed_is_another_study():
    assert Plan("embedded", "plain", (), seed=1).key != Plan("embedded", "plain", ()).key
