"""The reliability diagram and the calibration error: bins, weights, and what is left out."""

import pandas as pd
import pytest

from tests.viz_samples import FRAME
from viz.drafter.reliability import calibration_error, excluded, reliability_alt, reliability_figure, reliability_table


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
