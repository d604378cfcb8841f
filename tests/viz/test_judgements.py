"""The table of judged tokens: what a line knows, classes, filters, and every view made from it at its edges."""

import io
import json

import msgspec
import numpy as np
import pandas as pd
import pytest

from tests.viz_samples import FRAME, HOSTILE, TOKEN_BYTES, TREES, Titles, chain, node, recorded, runs, small_tree, step_of, trace_of
from viz.drafter.acceptance import BY, acceptance_alt, acceptance_figure, acceptance_table
from viz.drafter.heat import heat_strip, heat_table
from viz.drafter.judgements import CLASSES, COLUMNS, checksum, costs, filtered, judgements, per_prompt, positions, token_class
from viz.drafter.pairs import disagreements
from viz.drafter.rejections import alarms, expensive
from viz.drafter.reliability import calibration_error, excluded, reliability_alt, reliability_figure

# --- The table


def test_one_line_per_judged_token():
    assert list(FRAME.columns) == COLUMNS
    assert FRAME["accepted"].tolist() == [True, False] * 2
    assert FRAME["position"].tolist() == [0, 1, 2, 3] and FRAME["step"].tolist() == [0, 0, 1, 1]
    assert len(TREES) == 4 + 5 + 5  # the not judged ones are not in it


def test_a_line_knows_both_sides():
    line = FRAME.iloc[1]
    assert (line["token"], line["wanted"], line["wanted p"], line["committed"]) == ("␣little", "␣sat", 0.8, "␣sat")
    assert line["context"] == "␣the␣little␣the"  # the prompt, then the accepted token
    assert line["tv"] == pytest.approx(0.7) and line["kl"] == 1.5 and line["entropy"] == 1.0
    assert (line["trace"], line["node"], line["depth"], line["domain"]) == (100, 1, 2, "stories")


def test_confidence_is_what_the_drafter_believed_there():
    """The row's q, which a greedy run shows at temperature 1; q itself is what was judged with."""
    assert FRAME["confidence"].tolist()[:2] == [0.9, 0.9] and FRAME["q"].tolist()[:2] == [0.5, 0.6]
    assert TREES["confidence"].tolist() == TREES["q"].tolist()  # no rows were recorded


def test_chosen_tokens_have_no_q():
    frame = judgements(runs(trace_of(step_of([node(0, q=None, u=None)], (0,), "bonus"))))
    assert frame["q"].isna().all() and frame["confidence"].isna().all() and frame["u"].isna().all()


def test_cost_is_what_the_step_could_still_have_brought():
    assert costs(chain(3)) == [0, 0, 0, 2, 0]  # the fourth of five: itself and the one behind it
    assert costs(chain(5)) == [0] * 5
    tree = small_tree()
    assert costs(tree)[0] == 0  # rejected, but its sibling brought two tokens
    assert costs(tree)[5:7] == [2, 1]  # the walk ended here; one has another behind it


def test_what_stands_behind_the_end_of_the_text_is_left_out():
    cut = msgspec.structs.replace(chain(5), tokens=(0, 1), origins=("accepted", "accepted"), path=(0, 1), ending="token limit")
    assert judgements(runs(trace_of(cut)))["position"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("piece", "before", "found"),
    [
        (b" cat", "The", "word start"),
        (b"The", "", "word start"),
        (b"The", ". ", "word start"),
        (b"The", '"', "word start"),
        (b"ing", "play", "inside a word"),
        (b"t", "don'", "inside a word"),
        (b"t", "'", "word start"),
        ("é".encode(), "caf", "inside a word"),
        (b"7", "1", "digit"),
        (b" 12", "a", "digit"),
        (b".", "end", "punctuation"),
        (b' "', "said", "punctuation"),
        (b"_", " ", "punctuation"),
        (b"\n\n", "end.", "whitespace"),
        (b"    ", ":\n", "whitespace"),
        (b"_file", "read", "identifier"),
        (b"file", "read_", "identifier"),
        (b"3", "x", "identifier"),
        (b"Case", "camel", "identifier"),
        (b" my_var", "=", "identifier"),
        (b"\xc3", "", "other"),
        (b"", "a", "other"),
    ],
)
def test_token_classes(piece, before, found):
    assert token_class(piece, before) == found
    assert found in CLASSES


def test_checksum_goes_on():
    assert checksum([1, 2, 3]) == checksum([3], checksum([1, 2])) != checksum([12, 3])


def test_positions_have_a_line_per_committed_token():
    frame = positions(runs(trace_of(recorded(), step_of())))
    assert frame["tv"].round(3).tolist()[:2] == [0.2, 0.7] and frame["kl"].tolist()[:2] == [0.2, 1.5]
    assert frame["tv"].isna().tolist() == [False, False, True]
    assert frame["origin"].tolist() == ["accepted", "correction", "plain"]


def test_per_prompt_sums():
    table = per_prompt(runs(trace_of(chain(3)), trace_of()))
    assert table["tau"].tolist()[0] == 4 and np.isnan(table["tau"].tolist()[1])


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 14),
        ({"depth": (1, 1)}, 1 + 2 + 1),
        ({"domains": ["code"]}, 0),
        ({"domains": []}, 0),
        ({"classes": ["word start"]}, 14),
        ({"classes": ["digit"]}, 0),
        ({"depth": (1, 1), "classes": ["word start"]}, 1 + 2 + 1),
    ],
)
def test_filters(filters, count):
    assert len(filtered(TREES, **filters)) == count


def test_filters_pass_over_columns_a_frame_has_not():
    frame = positions(runs(trace_of(chain(3))))
    assert len(filtered(frame, depth=(9, 9), classes=[], domains=["stories"])) == 4


# --- Edges, of all views


@pytest.mark.parametrize("empty", [judgements([]), FRAME[FRAME["depth"] > 9]])
def test_nothing_gives_a_sentence(empty):
    for by in BY:
        assert acceptance_figure(empty, by).layout.annotations[0].text == "No drafted token was judged here."
        assert acceptance_figure({"a": empty, "b": empty}, by).layout.annotations
        assert acceptance_table({"a": empty, "b": empty}, by).empty
        assert "nothing judged" in acceptance_alt(empty, by)
    assert reliability_figure(empty).layout.annotations and calibration_error(empty) is None
    assert expensive(empty).empty and disagreements(empty, FRAME).empty and filtered(empty, depth=(1, 2)).empty
    assert excluded(empty) == "" and "no drafted probabilities" in reliability_alt(empty)


def test_no_run_gives_empty_tables():
    assert positions([]).empty and per_prompt([]).empty and alarms([]) == []
    assert "No token was committed yet." in heat_strip(trace_of()) and heat_table(trace_of()).empty
    assert acceptance_figure({}, "depth").layout.annotations


def test_tables_can_be_written():
    """One type per column, also without a line: Parquet asks for it."""
    for frame in (FRAME, judgements([]), positions(runs(trace_of(recorded())))):
        assert not [name for name in frame if frame[name].dtype == object and name in ("p", "q", "prompt", "accepted")]
        assert len(pd.read_csv(io.StringIO(frame.to_csv(index=False)))) == len(frame)


@pytest.mark.parametrize("dark", [False, True])
def test_no_token_and_no_domain_becomes_markup(dark):
    steps = [step_of([node(token, -1, "rejected", source="<i>x</i>")], (), "correction", final_token=token) for token in HOSTILE]
    trace = trace_of(*steps, token_bytes=TOKEN_BYTES | HOSTILE, prompt_tokens=tuple(HOSTILE))
    frame = judgements([(0, 1, "<script>alert(1)</script> $x$", trace)])
    for by in BY:
        for frames in (frame, {"<b>a</b>": frame, "b": frame}):
            drawn = json.dumps(acceptance_figure(frames, by, dark).to_plotly_json(), default=list, ensure_ascii=False)
            assert not [bad for bad in ("<script", "<b>a", "<i>", "$x$") if bad in drawn]
    html = heat_strip(trace)
    assert Titles(html).tags <= {"div", "span", "br", "wbr"}
    assert len(disagreements(frame, frame)) == 0
