"""Pictures of the critical-token lens on a look whose numbers can be counted by hand, and on hostile tokens."""

import math

import msgspec
import pytest

from decoding.looks.critical_tokens import BETAS, Choice, CriticalLook, Pair, Rollouts, Scored
from tests.lenses.test_contract import HOSTILE, draw
from viz.lenses import critical_tokens as pictures
from viz.verdicts import NARROW

BYTES = {1: b" king", 2: b" queen", 3: b" sat", 4: b"\n"}


def scored(token: int, p: float, q: float, contrast: float, refused: bool = False) -> Scored:
    return Scored(token, math.log(p), math.log(q), 1.0 + refused, 0.5, (p, *[contrast] * 8), refused)


LOOK = CriticalLook(
    text=(scored(1, 0.8, 0.1, 0.9), scored(2, 0.02, 0.5, 0.001, True), scored(3, 0.3, 0.3, 0.2), scored(4, 0.9, 0.9, 0.95)),
    total=4,
    at=1,
    choices=(Choice(1, math.log(0.6), math.log(0.2)), Choice(2, math.log(0.3), math.log(0.6)), Choice(3, math.log(0.001), -3.0)),
    norms=tuple(math.log(0.6 ** (1 + b) / 0.2**b + 0.3 ** (1 + b) / 0.6**b) for b in BETAS),
    token=2,
    rival=1,
    judged=9,
    contested=2,
    pairs=(Pair(2, 1, 3, -2.5, 2), Pair(3, 1, 1, -1.0, 0)),
    forks=(Rollouts(2, ("a", "b", "c", "d"), 4, 0, -1.5), Rollouts(1, ("e", "f", "g", "h"), 4, 4, -1.0)),
    token_bytes=BYTES,
)


def test_the_sentence_has_overlap_the_most_own_token_contested_guesses_and_the_fork():
    said = pictures.sentence(LOOK).replace(NARROW, " ")
    assert "Over 4 tokens p and q overlap by 50 %; most the target's own is ␣king (+2.1 nats)." in said
    assert "Of 9 judged guesses 2 were contested" in said and "Most often refused: ␣queen → ␣king, 3 times, at -2.5 nats" in said
    assert "With ␣queen 0 of 4 rollouts are right, with ␣king 4 of 4, more than what chance explains." in said


@pytest.mark.parametrize(
    "told, rights, words",
    (
        (0, (0, 0), "Nothing can be checked in 8 rollouts, for they hold no sum"),
        (4, (0, 0), "the target does not solve this either way, so nothing says that the token is critical."),
        (4, (2, 3), "within what chance explains."),
    ),
)
def test_what_the_rollouts_do_not_show_is_said(told, rights, words):
    forks = tuple(msgspec.structs.replace(f, told=told, right=r) for f, r in zip(LOOK.forks, rights, strict=True))
    assert words in pictures.sentence(msgspec.structs.replace(LOOK, forks=forks))


def test_the_text_has_marks_beside_the_colours_and_pairs_and_rollouts_below():
    made = pictures.html(LOOK, False)
    assert 'class="ds-drafts ds-cursor"' in made and "ln p − ln q +2.08" in made
    assert "␣queen → ␣king</th><td>3</td><td>-2.50</td><td>2</td>" in made
    assert "right 0 of 4, 4 of which could be checked; mean ln p -1.50" in made and "<li>e</li>" in made


def test_the_slider_moves_the_lowest_and_the_candidates():
    assert pictures.lowest(LOOK, 0.0) == [1, 2, 0] and pictures.lowest(LOOK, 1.0) == [1, 2, 0]
    assert "β = 1: ␣queen 0.001 (p 0.02)" in pictures.contrast_words(LOOK, 1.0)
    assert pictures.contrast_html(LOOK, 1.0).count("ds-lowest") == 1 + 3
    shares = {beta: {t: c for t, _, _, c in pictures.candidates(LOOK, beta)} for beta in (0.0, 1.0, 2.0)}
    assert set(shares[0.0]) == {1, 2}  # the third is not plausible
    assert shares[0.0][1] == pytest.approx(0.6 / 0.9) and shares[1.0][1] == pytest.approx(1.8 / 1.95)
    assert shares[0.0][2] > shares[1.0][2] > shares[2.0][2]  # what the draft model likes is pushed down
    figure, alt = pictures.candidates_figure(LOOK, 1.0, True)
    assert [bar.name for bar in figure.data] == ["contrast, β = 1", "q", "p"] and "␣queen: p 0.30, q 0.60" in alt
    assert pictures.candidates_figure(CriticalLook(), 1.0, True) is None


def test_the_disagreement_has_a_cross_where_a_guess_was_refused():
    figure = pictures.figure(LOOK, False)
    assert list(figure.data[0].y) == [1.0, 2.0, 1.0, 1.0] and list(figure.data[1].x) == [2]
    assert pictures.alt(LOOK).endswith("median 1.00, 2.00 where a guess was refused, 1.00 elsewhere.")


def test_the_table_and_escapes():
    assert list(pictures.table(LOOK)["a guess was refused"]) == [False, True, False, False]
    hostile = msgspec.structs.replace(
        LOOK, token_bytes=dict.fromkeys(BYTES, HOSTILE), forks=(Rollouts(2, (HOSTILE.decode(),), 0, 0, 0.0),) * 2
    )
    made = draw(hostile) + pictures.contrast_html(hostile, 1.0) + pictures.candidates_figure(hostile, 1.0, False)[0].to_json()
    assert "<script" not in made.replace("\\u003c", "<") and "<script" not in pictures.contrast_words(LOOK, 1.0)
