"""Pictures of the horizon lens: what is said, the bars, lines that part at every unit, the cap."""

import pytest

from decoding.looks.horizon import At, Call, Held, HorizonLook
from viz.lenses import horizon as pictures

BYTES = {0: b" a", 1: b" b", 2: b"."}


def at(token: int, t: int, left: int | None, position: float, state: float, end: float = 0.1) -> At:
    return At(token, t, left, position, state, 0.5, 0.5, end)


LOOK = HorizonLook(
    unit="sentence", by="state", layer=8, slack=2, said="tales", at=1, token_bytes=BYTES, done=True,
    text=(at(0, 1, 2, 0.5, 0.75), at(1, 2, 1, 0.25, 0.5, 0.8), at(2, 3, 0, 0.25, 0.0), at(0, 1, None, 0.5, 0.6)),
    calls=(Call(-1, 4, 4, 1, None, 0, 0, 0), Call(1, 4, 4, 3, 2, 1, 1, 3)),
    held=(Held("position", 0.12, 0.0, 0.7), Held("state", 0.16, 0.21, 0.82)),
)  # fmt: skip


def test_the_sentence_has_the_cursor_the_text_and_the_cap():
    said = pictures.sentence(LOOK)
    assert "Behind ␣b, token 2 of its sentence, the state expects 2 more, counting 1; 1 came." in said
    # of the three tokens whose end came the truth is 2/3, 1/3, 0
    assert "Over 3 tokens the state is off by 0.083 of a sentence in the mean, counting tokens by 0.17" in said
    assert "the state adds to what counting knows" in said
    assert "spared 1 of 8 drafted tokens at the price of 1 that were kept." in said


def test_a_cap_that_changes_nothing_says_so():
    idle = HorizonLook(unit="answer", by="state", text=LOOK.text, calls=(Call(1, 4, 4, 3, 9, 0, 0, 0),))
    assert pictures.cap_words(idle) == "A cap there would have changed no draft."


def test_counting_is_named_where_it_is_the_better_guess_and_when_it_is_asked_for():
    worse = HorizonLook(unit="answer", by="head", text=(At(0, 1, 1, 0.5, 0.0, 0.0, 0.9, 0.0),), at=0, token_bytes=BYTES)
    assert "counting is the better guess" in (said := pictures.sentence(worse)) and "the trained head expects 9 more" in said
    alone = HorizonLook(unit="answer", by="position", text=worse.text, at=0, token_bytes=BYTES)
    assert "counting tokens expects 1 more; 1 came." in (said := pictures.sentence(alone)) and "better" not in said


def test_the_bars_are_as_long_as_what_is_written():
    made = pictures.bars_html(LOOK, False)
    assert made.count("width:50.0%") == 1 and made.count("width:75.0%") == 1 and made.count("width:66.7%") == 1
    assert "1 more" in made and "the state" in made


def test_the_lines_part_between_sentences_and_hold_what_was_read():
    made = pictures.figure(LOOK, False)
    true, counted, read = made.data
    assert list(true.x) == [1, 2, 3, None, 4] and list(true.y) == [pytest.approx(2 / 3), pytest.approx(1 / 3), 0.0, None, None]
    assert list(counted.y) == [0.5, 0.25, 0.25, None, 0.5] and list(read.y) == [0.75, 0.5, 0.0, None, 0.6]
    assert [shape.x0 for shape in made.layout.shapes] == [2], "the cursor"


def test_the_end_is_marked_where_it_came_next():
    (_, end, words), (_, cap, told) = pictures.more(LOOK, True)
    assert list(end.data[1].x) == [2] and words.startswith("80% in the mean where it came next, 10% elsewhere")
    answer = pictures.end_figure(HorizonLook(unit="answer", text=LOOK.text), False)[1]
    assert list(answer.data[1].x) == [3], "an answer's end token stands behind its last token"
    assert list(cap.data[0].y) == [4, 4] and list(cap.data[1].y) == [1, 3] and list(cap.data[2].y) == [None, 2]
    assert "below the draft in 1 of 2 calls" in told


def test_the_table_has_a_row_per_token():
    table = pictures.table(LOOK)
    assert table.shape == (4, 11) and table["tokens left"].tolist()[:3] == [2, 1, 0]
    assert table["the state"].tolist() == [0.75, 0.5, 0.0, 0.6]
