"""Pictures of ReAGent on a look whose numbers can be counted by hand, on hostile tokens, and on damaged looks."""

import math

import msgspec
import pytest

from decoding.looks import decode_look
from decoding.looks.reagent import Altered, Cause, Held, ReagentLook
from tests.lenses.test_contract import HOSTILE, damaged, draw
from viz.lenses import reagent as pictures
from viz.verdicts import NARROW

BYTES = {1: b"The", 2: b" king", 3: b" and", 4: b" his", 5: b" queen", 6: b" son", 9: b" sat"}
TARGET = Cause("target", math.log(0.1), (0.0, 0.5, -0.4, 0.1), (0.0, 0.1, 0.1, 0.1), (0.0, 0.8, 0.0, 0.2), 0.9)
DRAFT = Cause("draft", math.log(0.6), (0.0, 0.0, 0.0, 2.0), (0.0, 0.0, 0.0, 0.3), (0.0, 0.0, 0.0, 1.0), 0.5)
CONTRAST = Cause("contrast", math.log(5), (0.0, 1.5, 0.2, -0.3), (0.0, 0.2, 0.1, 0.1), (0.0, 0.9, 0.1, 0.0), 0.3)
LOOK = ReagentLook(
    way="leave one out",
    text=(1, 2, 3, 4),
    earlier=7,
    swapped=(False, True, True, True),
    token=5,
    rival=6,
    p=0.1,
    q=0.6,
    rival_p=0.5,
    judged=(0.1, 0.6, 0.77),
    causes=(TARGET, DRAFT, CONTRAST),
    log=(Altered((1, 9, 3, 4), 0.3, 0.5, 0.2, 1),),
    kept=Altered((1, 2, 9, 4), 0.2, 0.5, 0.4, 2),
    left=(1, 3),
    held=(Held("hard", 0.7, 0.5, 0.4, 0.1),),
    token_bytes=BYTES,
)


def test_the_sentence_holds_what_both_gave_the_die_the_reasons_and_how_stable_they_are():
    said = pictures.sentence(LOOK).replace(NARROW, " ")
    assert "The target gives ␣queen 10 %, the draft model 60 %. Its chance to be kept was 17 %, and the die fell on 0.77." in said
    assert "wrote ␣son and not ␣queen is owed to ␣king (1.50 nats), then ␣and." in said
    assert said.endswith("Two halves of the draws rank the tokens alike to 0.30: noise.")
    assert "the die alone refused it" in pictures.sentence(msgspec.structs.replace(LOOK, judged=(0.58, 0.6, 0.99)))
    little = msgspec.structs.replace(LOOK, enough=False, p=0.003, q=0.01, causes=())
    assert (
        pictures.sentence(little).replace(NARROW, " ") == "The target gave ␣queen 0.3 %, the draft model 1 %: nothing to explain."
    )


@pytest.mark.parametrize("agree, word", ((0.71, "stable"), (0.7, "half settled"), (0.4, "half settled"), (0.39, "noise")))
def test_trust(agree, word):
    assert pictures.trust(agree).endswith(f": {word}.")


def test_without_a_refusal_the_target_is_what_it_is_about():
    plain = msgspec.structs.replace(LOOK, rival=None, rival_p=None, judged=None, causes=(TARGET, DRAFT))
    assert "That the target expects ␣queen is owed to ␣king (0.50 nats), then ␣his." in pictures.sentence(plain)
    assert "Nothing was refused here" in pictures.sentence(plain) and "Nothing was refused" not in pictures.sentence(LOOK)
    assert pictures.ordered(plain) == [TARGET, DRAFT] and pictures.ordered(LOOK) == [CONTRAST, TARGET, DRAFT]


def test_the_text_is_shown_for_every_number_with_marks_beside_the_colours():
    made = pictures.html(LOOK, False).replace(NARROW, " ")
    assert made.count('<div class="ds-why">') == 3 and "Why the target wrote ␣son and not ␣queen" in made
    assert "Why the draft model gives ␣queen 60 %" in made and made.count("… ") == 3
    assert made.count("ds-against") == 1 + 2  # the style; " and" for the target, " his" for the choice
    assert pictures.leant(LOOK) == frozenset()  # " his" is among the target's reasons too
    own = msgspec.structs.replace(LOOK, causes=(msgspec.structs.replace(TARGET, effects=(0.0, 0.5, -0.4, -0.1)), DRAFT))
    assert pictures.leant(own) == {3} and pictures.html(own, False).count('class="ds-own"') == 1
    assert "+0.500 ± 0.100" in made and "never swapped" in made


def test_altered_texts_have_what_is_other_underlined_and_the_scores_stand_beside_chance():
    made = pictures.html(LOOK, True)
    assert "␣king → <b>␣sat</b>" in made and "␣queen p 0.30, q 0.50, ␣son p 0.20" in made
    assert "The king<b> sat</b> his" in made
    assert "Only the 2 strongest are kept: ␣queen has rank 2, still among the first 3" in made
    assert "<td>0.70</td><td>0.40</td>" in made and "<td>0.50</td><td>0.10</td>" in made


def test_bars_stand_in_the_order_of_the_text_with_their_spread():
    figure = pictures.figure(LOOK, False)
    assert [bar.name for bar in figure.data] == ["the guess, draft model", "the guess, target", "written, not the guess"]
    assert list(figure.data[-1].x) == [0.0, 1.5, 0.2, -0.3] and list(figure.data[-1].error_x.array) == [0.0, 0.2, 0.1, 0.1]
    assert figure.layout.yaxis.ticktext == ("The", "␣king", "␣and", "␣his")
    assert pictures.alt(LOOK) == "Why the target wrote ␣son and not ␣queen: ␣king +1.50, ␣and +0.20."


def test_the_table_has_every_token_and_every_number():
    table = pictures.table(LOOK)
    assert list(table["token"]) == ["The", "␣king", "␣and", "␣his"] and list(table["contrast: effect"]) == [0.0, 1.5, 0.2, -0.3]
    assert len(table.columns) == 3 + 9


def test_every_token_is_escaped():
    assert "<script" not in draw(msgspec.structs.replace(LOOK, token_bytes=dict.fromkeys(BYTES, HOSTILE))).replace("\\u003c", "<")


def test_damaged_looks_are_drawn_or_refused():
    drawn = 0
    for changed in damaged(LOOK):
        try:
            read = decode_look(msgspec.msgpack.encode(changed))
        except ValueError:
            continue
        draw(read)
        drawn += 1
    assert drawn > 30
