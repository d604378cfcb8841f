"""The view of RASD: who found what, counted by hand."""

from tests.viz.methods.test_retrieved import fused_step
from tests.viz_samples import step_of
from viz.methods.rasd import gain, gain_figure, gain_table


def test_who_found_what_by_hand():
    """Path both, retrieved: retrieval alone gets both tokens, the draft tree one. Path both, drafted: the other way round."""
    total = gain([fused_step((0, 2)), fused_step((0, 3)), fused_step((1,)), step_of()])
    assert total.kept == 5 and total.by == {"draft model": 2, "retrieved": 1, "both": 2}
    assert total.alone == {"draft model": 1 + 2 + 1, "retrieved": 2 + 1 + 0}
    table = gain_table(total)
    assert list(table["accepted tokens"]) == [5, 2, 1, 2, 4, 3] and table["per step"][0] == 5 / 4
    bars = {bar.name: list(bar.x) for bar in gain_figure(total).data}
    assert bars == {"draft model": [4, 0, 2], "retrieved": [0, 3, 1], "both": [0, 0, 2]}
    assert list(gain_table(gain([]))["per step"]) == [0.0] * 6
