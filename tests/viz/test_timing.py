"""Measured several times: the rounds of two runs belong together, and the track shows one clock for all."""

import msgspec
import pytest

from decoding.trace import Times
from tests.viz_samples import HOSTILE, Titles, chain, step_of, trace_of
from viz.runs.timing import Spread, speedup, spread_words
from viz.runs.track import MOST, bundles, track_html


def test_rounds_are_paired_and_not_averaged():
    """A machine that was slow in one round was slow for both."""
    assert speedup([50, 500, 50], 10, [100, 1000, 100], 10) == Spread(2.0, 2.0, 2.0, 3)
    assert speedup([50], 20, [100], 10) == Spread(4.0, 4.0, 4.0, 1)


@pytest.mark.parametrize(("ms", "tokens"), [([], 10), ([0.0], 10), ([5.0], 0)])
def test_what_took_no_time_or_brought_nothing_has_no_speed(ms, tokens):
    assert speedup(ms, tokens, [10.0], 10) is None


def test_the_median_is_told_with_its_ends():
    assert spread_words(Spread(1.92, 1.71, 2.14, 3)) == "1.9 times (median of 3, 1.7 to 2.1)"


def timed(*ms):
    return trace_of(*(msgspec.structs.replace(chain(3), times=Times(0, one, 0, 0)) for one in ms))


def test_lanes_share_one_clock():
    page = track_html([("slow", timed(30, 10)), ("quick", timed(10, 10))], {"slow": 1, "quick": 2})
    assert page.count("<i ") == 4 and page.count('class="done"') == 3
    assert "width:75.000%" in page and page.count("width:25.000%") == 3  # of the 40 ms of the slowest
    assert "1 call, 30 ms of 40 ms" in page and "2 calls, 20 ms of 20 ms" in page


def test_a_taller_bar_gave_more_tokens():
    page = track_html([("a", trace_of(chain(3), step_of()))], {})
    assert "height:100%" in page and "height:25%" in page


def test_a_long_run_is_cut_into_as_many_bars_as_can_be_seen():
    parts = bundles(timed(*[1] * (MOST * 2 + 1)))
    assert len(parts) <= MOST and sum(ms for ms, _, _ in parts) == MOST * 2 + 1 and parts[-1][2] == MOST * 2 + 1


def test_no_step_no_track_and_no_name_becomes_markup():
    assert track_html([("a", trace_of())], {}) == "" and track_html([], {}) == ""
    for name in HOSTILE.values():
        assert Titles(track_html([(name.decode("utf-8", "replace"), timed(1))], {})).tags <= {"style", "div", "b", "i", "span"}
