"""Pictures of the key-space lens on a look whose numbers can be counted by hand."""

import msgspec

from decoding.looks.navigation import Miss, NavigationLook, Ranked, Round, Sibling, Spot
from viz.lenses import navigation as pictures
from viz.verdicts import NARROW

BYTES = {1: b" daughter", 2: b" son", 3: b" wife", 4: b" ran", 5: b"<b>"}
NEAR = Miss(0, 0, 2, 1, 0.61, 3, True, 0.01)
FAR = Miss(1, 2, 4, 1, 0.02, 812, False, 0.01)
LOOK = NavigationLook(
    ranked=(Ranked(1, 0.6, 7, 4.0, 0.0, 1), Ranked(2, 0.2, 7, 3.0, 1.0, 900), Ranked(4, 0.1, 9, 0.5, 2.0, 2)),
    top=1,
    share=0.5,
    base=0.1,
    key_driven=0.5,
    clusters=64,
    guess=NEAR,
    pick=1,
    spots=(Spot(1, 1.0, 0.0, 0.0, 7), Spot(3, 0.8, 0.1, 0.2, 7), Spot(2, 0.61, 0.4, -0.2, 7)),
    siblings=(Sibling(2, 7), Sibling(3, 7)),
    misses=(NEAR, FAR),
    token_bytes=BYTES,
)


def test_the_sentence_holds_the_verdict_and_the_figures():
    said = pictures.sentence(LOOK).replace(NARROW, " ")
    assert "A near miss: ␣son is neighbour 3 of ␣daughter (cosine 0.61, the same cluster)." in said
    assert "1 of 2 refusals of the run were near misses" in said and "1 % of the cases" in said
    assert "1 of the 2 tokens behind the first 1 come" in said and "5.0 times what chance gives" in said
    assert "A different idea" in pictures.sentence(msgspec.structs.replace(LOOK, guess=FAR))


def test_chips_bear_the_letter_of_a_winners_cluster_and_siblings_are_counted():
    made = pictures.html(LOOK, False)
    assert made.count("<sup>A</sup>") == 2 and "␣ran</span>" in made
    assert "2 guesses stood here, from 1 cluster" in made and "into one idea" in made


def test_the_map_names_pick_and_guess_and_the_others_are_there_once():
    figure = pictures.figure(LOOK, True)
    assert [len(part.x) for part in figure.data] == [1, 1, 1]
    assert figure.data[0].text == ("␣wife",) and figure.data[2].text == ("<b>␣son</b>",)
    assert "␣wife 0.80" in pictures.alt(LOOK) and "A near miss" in pictures.alt(LOOK)


def test_more_has_parts_refusals_and_rounds():
    rounds = (Round(0, (1, 2), (0.5, 0.2), 4.0, 0.0, ("pear", "fig")), Round(2, (2,), (0.4,), 3.0, 1.5, ("<i>",)))
    look = msgspec.structs.replace(LOOK, rounds=rounds, plain=("pear", "pear"), things="fruits")
    titles = [title for title, _, _ in pictures.more(look, False)]
    assert len(titles) == 3 and titles[-1] == "In-context navigation"
    assert "ICN found 3 different answers, reading down the first row 1" in pictures.sentence(look)
    assert "from 4.0 to 3.0 nats" in pictures.sentence(look)
    assert "<i>" not in pictures.more(look, False)[-1][1].to_json().replace("\\u003c", "<")


def test_the_table_has_the_list_and_without_one_the_refusals():
    assert list(pictures.table(LOOK)["a winner's"]) == [True, True, False]
    assert list(pictures.table(msgspec.structs.replace(LOOK, ranked=()))["near miss"]) == [True, False]
