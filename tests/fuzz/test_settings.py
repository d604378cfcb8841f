"""Settings and values of fields: every check of the backend answers with a sentence, whatever it is given."""

import pytest

from decoding.limits import check_models, check_params
from decoding.methods import METHODS
from decoding.models import hub
from decoding.models.chat import checked_messages, checked_options, has_template, read_options, write_options
from decoding.models.ends import read_stops, write_stops
from decoding.models.names import EMBEDDED_TARGETS
from decoding.models.places import place
from decoding.runs.visitors import folder_of
from decoding.sample import Sampling
from pages.parts.shared.settings import Settings, models_problem
from tests.fuzz.mutations import NUMBERS, TEXTS, case, cases, opened, value

CASES = 200
NAMES = (
    *TEXTS, "\x00", "/" * 5_000, "~nosuchuser/x", "a\x00b.gguf", "/dev/zero", "/proc/self/mem", "/dev/stdin.gguf", "..", ".", "~",
    "org/name/x", "C:\\x", "con", "a" * 300, "/" + "a" * 300, "\udcff", "\ud800/x", "embedded ", "EMBEDDED", "hub://x",
    "http://127.0.0.1:1/x",
)  # fmt: skip


@pytest.mark.parametrize("mode", ["local", "public"])
def test_settings(mode, monkeypatch):
    """Whatever a field or a header says, the page says what is wrong with it."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
    for name, dice in cases(f"settings {mode}", CASES // 2):
        method = dice.choice(list(METHODS))
        params = {dice.choice((*vars(METHODS[method].params()), "length")): value(dice) for _ in range(dice.randint(0, 3))}
        given = Settings(
            prompt=dice.choice(TEXTS), method=method, params=params, temperature=dice.choice(NUMBERS), top_k=dice.choice(NUMBERS),
            top_p=dice.choice(NUMBERS), seed=dice.choice(NUMBERS), max_tokens=dice.choice((1, 64, 10**9)),
            target=dice.choice((*NAMES, *EMBEDDED_TARGETS)), draft=dice.choice((*NAMES, None, None)), template=dice.choice(TEXTS),
            stop_tokens=dice.choice(TEXTS), device=dice.choice(("auto", *TEXTS)), dtype=dice.choice(("auto", *TEXTS)),
        )  # fmt: skip
        with case(name, given):
            assert isinstance(given.problem(), str) and isinstance(given.to_fetch, str)
            models_problem(given.target, given.draft)


def test_doors_of_the_backend():
    for name, dice in cases("doors", CASES):
        one, text = value(dice), dice.choice(NAMES)
        method = METHODS[dice.choice(list(METHODS))]
        param = dice.choice((*vars(method.params()), "x"))
        doors = {
            "parameters": lambda method=method, param=param, one=one: method.checked({param: one}),
            "nodes": lambda param=param, one=one: check_params({param: one}),
            "sampling": lambda dice=dice: Sampling(dice.choice(NUMBERS), dice.choice(NUMBERS), dice.choice(NUMBERS)),
            "messages": lambda one=one, text=text: checked_messages(
                one if isinstance(one, list) else [{"role": "user", "content": one}]
            ),
            "options": lambda one=one, text=text: write_options(checked_options({text: one})),
            "options as written": lambda text=text: read_options(text),
            "stop tokens": lambda text=text: write_stops(read_stops(text)),
            "models": lambda text=text: check_models(text, text),
            "a template": lambda text=text: has_template(text),
            "a visitor": lambda text=text, tmp=name: folder_of(__import__("pathlib").Path("x"), text),
            "the Hub": lambda text=text: hub.is_id(text),
        }
        for what, door in doors.items():
            with case(f"{name}, {what}", (one, text, param)):
                opened(door)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_models(name, monkeypatch):
    """None of them leads anywhere, nothing is asked of the net, and a device or a pipe is not read."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with case("name", name):
        found = opened(lambda: place(name))
        assert found is None or found.source == name
