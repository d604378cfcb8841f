"""Sums of a run."""

import re

import pytest

from tests.viz_samples import chain, small_tree, step_of
from viz.runs.tally import (
    alpha_alt,
    alpha_figure,
    alpha_table,
    modelled_speedup,
    phase_bar,
    tally,
    times_alt,
    times_figure,
    times_table,
)
from viz.style import PHASES

RUN = [chain(3), small_tree(), chain(5), step_of()]


def test_tally_adds_up():
    run = tally(RUN)
    assert (run.target_calls, run.tokens, run.drafted) == (4, 4 + 3 + 6 + 1, 5 + 8 + 5)
    assert (run.judged, run.accepted, run.wasted) == (4 + 5 + 5, 3 + 2 + 5, 8)
    assert run.draft_calls == 18 and run.calls_per_step == 4.5
    assert run.tau == 3.5 and run.alpha == 10 / 14 and run.accepted_per_drafted == 10 / 18
    assert run.calls_saved == pytest.approx(1 - 4 / 14)


def test_alpha_by_depth_counts_only_what_was_judged():
    assert tally([chain(3)]).alpha_by_depth == ((1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 0))
    assert tally([small_tree()]).alpha_by_depth == ((1, 2, 1), (2, 1, 1), (3, 2, 0))


def test_times_add_up():
    run = tally(RUN)
    assert run.ms == {"propose": 8.0, "read": 20.0, "accept": 2.0, "commit": 1.0}
    assert run.tokens_per_second == pytest.approx(14 / 0.031)
    assert list(times_table(RUN)["total (ms)"]) == [7.75] * 4
    bars = times_figure(RUN).data
    assert [bar.name for bar in bars] == ["propose", "read", "accept", "commit"]
    assert sum(sum(bar.y) for bar in bars) == pytest.approx(31.0)


def test_empty_run_has_no_ratios():
    run = tally([])
    ratios = (run.tau, run.alpha, run.accepted_per_drafted, run.calls_per_step, run.calls_saved, run.tokens_per_second)
    assert ratios == (None,) * 6
    assert (run.target_calls, run.tokens, run.wasted, run.alpha_by_depth) == (0, 0, 0, ())
    assert len(times_table([])) == len(alpha_table(run)) == 0
    assert "no step" in times_alt([]) and "no drafted token" in alpha_alt(run)
    assert times_figure([]).data and alpha_figure(run).data


def test_plain_decoding_has_tau_one_and_no_alpha():
    run = tally([step_of(), step_of()])
    assert (run.tau, run.alpha, run.calls_saved) == (1.0, None, 0.0)


def test_alpha_figure_shows_the_counts():
    run = tally(RUN)
    bars = alpha_figure(run).data[0]
    assert list(bars.text) == [f"{a}/{j}" for _, j, a in run.alpha_by_depth]
    assert list(bars.y) == list(alpha_table(run)["alpha"])
    assert "10 of 14" in alpha_alt(run)


def test_modelled_speedup():
    assert modelled_speedup(3.0, 5.0, 0.1) == 2.0
    assert modelled_speedup(3.0, 0.0, 0.1) == 3.0


@pytest.mark.parametrize("dark", [False, True])
def test_figures_have_no_background_of_their_own(dark):
    for figure in (times_figure(RUN, dark), alpha_figure(tally(RUN), dark)):
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_the_phase_bar_is_the_mean_step():
    total = tally(RUN)
    bar = phase_bar(total)
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%", bar)]
    assert sum(widths) == pytest.approx(100, abs=0.1)
    for phase, width in zip(PHASES, widths, strict=True):
        assert width == pytest.approx(100 * total.ms[phase] / sum(total.ms.values()), abs=0.01)
        assert f"{phase} {total.ms[phase] / total.target_calls:.1f} ms" in bar
    assert "0.0 ms" in phase_bar(tally([]))
