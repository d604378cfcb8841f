"""Drift and mix of EAGLE's states: hand-counted depths and means, numbers that cannot be, and a run."""

import math

import pytest

import viz.methods.eagle_drift as view
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import COSINE
from tests.viz_samples import HOSTILE, chain, node, step_of

LAYERS = {"share of layer 2": 0.25, "share of layer 6": 0.35, "share of layer 9": 0.4}


def went(cosines, length: int = 4, facts: dict | None = None):
    """A chain of `length` of which so many are accepted as there are cosines; None for one without."""
    nodes = []
    for i in range(length):
        scores = {COSINE: cosines[i]} if i < len(cosines) and cosines[i] is not None else {}
        verdict = "accepted" if i < len(cosines) else "rejected" if i == len(cosines) else "not judged"
        nodes.append(node(i, i - 1, verdict, scores=scores))
    final = "bonus" if len(cosines) == length else "correction"
    return step_of(nodes, range(len(cosines)), final, facts=facts or {})


RUN = (went((0.9, 0.7, 0.5, None)), went((0.8, 0.6)), went(()), step_of())


def test_depths_are_counted_by_hand():
    """Three steps drafted; two had one accepted, and those went on."""
    found = view.drift(RUN)
    assert [(one.depth, one.asked, one.accepted) for one in found] == [(1, 3, 2), (2, 2, 2), (3, 2, 1), (4, 1, 1)]
    assert [one.cosines for one in found] == [(0.9, 0.8), (0.7, 0.6), (0.5,), ()]
    assert [one.cosine for one in found[:3]] == pytest.approx([0.85, 0.65, 0.5]) and found[3].cosine is None
    table = view.drift_table(RUN)
    assert table["share"].tolist() == pytest.approx([2 / 3, 1, 0.5, 1]) and table["states compared"].tolist() == [2, 2, 1, 0]
    assert table["mean cosine"].isna().tolist() == [False, False, False, True]


def test_the_figure_draws_those_numbers():
    bars, line = view.drift_figure(RUN).data
    assert list(bars.y) == pytest.approx([2 / 3, 1, 0.5, 1]) and list(bars.customdata) == ["2/3", "2/2", "1/2", "1/1"]
    assert list(line.x) == [1, 2, 3] and list(line.y) == pytest.approx([0.85, 0.65, 0.5]) and list(line.customdata) == [2, 2, 1]
    below = view.drift_figure((went((-0.5,)),))
    assert below.layout.yaxis.range[0] == pytest.approx(-0.6) and view.drift_figure(RUN).layout.yaxis.range[0] == 0
    assert view.drift_figure(()).data


def test_the_words_say_them():
    alt = view.drift_alt(RUN)
    assert "depth 1: 2 of 3, cosine 0.85; depth 2: 2 of 2, cosine 0.65" in alt and alt.endswith("depth 4: 1 of 1.")
    assert view.drift_words(RUN) == "Mean cosine behind accepted tokens: depth 1, 0.85 over 2; depth 3, 0.50 over 1."
    assert view.drift_words((went((0.9,)),)) == "Mean cosine behind accepted tokens: depth 1, 0.90 over 1."
    assert view.drift_alt(()).endswith("Nothing was drafted.") and view.drift_words(()).startswith("No state can be compared")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1.5, -2.0])
def test_cosines_that_cannot_be_are_not_drawn(wrong):
    assert not view.has_cosines((went((wrong,)),)) and view.has_cosines((went((wrong, 0.5)),))
    assert view.drift((went((wrong, 0.5)),))[0].cosines == ()


def test_only_accepted_nodes_count():
    rejected = step_of([node(0, -1, "rejected", scores={COSINE: 0.9})], (), "correction")
    assert not view.has_cosines((rejected, chain(), step_of()))


def test_the_mix_is_one_bar_of_named_layers():
    step = went((0.9,), facts=LAYERS)
    assert view.mix(step) == [("layer 2", 0.25), ("layer 6", 0.35), ("layer 9", 0.4)]
    shown = view.mix_html(step)
    assert "width:25.00%" in shown and "width:35.00%" in shown and "width:40.00%" in shown
    assert shown.count('role="img"') == 1 and "layer 6 35 %</span>" in shown
    assert view.mix_alt(step) == "What the mix at the root is made of: layer 2 25 %, layer 6 35 %, layer 9 40 %."
    last = {"share of the embeddings": 0.5, "share of the last layer": 0.3, "share of layer 1": 0.2}
    assert [layer for layer, _ in view.mix(went((), facts=last))] == ["the embeddings", "the last layer", "layer 1"]


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"share of layer 2": 0.25, "share of layer 6": 0.35},
        LAYERS | {"share of layer 9": 0.5},
        LAYERS | {"share of layer 9": math.nan},
        {"share of layer 2": -0.25, "share of layer 6": 0.85, "share of layer 9": 0.4},
        LAYERS | {"share of layer 1": 0.0},
        {f"share of {piece.decode('utf-8', 'replace')}": 1 / 3 for piece in list(HOSTILE.values())[:3]},
        {f"share of layer {i}<b>": 1 / 3 for i in range(3)},
    ],
)
def test_shares_that_cannot_be_are_not_drawn(shares):
    step = went((0.9,), facts=shares)
    assert view.mix(step) == [] and view.mix_html(step) == "" and view.mix_alt(step).endswith("not recorded.")
    assert view.mix(step_of()) == []


@pytest.mark.parametrize("tree", ["dynamic", "sampled"])
def test_the_numbers_are_those_of_a_run(embedded, tree):
    run = Run(embedded, "eagle", {"tree": tree}, "Once upon a time there was", Sampling(1.0), max_tokens=40)
    steps = [step for step in run if step.nodes]
    assert all(len(view.mix(step)) == 3 for step in steps)
    found = view.drift(steps)
    assert sum(one.accepted for one in found) == sum(len(step.path) for step in steps)
    assert found[0].asked == len(steps) and sum(len(one.cosines) for one in found) > 0
    assert all(0.2 < one.cosine < 1 for one in found if one.cosines), "a trained head points about where it should"
