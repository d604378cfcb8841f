"""For all fuzz tests: the log of refusals goes nowhere, and short runs of every method to begin from."""

import os
from collections.abc import Callable

import pytest

from decoding.methods import METHODS
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Trace


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_LOG", os.devnull)


@pytest.fixture(scope="package")
def recorded(embedded) -> Callable[[str], Trace]:
    """method -> a short run of it on the embedded family, with all numbers that the method writes; made when first asked for."""
    known: dict[str, Trace] = {}

    def run(method: str) -> Trace:
        if method not in known:
            prompt, warm = "Tom had a red hat. Tom had a red", Sampling(0.8)
            made = Run(embedded, method, prompt=prompt, sampling=warm, seed=list(METHODS).index(method), max_tokens=10)
            known[method] = [made for _ in made][-1].trace
        return known[method]

    return run
