"""The evaluation: real runs, resumed where they stopped, and a table whose numbers can be recounted."""

import json

import pytest

from decoding.methods import METHODS, s2d
from decoding.models.family import load
from decoding.runs import evaluate as program
from decoding.runs.evaluate import Result, append, evaluate, known, read, table
from tests import toys


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(program, "PROMPTS", {"stories": ("Once upon a time",), "python": ("import os\n",)})


def test_runs_are_real_and_not_made_twice(short, tmp_path):
    rows = tmp_path / "evaluation.csv"
    family = load()
    evaluate(family, ["plain"], 6, rows)
    first = read(rows)
    assert {row.key for row in first} == {("plain", t, d, 0) for t in (0.0, 1.0) for d in ("stories", "python")}
    assert all(row.tokens == row.target_calls == 6 and row.drafted == 0 for row in first)
    evaluate(family, ["plain", "prompt_lookup"], 6, rows)
    assert read(rows)[:4] == first and len(read(rows)) == 8


def test_a_run_that_breaks_is_told_and_tried_again(short, tmp_path, monkeypatch, capsys):
    """The others are made; nothing of it stands in the table."""
    rows, real = tmp_path / "evaluation.csv", program.measured

    def breaks(family, key, *rest):
        if key[2] == "python":
            raise IndexError("list index out of range")
        return real(family, key, *rest)

    monkeypatch.setattr(program, "measured", breaks)
    program.main(["--out", str(tmp_path), "--methods", "plain", "--tokens", "4"])
    said = capsys.readouterr().err
    assert "Without a result: 2 runs" in said and "plain, T = 1, python 1: The step failed: IndexError: list index" in said
    assert {row.domain for row in read(rows)} == {"stories"}
    monkeypatch.setattr(program, "measured", real)
    assert evaluate(load(), ["plain"], 4, rows) == {} and len(read(rows)) == 4


def test_half_a_line_is_run_again(short, tmp_path):
    rows = tmp_path / "evaluation.csv"
    append(rows, Result("plain", 0.0, "stories", 0, 6, 6, 0, 0, 0, 0.5, 2.5))
    with rows.open("a") as file:
        file.write("plain,1.0,sto\n")
    assert len(read(rows)) == 1


def test_the_table_adds_up():
    rows = [Result("prompt_lookup", t, "stories", n, 30, 10, 50, 20, 0, 5.0, 9.0) for t in (0.0, 1.0) for n in (0, 1)]
    line = table(rows, {"prompt_lookup": 1_250_000}).splitlines()[2]
    assert line.split("|")[2:4] == [" 3.00 ", " 3.00 "]
    assert line.endswith("| 5.0 | 60 % | 0.0 | 0.5 | 1,250,000 | 2.5 |")


def test_speed_ups_are_of_the_same_prompt():
    """Plain decoding: 30 tokens in 30 calls, 8 ms each. The other: 10 calls in 120 ms, 20 of them drafting. One prompt is slow."""
    rows = [Result("plain", 0.0, "stories", n, 30, 30, 0, 0, 0, 0.0, 240.0 * (1 + 9 * (n == 1))) for n in range(3)]
    rows += [Result("prompt_lookup", 0.0, "stories", n, 30, 10, 50, 20, 0, 20.0, 120.0) for n in range(3)]
    first, second = table(rows, {"plain": 0, "prompt_lookup": 0, "medusa": 9}).splitlines()[2:]
    assert first.split("|")[5:7] == [" 1.00 ", " 1.00 "]
    assert second.split("|")[5:7] == [" 2.00 ", " 2.40 "]  # 240 / 120 and 240 / (80 + 20)
    assert "measured" not in table(rows[3:], {"prompt_lookup": 0})


def test_trained_parameters_are_those_of_the_models_and_heads(embedded):
    draft = embedded.draft.model.num_parameters()
    assert METHODS["plain"].parameters(embedded) == 0 and METHODS["dyspec"].parameters(embedded) == draft
    assert METHODS["medusa"].parameters(embedded) == 4 * (256 * 256 + 256 + 256 * 4096)
    assert METHODS["specdec_pp"].parameters(embedded) > draft
    assert METHODS["s2d"].parameters(embedded) == s2d.find(embedded).model.num_parameters() != draft


def test_an_unknown_method_is_refused():
    with pytest.raises(Exception, match="no method 'magic'"):
        known("plain,magic")


# -- chat ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chatter(tmp_path_factory):
    """A folder with a random model that has a chat template."""
    folder = tmp_path_factory.mktemp("chatter")
    toys.save(folder, toys.causal_lm("llama", vocab_size=toys.VOCAB + len(toys.MARKS)), toys.chatting())
    return str(folder)


SPEC_BENCH = [
    {"category": "writing", "turns": ["the cat", "the dog"]},
    {"category": "writing", "turns": ["a log"]},
    {"category": "coding", "turns": ["a mat", "word " * 300]},
]


def evaluated(tmp_path, chatter, *more: str) -> list[Result]:
    file = tmp_path / "spec_bench.jsonl"
    file.write_text("\n".join(map(json.dumps, SPEC_BENCH)))
    program.main(
        ["--family", chatter, "--methods", "plain", "--tokens", "3", "--prompts", str(file), "--out", str(tmp_path), *more]
    )
    return read(tmp_path / "evaluation.csv")


def test_a_model_with_a_template_is_asked_turn_by_turn(chatter, tmp_path, capsys):
    rows = evaluated(tmp_path, chatter, "--template", "loud=true")
    assert {row.domain: row.tokens for row in rows if row.prompt == 0} == {"chat: writing": 6}
    assert {row.tokens for row in rows if row.prompt == 1} == {3}
    out, err = capsys.readouterr()
    assert "| chat: writing, T = 0 |" in out and "plain, T = 0, chat: coding 1: The prompt has " in err


def test_what_would_be_passed_over_is_refused(chatter, tmp_path):
    """Some of the fixed prompts, and options of a template that nobody fills in."""
    common = ["--family", chatter, "--methods", "plain", "--out", str(tmp_path)]
    plain = ["--plain", "--template", "loud=true"]
    for more, why in ((["--most", "3"], "--most 3 takes prompts of a file"), (plain, "Only a chat")):
        with pytest.raises(SystemExit, match=why):
            program.main([*common, *more])


def test_the_same_prompts_as_plain_text(chatter, tmp_path, capsys):
    rows = evaluated(tmp_path, chatter, "--plain", "--most", "2", "--draft", chatter)
    assert {(row.domain, row.prompt, row.tokens) for row in rows} == {("writing", 0, 3), ("coding", 0, 3)}
    assert "Left out: the further turns of 2 prompts" in capsys.readouterr().err


def test_chat_needs_a_template(tmp_path):
    with pytest.raises(SystemExit, match="has no chat template; leave out --chat"):
        program.main(["--chat", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="written NAME=VALUE"):
        program.main(["--template", "loud", "--out", str(tmp_path)])


def test_the_fixed_prompts_of_both_forms_are_eight_of_each_kind():
    for chat in (False, True):
        assert [len(prompts) for prompts in program.fixed(chat).values()] == [8, 8, 8]
    assert not set(program.fixed(True)) & set(program.fixed(False))
