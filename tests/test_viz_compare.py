"""Several runs side by side: numbers, lines, where texts part, strips, sweeps."""

import json
from math import log

import msgspec
import pandas as pd
import pytest
from viz_samples import HOSTILE, PIECES, chain, node, row, step_of, trace_of

from decoding.trace import SamplingData, Times
from viz.compare import (
    LINES,
    PLAIN,
    align,
    aligned_alt,
    aligned_figure,
    alpha_by_depth_alt,
    alpha_by_depth_figure,
    alpha_by_depth_table,
    committed,
    comparison_table,
    difference_sentence,
    difference_table,
    duration,
    exactness_table,
    first_difference,
    incomparable,
    progress_alt,
    progress_figure,
    progress_table,
    reference,
    styles,
    sweep_alt,
    sweep_figure,
    sweep_table,
    time_split_alt,
    time_split_figure,
    time_split_table,
    until,
)

GREEDY = SamplingData(temperature=0.0, top_k=0, top_p=1.0)


def run(*steps, method="speculative_sampling", pieces=None, **more):
    trace = trace_of(*steps, pieces=pieces)
    return msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, method=method, **more))


def one_token(token, p, **more):
    """A plain step that commits a token, with the target's distribution."""
    return step_of(final_token=token, rows=(row((token, 1 - token), p),), **more)


PLAINLY = run(*[step_of(final_token=t) for t in (0, 1, 2, 3)], method="plain")
DRAFTED = run(chain(3), chain(5))
RUNS = [("Plain", PLAINLY), ("Chain", DRAFTED)]


# --- Numbers and lines


def test_table_adds_up_each_run():
    table = comparison_table(RUNS).set_index("run")
    assert table.loc["Chain", ["tokens", "target calls", "drafter calls", "drafted", "wasted"]].tolist() == [
        10,
        2,
        10,
        10,
        2,
    ]
    assert table.loc["Chain", "tau"] == 5 and table.loc["Chain", "alpha"] == pytest.approx(8 / 9)
    assert table.loc["Chain", "total (ms)"] == pytest.approx(15.5)


def test_measured_speedup_is_the_ratio_of_tokens_per_second():
    table = comparison_table(RUNS).set_index("run")
    assert table.loc["Chain", "measured speed-up"] == pytest.approx((10 / 15.5) / (4 / 31))
    assert table.loc["Plain", "measured speed-up"] == pytest.approx(1)


@pytest.mark.parametrize(
    "other",
    [
        {"method": "jacobi"},
        {"prompt_tokens": (5,)},
        {"family": "another"},
        {"device": "cuda"},
        {"dtype": "float16"},
        {"versions": {"torch": "0"}},
        {"sampling": GREEDY},
    ],
)
def test_without_a_plain_run_of_the_same_work_there_is_no_measured_speedup(other):
    """Never estimated: another machine, prompt or precision is no baseline."""
    plain = run(*PLAINLY.steps, **({"method": "plain"} | other))
    assert pd.isna(comparison_table([("Base", plain), ("Chain", DRAFTED)]).loc[1, "measured speed-up"])


def test_modelled_speedup_follows_from_c_for_all_or_by_name():
    assert comparison_table(RUNS)["modelled speed-up"].isna().all()
    assert comparison_table(RUNS, c=0.1).loc[1, "modelled speed-up"] == pytest.approx(5 / 1.5)
    assert comparison_table(RUNS, c={"Chain": 0.2}).loc[1, "modelled speed-up"] == pytest.approx(2.5)


def test_plain_is_neutral_and_every_line_has_its_own_dash_and_marker():
    six = [("plain", PLAINLY)] + [(str(i), DRAFTED) for i in range(5)]
    looks = styles(six)
    assert looks[0] == PLAIN and looks[1] == LINES[0]
    assert len({look[0] for look in looks}) == len({look[1:] for look in looks}) == 6
    assert [len(styles([("x", DRAFTED)] * n)) for n in (0, 6, 20)] == [0, 6, 20]


def test_progress_counts_tokens_after_each_step():
    figure = progress_figure(RUNS)
    assert [list(line.y) for line in figure.data] == [[0, 1, 2, 3, 4], [0, 4, 10]]
    assert [list(line.x) for line in progress_figure(RUNS, "time").data][1] == [0, 7.75, 15.5]
    assert progress_alt(RUNS).endswith("Plain: 4 tokens after 4 target calls; Chain: 10 tokens after 2 target calls.")
    assert "after 16 ms" in progress_alt(RUNS, "time")
    assert progress_table(RUNS)["tokens"].tolist() == [0, 1, 2, 3, 4, 0, 4, 10]


@pytest.mark.parametrize(("ms", "steps"), [(-1, 0), (0, 0), (7.7, 0), (7.75, 1), (15, 1), (15.5, 2), (1e9, 2)])
def test_until_counts_finished_steps(ms, steps):
    assert until(DRAFTED, ms) == steps


def test_duration_is_what_until_runs_to():
    assert until(DRAFTED, duration(DRAFTED)) == 2 and duration(trace_of()) == 0


def test_time_split_per_run_and_per_token():
    assert time_split_table(RUNS)["read (ms)"].tolist() == [20, 10]
    assert time_split_table(RUNS, "token")["read (ms)"].tolist() == [5, 1]
    figure = time_split_figure(RUNS)
    assert [bar.name for bar in figure.data] == ["propose", "read", "accept", "commit"]
    assert len({bar.marker.pattern.shape for bar in figure.data}) == 4
    assert "Chain 15.5 ms (propose 4.0, read 10.0" in time_split_alt(RUNS)


def test_alpha_by_depth_has_a_line_for_each_run_that_drafted():
    figure = alpha_by_depth_figure(RUNS)
    assert [line.name for line in figure.data] == ["Chain"]
    assert list(figure.data[0].y) == [1, 1, 1, 0.5, 1]
    assert alpha_by_depth_table(RUNS)["judged"].tolist() == [2, 2, 2, 2, 1]
    assert "Chain: 2 of 2 at depth 1" in alpha_by_depth_alt(RUNS)


# --- Where texts part


def test_committed_names_the_row_that_decided_each_token():
    rows = tuple(row((i,), (1.0,)) for i in range(4))
    nodes = [node(4), node(5, -1, "rejected"), node(6, 0)]
    step = step_of(nodes, (0, 2), "bonus", rows=rows)
    assert [at.row.tokens[0] for at in committed(run(step))] == [0, 1, 3]
    assert [at.row for at in committed(run(chain()))] == [None] * 4


def same_text(p, dtype="float32"):
    """Two greedy runs that part at their second token."""
    one = run(one_token(0, (0.9, 0.1)), one_token(0, p), sampling=GREEDY, dtype=dtype)
    other = run(one_token(0, (0.9, 0.1)), one_token(1, p), sampling=GREEDY, dtype=dtype)
    return one, other


def test_texts_that_agree_are_exact_as_far_as_both_go():
    longer = run(*PLAINLY.steps, *PLAINLY.steps, sampling=GREEDY)
    shorter = run(*PLAINLY.steps, sampling=GREEDY)
    assert first_difference(longer, shorter) is None
    assert difference_sentence(("a", longer), ("b", shorter)) == "b is exact: the first 4 tokens are those of a."


@pytest.mark.parametrize(
    ("p", "dtype", "verdict"),
    [
        ((0.5001, 0.4999), "float32", "near-tie"),
        ((0.52, 0.48), "float32", "mismatch"),
        ((0.52, 0.48), "bfloat16", "near-tie"),
        ((0.9, 0.1), "bfloat16", "mismatch"),
        ((1.0, 0.0), "float16", "mismatch"),
    ],
)
def test_near_tie_or_mismatch_goes_by_the_gap_and_the_precision(p, dtype, verdict):
    found = first_difference(*same_text(p, dtype))
    assert (found.position, found.tokens, found.steps, found.verdict) == (1, (0, 1), (1, 1), verdict)
    if p[1]:
        assert found.gaps[0] == pytest.approx(log(p[0]) - log(p[1]))


def test_a_third_token_is_no_near_tie():
    """The best two are tied, but the other run took neither."""
    tie = (row((0, 1, 2), (0.4, 0.4, 0.2)),)
    one = run(step_of(final_token=0, rows=tie), sampling=GREEDY)
    other = run(step_of(final_token=2, rows=tie), sampling=GREEDY)
    assert first_difference(one, other).verdict == "mismatch"


def test_without_recorded_rows_nothing_is_claimed():
    one, other = run(step_of(final_token=0), sampling=GREEDY), run(step_of(final_token=1), sampling=GREEDY)
    assert first_difference(one, other).verdict == "unknown"
    assert "not recorded" in difference_sentence(("a", one), ("b", other))


def test_sentences_carry_the_numbers():
    tie, real = (same_text(p) for p in ((0.5001, 0.4999), (0.9, 0.1)))
    said = difference_sentence(("Plain", tie[0]), ("Chain", tie[1]))
    assert said.startswith("Token 2 is the first that differs: Plain has ␣the, Chain has ␣little. A near-tie")
    assert "0.0004" in said and "0.001" in said
    assert "A mismatch: for the target the two are 2.20 apart" in difference_sentence(("a", real[0]), ("b", real[1]))


def test_what_cannot_be_compared_says_why():
    greedy = run(*PLAINLY.steps, sampling=GREEDY)
    assert incomparable(greedy, greedy) == ""
    assert "random" in incomparable(greedy, PLAINLY)
    assert "prompts" in incomparable(greedy, run(prompt_tokens=(9,), sampling=GREEDY))
    assert "families" in incomparable(greedy, run(family="x", sampling=GREEDY))
    assert "cannot be compared" in difference_sentence(("a", greedy), ("b", PLAINLY))


def test_exactness_is_held_against_plain_decoding():
    one, other = same_text((0.5001, 0.4999))
    plain = run(*one.steps, method="plain", sampling=GREEDY)
    table = exactness_table([("Other", other), ("Plain", plain), ("One", one)])
    assert table[["run", "verdict"]].values.tolist() == [["Other", "near-tie"], ["One", "exact"]]
    assert table["token"].tolist()[0] == 2
    assert reference([("x", one)]) == 0


def test_both_distributions_stand_side_by_side():
    one, other = same_text((0.6, 0.4))
    table = difference_table(first_difference(one, other), PIECES)
    assert table.values.tolist() == [["␣the", 0, 0.6, 0.4, "first run"], ["␣little", 1, 0.4, 0.6, "second run"]]


# --- Strips


def test_align_says_which_step_brought_each_token():
    table = align([("Chain", DRAFTED)])
    assert table["position"].tolist() == list(range(1, 11))
    assert table["step"].tolist() == [1] * 4 + [2] * 6
    assert table["origin"].tolist()[3:5] == ["correction", "accepted"]


def test_strip_has_a_cell_for_each_token_and_marks_where_texts_part():
    figure = aligned_figure(RUNS)
    cells = next(trace for trace in figure.data if trace.name == "tokens")
    assert len(cells.x) == 14 and list(cells.customdata[4]) == [1, 0]
    assert any("≠ differs from Plain" in (trace.name or "") for trace in figure.data)
    assert "Chain: 10 tokens in 2 steps, differs from Plain at token 4" in aligned_alt(RUNS)


def test_blocks_of_a_step_stand_apart_from_the_next():
    figure = aligned_figure([("Chain", DRAFTED)])
    accepted = next(trace for trace in figure.data if "accepted" in (trace.name or ""))
    edges = [x for x in accepted.x if x is not None]
    assert edges[0] == pytest.approx(0.6) and edges[5] == pytest.approx(1.5)  # a gap before the step, none inside


def test_the_window_cuts():
    cells = next(
        trace for trace in aligned_figure([("Chain", DRAFTED)], start=4, count=3).data if trace.name == "tokens"
    )
    assert list(cells.x) == [5, 6, 7]
    assert aligned_figure(RUNS, start=99).layout.annotations[0].text == "No token was committed here yet."


# --- Sweeps


def test_sweep_adds_up_equal_values_and_stars_the_best():
    points = [(5, run(chain(5))), (2, run(step_of())), (5, run(chain(3)))]
    table = sweep_table(points, "length", c=0.1)
    assert table["length"].tolist() == [2, 5] and table["tau"].tolist() == [1, 5]
    assert table["modelled speed-up"].tolist() == pytest.approx([1, 5 / 1.5])
    assert table["best"].tolist() == [False, True]
    assert sweep_alt(points, "length", 0.1).endswith("Best: 5 with 3.33.")


def test_the_best_moves_with_the_cost():
    points = [(1, run(step_of([node(0)], (0,), "bonus"))), (5, run(chain(5)))]
    assert sweep_table(points, c=0)["best"].tolist() == [False, True]
    assert sweep_table(points, c=10)["best"].tolist() == [True, False]


def test_sweep_draws_numbers_as_lines_and_words_as_points():
    numbers = sweep_figure([(2, run(chain(2))), (4, run(chain(4)))], "length")
    words = sweep_figure([("a", run(chain(2))), (True, run(chain(4)))], "kind")
    assert [line.mode for line in numbers.data] == ["lines+markers"] * 2
    assert [line.mode for line in words.data] == ["markers"] * 2
    assert [list(line.marker.symbol).count("star") for line in numbers.data] == [1, 1]


# --- Edges


def figures(runs, dark=False):
    yield progress_figure(runs, "calls", dark)
    yield progress_figure(runs, "time", dark)
    yield time_split_figure(runs, "token", dark)
    yield alpha_by_depth_figure(runs, dark)
    yield aligned_figure(runs, dark=dark)
    yield aligned_figure(runs, count=8, dark=dark)
    yield sweep_figure([(label, trace) for label, trace in runs], "<b>", 0.1, dark)


@pytest.mark.parametrize("runs", [[], [("Nothing yet", trace_of())]])
def test_nothing_gives_a_sentence(runs):
    for figure in figures(runs):
        assert len(figure.data) == 0 and figure.layout.annotations[0].text.endswith("yet.")
    for alt in (progress_alt, time_split_alt, alpha_by_depth_alt, aligned_alt):
        assert alt(runs).endswith("yet.")
    assert len(comparison_table(runs, 0.1)) == len(runs)
    assert align(runs).empty and exactness_table(runs).empty and sweep_table(runs).empty


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_a_token_or_a_name_says_becomes_markup(dark):
    nodes = [node(token, -1, "rejected") for token in HOSTILE]
    steps = [step_of(nodes, (), "correction", final_token=token) for token in HOSTILE]
    runs = [("<script>x</script>", run(*steps, pieces=HOSTILE)), ("$x$ %{text}", run(*steps[1:], pieces=HOSTILE))]
    for figure in figures(runs, dark):
        drawn = json.dumps(figure.to_plotly_json(), default=list, ensure_ascii=False)
        for bad in ("<script", "<b>bold", "<a href", "$x$"):
            assert bad not in drawn
        assert not any("%{text}" in (trace.hovertemplate or "") for trace in figure.data)


def test_times_of_zero_divide_nothing():
    still = run(step_of(times=Times(0, 0, 0, 0)), method="plain")
    assert pd.isna(comparison_table([("x", still)]).loc[0, "measured speed-up"])
    assert time_split_figure([("x", still)]).data


def test_inputs_may_be_a_mapping():
    assert comparison_table(dict(RUNS))["run"].tolist() == ["Plain", "Chain"]
    assert first_difference(PLAINLY, DRAFTED).position == 3
