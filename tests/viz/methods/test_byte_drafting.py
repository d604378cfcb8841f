"""The picture of byte drafting: numbers counted by hand, hostile bytes, and traces that lack something."""

import msgspec
import pytest

import viz.methods.byte_drafting as bytes_view
from decoding.score_names import BYTES_ACCEPTED, BYTES_DRAFTED, DRAFTED_BYTES, DRAFTER_TOKENS, P_OF_BYTE, Q_OF_BYTE, U_OF_BYTE
from decoding.trace import Step
from tests.viz_samples import HOSTILE, step_of

PIECES = {7: b" was", 8: b" sat", **HOSTILE}


def judged(text: bytes = b" sad", kept: int = 3, *, end: bool = False, begun: bytes = b"\1\0\1\0", **changed) -> Step:
    """A step in which so many bytes of a draft were accepted, by q 0.5, p 0.4, and u 0.5 or 0.9; it wrote " sat"."""
    count = len(text) + end
    facts = {BYTES_DRAFTED: float(count), BYTES_ACCEPTED: float(kept)}
    for i in range(count):
        facts |= {Q_OF_BYTE.format(i + 1): 0.5, P_OF_BYTE.format(i + 1): 0.4, U_OF_BYTE.format(i + 1): 0.5 if i < kept else 0.9}
    made = step_of((), (), "plain", changed.pop("final", 8))
    return msgspec.structs.replace(made, facts=facts | changed, grids={DRAFTED_BYTES: text, DRAFTER_TOKENS: begun}, draft_calls=2)


def test_what_happened_to_every_byte():
    found = bytes_view.drafted(judged())
    assert [one.value for one in found] == [b" ", b"s", b"a", b"d"]
    assert [one.verdict for one in found] == ["accepted", "accepted", "accepted", "rejected"]
    assert [one.begins for one in found] == [True, False, True, False]
    assert all((one.u * one.q < one.p) == (one.verdict == "accepted") for one in found)


def test_the_sentence_counts():
    words = bytes_view.sentence(judged(), PIECES)
    assert "3 of 4 bytes were accepted; d was refused (0.90 × 0.50 is not below 0.40)" in words
    assert "wrote 1 token of 4 bytes, 1 of them beyond the last accepted one." in words and "2 begin in these 4 bytes" in words
    assert "refused" not in bytes_view.sentence(judged(kept=4), PIECES)
    assert bytes_view.sentence(step_of(), PIECES) == "No bytes were drafted in this step."


def test_the_end_of_the_text_is_a_symbol():
    found = bytes_view.drafted(judged(end=True, kept=5))
    assert len(found) == 5 and found[-1].value == b"" and found[-1].verdict == "accepted"
    assert "end" in bytes_view.html(judged(end=True, kept=5), PIECES)


def test_three_rows_over_one_ruler():
    html = bytes_view.html(judged(), PIECES)
    assert html.count("<tr>") == 3 and html.count("✓") == 3 and html.count("✗") == 1
    assert html.count('colspan="2"') == 2 and 'colspan="4"' in html and "ds-beyond" in html.split("</style>")[1]


@pytest.mark.parametrize("dark", [False, True])
def test_the_figure_the_table_and_the_words_agree(dark):
    step = judged()
    figure = bytes_view.figure(step, dark)
    assert [trace.name for trace in figure.data] == ["q, drafter", "p, target", "u × q"]
    assert list(figure.data[1].y) == [0.4] * 4 and list(figure.data[2].y) == pytest.approx([0.25, 0.25, 0.25, 0.45])
    table = bytes_view.table(step)
    assert list(table["byte"]) == [32, 115, 97, 100] and list(table["verdict"]) == [one.verdict for one in bytes_view.drafted(step)]
    assert "d rejected, q 0.50, p 0.40" in bytes_view.alt(step)


def test_the_run_so_far():
    words = bytes_view.run_words([judged(), step_of(), judged(kept=4)], PIECES)
    assert "7 of 8 judged bytes were accepted (0.875), 3.50 a step" in words
    assert bytes_view.run_words([step_of()], PIECES) == "No bytes were judged yet."


@pytest.mark.parametrize(
    "broken",
    [
        judged(begun=b"\1"),
        judged(**{BYTES_DRAFTED: 9.0}),
        judged(**{BYTES_ACCEPTED: 5.0}),
        judged(**{BYTES_DRAFTED: -1.0}),
        judged(**{Q_OF_BYTE.format(2): float("nan")}),
        judged(**{P_OF_BYTE.format(1): 7.0}),
        msgspec.structs.replace(judged(), grids={}),
        msgspec.structs.replace(judged(), facts={}),
    ],
)
def test_numbers_that_cannot_be_leave_the_picture_out(broken):
    assert bytes_view.drafted(broken) == [] and bytes_view.html(broken, PIECES) == ""
    assert bytes_view.sentence(broken, PIECES).startswith("No bytes") and bytes_view.table(broken).empty
    bytes_view.figure(broken)


def test_hostile_bytes_stay_text():
    step = judged(b"<b>&", 2, begun=b"\1\1\0\0", final=100)
    html = bytes_view.html(step, PIECES).split("</style>")[1]
    assert "<script" not in html and "<b>" not in html and "&lt;" in html
    assert "<b" not in "".join(bytes_view.figure(step).layout.xaxis.ticktext)
