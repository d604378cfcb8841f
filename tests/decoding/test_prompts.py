"""Prompts from files, in the layouts people have."""

import json

import pytest

from decoding.runs import prompts
from decoding.runs.prompts import Prompt, read_prompts


def lines(*rows) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def test_the_published_layouts_are_read():
    assert read_prompts(lines({"question_id": 1, "category": "writing", "turns": ["Hello", "And?"]}), "q.jsonl") == [
        Prompt("Hello", "writing")
    ]
    assert read_prompts(lines({"question": "1 + 1?", "answer": "2"}), "g.jsonl") == [
        Prompt("Question: 1 + 1?\nAnswer:", "mathematics")
    ]
    assert read_prompts(lines({"task_id": "HumanEval/0", "prompt": "def f():", "entry_point": "f"}), "h.jsonl") == [
        Prompt("def f():", "code")
    ]
    assert read_prompts(lines({"text": "Once", "domain": "stories"}), "t.jsonl") == [Prompt("Once", "stories")]


def test_text_files_are_split_at_blank_lines_or_lines():
    assert [p.text for p in read_prompts(b"one\ntwo\n", "x.txt")] == ["one", "two"]
    assert [p.text for p in read_prompts("\ufeffa\r\nb\r\n\r\nc".encode(), "x.txt")] == ["a\nb", "c"]


@pytest.mark.parametrize(
    ("data", "name", "sentence"),
    [
        (b"\xff\xfe\x00", "x.txt", "not UTF-8"),
        (b"  \n\n ", "x.txt", "holds no prompt"),
        (b'{"text": "a"}\n{', "x.jsonl", "Line 2 is not JSON"),
        (b"[1]", "x.jsonl", "Line 1 is a list"),
        (b'{"id": 3}', "x.jsonl", "it has id"),
        (b'{"turns": []}', "x.jsonl", "it has turns"),
        (b'{"text": " "}', "x.jsonl", "Prompt 1 is empty"),
        (b"a" * 30_000, "x.txt", "at most 20,000"),
    ],
)
def test_files_that_cannot_be_understood_are_refused_with_a_sentence(data, name, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_prompts(data, name)


def test_sizes_are_capped(monkeypatch):
    monkeypatch.setattr(prompts, "MAX_FILE", 10)
    with pytest.raises(ValueError, match="at most 10"):
        read_prompts(b"a" * 11, "x.txt")
    monkeypatch.setattr(prompts, "MAX_PROMPTS", 2)
    with pytest.raises(ValueError, match="at most 2"):
        read_prompts(b"a\nb\nc", "x.txt")
