"""For all fuzz tests: the log of refusals goes nowhere, and short runs of every method to begin from."""

import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from decoding.methods import METHODS
from decoding.models.family import load
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Trace


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_LOG", os.devnull)
    logging.getLogger("streamlit").setLevel(logging.ERROR)  # checks of a page outside of one are said thousands of times


@pytest.fixture(autouse=True)
def no_store_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setenv("DRAFTSCOPE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="package")
def recorded(embedded) -> Callable[..., Trace]:
    """method -> a short run of it on the embedded family, with all numbers that the method writes; made when first asked for."""
    known: dict[str, Trace] = {}

    def run(method: str, temperature: float = 0.8, max_tokens: int = 10, **params: Any) -> Trace:
        if (key := f"{method} {temperature} {max_tokens} {params}") not in known:
            prompt, sampling, seed = "Tom had a red hat. Tom had a red", Sampling(temperature), list(METHODS).index(method)
            made = Run(embedded, method, params, prompt, sampling, seed, max_tokens)
            known[key] = [made for _ in made][-1].trace
        return known[key]

    return run


@pytest.fixture(scope="package")
def pictured() -> Callable[..., Trace]:
    """The same of half a picture."""
    known: dict[str, Trace] = {}

    def run(method: str, temperature: float = 0.8, **params: Any) -> Trace:
        if (key := f"{method} {temperature} {params}") not in known:
            made = Run(load("digits", device="cpu"), method, params, "digit3", Sampling(temperature), 0, 40)
            known[key] = [made for _ in made][-1].trace
        return known[key]

    return run
