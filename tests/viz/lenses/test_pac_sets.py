"""Pictures of the lens of prediction sets on a look whose numbers can be counted by hand."""

import msgspec

from decoding.looks.pac_sets import Cut, Drafted, PacSetsLook, Part
from viz.lenses import pac_sets as pictures

LOOK = PacSetsLook(
    kind="text",
    source=b" He <ran>.",
    drafted=(Drafted(1, 0.9, True), Drafted(2, 0.3, False)),
    parts=(
        Part(-1, 0, 10, 0.0, "sentence"),
        Part(0, 1, 10, 0.0, "phrase"),
        Part(1, 1, 3, 0.1, "word"),
        Part(1, 4, 10, 1.2, "word"),
    ),
    cuts=(Cut(0.02, bytes([1, 1, 0, 0])), Cut(0.1, bytes([1, 1, 1, 0])), Cut(1.5, bytes([1, 1, 1, 1]))),
    ended=True,
    truth=" He sat.",
    holds=1.2,
    calibration=(0.05,) * 12 + (0.5,) * 60 + (2.0,) * 128,
    held_out=(0.3,) * 10 + (2.0,) * 90,
    delta=0.05,
    confidence=0.9,
    token_bytes={1: b" He", 2: b" <ran>."},
)


def test_a_higher_confidence_opens_the_hole():
    """Of 200 drafts 12 may fail at 90 %, 81 or more at 50 %."""
    assert pictures.budget_at(LOOK, 0.9) == 0.5 and pictures.budget_at(LOOK, 0.5) == 2.0
    low, high = pictures.set_html(LOOK, 0.5), pictures.set_html(LOOK, 0.9)
    assert "&lt;ran&gt;" in low and pictures.HOLE not in low
    assert pictures.HOLE in high and high.count('class="ds-kept"') == 1 and "<ran>" not in high
    assert pictures.html(LOOK, False).startswith(high) and "␣He␣sat." in pictures.html(LOOK, False)


def test_the_sentence_says_what_is_kept_and_what_was_measured():
    said = pictures.sentence(LOOK)
    assert "At 90% 2 of 8 drafted bytes are kept; what the target writes by itself lies inside." in said
    assert "inside in 90 of 100" in said
    assert "lies outside" in pictures.sentence_at(LOOK, 0.5)
    few = msgspec.structs.replace(LOOK, calibration=(1.0,) * 28)
    assert "28 drafts are too few to promise 90%" in pictures.sentence(few)


def test_the_first_token_that_the_target_would_not_write_is_crossed():
    made = pictures.draft_html(LOOK)
    assert made.count("✗") == 1 and made.index("␣He") < made.index("✗")


def test_the_figure_has_both_halves_and_the_line():
    figure = pictures.figure(LOOK, True)
    assert figure is not None and len(figure.data) == 2 and "12 of 200 may fail" in figure.to_json()
    assert "a budget of 0.50 nats" in pictures.alt(LOOK)
    titles = [title for title, _, _ in pictures.more(LOOK, False)]
    assert titles == ["What each part costs", "Promised and measured"]


def test_the_table_says_up_to_where_a_part_is_kept():
    table = pictures.table(LOOK)
    assert list(table["kind"]) == ["sentence", "phrase", "word", "word"]
    assert table["kept up to"][2] > table["kept up to"][3] != ""
