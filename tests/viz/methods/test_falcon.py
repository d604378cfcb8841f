"""The view of Falcon: blocks and places that agree with the trace, escaped text, traces of others, and the page."""

import pytest

import viz.methods.falcon as view
from decoding.models.heads import EMBEDDED
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN, SLOT_IN_BLOCK
from pages.parts.shared import address
from pages.parts.shared.settings import Settings
from tests.methods.test_falcon import relaxed
from tests.pages.test_step import errors, press, state
from tests.pages.test_step import opened as page_opened
from tests.viz_samples import HOSTILE, TOKEN_BYTES, chain, node, row, step_of


def guessed(token: int, parent: int, verdict: str, slot: int, own: float, number: int = 1):
    scores = {SLOT_IN_BLOCK: float(slot), OWN: own, JOINT: own / 2}
    return node(token, parent, verdict, q=None, u=None, source=f"pass {number}", scores=scores)


def tree():
    """Two passes of two: 1, then 3 are accepted; 3 stands below 0 as well, where the target rules it out."""
    nodes = [
        guessed(0, -1, "rejected", 1, 0.5),
        guessed(1, -1, "accepted", 1, 0.3),
        guessed(3, 0, "not judged", 2, 0.6),
        guessed(3, 1, "accepted", 2, 0.6),
        guessed(4, 3, "rejected", 1, 0.9, 2),
        guessed(5, 4, "not judged", 2, 0.8, 2),
    ]
    below = (row((7, 2), (0.9, 0.1)), row((3,), (1.0,)), None, row((7, 4), (0.8, 0.2)), row((5,), (1.0,)), None)
    rows = (row((1, 0), (0.7, 0.3)), *below)
    return step_of(nodes, (1, 3), "correction", rows=rows, draft_calls=2)


def test_a_place_holds_what_was_picked_there_for_any_parent_of_its_block():
    found = [(c.number, c.slot, [(n.token, n.verdict) for n in c.nodes]) for c in view.columns(tree())]
    assert found[:2] == [(1, 1, [(0, "rejected"), (1, "accepted")]), (1, 2, [(3, "accepted")])], "token 3 once, as it got furthest"
    assert found[2:] == [(2, 1, [(4, "rejected")]), (2, 2, [(5, "not judged")])] and view.columns(step_of()) == []
    shown = view.blocks_html(tree(), TOKEN_BYTES)
    assert shown.count("<b>pass") == 2 and shown.count("place 1<") == 2
    assert "pass 2, place 1" in view.blocks_alt(tree(), TOKEN_BYTES)
    assert view.blocks_alt(step_of(), TOKEN_BYTES).endswith("Nothing was drafted.")


def test_the_block_of_another_path_is_not_shown():
    nodes = [*tree().nodes, guessed(9, 2, "not judged", 1, 0.99, 2)]
    step = step_of(nodes, (1, 3), "correction")
    assert [n.token for n in view.columns(step)[2].nodes] == [4]


def test_words_of_the_passes():
    assert view.calls_words(tree()) == "2 passes of the head drafted 4 levels; 2 accepted, 1.00 a pass."
    assert view.calls_words(step_of(draft_calls=0)) == "The head was not asked."
    assert "2 drafted tokens were accepted in 2 passes of the head, 1.00 each" in view.run_words((tree(),))


def test_pairs_that_could_not_see_each_other():
    """Behind 0 the target never writes 3, of which the head, which did not know of the 0, was sure."""
    assert view.blind(tree()) == [2]
    words = view.blind_words(tree(), TOKEN_BYTES)
    assert words.startswith("1 pair of a block does not belong together") and "0.00, the head 0.60" in words
    assert view.blind_words(step_of(), TOKEN_BYTES).startswith("No candidate")


def test_the_saw_counts_steps_that_came_so_far():
    nothing = step_of([guessed(0, -1, "rejected", 1, 0.5), guessed(3, 0, "not judged", 2, 0.5)], (), "correction", draft_calls=2)
    steps = (tree(), nothing, step_of())
    assert view.reached(steps) == [(1, 2, 1), (2, 1, 1), (3, 1, 0)]
    assert view.saw_table(steps)["share"].tolist() == [0.5, 1.0, 0.0] and view.saw_table(steps)["pass"].tolist() == [1, 1, 2]
    figure = view.saw_figure(steps)
    assert [list(bar.text) for bar in figure.data] == [["1/2", "1/1"], ["0/1"]]
    assert "pass 1 place 1: 1 of 2" in view.saw_alt(steps) and "Nothing" in view.saw_alt(())


# -- the mask ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots, block, rows", [(6, 2, (2, 2, 4, 4, 6, 6)), (7, 3, (3, 3, 3, 6, 6, 6, 7)), (4, 1, (1, 2, 3, 4))])
def test_the_mask_is_that_of_the_paper(slots, block, rows):
    """So many slots from the first on; with blocks of one it is EAGLE's triangle. The head itself uses the same."""
    assert view.sees(slots, block) == [[j < seen for j in range(slots)] for seen in rows]
    assert view.sees(slots, block) == relaxed(slots, block).tolist()


def test_the_slots_that_were_asked_are_named():
    """Of the text the newest two for the first pass, then what it picked; a text of one token makes no block."""
    assert view.asked(tree(), (5, 6, 2), TOKEN_BYTES) == ["␣mat", "␣cat", "␣little", "␣sat"]
    assert view.asked(tree(), (2,), TOKEN_BYTES) == [] and view.asked(step_of(), (5, 6), TOKEN_BYTES) == []
    shallow = step_of([guessed(0, -1, "rejected", 1, 0.5), guessed(3, 0, "not judged", 2, 0.6)], (), "correction")
    assert view.asked(shallow, (5, 6), TOKEN_BYTES) == ["␣a", "␣mat"]


def test_the_staircase_stands_beside_the_triangle():
    names = view.asked(tree(), (5, 6), TOKEN_BYTES)
    triangle, stairs = view.mask_figure(2, names).data
    assert [list(row) for row in triangle.z] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert [list(row) for row in stairs.z] == [[1, 2, 0, 0], [1, 1, 0, 0], [1, 1, 1, 2], [1, 1, 1, 1]]
    assert [list(row) for row in stairs.text][2] == ["•", "•", "•", "+"]
    frames = [(shape.x0, shape.x1, shape.y0, shape.y1) for shape in view.mask_figure(2, names).layout.shapes]
    assert frames == [(-0.5, 1.5, -0.5, 1.5), (1.5, 3.5, 1.5, 3.5)]
    assert [(shape.x0, shape.x1) for shape in view.mask_figure(3, names).layout.shapes] == [(-0.5, 2.5), (2.5, 3.5)]
    assert list(view.mask_figure(2, names).layout.xaxis2.ticktext) == names


def test_words_of_the_mask():
    names = view.asked(tree(), (5, 6), TOKEN_BYTES)
    alt = view.mask_alt(2, names)
    assert alt.endswith("slots 1 to 2 (␣a, ␣mat) see slots 1 to 2; slots 3 to 4 (␣little, ␣sat) see slots 1 to 4.")
    assert "12 pairs instead of 10" in view.mask_words(2, names)


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_names_of_slots_are_escaped(token):
    nodes = [guessed(token, -1, "accepted", 1, 0.5), guessed(token, 0, "rejected", 2, 0.5), guessed(1, 1, "not judged", 1, 0.5, 2)]
    names = view.asked(step_of(nodes, (0,), "correction"), (token, token), HOSTILE | TOKEN_BYTES)
    figure = view.mask_figure(2, names)
    said = str(figure.layout.xaxis.ticktext) + str([trace.hovertext for trace in figure.data])
    assert len(names) == 4 and not any(tag in said for tag in ("<script", "<b>", "<a href", "\u202e", "\x00"))


@pytest.mark.parametrize("slot", [0.0, 1.5, -1.0, 9.0, float("nan"), float("inf")])
def test_places_that_cannot_be(slot):
    step = step_of([guessed(0, -1, "accepted", slot, 0.5)], (0,), "bonus")
    assert not view.has_blocks(step) and view.block_size([step]) == 1
    for wrong in (float("nan"), -0.5, 1.5):
        assert not view.has_blocks(step_of([guessed(0, -1, "accepted", 1, wrong)], (0,), "bonus"))


def test_the_table_has_a_row_per_node():
    table = view.blocks_table(tree(), TOKEN_BYTES)
    assert table["place"].tolist() == [1, 1, 2, 2, 1, 2] and table["p behind the parent"].tolist()[:4] == [0.3, 0.7, 0.0, 1.0]


@pytest.mark.parametrize("token", HOSTILE)
def test_hostile_pieces_are_escaped(token):
    nodes = [guessed(token, -1, "accepted", 1, 0.5), guessed(token, 0, "rejected", 2, 0.5)]
    step = step_of(nodes, (0,), "correction", rows=(None, row((3,), (1.0,)), None))
    shown = view.blocks_html(step, HOSTILE)
    assert not any(tag in shown for tag in ("<script", "<b>bold", "<a href", "\u202e", "\x00"))
    assert "not belong together" in view.blind_words(step, HOSTILE)


def test_a_trace_of_another_kind():
    assert not view.has_blocks(chain()) and view.has_blocks(tree())


def test_the_numbers_are_those_of_a_run(llama):
    run = Run(llama, "falcon", prompt="the cat sat on", sampling=Sampling(1.0), max_tokens=16)
    for step in run:
        assert view.has_blocks(step) and step.draft_calls == 2
        assert [column.slot for column in view.columns(step)][:4] == [1, 2, 1, 2][: len(view.columns(step))]
        for i, one in enumerate(step.nodes):
            assert one.source == f"pass {view.pass_of(view.depths(step)[i], 2)}"
    assert sum(got for _, _, got in view.reached(run.trace.steps)) == sum(len(step.path) for step in run.trace.steps)


@pytest.mark.skipif(not (EMBEDDED / "falcon").is_dir(), reason="not trained yet")
def test_the_page():
    settings = Settings(prompt="Once upon a time", method="falcon", temperature=1.0, max_tokens=8)
    at = press(page_opened(**address.parameters(settings, 1, None)), "run")
    assert not at.exception and not errors(at) and state(at).trace.header.method == "falcon"
    assert "Blocks, not tokens" in " ".join(markdown.value for markdown in at.markdown)
    at.session_state["falcon_box"] = at.session_state["falcon_mask_box"] = True
    at.run()
    assert any("EAGLE's triangle" in chart.proto.alt for chart in at.get("plotly_chart"))
    assert any("What it does not see" in caption.value for caption in at.caption)
    assert not at.exception and any("Acceptance by place" in chart.proto.alt for chart in at.get("plotly_chart"))
