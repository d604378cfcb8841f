"""p against q over the text: every bar says its numbers."""

import pytest

from tests.viz_samples import Titles, recorded, step_of, trace_of
from viz.drafter.heat import heat_strip, heat_table


@pytest.mark.parametrize("by", ["tv", "kl", "entropy"])
def test_heat_strip_says_its_numbers(by):
    html = heat_strip(trace_of(recorded(), step_of()), by)
    titles = Titles(html).titles
    assert titles[1] == "␣sat: total variation 0.70, KL(p || q) in bits 1.50, entropy of p in bits 1.00; token 2"
    assert titles[2] == "␣was: nothing recorded; token 3"
    assert html.count("linear-gradient") == 2
    assert heat_table(trace_of(recorded()))["tv"].round(3).tolist() == [0.2, 0.7]
