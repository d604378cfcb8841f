"""Several runs side by side: numbers, lines, times, and every view of Compare at its edges."""

import json

import pandas as pd
import pytest

from decoding.trace import Times
from tests.viz_samples import DRAFTED, GREEDY, HOSTILE, PLAINLY, RUNS, node, run, step_of, trace_of
from viz.runs.alignment import align, aligned_alt, aligned_figure
from viz.runs.compare import (
    alpha_by_depth_alt,
    alpha_by_depth_figure,
    alpha_by_depth_table,
    comparison_table,
    duration,
    progress_alt,
    progress_figure,
    progress_table,
    time_split_alt,
    time_split_figure,
    time_split_table,
    until,
)
from viz.runs.differences import first_difference
from viz.runs.sweep import sweep_figure, sweep_table

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


# --- Edges, of all views


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
    assert align(runs).empty and sweep_table(runs).empty


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_a_token_or_a_name_says_becomes_markup(dark):
    nodes = [node(token, -1, "rejected") for token in HOSTILE]
    steps = [step_of(nodes, (), "correction", final_token=token) for token in HOSTILE]
    runs = [("<script>x</script>", run(*steps, token_bytes=HOSTILE)), ("$x$ %{text}", run(*steps[1:], token_bytes=HOSTILE))]
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
