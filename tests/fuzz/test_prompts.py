"""Files of prompts, of every layout: what is broken is refused with a sentence, what opens is text that a run, a page and a store
take."""

import csv
import gzip
import io
import json
from random import Random
from typing import Any

import pytest

from decoding.runs.prompts import MAX_PROMPTS, Prompt, read_prompts, spread
from decoding.runs.store import Store
from decoding.runs.study import Plan
from tests.fuzz.mutations import BOMBS, PAYLOAD, TEXTS, case, cases, changed, damaged, opened

CASES = 300
ROWS: dict[str, dict[str, Any]] = {
    "Spec-Bench": {"question_id": 81, "category": "writing", "turns": ["Write a poem.", "Now shorter."]},
    "ShareGPT": {"id": "a", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "messages": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}], "domain": "x"},
    "Alpaca": {"instruction": "Add.", "input": "1 2", "output": "3"},
    "GSM8K": {"question": "How many?", "answer": "7"},
    "HumanEval": {"task_id": "0", "prompt": "def f(x):\n", "entry_point": "f"},
    "text": {"text": "Once upon a time", "domain": PAYLOAD},
}
ENDINGS = (
    ".jsonl",
    ".json",
    ".ndjson",
    ".csv",
    ".tsv",
    ".txt",
    "",
    ".JSON.gz",
    ".jsonl.gz",
    ".csv.gz",
    ".exe",
    "/../x.json",
    "\x00.json",
)


def file_of(rows: list[Any], ending: str, dice: Random) -> bytes:
    """Rows as a file of such a name holds them."""
    kind = ending.lower().removesuffix(".gz")
    if kind in (".csv", ".tsv"):
        names = list(dict.fromkeys(str(name) for row in rows if isinstance(row, dict) for name in row))
        out = io.StringIO()
        table = csv.writer(out, delimiter=dice.choice(",;\t"))
        table.writerow(names)
        table.writerows([row.get(name, "") for name in names] for row in rows if isinstance(row, dict))
        return out.getvalue().encode("utf-8", "surrogatepass")
    if kind == ".json" and dice.random() < 0.7:
        return json.dumps(rows, indent=dice.choice((None, 1))).encode()
    if kind in (".json", ".jsonl", ".ndjson"):
        return "\n".join(map(json.dumps, rows)).encode()
    return "\n\n".join(str(row) for row in rows).encode("utf-8", "surrogatepass")


def check(found: list[Prompt], name: str) -> None:
    """What was read can be asked, shown, kept, and compared with what is kept."""
    assert 1 <= len(found) <= MAX_PROMPTS
    for prompt in found:
        for text in (*prompt.questions, prompt.text, prompt.domain, prompt.system):
            assert isinstance(text, str) and len(text) <= 40_000
            text.encode()  # no half of a character, at which a page, a store and a tokenizer break
        assert all(question.strip() for question in prompt.questions) and prompt.text.strip()
        assert prompt.messages([])[-1].role == "user"
    assert Plan("toy", "plain", spread(found, 5)).key


def test_files_of_every_layout():
    for name, dice in cases("prompts", CASES):
        rows: Any = [dict(row) for row in dice.sample(list(ROWS.values()), dice.randint(1, 4))]
        if dice.random() < 0.8:
            rows = changed(rows, dice)
        ending = dice.choice(ENDINGS)
        try:
            data = file_of(rows if isinstance(rows, list) else [rows], ending, dice)
        except (ValueError, TypeError, RecursionError, OverflowError):  # nothing that a file could say
            continue
        if dice.random() < 0.4:
            data = damaged(data, dice)
        if ending.endswith(".gz") or dice.random() < 0.1:
            data = gzip.compress(data, 1)
        file = dice.choice(("prompts", PAYLOAD, *TEXTS))[:300] + ending
        with case(name, data):
            if (found := opened(lambda data=data, file=file: read_prompts(data, file))) is not None:
                check(found, file)


@pytest.mark.parametrize("layout", ROWS)
def test_every_layout_opens_unless_it_is_broken(layout):
    for ending in (".jsonl", ".json", ".jsonl.gz"):
        data = file_of([ROWS[layout]], ending, Random(1))
        check(read_prompts(gzip.compress(data) if ending.endswith("gz") else data, f"a{ending}"), layout)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    for ending in (".json", ".jsonl", ".txt", ".csv"):
        with case(name, BOMBS[name][:2_000]):
            if (found := opened(lambda ending=ending: read_prompts(BOMBS[name], f"a{ending}"))) is not None:
                check(found, name)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
@pytest.mark.parametrize("row", [{"text": "{}"}, {"turns": ["a", "{}"]}, {"text": "a", "domain": "{}"}, {"instruction": "{}"}])
def test_half_of_a_character_is_refused_or_left_out(text, row, tmp_path):
    data = json.dumps([row]).replace("{}", json.dumps(text)[1:-1]).encode()
    if (found := opened(lambda: read_prompts(data, "a.json"))) is not None:
        check(found, "a.json")
        assert Store(tmp_path).count() == 0
