"""The view of Kangaroo: reasons that fit the numbers, ladders with the right rungs, escaped text, other traces, and the page."""

import msgspec
import pytest

import viz.methods.kangaroo as view
import viz.methods.kangaroo_sweep as swept
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import CONFIDENCE, EXIT_LAYER, LAYERS, STOPPED
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, step_of


def drafted(confidences=(0.9, 0.8, 0.5), accepted: int = 1, stop: int = view.UNSURE, layers=(2, 12), tokens=(0, 1, 2)):
    """A chain of which the first `accepted` are kept."""
    verdicts = ["accepted"] * accepted + ["rejected", "not judged", "not judged"]
    nodes = []
    for i, (confidence, token) in enumerate(zip(confidences, tokens, strict=False)):
        scores = {CONFIDENCE: confidence, EXIT_LAYER: float(layers[0]), LAYERS: float(layers[1])}
        scores |= {STOPPED: float(stop)} if i == len(confidences) - 1 else {}
        nodes.append(node(token, i - 1, verdicts[i], source="adapter", scores=scores))
    return step_of(nodes, range(accepted), "bonus" if accepted == len(nodes) else "correction")


def test_the_reason_and_the_right_moment():
    words = view.stop_words(drafted(), 0.6, TOKEN_BYTES)
    assert words == (
        "Drafting stopped behind 3 tokens: the confidence of ␣cat was 0.50, not above 0.60. "
        "The first one turned down is ␣little at 0.80; 1 behind it was drafted in vain."
    )
    assert "the longest draft" in view.stop_words(drafted(stop=view.FULL), 0.6, TOKEN_BYTES)
    assert "the text ends there" in view.stop_words(drafted(stop=view.ENDED), 0.6, TOKEN_BYTES)
    assert "might have brought more" in view.stop_words(drafted((0.9,), 1), 0.6, TOKEN_BYTES)
    assert "behind 1 token:" in view.stop_words(drafted((0.9,), 0), 0.6, TOKEN_BYTES)
    assert "nothing behind it" in view.stop_words(drafted((0.9,), 0), 0.6, TOKEN_BYTES)


def test_bars_and_their_words():
    figure = view.confidence_figure(drafted(), TOKEN_BYTES, 0.6)
    assert list(figure.data[0].y) == [0.9, 0.8, 0.5] and figure.layout.shapes[0].y0 == 0.6
    assert view.confidence_alt(drafted(), TOKEN_BYTES, 0.6).endswith(
        "␣the 0.90 accepted; ␣little 0.80 rejected; ␣cat 0.50 not judged."
    )
    assert view.tokens_table(drafted(), TOKEN_BYTES)["verdict"].tolist() == ["✓ accepted", "✗ rejected", "not judged"]


def test_every_ladder_has_all_rungs_and_the_last_no_adapter():
    """Twelve layers and an adapter for the root and three tokens; long ladders are drawn in two parts."""
    shown = view.ladder_html(drafted(), TOKEN_BYTES)
    rung, adapter = "display:block;height:0.5rem", "border:1px dotted"
    assert shown.count(rung) == 4 * 13 and shown.count(adapter) == 1 and "layers 3 to 12" in shown and "layers 1 to 2" in shown
    assert view.ladder_html(drafted(layers=(2, 80)), TOKEN_BYTES).count(rung) == 4 * 3
    assert "no layer is left" in view.ladder_html(drafted(layers=(2, 2)), TOKEN_BYTES)
    assert "went once through all 12 layers: through the first 2" in view.ladder_alt(drafted())
    assert view.cost_words(drafted()).startswith("4 rows × 12 layers = 48 passes, 8 of them one token at a time, and 3 through")
    assert "2 tokens of this step take 24" in view.cost_words(drafted())


def test_over_the_run():
    steps = (drafted(), drafted((0.95, 0.1), 2), drafted((0.3,), 0, view.FULL))
    assert [(b.low, b.judged, b.accepted) for b in view.bins(steps)] == [(0.0, 1, 1), (0.2, 1, 0), (0.8, 3, 2)]
    assert list(view.worth_figure(steps).data[0].text) == ["1/1", "0/1", "2/3"]
    assert "0.8 to 1.0: 2 of 3" in view.worth_alt(steps) and "Nothing was judged" in view.worth_alt(())
    assert view.reasons_words(steps).startswith("Why the drafter stopped so far: 2 times it was not sure enough; 1 time it had")
    assert view.lengths_table(steps)["share of the steps"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert list(view.lengths_figure(steps).data[0].y) == pytest.approx([1, 2 / 3, 1 / 3])
    assert view.lengths_alt(steps) == "Share of the steps that yield more than w tokens. 0: 1.00; 1: 0.667; 2: 0.333."
    assert "No step" in view.lengths_alt(()) and "No step" in view.lengths_figure(()).layout.annotations[0].text
    assert view.lengths_table(()).empty and view.reasons_words(()).startswith("Nothing")


# A run with eta 0.3 and gamma 3: accepted 1 of 3, 2 of 2 and 0 of 1; three of five judged tokens.
STEPS = (drafted(stop=view.FULL), drafted((0.95, 0.1), 2), drafted((0.3,), 0))
OWN = swept.Knobs(0.3, 3)
C = 7 / 36  # (2 + 1/3) / 12


@pytest.mark.parametrize(
    ("eta", "gamma", "drafts", "kept"),
    [
        (0.3, 3, (3, 2, 1), (1, 2, 0)),  # as recorded
        (0.3, 2, (2, 2, 1), (1, 2, 0)),  # the third token of the first draft was in vain
        (0.8, 3, (2, 2, 1), (1, 2, 0)),  # the token at 0.8 is kept, nothing behind it
        (0.9, 3, (1, 2, 1), (1, 2, 0)),
        (0.95, 3, (1, 1, 1), (1, 1, 0)),  # the accepted prefix is cut with the draft
        (1.0, 3, (1, 1, 1), (1, 1, 0)),  # the first token is always drafted
        (0.3, 1, (1, 1, 1), (1, 1, 0)),
    ],
)
def test_other_settings_by_hand(eta, gamma, drafts, kept):
    knobs = swept.Knobs(eta, gamma)
    assert [swept.cut(chain, knobs) for chain in swept.chains(STEPS)] == list(zip(drafts, kept, strict=True))
    one = swept.point(swept.chains(STEPS), knobs)
    assert (one.drafted, one.accepted, one.tokens) == pytest.approx((sum(drafts) / 3, sum(kept) / 3, sum(kept) / 3 + 1))
    assert one.wasted == pytest.approx(1 - sum(kept) / sum(drafts))
    assert one.speedup(C) == pytest.approx((sum(kept) + 3) / (3 + sum(drafts) * C))


def test_the_sweep_and_its_twins():
    points = swept.sweep(STEPS, OWN)
    assert len(points) == 3 * 15 and swept.etas(0.3)[:2] == [0.3, 0.35] and swept.etas(1.0) == [1.0]
    assert swept.gammas(3) == [1, 2, 3] and swept.gammas(1) == [1] and swept.gammas(32) == [1, 7, 13, 20, 26, 32]
    best = swept.best_of(points, C)  # 4 drafted, 3 accepted in three steps; γ 3 does not draft more there
    assert best.knobs == swept.Knobs(0.9, 2) and best.speedup(C) == pytest.approx(6 / (3 + 4 * C))
    *lines, star, ring = swept.sweep_figure(points, OWN, C).data
    assert [line.name for line in lines] == ["γ 1", "γ 2", "γ 3"] and all(len(line.x) == 15 for line in lines)
    assert (star.x[0], star.y[0]) == (0.9, best.speedup(C)) and (ring.x[0], ring.y[0]) == (0.3, pytest.approx(6 / (3 + 6 * C)))
    table = swept.sweep_table(points, C)
    assert len(table) == len(points) and table.loc[table["best"] == "★", ["η", "γ"]].values.tolist() == [[0.9, 2]]
    assert table["wasted share"].max() == pytest.approx(0.5)
    alt = swept.sweep_alt(points, OWN, C)
    assert "This run: η 0.30, γ 3: 2.00 drafted and 1.00 accepted per step, 0.50 of the drafted wasted, modelled 1.44." in alt
    assert "γ 1: 1.40 at η 0.30, 1.40 at η 1.00" in alt and "Best: η 0.90, γ 2: 1.33 drafted" in alt


def test_equal_lines_are_drawn_once():
    short = swept.sweep(STEPS[2:], OWN)
    assert list(swept.lines_of(short)) == ["γ 1 to 3"] and list(swept.lines_of(swept.sweep(STEPS[1:], OWN))) == ["γ 1", "γ 2 to 3"]
    alone = swept.sweep(STEPS, swept.Knobs(1.0, 3))
    assert len(alone) == 3 and "γ 1 to 3: 1.40 at η 1.00. This run" in swept.sweep_alt(alone, swept.Knobs(1.0, 3), C)
    assert [line.name for line in swept.sweep_figure(alone, swept.Knobs(1.0, 3), C).data] == ["γ 1 to 3", "best", "this run"]


def test_the_settings_of_a_run():
    assert swept.knobs_of({"threshold": 0.3, "length": 3}, STEPS) == OWN
    assert swept.knobs_of({}, STEPS) == swept.Knobs(0.6, 3) == swept.knobs_of({"threshold": "<b>", "length": 10**9}, STEPS)
    assert swept.knobs_of({"threshold": float("nan"), "length": -1}) == swept.Knobs(0.6, 1)


def test_the_cost_model():
    """The specification's numbers; a chance of 1; three of five judged tokens accepted; and the work of a step in layers."""
    assert round(swept.expected(0.7, 6), 4) == 3.0588 and round(swept.expected(0.8, 4), 4) == 3.3616
    assert swept.expected(1.0, 4) == 5.0 and swept.expected(0.0, 4) == 1.0
    for alpha, gamma, c, told in ((0.7, 2, 0.230, 1.50), (0.8, 4, 0.346, 1.41), (0.9, 6, 0.091, 3.37)):
        assert swept.ceiling(alpha, gamma, c) == pytest.approx(told, abs=0.006)
    assert swept.alpha_of(STEPS) == 0.6 and swept.ratio(2, 12) == pytest.approx(C) and round(swept.ratio(1, 8), 3) == 0.167
    m, left, layers = 5, 2, 12
    assert layers * (1 + m * swept.ratio(left, layers)) == pytest.approx((m + 1) * left + m * swept.ADAPTER + layers - left)


def test_over_the_depth():
    table = swept.depth_table(STEPS, OWN).set_index("layers")
    assert list(table.index) == list(range(2, 81)) and table.loc[12, "c"] == pytest.approx(C)
    assert table.loc[12].tolist()[1:] == pytest.approx([2.176 / (1 + 3 * C), 2 / (1 + 2 * C)])
    assert all(table.iloc[:, 1].diff().dropna() > 0)
    words = swept.depth_words(STEPS, OWN, 40)
    assert words == (
        "α = 0.60 so far and γ = 3 give E = 2.18 tokens per step. "
        "12 layers: c = 0.194, modelled 1.37, with this run's drafts 1.44; "
        "40 layers: c = 0.0583, modelled 1.85, with this run's drafts 1.79."
    )
    said = [note.text for note in swept.depth_figure(STEPS, OWN, 40).layout.annotations]
    assert said == ["this model: 12", "chosen: 40"] and len(swept.depth_figure(STEPS, OWN, 12).layout.annotations) == 1
    assert swept.reach(view.Depths(2, 12)) == (2, 80) and swept.reach(view.Depths(1, 1)) == (1, 80)
    assert swept.reach(view.Depths(512, 512)) == (512, 513)


def test_nothing_to_try():
    """Traces of another kind, and a draft that nobody judged."""
    wrong = [chain(), step_of(), drafted((float("nan"),), 0)]
    assert swept.sweep(wrong, OWN) == [] and swept.target_of(wrong) is None and swept.depth_table(wrong, OWN).empty
    assert swept.sweep_alt([], OWN, C) == swept.NOTHING and swept.sweep_table([], C).empty
    for figure in (swept.sweep_figure([], OWN, C), swept.depth_figure(wrong, OWN, 12)):
        assert not figure.data and len(figure.layout.annotations) == 1
    scores = {CONFIDENCE: 0.9, EXIT_LAYER: 2.0, LAYERS: 12.0}
    not_judged = [step_of([node(0, -1, "not judged", scores=scores)])]
    assert swept.alpha_of(not_judged) is None and swept.depth_words(not_judged, OWN, 12) == swept.UNJUDGED
    assert swept.sweep(not_judged, OWN)[0].accepted == 0 and not swept.depth_figure(not_judged, OWN, 12).data


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    step = drafted(tokens=(token,) * 3)
    figure = view.confidence_figure(step, HOSTILE, 0.6)
    shown = view.ladder_html(step, HOSTILE) + "".join(figure.layout.xaxis.ticktext) + "".join(figure.data[0].hovertext)
    points = swept.sweep([step], OWN)
    shown += swept.sweep_figure(points, OWN, C).to_json() + swept.sweep_alt(points, OWN, C) + swept.depth_words([step], OWN, 12)
    shown = shown.replace("<b>best", "best")
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))
    assert len(view.tokens_table(step, HOSTILE)) == 3 and view.stop_words(step, 0.6, HOSTILE)


def test_traces_of_another_kind():
    wrong = [chain(), step_of(), drafted(layers=(3, 2)), drafted(layers=(0, 2)), drafted((float("nan"),), 0), drafted((7.0,), 0)]
    for step in wrong:
        assert view.depths_of(step) is None and view.cost_words(step) == ""
    assert view.bins(wrong) == [] and view.depths_of(drafted()) == view.Depths(2, 12)


def test_the_numbers_are_those_of_a_run(embedded):
    run = Run(embedded, "kangaroo", {"threshold": 0.3}, "Once upon a time there was", Sampling(1.0), max_tokens=40)
    steps = list(run)
    judged = [node for step in steps for node in step.nodes if node.verdict != "not judged"]
    assert sum(b.judged for b in view.bins(steps)) == len(judged) and view.depths_of(steps[0]) == view.Depths(2, 12)
    assert sum(b.accepted for b in view.bins(steps)) == sum(node.verdict == "accepted" for node in judged) > 0
    for step in steps:
        assert "Drafting stopped" in view.stop_words(step, 0.3, run.token_bytes)


def test_the_sweep_fits_a_run(embedded):
    """The run's own setting brings the recorded counts; a higher eta never drafts more nor writes more."""
    run = Run(embedded, "kangaroo", {"threshold": 0.2}, "Once upon a time there was", Sampling(1.0), max_tokens=40)
    steps = list(run)
    own = swept.knobs_of({"threshold": 0.2, "length": 6}, steps)
    points = swept.sweep(steps, own)
    mine = next(one for one in points if one.knobs == own)
    assert mine.drafted == sum(len(step.nodes) for step in steps) / len(steps)
    assert mine.accepted == sum(node.verdict == "accepted" for step in steps for node in step.nodes) / len(steps)
    for before, after in zip(points, points[1:], strict=False):
        if before.knobs.gamma == after.knobs.gamma:
            assert after.drafted <= before.drafted and after.tokens <= before.tokens


@pytest.mark.parametrize("prompt", ["Once upon a time", "The little cat", "One day, a boy named Tim"])
def test_a_run_with_the_other_setting_drafts_just_that(embedded, prompt):
    """The first step, where the texts cannot differ yet."""

    def first(eta: float, gamma: int):
        run = Run(embedded, "kangaroo", {"threshold": eta, "length": gamma}, prompt, Sampling(0.0), max_tokens=24)
        return swept.chains([next(iter(run))])[0]

    recorded = first(0.0, 6)
    assert len(recorded.confidences) == 6
    for eta, gamma in ((0.0, 3), (0.3, 6), (0.5, 6), (0.6, 2), (0.8, 6), (1.0, 6)):
        made = first(eta, gamma)
        assert swept.cut(recorded, swept.Knobs(eta, gamma)) == (len(made.confidences), made.accepted)


def test_the_page():
    settings = Settings(prompt="Once upon a time", method="kangaroo", params={}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "kangaroo"
    shown = " ".join(markdown.value for markdown in at.markdown)
    assert "How sure the first layers were" in shown and "Every layer reads every token once" in shown
    at.session_state["kangaroo_box"] = True
    at.run()
    assert not at.exception and any("by confidence" in chart.proto.alt for chart in at.get("plotly_chart"))
    assert any("more than w tokens" in chart.proto.alt for chart in at.get("plotly_chart"))


def test_the_page_tries_other_settings():
    settings = Settings(prompt="Once upon a time", method="kangaroo", params={"threshold": 0.2}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    at.session_state["kangaroo_sweep_box"] = True
    at.run()
    alts = [chart.proto.alt for chart in at.get("plotly_chart")]
    assert not at.exception and any("over η at c = 0.194" in alt and "This run: η 0.20, γ 6" in alt for alt in alts)
    slider = next(one for one in at.slider if one.key.startswith("kangaroo_layers_"))
    assert (slider.min, slider.max, slider.value) == (2, 80, 12)
    at.session_state["kangaroo_sweep_table_box"] = at.session_state["kangaroo_depth_table_box"] = True
    slider.set_value(40).run()
    alts = [chart.proto.alt for chart in at.get("plotly_chart")]
    assert not at.exception and any("over η at c = 0.0583" in alt for alt in alts)
    assert {"wasted share", "layers"} <= {column for table in at.dataframe for column in table.value.columns}
    assert any("40 layers: c = 0.0583" in alt for alt in alts) and any("cannot show" in one.value for one in at.caption)


def test_the_page_of_a_trace_without_the_numbers():
    settings = Settings(prompt="Once upon a time", method="kangaroo", params={}, temperature=1.0, max_tokens=16)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    change = msgspec.structs.replace
    bare = [change(step, nodes=tuple(change(node, scores={}) for node in step.nodes)) for step in state(at).trace.steps]
    state(at).live, state(at).trace = None, change(state(at).trace, steps=tuple(bare))
    at.session_state["kangaroo_box"] = at.session_state["kangaroo_sweep_box"] = True
    at.run()
    shown = [one.value.replace("\\", "") for one in at.caption]
    assert not at.exception and swept.NOTHING in shown and "This trace does not carry the confidences." in shown
