"""Lanes: what Home plays is what was recorded."""

import msgspec
import pytest

from decoding.runs import recorded_pair
from pages.parts.shared import recorded_run as demo
from tests.viz_samples import node, step_of, trace_of
from viz.lanes.lanes import LONGEST, lanes, line_of, result, script, style


@pytest.fixture(scope="module")
def pair():
    return recorded_pair.read()


def test_the_pair_is_one_question_answered_with_the_same_tokens_in_a_third_of_the_calls(pair):
    ordinary, speculative = pair
    texts = [[token for one in trace.steps for token in one.tokens] for trace in pair]
    assert texts[0] == texts[1] and ordinary.header.messages == speculative.header.messages
    assert ordinary.header.sampling.temperature == speculative.header.sampling.temperature == 0
    assert len(ordinary.steps) == len(texts[0]) and len(texts[0]) >= 3 * len(speculative.steps)
    assert result(ordinary, speculative) == (
        f"The same {len(texts[0])} tokens: {len(ordinary.steps)} calls of the large model, or {len(speculative.steps)}."
    )
    assert demo.pair() == pair


def test_lanes_write_the_answer(pair):
    for lane, trace in zip(lanes([("a", "", pair[0]), ("b", "", pair[1])]), pair, strict=True):
        assert len(lane["calls"]) == len(trace.steps)
        written = "".join(words for call in lane["calls"] for words, _ in call["tokens"])
        assert written.replace("␣", " ").strip() == trace.answer
    copied = lanes([("b", "", pair[1])])[0]["calls"]
    assert any(verdict == "rejected" and words == "␣l" for call in copied for words, verdict in call["guesses"])  # of "lite"


def test_texts_that_differ_are_not_compared(pair):
    ordinary, speculative = pair
    with pytest.raises(ValueError, match="the same tokens"):
        result(msgspec.structs.replace(ordinary, steps=ordinary.steps[:-1]), speculative)


def test_of_a_tree_the_judged_line_is_shown():
    nodes = (
        node(1, -1, "rejected"),
        node(2, -1, "accepted"),
        node(3, 1, "not judged"),
        node(4, 1, "rejected"),
        node(5, 3, "not judged"),
    )
    assert [one.token for one in line_of(step_of(nodes))] == [2, 4, 5]


def test_a_long_line_is_cut_and_says_how_many_more():
    nodes = tuple(node(i, i - 1, "not judged") for i in range(LONGEST + 5))
    call = lanes([("one", "", trace_of(step_of(nodes)))])[0]["calls"][0]
    assert len(call["guesses"]) == LONGEST and call["more"] == 5


def test_the_script_is_one_module_that_writes_text_alone():
    assert script().count("export default") == 1
    assert not any(word in script() for word in ("innerHTML", "import(", "fetch(", "eval(", "\nimport"))
    assert ".lanes" in style()
