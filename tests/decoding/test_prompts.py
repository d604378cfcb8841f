"""Prompts from files, in the layouts people have."""

import gzip
import json

import pytest

from decoding.runs import prompts
from decoding.runs.prompts import Prompt, dialogue, read_prompts, spread


def lines(*rows) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def test_the_published_layouts_are_read():
    assert read_prompts(lines({"question_id": 1, "category": "writing", "turns": ["Hello", "And?"]}), "q.jsonl") == [
        Prompt("Hello", "writing", turns=("Hello", "And?"))
    ]
    assert read_prompts(lines({"question": "1 + 1?", "answer": "2"}), "g.jsonl") == [
        Prompt("Question: 1 + 1?\nAnswer:", "mathematics", turns=("1 + 1?",))
    ]
    function = "Complete this Python function. Answer with the whole function.\n\n```python\ndef f():\n```"
    assert read_prompts(lines({"task_id": "HumanEval/0", "prompt": "def f():", "entry_point": "f"}), "h.jsonl") == [
        Prompt("def f():", "code", turns=(function,))
    ]
    assert read_prompts(lines({"text": "Once", "domain": "stories"}), "t.jsonl") == [Prompt("Once", "stories")]


def test_many_turns_of_the_system_take_time_of_their_length():
    """Put together one after the other they took that of its square: 9 s for 1.2 MB."""
    parts = [{"role": "system", "content": " \U0001f642" + "a" * 30 + "\n"}] * 60_000
    with pytest.raises(ValueError, match="characters"):
        dialogue([*parts, {"role": "user", "content": "Why?"}], ("role",), ("content",), 1, "chat")
    few = [{"role": "system", "content": said} for said in (" a \n", "", parts[0]["content"])]
    few = dialogue([*few, {"role": "user", "content": "b"}], ("role",), ("content",), 1, "chat")
    assert few is not None and few.system == "a\n\n\U0001f642" + "a" * 30


def test_conversations_keep_the_turns_of_the_user_and_of_the_system():
    share = {"conversations": [{"from": "gpt", "value": "Hi!"}, {"from": "human", "value": "One"}, {"from": "gpt", "value": "1"},
                               {"from": "human", "value": "Two"}]}  # fmt: skip
    assert read_prompts(lines(share), "s.jsonl") == [Prompt("One", "ShareGPT", turns=("One", "Two"))]
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": None},
    ]
    brief = Prompt("Why?", "chat", turns=("Why?",), system="Be brief.")
    assert read_prompts(lines({"messages": said}, {"prompt": said}), "m.jsonl") == [brief, brief]


def test_instructions_have_the_form_of_alpaca_and_a_turn():
    with_input, alone = read_prompts(
        lines({"instruction": "Sum up.", "input": "A text"}, {"instruction": "Go", "input": ""}), "a.jsonl"
    )
    assert with_input.turns == ("Sum up.\n\nA text",) and with_input.domain == "instructions"
    assert with_input.text.endswith("### Instruction:\nSum up.\n\n### Input:\nA text\n\n### Response:\n")
    assert alone.turns == ("Go",) and "Input" not in alone.text and "paired with an input" not in alone.text


PACKED = gzip.compress(b'{"text": "a", "category": "x"}\r\n{"text": "b"}\r\n', mtime=0)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b'\xef\xbb\xbf[{"text": "a"},\n {"text": "b"}]', "x.json"),
        (b'[\r\n  {\r\n "text": "a"\r\n },{"text":"b"}\r\n]\r\n', "X.JSON"),
        (b'{"text": "a"}\n{"text": "b"}', "x.json"),
        (b'{"text": "a"}\r\n\r\n{"text": "b"}\r\n', "x.JsonL"),
        (PACKED, "x.jsonl.gz"),
        (PACKED, "X.JSONL.GZ"),
        (PACKED, "x.jsonl"),
        (b"\xef\xbb\xbftext,category\r\na,x\r\nb,y\r\n", "x.csv"),
        (b'"Text";"category"\n"a";x\n\n"b";y', "x.CSV"),
        (b"id\ttext\n1\ta\n2\tb", "x.tsv"),
        (gzip.compress(b"text\na\nb\n", mtime=0), "x.csv.gz"),
        (b"\xef\xbb\xbfa\r\n\r\nb", "x.TXT"),
    ],
)
def test_every_way_of_writing_a_file_gives_the_same_prompts(data, name):
    assert [p.text for p in read_prompts(data, name)] == ["a", "b"]


def test_fields_of_a_table_may_hold_lines_and_commas():
    table = b'instruction,input,category\n"Add, please.","1\n2",sums\n'
    assert [(p.turns, p.domain) for p in read_prompts(table, "t.csv")] == [(("Add, please.\n\n1\n2",), "sums")]


def test_at_most_so_many_are_spread_over_the_domains():
    found = [Prompt(f"{domain}{n}", domain) for domain in "ab" for n in range(5)] + [Prompt("c0", "c")]
    assert [p.text for p in spread(found, 4)] == ["a0", "a1", "b0", "c0"]
    assert set(spread(found, 4)) < set(spread(found, 7)) and spread(found, 0) == spread(found, 99) == tuple(found)


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
        (b'{"turns": ["a", 3]}', "x.jsonl", "it has turns"),
        (b'{"turns": ["a", " "]}', "x.jsonl", "Prompt 1 is empty"),
        (b'{"text": "a"}\n{"conversations": [{"from": "gpt", "value": "a"}]}', "x.jsonl", "Line 2 has no turn of a user"),
        (b'{"messages": [{"role": "tool", "content": "a"}]}', "x.jsonl", "Line 1 has a turn of 'tool'"),
        (b'{"messages": ["a"]}', "x.jsonl", "Line 1 has a turn that is a str"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "x.jsonl", "Line 1 has a turn of the user whose content is no text"),
        (b'[{"text": "a"},\n\n{"id": 3}]', "x.json", "Line 3 has no turns"),
        (b'[{"text": "a"},\n{"text": "b"', "x.json", "Line 2 is not JSON"),
        (b'[{"text": "a"}\n{"text": "b"}]', "x.json", "Line 2 is not JSON: a comma"),
        (b'[{"text": "a"}]\n[]', "x.json", "is not JSON: something follows"),
        (b"[" * 100_000, "x.json", "Line 1 is not JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "x.jsonl", "Line 1 is not JSON"),
        (b"text,category\na,x\nb", "x.csv", "Line 3 has another number of fields"),
        (b'text\n"a\nb', "x.csv", "is not CSV"),
        (b"," * 10**6, "x.csv", "names 1,000,001 columns; at most 100"),
        (b"name,age\nTom,3", "x.csv", "Line 2 has no turns, .* it has name, age"),
        (b"text\n" + b"a" * 200_000, "x.csv", "is not CSV"),
        (PACKED[:-4], "x.jsonl.gz", "is cut short"),
        (PACKED[:10] + b"#" + PACKED[11:], "x.jsonl.gz", "is damaged"),
        (b'{"text": " "}', "x.jsonl", "Prompt 1 is empty"),
        (b"a" * 30_000, "x.txt", "at most 20,000"),
    ],
)
def test_files_that_cannot_be_understood_are_refused_with_a_sentence(data, name, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_prompts(data, name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.txt", b"aa\n" * 10**6),
        ("x.txt", b"a\n\n" * 10**6),
        ("x.csv", b"prompt\n" + b"aa\n" * 10**6),
        ("x.jsonl", b'{"text":"a"}\n' * 10**6),
        ("x.json", b"[" + b'{"text":"a"},' * 10**6 + b"{}]"),
    ],
)
def test_no_more_is_made_of_a_file_than_the_prompts_that_are_read(name, data, monkeypatch):
    """Millions of short ones would fill the memory before anybody counts them."""
    made = []
    monkeypatch.setattr(prompts, "checked", lambda text, number: made.append(number) or text)
    with pytest.raises(ValueError, match="holds more prompts than are read: at most 10,000"):
        read_prompts(data, name)
    assert len(made) == prompts.MAX_PROMPTS + 1


def test_sizes_are_capped(monkeypatch):
    monkeypatch.setattr(prompts, "MAX_FILE", 10)
    with pytest.raises(ValueError, match="at most 10"):
        read_prompts(b"a" * 11, "x.txt")
    monkeypatch.setattr(prompts, "MAX_UNPACKED", 1000)
    monkeypatch.setattr(prompts, "MAX_FILE", 100)
    with pytest.raises(ValueError, match="unpacks to more than 1,000"):
        read_prompts(gzip.compress(b"a" * 1001, mtime=0), "x.txt.gz")
    monkeypatch.setattr(prompts, "MAX_TURNS", 2)
    with pytest.raises(ValueError, match="Line 1 has 3 turns of a user; at most 2"):
        read_prompts(lines({"turns": ["a"] * 3}), "x.jsonl")
    monkeypatch.setattr(prompts, "MAX_PROMPTS", 2)
    with pytest.raises(ValueError, match="at most 2"):
        read_prompts(b"a\nb\nc", "x.txt")
