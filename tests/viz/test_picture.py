"""The picture of an image family: one frame per call, all calls below each other, and the same in words; and what Home plays."""

import re

import msgspec
import pytest

from decoding.runs import recorded_pictures
from decoding.trace import Raster, Trace
from pages.parts.shared import recorded_run as demo
from tests.viz_samples import HOSTILE, chain, node, small_tree, step_of, trace_of
from viz.lanes.lanes import lanes
from viz.lanes.pictures import picture_lanes, picture_result, picture_script
from viz.step.picture import (
    CSS,
    EARLIER,
    GIVEN,
    OPEN,
    ROWS,
    beside_html,
    guidance_html,
    legend_html,
    pace_words,
    picture_alt,
    picture_html,
    picture_table,
    picture_text,
    pixels,
    trajectory_html,
)
from viz.stepper.data import stepper_data
from viz.style import LOOKS

PALETTE = ("#ffffff", "#aaaaaa", "#000000")
RASTER = Raster(3, 2, PALETTE, (("cat", "dog"),))
NAMES = {0: b"g0", 1: b"g1", 2: b"g2", 3: b"cat", 4: b"dog"}


def drawn(*steps, prompt_tokens=(3,), raster=RASTER, **more) -> Trace:
    """A picture of three by two; the prompt is the word 3, and what stands behind it was given."""
    return trace_of(
        *steps, prompt_tokens=prompt_tokens, raster=raster, prompt="cat", token_bytes=NAMES | more.pop("token_bytes", {})
    )


FIRST = step_of([node(1, -1, "rejected"), node(2, 0, "not judged"), node(0, 1, "not judged")], (), "correction", 2)
SECOND = step_of([node(2, -1), node(0, 0), node(1, 1, "rejected"), node(2, 2, "not judged")], (0, 1), "correction", 0)
LAST = step_of([node(1, -1), node(2, 0)], (0,), None)
TRACE = drawn(FIRST, SECOND, LAST)


# -- what stands where ---------------------------------------------------------------------------------------------------------


def states(trace: Trace, cursor: int) -> list[tuple[int, str]]:
    return [(pixel.token, pixel.state) for pixel in pixels(trace, cursor)]


def test_a_frame_holds_what_was_there_what_came_and_what_is_open():
    assert states(TRACE, -1) == []
    assert states(TRACE, 0) == [(2, "correction"), (2, OPEN), (0, OPEN)]
    assert states(TRACE, 1) == [(2, EARLIER), (2, "accepted"), (0, "accepted"), (0, "correction"), (2, OPEN)]
    places = [pixel.place for pixel in pixels(TRACE, 1)]
    assert places == sorted(set(places)) == list(range(5))
    assert [pixel.refused for pixel in pixels(TRACE, 1)] == [None, None, None, 1, None]
    assert [pixel.refused for pixel in pixels(TRACE, 2)][3] is None, "what an earlier call refused is over"


def test_guesses_never_reach_beyond_the_picture():
    long = drawn(step_of([node(i % 3, i - 1, "not judged" if i else "rejected") for i in range(12)], (), "correction", 0))
    assert len(pixels(long, 0)) == RASTER.pixels
    cells = re.findall(r"<span", picture_html(long, 0))
    assert len(cells) == RASTER.pixels and trajectory_html(long, 0).count("<span") == RASTER.pixels


def test_pixels_that_were_given_stand_before_all_calls():
    trace = drawn(FIRST, prompt_tokens=(3, 1, 1))
    assert states(trace, -1) == [(1, GIVEN), (1, GIVEN)]
    assert [pixel.place for pixel in pixels(trace, 0)] == [0, 1, 2, 3, 4]
    assert "2 are given" in picture_alt(trace, -1) and beside_html(trace, 0).count("ds-px-earlier") == 3


def test_of_a_tree_one_pixel_is_open_at_every_depth():
    found = pixels(drawn(small_tree()), 0)
    assert len({pixel.place for pixel in found}) == len(found)


@pytest.mark.parametrize("step", [step_of(), chain(0), chain(5), small_tree()])
def test_a_run_that_wrote_text_has_no_picture(step):
    with pytest.raises(ValueError, match="'toy' wrote text"):
        pixels(trace_of(step), 0)
    with pytest.raises(ValueError, match="wrote text"):
        picture_lanes([("one", "", trace_of(step))])


# -- as it is drawn ------------------------------------------------------------------------------------------------------------


def test_every_state_is_told_by_more_than_its_colour():
    html = picture_html(TRACE, 1)
    assert html.count("ds-px-accepted") == 2 and html.count(LOOKS["accepted"].mark) >= 2
    assert html.count("ds-px-correction") == 1 and html.count("<i ") == 1, "the refused colour, small"
    assert 'style="background-color:#aaaaaa"' in html and html.count("ds-px-open") == 1
    assert f"3 x 2 pixels: {4} of 6" in html and 'role="img"' in html
    for state in ("accepted", "correction", OPEN):
        assert f"ds-px-{state}" in CSS and f"ds-px-{state}" in legend_html(TRACE, 1)
    assert "<script" not in CSS and "http" not in CSS


def test_titles_say_row_column_and_what_stood_there_instead():
    html = picture_html(TRACE, 1)
    assert "row 2, column 1: g0, correction" in html and "in place of g1, call 2" in html
    assert "row 1, column 1: g2, written by an earlier call, call 1" in html


def test_beside_it_plain_decoding_has_a_pixel_per_call():
    for cursor in range(3):
        assert beside_html(TRACE, cursor).count("ds-px-earlier") == cursor + 1
        assert f"{cursor + 1} of 6 pixels" in beside_html(TRACE, cursor)


def test_a_row_per_call_freezes_from_the_left():
    """What is solid in a row begins where the row above ended, and what is pale lies to the right of it."""
    cells = re.findall(r'class="ds-px-(\w+)" style="grid-area:(\d+)/(\d+);', trajectory_html(TRACE, 2))
    solid = [[int(column) for state, row, column in cells if int(row) == call and state != OPEN] for call in (1, 2, 3)]
    assert solid == [[1], [2, 3, 4], [5]]
    pale = [[int(column) for state, row, column in cells if int(row) == call and state == OPEN] for call in (1, 2, 3)]
    assert pale == [[2, 3], [5], [6]]


def test_of_many_calls_the_last_ones_are_shown():
    raster = msgspec.structs.replace(RASTER, width=16, height=16)
    many = drawn(*[step_of(final_token=i % 3) for i in range(ROWS + 20)], raster=raster)
    rows = {int(row) for row in re.findall(r"grid-area:(\d+)/", trajectory_html(many, ROWS + 19))}
    assert rows == set(range(1, ROWS + 1)) and f"in call {ROWS + 20}," in trajectory_html(many, ROWS + 19)
    assert "in call 20," not in trajectory_html(many, ROWS + 19) and "in call 21," in trajectory_html(many, ROWS + 19)


def test_words_and_letters():
    assert picture_text(TRACE, 1) == "220\n0?." and picture_text(TRACE, -1) == "...\n..."
    assert picture_alt(TRACE, 1) == (
        "cat, 3 x 2 pixels: 4 of 6 after 2 calls. Call 2: 2 accepted, g1 corrected to g0. 1 guesses are open."
    )
    assert pace_words(TRACE, 1) == (
        "4 pixels in 2 calls, 2.0 a call; 1 of the calls gave a single one, as every call of plain decoding does."
    )
    assert pace_words(TRACE, -1) == "No call yet."
    table = picture_table(TRACE, 1)
    assert list(table.columns) == ["row", "1", "2", "3"] and table["1"].tolist() == ["g2", f"{LOOKS['correction'].mark} g0"]


def test_the_stepper_gets_the_colour_of_every_pixel_and_of_no_word():
    names = stepper_data(TRACE)["names"]
    assert names["1"] == ["g1", "g1", "#aaaaaa"] and names["3"] == ["cat", "cat"]
    assert stepper_data(TRACE)["head"]["picture"] and not stepper_data(trace_of(chain(3)))["head"]["picture"]
    assert all(len(name) == 2 for name in stepper_data(trace_of(chain(3)))["names"].values())


@pytest.mark.parametrize("token", HOSTILE)
def test_what_a_trace_claims_is_escaped(token):
    """Names of tokens, the prompt, and tokens that are no pixels, which have no colour."""
    nodes = [node(token, -1, "rejected"), node(1, 0, "not judged")]
    trace = drawn(step_of(nodes, (), "correction", token), token_bytes=HOSTILE)
    trace = msgspec.structs.replace(trace, header=msgspec.structs.replace(trace.header, prompt="<b>cat</b>"))
    html = "".join(draw(trace, 0) for draw in (picture_html, beside_html, trajectory_html, legend_html))
    assert not re.search(r"<(?!/?(?:div|span|b|i)\b)", html) and "<b>bold" not in html and "<b>cat" not in html
    assert "which is no pixel" in html and "background:none" in html and "!" in picture_text(trace, 0)
    assert picture_lanes([("one", "", trace)])[0]["calls"][0]["tokens"] == [["", "correction"]]


def test_a_guided_picture_says_so():
    assert guidance_html(TRACE) == "" and "guidance" not in stepper_data(TRACE)["head"]["facts"]
    sampling = msgspec.structs.replace(TRACE.header.sampling, guidance=2.5)
    guided = msgspec.structs.replace(TRACE, header=msgspec.structs.replace(TRACE.header, sampling=sampling))
    assert "guidance 2.5</b> another law" in guidance_html(guided)
    assert "guidance 2.5" in stepper_data(guided)["head"]["facts"]


# -- what Home plays -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    return recorded_pictures.read()


def test_the_pair_is_one_picture_in_a_quarter_of_the_calls(pair):
    ordinary, speculative = pair
    assert [trace.header.method for trace in pair] == [recorded_pictures.ORDINARY, recorded_pictures.SPECULATIVE]
    assert ordinary.header.prompt == speculative.header.prompt == recorded_pictures.PROMPT and ordinary.header.raster is not None
    assert len(ordinary.steps) == 64 >= 4 * len(speculative.steps)
    assert picture_result(*pair) == f"The same 64 pixels: 64 calls of the model, or {len(speculative.steps)}."
    assert demo.picture_pair() == pair
    with pytest.raises(ValueError, match="the same pixels"):
        picture_result(msgspec.structs.replace(ordinary, steps=ordinary.steps[:-1]), speculative)


def test_it_can_be_drawn_anew(pair):
    """The shipped target draws this very picture, in as many calls."""
    from decoding.models.family import load

    again = recorded_pictures.record(load("digits", device="cpu"), recorded_pictures.SPECULATIVE)
    assert [step.tokens for step in again.steps] == [step.tokens for step in pair[1].steps]
    assert recorded_pictures.told(again).startswith("digit3, speculative_jacobi: 15 calls\n")


def test_lanes_draw_every_pixel_in_its_colour(pair):
    raster = pair[0].header.raster
    for lane, trace in zip(picture_lanes([("a", "", pair[0]), ("b", "", pair[1])]), pair, strict=True):
        colours = [colour for call in lane["calls"] for colour, _ in call["tokens"]]
        assert colours == [raster.palette[token] for step in trace.steps for token in step.tokens]
        assert (lane["width"], lane["height"], len(lane["calls"])) == (8, 8, len(trace.steps))
        assert f"{len(trace.steps)} calls" in lane["says"]
    refused = [verdict for call in picture_lanes([("b", "", pair[1])])[0]["calls"] for _, verdict in call["guesses"]]
    assert {"accepted", "rejected", "not judged"} == set(refused)


def test_the_script_is_one_module_that_writes_no_markup():
    assert picture_script().count("export default") == 1 and "class PictureLane" in picture_script()
    assert not any(word in picture_script() for word in ("innerHTML", "import(", "fetch(", "eval(", "\nimport"))
    assert lanes([("a", "", TRACE)])[0]["calls"], "the lanes of texts take it too"


def test_a_damaged_picture_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(recorded_pictures, "FOLDER", tmp_path)
    demo.picture_pair.cache_clear()
    try:
        (tmp_path / "plain.msgpack.gz").write_bytes(b"\x1f\x8bnothing")
        assert demo.picture_pair() is None
    finally:
        demo.picture_pair.cache_clear()
