"""The most expensive rejections, and alarms."""

from tests.viz_samples import TREES, chain, runs, step_of, trace_of
from viz.drafter.rejections import alarms, expensive


def test_expensive_rejections_come_first():
    table = expensive(TREES, 3)
    assert table["cost"].tolist() == [2, 2, 1]
    assert table[["trace", "step", "node"]].values.tolist()[0] in ([100, 0, 3], [100, 1, 5])


def test_bad_luck_is_a_group_of_its_own():
    frame = TREES.assign(luck=[not kept and i % 2 == 0 for i, kept in enumerate(TREES["accepted"])])
    misses, luck = expensive(frame), expensive(frame, luck=True)
    assert len(misses) and len(luck) and len(misses) + len(luck) == int((~TREES["accepted"]).sum())
    places = [set(map(tuple, part[["trace", "step", "node"]].values)) for part in (misses, luck)]
    assert not places[0] & places[1]


def test_alarms():
    assert alarms(runs(trace_of(*[chain(3)] * 9))) == []
    assert "0 % accepted: none of 25" in alarms(runs(trace_of(*[chain(0)] * 25)))[0]
    assert "100 % accepted: all of 25" in alarms(runs(trace_of(*[chain(5)] * 5)))[0]
    assert "never drafted anything" in alarms(runs(trace_of(step_of(), step_of())))[0]
    assert "silent in 2 of 3 steps" in alarms(runs(trace_of(step_of(), step_of(), chain(3))))[0]
    assert "cliff at depth 4: none of 20" in alarms(runs(trace_of(*[chain(3)] * 20)))[0]
