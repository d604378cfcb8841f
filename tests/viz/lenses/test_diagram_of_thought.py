"""Pictures of Diagram of Thought: states, edges, the list, the self-test in numbers that can be counted."""

import pytest

from decoding.looks.diagram_of_thought import Checked, DiagramOfThoughtLook, Thought
from decoding.trace import Trace
from tests.viz_samples import chain, trace_of
from viz.lenses import diagram_of_thought as pictures

THOUGHTS = (
    Thought("proposer", "9.11 <b>", free=4, forced=3, surprise=0.5),
    Thought("critic", "No.", (0,), "invalid", 0.2, 0.4, free=1, forced=9),
    Thought("proposer", "9.8", (1,), free=2, forced=3),
    Thought("critic", "Yes.", (2,), "valid", 0.9, 0.5, free=1, forced=9),
    Thought("proposer", "So it is."),
    Thought("summarizer", "By P1.", (2,)),
)
CHECKS = tuple(Checked(f"s{i}", true, share, 0.5) for i, (true, share) in enumerate(((1, 0.9), (1, 0.4), (0, 0.4), (0, 0.1))))
CHECKS = tuple(Checked(one.statement, bool(one.true), one.share, one.mass) for one in CHECKS)
LOOK = DiagramOfThoughtLook(question="Which?", thoughts=THOUGHTS, checks=CHECKS, done=True)


def test_the_sentence_counts_verdicts_and_names_what_the_summary_may_not():
    said = pictures.sentence(LOOK)
    assert "Of 3 propositions 1 were verified and 1 refuted." in said and "The summary names P1, which nothing verified." in said
    assert "On 4 plain statements its verdicts have an AUC of 0.88: it tells right from wrong." in said


def test_the_area_is_chance_where_all_are_alike():
    alike = [Checked("s", i % 2 == 0, 0.3, 0.1) for i in range(6)]
    assert pictures.area(alike) == 0.5 and pictures.area(alike[:1]) is None
    assert pictures.area(CHECKS) == pytest.approx(3.5 / 4)
    weak = DiagramOfThoughtLook(thoughts=THOUGHTS, checks=tuple(alike))
    assert "it cannot judge" in pictures.sentence(weak)


def test_the_graph_shows_every_thought_once_in_its_state():
    made = pictures.figure(LOOK, False)
    assert made is not None
    shown = {trace.name: list(trace.text) for trace in made.data if trace.mode == "markers+text"}
    assert shown == {"verified": ["P2"], "refuted": ["P1"], "open": ["P3"], "critique": ["C1", "C2"], "summary": ["S1"]}
    lines = made.data[0]
    assert list(lines.x).count(None) == 4 == len(pictures.edges(THOUGHTS))
    columns = {name: x for trace in made.data[1:] for name, x in zip(trace.text, trace.x, strict=True)}
    assert columns["P1"] < columns["C1"] < columns["P2"] < columns["C2"] and columns["S1"] > columns["P2"]


def test_a_summary_of_nothing_stands_last():
    thoughts = (*THOUGHTS[:2], Thought("summarizer", "Nothing held."))
    assert [x for x, _ in pictures.places(thoughts)] == [0, 1, 2]


def test_edges_that_cannot_be_are_left_out():
    odd = DiagramOfThoughtLook(
        thoughts=(Thought("proposer", "a", (0, 1, -5)), Thought("critic", "b", (0, 0, 7)), Thought("who", ""))
    )
    assert pictures.edges(odd.thoughts) == [(0, 1)] and pictures.figure(odd, True) is not None
    assert pictures.names(odd.thoughts) == ["P1", "C1", "?1"]


def test_the_list_escapes_and_says_the_mass():
    made = pictures.html(LOOK, False)
    assert "&lt;b&gt;" in made and "<b>9" not in made
    assert "invalid: p of valid 0.20 of both words, which have 0.40" in made and "behind C1" in made
    (_, _, words), *_ = pictures.more(LOOK, True)
    assert words.startswith("3 of 4 verdicts are right.")
    assert pictures.table(LOOK)["state"].tolist() == ["refuted", "critique", "verified", "critique", "open", "summary"]


def test_acceptance_by_role_counts_and_does_not_tell_small_numbers_apart():
    sections = [("proposer", run_of([True, True, False])), ("proposer", run_of([True])), ("critic", run_of([False, True]))]
    table = pictures.by_role(sections)
    assert table["role"].tolist() == ["proposer", "critic"]  # there was no summary
    columns = ["judged", "accepted", "thoughts", "tokens", "target calls", "tau"]
    assert table[columns].values.tolist() == [[4, 3, 2, 7, 4, 7 / 4], [2, 1, 1, 3, 2, 1.5]]
    words = pictures.role_words(sections)
    assert "proposer 3 of 4 (tau 1.75), critic 1 of 2 (tau 1.50)" in words and "not told apart" in words
    assert list(pictures.role_figure(sections, False).data[0].y) == pytest.approx([3 / 4, 1 / 2])
    sure = [("proposer", run_of([True] * 60)), ("critic", run_of([False] * 60))]
    assert "lie apart" in pictures.role_words(sure)
    assert pictures.role_words([]) == "No thought was written again." and pictures.role_figure([], True) is not None


def run_of(kept: list[bool]) -> Trace:
    """A call for each drafted token; one that is kept brings a bonus."""
    return trace_of(*(chain(int(good), 1) for good in kept))
