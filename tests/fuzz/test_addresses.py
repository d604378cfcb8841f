"""Addresses: whatever stands behind the question mark, a page opens, says in short sentences what it left out, and loads
nothing."""

import json
from functools import partial
from math import isfinite
from random import Random
from urllib.parse import parse_qsl, quote, urlencode

import pytest

from decoding.methods import METHODS
from decoding.models.catalogue import NAMED
from decoding.runs.visitors import is_key
from decoding.trace import Message
from pages.parts.compare import address as compare
from pages.parts.shared import address as step
from pages.parts.shared.settings import Settings
from tests.fuzz.mutations import NUMBERS, PAYLOAD, TEXTS, case, cases, damaged, opened
from viz.tokens import as_markdown

SINGLE, COMPARED = 250, 150
LONGEST = 600  # characters of a sentence about a part of a link
NAMES = (
    "v", "example", "prompt", "chat", "template", "method", "temperature", "top_p", "top_k", "seed", "tokens", "stop", "ignore_end",
    "step", "node", "target", "draft", "view", "mode", "sweep", "visitor", "embed", "p.length", "p.nodes", "p.tree", "c1", "c2",
    "c2.length", "c9", "c0", "c1.", "p.", "__proto__", "",
)  # fmt: skip
CHATS = (
    '[["user","a"]]',
    '[["user","\\ud800"]]',
    "[[[]]]",
    "[" * 5_000,
    '[["system","a"],["system","b"]]',
    '{"a":1}',
    "NaN",
    '[["user",1e999]]',
)


def settings(dice: Random) -> Settings:
    """Such as a link can carry."""
    method = dice.choice(list(METHODS))
    messages = (Message("user", dice.choice(("Hello", PAYLOAD))),) if dice.random() < 0.2 else ()
    return Settings(
        method=method, temperature=dice.choice((0.0, 0.8, 1.3)), top_k=dice.choice((0, 5)), top_p=dice.choice((1.0, 0.9)),
        messages=messages, seed=dice.randint(0, 9), max_tokens=dice.choice((1, 64)), prompt="" if messages else dice.choice(("Once",
        "a\nb", PAYLOAD)), stop_tokens=dice.choice(("", "#7", "\\n")), ignore_end=dice.random() < 0.5,
    )  # fmt: skip


def query(dice: Random, good: dict[str, str]) -> dict[str, str]:
    """The query of a link with one to five parts changed, as a browser sends it."""
    for _ in range(dice.randint(1, 5)):
        name = dice.choice((*NAMES, *good))
        what = dice.randrange(5)
        if what == 0:
            good.pop(name, None)
        elif what == 1:
            good[name] = dice.choice(TEXTS)
        elif what == 2:
            good[name] = str(dice.choice(NUMBERS))
        elif what == 3:
            good[name] = dice.choice(CHATS) if name in ("chat", "prompt") else dice.choice(list(METHODS) + list(NAMED))
        else:
            good[dice.choice(TEXTS)] = good.get(name, "1")
    text = urlencode(good)
    if dice.random() < 0.3:
        text = damaged(text.encode(), dice).decode("latin-1")
    return dict(parse_qsl(text, keep_blank_values=True, errors="replace", max_num_fields=10_000))


def check(complaints: tuple[str, ...]) -> None:
    """Sentences that a page can draw."""
    for said in complaints:
        assert said.strip() and len(said) < LONGEST, said
        assert not any(c != "\n" and ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in said), said
        as_markdown(said).encode()


def check_settings(found: Settings) -> None:
    """What is left is what the controls can say, and nothing that is named is loaded."""
    assert found.target in NAMED and found.draft in (None, *step.DRAFTS) and found.method in METHODS
    assert isinstance(found.problem(), str) and found.full_params is not None and found.sampling
    assert 1 <= found.max_tokens <= 4096 and (found.device, found.dtype) == ("auto", "auto")


@pytest.mark.parametrize("mode", ["local", "public"])
def test_links_of_one_run(mode, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
    for name, dice in cases(f"address {mode}", SINGLE // 2):
        with case(name, asked := query(dice, step.parameters(settings(dice), dice.randint(0, 9), dice.choice((None, -1, 3))))):
            if (place := step.parse(asked)) is not None:
                check(place.complaints)
                check_settings(place.settings)
                assert place.step is None or 0 <= place.step <= 4096
                if (parts := opened(partial(step.parameters, place.settings, place.step or 0, place.node))) is not None:
                    again = step.parse(parts)
                    assert again is not None and again.settings.same_run(place.settings)
            is_key(asked.get("visitor"))


@pytest.mark.parametrize("mode", ["local", "public"])
def test_links_of_a_comparison(mode, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", mode)
    for name, dice in cases(f"comparison {mode}", COMPARED // 2):
        columns = [settings(dice) for _ in range(dice.randint(2, 6))]
        good = (
            compare.column_parameters(columns, dice.choice(compare.MODES))
            if dice.random() < 0.7
            else compare.sweep_parameters(columns[0], "length", (1, dice.randint(2, 64)), dice.randint(1, 5))
        )
        with case(name, asked := query(dice, good)):
            if (place := compare.parse(asked)) is not None:
                check(place.complaints)
                for found in (place.settings, *place.columns):
                    check_settings(found)
                assert len(place.columns) <= 6 and place.view in compare.VIEWS and place.mode in compare.MODES
                assert all(isfinite(number) for number in place.swept.values())


def test_a_chat_of_halves_of_characters_is_left_out():
    place = step.parse(dict(parse_qsl("chat=" + quote(json.dumps([["user", "\ud800"]])))))
    assert place is not None and not place.settings.messages and "half of a character" in place.complaints[0]
