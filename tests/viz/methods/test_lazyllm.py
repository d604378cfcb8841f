"""The view of LazyLLM: three calls counted by hand, tokens that come back, escaped text, traces that cannot be."""

import msgspec
import pytest

import viz.methods.lazyllm as view
from decoding.score_names import (
    ATTENTION_PAID,
    AUX_ENTRIES,
    DEPTH_REACHED,
    FULL_AGREES,
    FULL_KL,
    FULL_OVERLAP,
    FULL_PASSES,
    PASSES,
)
from decoding.trace import Trace
from tests.viz_samples import HOSTILE, TOKEN_BYTES, node, step_of, trace_of

PROMPT = (0, 1, 2, 3, 4)


def call(depths, passes: float, full: float, nodes=(), path=(), **more):
    facts = {PASSES: passes, FULL_PASSES: full, AUX_ENTRIES: 3.0} | more.pop("facts", {})
    return step_of(nodes, path, "bonus" if path else "plain", 7, facts=facts, grids={DEPTH_REACHED: bytes(depths)} | more)


def three(**more) -> Trace:
    """Four layers, pruned behind the first two: five tokens, then token 1 comes back and a draft of one is kept, then token 1 stays
    and token 3 is alive again that is new to nobody."""
    steps = (
        call((4, 1, 2, 1, 4), 12, 20, **more),
        call((4, 4, 1, 2, 4, 4), 12, 8, [node(5, -1, "accepted")], (0,)),
        call((4, 1, 2, 1, 4, 4, 4, 4), 4, 4),
    )
    trace = trace_of(*steps)
    return msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, prompt_tokens=PROMPT))


def test_who_came_back_is_counted():
    trace = three()
    first, second, third = view.reaches(trace, 2)
    assert first.before.tolist() == [0] * 5 and not first.revived.any() and not first.returned.any()
    assert second.before.tolist() == [4, 1, 2, 1, 4, 0] and second.revived.tolist() == [False, True, False, True, False, False]
    assert third.before.tolist() == [4, 4, 2, 2, 4, 4, 4, 0], "an accepted draft was read by all layers"
    assert third.returned.tolist() == [False, False, True] + [False] * 5 and not third.revived.any()
    assert third.ever.tolist() == [4, 4, 2, 2, 4, 4, 4, 4]
    table = view.film_table(trace, 2)
    assert table["from the aux cache"].tolist() == [0, 2, 0] and table["alive again"].tolist() == [0, 0, 1]
    assert table["in the top layer"].tolist() == [2, 4, 5]
    assert "call 2: 4 in the top layer, 2 back from the aux cache" in view.film_alt(trace, 2)


def test_the_counters_add_up():
    trace = three()
    table = view.counters_table(trace, 1)
    assert table["which"].tolist() == ["layer 1", "layer 2", "layers 3 to 4"]
    assert table["read now"].tolist() == [1, 3, 2] and table["read so far"].tolist() == [6, 6, 4]
    assert table["prompt tokens never read"].tolist() == [0, 0, 2] and table["share"].tolist() == [0, 0, 0.4]
    assert view.never_words(trace, 0).startswith("3 of 5 prompt tokens (60%) were never read by the top layer so far; 0 times")
    assert view.never_words(trace, 2).startswith("2 of 5 prompt tokens (40%)") and "2 times one came back" in view.never_words(
        trace, 2
    )
    assert "The first call took 60% (12 of 20)" in view.cost_words(trace, 0) and "calls" not in view.cost_words(trace, 0)
    assert "all 3 calls together 88% (28 of 32)" in view.cost_words(trace, 2)


def test_the_funnel():
    paid = bytes([255, 51, 0, 10, 20, 255, 0, 40, 0, 1, 255, 0, 0, 0, 9, 100, 0, 0, 0, 255])
    trace = three(**{ATTENTION_PAID: paid})
    scores = view.scores_of(trace, 0)
    assert (
        scores[0].tolist() == pytest.approx([1, 0.04, 0, (10 / 255) ** 2, (20 / 255) ** 2])
        and scores[1, 1] != scores[1, 1]
        and scores[3, 4] == 1
    )
    assert view.scores_of(trace, 1) is None and view.scores_of(trace, 9) is None
    assert view.survival_alt(trace, 0) == (
        "Alive in this call: 5 tokens in layer 1, 3 in layer 2, 2 in layers 3 to 4. All 4 layers read the last token."
    )
    for step in (0, 1):
        (heat,) = view.survival_figure(trace, step).data
        assert (heat.z == heat.z).sum() == (5 + 3 + 2 + 2, 6 + 5 + 4 + 4)[step]  # filled cells are those alive
    table = view.survival_table(trace, 1)
    assert table["alive up to layer"].tolist() == [4, 4, 1, 2, 4, 4] and table["deepest so far"].tolist() == [4, 4, 2, 2, 4, 4]
    assert table["came back"].tolist() == ["", "from the aux cache", "", "from the aux cache", "", ""]


def test_the_prompt_is_told_without_colour():
    now, ever = view.prompt_html(three(), 1), view.prompt_html(three(), 1, ever=True)
    assert now.count("▲") == 3 and "▲" not in ever  # two tokens, and the legend
    for words in ("stopped behind layer 1", "stopped behind layer 2", "came to the top, layer 4"):
        assert words in now
    assert "stopped behind layer 1" not in ever and "underline solid" in ever and "text-decoration:none" in now


def test_hostile_tokens_are_escaped():
    tokens = tuple(HOSTILE)
    trace = trace_of(call([2] * len(tokens), 1, 2))
    trace = msgspec.structs.replace(
        trace, header=msgspec.structs.replace(trace.header, prompt_tokens=tokens), token_bytes=TOKEN_BYTES | HOSTILE
    )
    shown = view.prompt_html(trace, 0) + str(view.survival_figure(trace, 0).to_json())
    assert "<script>" not in shown.replace("\\u003c", "<") and '"><a' not in view.prompt_html(trace, 0)


@pytest.mark.parametrize(
    "depths",
    [b"", b"\x04\x04", bytes((4, 0, 4, 4, 4)), bytes((9, 4, 4, 4, 4)), bytes(6 * [4])],
    ids=["none", "few", "0", "9", "many"],
)
def test_what_cannot_be_is_not_drawn(depths):
    trace = three()
    broken = msgspec.structs.replace(trace.steps[0], grids={DEPTH_REACHED: depths, ATTENTION_PAID: b"1"})
    trace = msgspec.structs.replace(trace, steps=(broken, *trace.steps[1:]))
    assert view.reaches(trace, 0) is None and view.reaches(trace, 2) is None and view.prompt_html(trace, 0) == ""
    assert not view.survival_table(trace, 0).size and not view.counters_table(trace, 0).size and not view.film_table(trace, 0).size
    assert view.survival_figure(trace, 0).layout.annotations and view.film_figure(trace, 0).layout.annotations
    assert "not known" in view.survival_alt(trace, 0) and view.never_words(trace, 0) == ""


def test_the_damage():
    steps = [
        step_of(facts={FULL_KL: kl, FULL_OVERLAP: 0.5, FULL_AGREES: agrees}) for kl, agrees in ((0.0, 1.0), (0.4, 1.0), (0.2, 0.0))
    ]
    words = view.damage_words(steps, greedy=True)
    assert "Mean over 3 steps: KL 0.20 nats, overlap 0.50, the likeliest token is the same in 67%." in words
    assert words.endswith("In step 3 the text parts from the full model's.") and "parts" not in view.damage_words(
        steps, greedy=False
    )
    assert view.damage_words(steps[:2], greedy=True).endswith("The text is still that of the full model.")
    assert "the highest is 0.40 nats, in step 2" in view.damage_alt(steps)
    line, crosses = view.damage_figure(steps).data
    assert list(line.y) == [0, 0.4, 0.2] and list(crosses.x) == [3] and len(view.damage_table(steps)) == 3
    for wrong in (float("nan"), -1.0, 1e308):
        assert not view.damages([step_of(facts={FULL_KL: wrong, FULL_OVERLAP: 0.5, FULL_AGREES: 1.0})])
    assert "did not read along" in view.damage_words([step_of()], greedy=True) and view.damage_figure([]).layout.annotations


def test_the_badge_follows_the_parameters():
    keep = {"keep_early": 1.0, "keep_middle": 1.0, "keep_late": 1.0}
    assert not view.prunes(keep) and view.prunes(keep | {"keep_late": 0.5}) and view.prunes({})


def test_many_places_of_pruning_are_drawn_and_too_many_cells_are_not():
    """A trace of a file with a place behind each of 254 layers took 14 seconds."""
    tokens = view.DRAWN // 255
    for more, drawn in ((0, True), (1, False)):
        depths = [1 + i % 255 for i in range(tokens - 1 + more)] + [255]
        trace = trace_of(call(depths, 12, 20))
        trace = msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, prompt_tokens=(0,) * len(depths)))
        figure = view.survival_figure(trace, 0)
        assert (len(figure.layout.shapes), bool(figure.data)) == ((254, True) if drawn else (0, False))
        assert drawn or f"at most {view.DRAWN:,}" in figure.layout.annotations[0].text
