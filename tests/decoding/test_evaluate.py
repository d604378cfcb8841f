"""The evaluation: real runs, resumed where they stopped, and a table whose numbers can be recounted."""

import pytest

from decoding.methods import METHODS, s2d
from decoding.models.family import load
from decoding.runs import evaluate as program
from decoding.runs.evaluate import Result, append, evaluate, known, read, table


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

    def breaks(family, method, temperature, domain, *rest):
        if domain == "python":
            raise IndexError("list index out of range")
        return real(family, method, temperature, domain, *rest)

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


def test_trained_parameters_are_those_of_the_models_and_heads(embedded):
    draft = embedded.draft.model.num_parameters()
    assert METHODS["plain"].parameters(embedded) == 0 and METHODS["dyspec"].parameters(embedded) == draft
    assert METHODS["medusa"].parameters(embedded) == 4 * (256 * 256 + 256 + 256 * 4096)
    assert METHODS["specdec_pp"].parameters(embedded) > draft
    assert METHODS["s2d"].parameters(embedded) == s2d.find(embedded).model.num_parameters() != draft


def test_an_unknown_method_is_refused():
    with pytest.raises(Exception, match="no method 'magic'"):
        known("plain,magic")
