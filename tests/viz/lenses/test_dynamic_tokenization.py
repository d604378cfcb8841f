"""Pictures of the lens of dynamic tokenization on a look whose numbers can be counted by hand."""

import msgspec

from decoding.looks.dynamic_tokenization import MEAN, NETWORK, ORIGINAL, RENUMBERED, Alone, DynamicTokenizationLook, Read, Row
from viz.lenses import dynamic_tokenization as pictures

A, B = (Row(5, 0.7), Row(4, 0.2)), (Row(4, 0.6), Row(5, 0.3))
LOOK = DynamicTokenizationLook(
    tokens=(0, 1, 2, 1, 2, 3, 4),
    fused=(0, 1, 0, 1, 2, 0),
    top=A,
    reads=tuple(
        Read(m, way, how, kl * (1 if how == RENUMBERED else 2), kl < 0.3, A if kl < 0.3 else B)
        for how in (RENUMBERED, ORIGINAL)
        for m, way, kl in ((0, MEAN, 0.0), (1, MEAN, 0.2), (2, MEAN, 0.5), (0, NETWORK, 0.0), (1, NETWORK, 0.05), (2, NETWORK, 0.1))
    ),
    words=(Alone((1, 2), 1, NETWORK, 0.01), Alone((1, 2), 1, MEAN, 0.02), Alone((1, 2, 3), 1, MEAN, 0.4)),
    token_bytes={0: b"The", 1: b" <g", 2: b"een", 3: b"est", 4: b".", 5: b"!"},
)


def test_the_sentence_counts_rows_and_says_what_moved():
    said = pictures.sentence(LOOK)
    assert said.startswith("2 of 2 merges make 4 rows of 7 (43\N{NARROW NO-BREAK SPACE}% fewer).")
    assert "distribution moves by 0.10 nats with the trained network and 0.50 nats with the mean of the pieces" in said
    assert "The most probable token stays “!”." in said
    averages = msgspec.structs.replace(LOOK, reads=tuple(read for read in LOOK.reads if read.way == MEAN))
    assert "The most probable token was “!” and is “.”." in pictures.sentence(averages)
    assert "5 rows of 7" in pictures.sentence_at(LOOK, 1)


def test_nothing_to_merge_is_said():
    assert "No two tokens" in pictures.sentence(msgspec.structs.replace(LOOK, fused=(0,) * 6, reads=()))
    assert pictures.figure(msgspec.structs.replace(LOOK, fused=(0,) * 6), False) is None


def test_boxes_fuse():
    assert [pictures.boxes_html(LOOK, m).count('class="ds-word"') for m in (0, 1, 2)] == [0, 2, 2]
    made = pictures.boxes_html(LOOK, 2)
    assert made.count("<span") == 4 and "␣&lt;g<i>·</i>een<i>·</i>est" in made and "<g" not in made
    assert "4 boxes, 2 of them words" in pictures.boxes_alt(LOOK, 2)


def test_the_rows_behind_stand_side_by_side():
    made = pictures.behind_html(LOOK, 2)
    assert made.count("<section>") == 3 and made.index("trained network") < made.index("mean of the pieces")


def test_words_alone_are_a_table_the_dearest_first():
    made = pictures.words_html(LOOK)
    assert made.index("␣&lt;g·een·est") < made.index("␣&lt;g·een<") and "<g" not in made and "numbered anew" in made
    assert pictures.words_html(msgspec.structs.replace(LOOK, words=())) == ""


def test_the_figure_has_a_line_for_each_reading():
    figure = pictures.figure(LOOK, True)
    assert [list(line.y)[-1] for line in figure.data] == [0.1, 0.2, 0.5, 1.0]
    assert figure.data[0].line.dash == "solid" and figure.data[1].line.dash == "dot"
    assert "trained network, original positions: 0.20 nats at 2 merges" in pictures.alt(LOOK)


def test_the_table_has_readings_and_words():
    table = pictures.table(LOOK)
    assert len(table) == 15 and list(table["rows"][:3]) == [7, 5, 4]


def test_borders_that_are_not_those_of_the_tokens_are_left_out():
    odd = msgspec.structs.replace(LOOK, fused=(1, 2))
    assert pictures.spans(odd, 1) == [] and pictures.boxes_html(odd, 1) and pictures.sentence(odd)
