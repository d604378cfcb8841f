"""The examples keep what they promise: tokens per call within the stated range, on the run that a press on Start makes."""

import pytest

from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Trace
from pages.parts.shared.examples import EXAMPLES
from pages.parts.shared.settings import Settings
from viz.runs.tally import tally


def started(family, key: str, method: str = "") -> Trace:
    """The run of an example with the controls as they open."""
    example, usual = EXAMPLES[key], Settings()
    sampling = Sampling(usual.temperature, usual.top_k, usual.top_p)
    run = Run(family, method or example.method, {}, example.prompt, sampling, usual.seed, usual.max_tokens)
    for _ in run:
        pass
    return run.trace


@pytest.mark.parametrize("key", EXAMPLES)
def test_tau_lies_in_the_stated_range(embedded, key):
    low, high = EXAMPLES[key].tau
    assert 1 < low < high < 2 * low, "a range that says something"
    assert low <= (tally(started(embedded, key).steps).tau or 0) <= high


def test_what_the_drafter_knows_does_not_begin_with_refusals(embedded):
    first = started(embedded, "once").steps[0]
    assert len(first.path) >= 2


def test_the_same_again_is_where_prompt_lookup_shines(embedded):
    taus = {key: tally(started(embedded, key, "prompt_lookup").steps).tau or 0 for key in EXAMPLES}
    assert max(taus, key=taus.__getitem__) == "repeat" and len(started(embedded, "repeat").steps[0].path) >= 4


def test_no_example_ends_in_a_space_or_inside_a_word():
    assert not any(example.prompt[-1:].isspace() for example in EXAMPLES.values())
