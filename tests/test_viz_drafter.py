"""What a drafter gets wrong: the table of judged tokens, what is drawn from it, two drafters."""

import io
import json
from html.parser import HTMLParser

import msgspec
import numpy as np
import pandas as pd
import pytest
from viz_samples import HOSTILE, PIECES, chain, node, small_tree, step_of, trace_of

from decoding.trace import Row
from viz.drafter import (
    BY,
    CLASSES,
    COLUMNS,
    HOW_TO_READ,
    acceptance,
    acceptance_alt,
    acceptance_figure,
    acceptance_table,
    agreement,
    agreement_sentence,
    alarms,
    bootstrap_sentence,
    calibration_error,
    checksum,
    costs,
    disagreements,
    excluded,
    expensive,
    filtered,
    heat_strip,
    heat_table,
    judgements,
    paired_bootstrap,
    paired_taus,
    per_prompt,
    positions,
    reliability_alt,
    reliability_figure,
    reliability_table,
    token_class,
    wilson,
)


def at(tokens, p, q=None, overlap=None, kl=None, entropy=1.0):
    return Row(tokens, p, q, p, entropy=entropy, overlap=overlap, kl=kl, drawn=None)


def recorded():
    """A chain of two, the second rejected, with distributions."""
    rows = (at((0, 1), (0.7, 0.3), (0.9, 0.1), 0.8, 0.2), at((3, 1), (0.8, 0.2), (0.1, 0.9), 0.3, 1.5), None)
    nodes = [node(0), node(1, 0, "rejected", q=0.6)]
    return step_of(nodes, (0,), "correction", final_token=3, rows=rows)


def runs(*traces, domain="stories"):
    return [(number, 100 + number, domain, trace) for number, trace in enumerate(traces)]


FRAME = judgements(runs(trace_of(recorded(), recorded())))
TREES = judgements(runs(trace_of(chain(3), small_tree()), trace_of(chain(5))))


# --- The table


def test_one_line_per_judged_token():
    assert list(FRAME.columns) == COLUMNS
    assert FRAME["accepted"].tolist() == [True, False] * 2
    assert FRAME["position"].tolist() == [0, 1, 2, 3] and FRAME["step"].tolist() == [0, 0, 1, 1]
    assert len(TREES) == 4 + 5 + 5  # the unread ones are not in it


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


def test_expensive_rejections_come_first():
    table = expensive(TREES, 3)
    assert table["cost"].tolist() == [2, 2, 1]
    assert table[["trace", "step", "node"]].values.tolist()[0] in ([100, 0, 3], [100, 1, 5])


def test_what_stands_behind_the_end_of_the_text_is_left_out():
    cut = msgspec.structs.replace(
        chain(5), tokens=(0, 1), origins=("accepted", "accepted"), path=(0, 1), ending="token limit"
    )
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
        ({"prompts": [1]}, 5),
        ({"domains": ["code"]}, 0),
        ({"accepted": False}, 4),
        ({"position": (0, 0)}, 2),
        ({"classes": ["word start"], "accepted": True}, 10),
        ({"sources": []}, 0),
        ({"text": "␣THE␣little"}, 14),
        ({"text": " the little"}, 14),
        ({"text": "(["}, 0),
    ],
)
def test_filters(filters, count):
    assert len(filtered(TREES, **filters)) == count


def test_filters_pass_over_columns_a_frame_has_not():
    frame = positions(runs(trace_of(chain(3))))
    assert len(filtered(frame, depth=(9, 9), classes=[], domains=["stories"], text="x")) == 4


# --- Figures


def test_wilson_knows_small_numbers():
    assert wilson(0, 0) == (0, 1) and wilson(0, 5)[0] == 0 and wilson(5, 5)[1] == pytest.approx(1)
    low, high = wilson(50, 100)
    assert low == pytest.approx(0.4038, abs=1e-4) and high == pytest.approx(0.5962, abs=1e-4)


def test_acceptance_counts_by_depth():
    table = acceptance(TREES, "depth")
    assert table[["depth", "judged", "accepted"]].values.tolist()[:2] == [["1", 4, 3], ["2", 3, 3]]
    assert (table["low"] <= table["alpha"]).all() and (table["alpha"] <= table["high"] + 1e-9).all()


def test_depths_stand_in_order_of_number():
    frame = judgements(runs(trace_of(chain(12, 12))))
    assert acceptance(frame, "depth")["depth"].tolist() == [str(i) for i in range(1, 13)]


@pytest.mark.parametrize("by", BY)
def test_every_group_has_a_figure_a_table_a_sentence(by):
    assert by in HOW_TO_READ
    figure = acceptance_figure(FRAME, by)
    assert sum(acceptance_table(FRAME, by)["judged"]) == 4
    assert len(figure.data[0].x) == len(acceptance_table(FRAME, by))
    assert "2 of 4" in acceptance_alt(FRAME, by) or by in ("depth", "class", "position")


def test_two_drafters_share_the_places_and_differ_in_pattern():
    longer = judgements(runs(trace_of(chain(7, 7))))
    figure = acceptance_figure({"One": FRAME, "Two": longer}, "depth")
    assert [list(bar.x) for bar in figure.data] == [[0, 1], list(range(7))]
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 2
    assert acceptance_table({"One": FRAME, "Two": longer}, "depth")["drafter"].tolist() == ["One"] * 2 + ["Two"] * 7


def confident(pairs):
    """A frame of chosen confidences and outcomes."""
    frame = pd.concat([FRAME.head(1)] * len(pairs), ignore_index=True)
    return frame.assign(confidence=[c for c, _ in pairs], accepted=[a for _, a in pairs])


def test_calibration_error_weighs_the_bins():
    frame = confident([(0.95, True)] * 3 + [(0.95, False)] + [(0.15, False)] * 4)
    table = reliability_table(frame)
    assert table[["from", "judged", "accepted"]].values.tolist() == [[0.1, 4, 0], [0.9, 4, 3]]
    assert calibration_error(frame) == pytest.approx((0.15 + 0.2) / 2)
    assert "calibration error 0.175" in reliability_alt(frame)
    assert list(reliability_figure(frame).data[1].y) == [0, 0.75]


def test_a_calibrated_drafter_has_no_error_and_one_is_in_the_last_bin():
    assert calibration_error(confident([(1.0, True)] * 5 + [(0.0, False)] * 5)) == 0


def test_chosen_tokens_are_left_out_with_the_reason():
    frame = confident([(0.5, True), (None, True), (None, False)])
    assert excluded(frame).startswith("2 of 3 judged tokens are left out: they were chosen, not drawn")
    assert reliability_table(frame)["judged"].sum() == 1 and excluded(FRAME) == ""
    nothing = reliability_figure(confident([(None, True)]))
    assert "chosen" in nothing.layout.annotations[0].text and len(nothing.data) == 0


class Titles(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.titles = set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.titles += [value for key, value in attrs if key == "title"]


@pytest.mark.parametrize("by", ["tv", "kl", "entropy"])
def test_heat_strip_says_its_numbers(by):
    html = heat_strip(trace_of(recorded(), step_of()), by)
    titles = Titles(html).titles
    assert titles[1] == "␣sat: total variation 0.70, KL(p || q) in bits 1.50, entropy of p in bits 1.00; token 2"
    assert titles[2] == "␣was: nothing recorded; token 3"
    assert html.count("linear-gradient") == 2
    assert heat_table(trace_of(recorded()))["tv"].round(3).tolist() == [0.2, 0.7]


# --- Alarms and two drafters


def test_alarms():
    assert alarms(runs(trace_of(*[chain(3)] * 9))) == []
    assert "0 % accepted: none of 25" in alarms(runs(trace_of(*[chain(0)] * 25)))[0]
    assert "100 % accepted: all of 25" in alarms(runs(trace_of(*[chain(5)] * 5)))[0]
    assert "never drafted anything" in alarms(runs(trace_of(step_of(), step_of())))[0]
    assert "silent in 2 of 3 steps" in alarms(runs(trace_of(step_of(), step_of(), chain(3))))[0]
    assert "cliff at depth 4: none of 20" in alarms(runs(trace_of(*[chain(3)] * 20)))[0]


def guess(token, verdict, final=None):
    path = (0,) if verdict == "accepted" else ()
    step = step_of([node(token, -1, verdict)], path, "bonus" if path else "correction", final_token=8)
    return step if final is None else msgspec.structs.replace(step, tokens=final, origins=("correction",))


def test_disagreements_need_the_same_text_before():
    right = judgements(runs(trace_of(guess(3, "accepted"), guess(4, "accepted"))))
    wrong = judgements(runs(trace_of(guess(5, "rejected", final=(3,)), guess(4, "rejected", final=(8,)))))
    table = disagreements(right, wrong, ("A", "B"))
    assert table["accepted by"].tolist() == ["A"]
    assert table.loc[0, ["tried, A", "tried, B", "position"]].tolist() == ["␣sat", "␣a", 0]
    assert agreement(right, wrong) == {"both": 0, "only a": 1, "only b": 0, "neither": 0}
    assert "only A 1" in agreement_sentence(right, wrong, ("A", "B"))
    elsewhere = judgements(runs(trace_of(guess(5, "rejected"), prompt_tokens=(7, 7))))
    assert disagreements(right, elsewhere).empty
    assert "never judged behind the same text" in agreement_sentence(right, elsewhere)


def test_bootstrap_brackets_the_mean_and_repeats_itself():
    rng = np.random.default_rng(1)
    a = rng.normal(2, 0.5, 60)
    b = a + rng.normal(0.3, 0.1, 60)
    found = paired_bootstrap(a, b, seed=3)
    assert found == paired_bootstrap(a, b, seed=3) and found.prompts == 60
    assert found.low < found.mean < found.high and found.mean == pytest.approx(float(np.mean(b - a)))
    spread = float(np.std(b - a, ddof=1)) / 60**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert "b is better" in bootstrap_sentence(found)
    assert "not told apart" in bootstrap_sentence(paired_bootstrap([1, 2, 3, 4], [2, 1, 4, 3]))
    assert "a is better" in bootstrap_sentence(paired_bootstrap(b, a))


def test_bootstrap_says_what_it_cannot():
    assert bootstrap_sentence(paired_bootstrap([], [])) == "There is no prompt that both drafters have finished."
    assert "1 prompt; with a single prompt" in bootstrap_sentence(paired_bootstrap([1.0], [2.0]))
    with pytest.raises(ValueError, match="2 and 1"):
        paired_bootstrap([1, 2], [1])


def test_taus_are_paired_by_prompt():
    a, b = runs(trace_of(chain(3)), trace_of(chain(5))), runs(trace_of(chain(0)))
    assert paired_taus(a, b) == ([4.0], [1.0])


# --- Edges


@pytest.mark.parametrize("empty", [judgements([]), FRAME[FRAME["depth"] > 9]])
def test_nothing_gives_a_sentence(empty):
    for by in BY:
        assert acceptance_figure(empty, by).layout.annotations[0].text == "No drafted token was judged here."
        assert acceptance_figure({"a": empty, "b": empty}, by).layout.annotations
        assert acceptance_table({"a": empty, "b": empty}, by).empty
        assert "nothing judged" in acceptance_alt(empty, by)
    assert reliability_figure(empty).layout.annotations and calibration_error(empty) is None
    assert expensive(empty).empty and disagreements(empty, FRAME).empty and filtered(empty, text="x").empty
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
    steps = [
        step_of([node(token, -1, "rejected", source="<i>x</i>")], (), "correction", final_token=token)
        for token in HOSTILE
    ]
    trace = trace_of(*steps, pieces=PIECES | HOSTILE, prompt_tokens=tuple(HOSTILE))
    frame = judgements([(0, 1, "<script>alert(1)</script> $x$", trace)])
    for by in BY:
        for frames in (frame, {"<b>a</b>": frame, "b": frame}):
            drawn = json.dumps(acceptance_figure(frames, by, dark).to_plotly_json(), default=list, ensure_ascii=False)
            assert not [bad for bad in ("<script", "<b>a", "<i>", "$x$") if bad in drawn]
    html = heat_strip(trace)
    assert Titles(html).tags <= {"div", "span", "br", "wbr"}
    assert len(disagreements(frame, frame)) == 0
