"""Diagram of Thought: the parser, the grammar, invariants of every graph, verdicts against the model's own p, and honest counts."""

import random
import re
from dataclasses import replace

import msgspec
import networkx
import pytest
import torch

from decoding.lenses import diagram_of_thought as lens
from decoding.looks.diagram_of_thought import (
    CRITIC,
    ENOUGH,
    GRAMMAR,
    INVALID,
    MOST,
    PROPOSER,
    SUMMARIZER,
    VALID,
    DiagramOfThoughtLook,
    Thought,
    joined,
    judged,
    next_role,
    parsed,
    transcript,
    verified,
    violations,
)
from decoding.runs.lens_run import LensRun
from decoding.runs.role_drafts import RoleDrafts
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.trace import Message
from viz.lenses.diagram_of_thought import by_role, edges

WRITTEN = """Some words before.
<proposer>9.11 is larger.</proposer>
<critic>It compares the parts as whole numbers. This step is invalid.</critic>
<proposer>9.11 is 9 and 11 hundredths, which is more.</proposer>
<critic>The tenths were forgotten: refine.</critic>
<proposer>9.8 is 9 and 80 hundredths, which is more.</proposer>
<critic>This step is valid.</critic>
<proposer>So 9.8 is larger.</proposer>
<critic>It follows from P3. This step is valid.</critic>
<critic>P4 says so. This step is valid.</critic>
<summarizer>By P3 and P4 9.8 is larger, whatever P1 says.</summarizer>"""


@pytest.fixture(scope="module")
def trace(embedded):
    run = Run(embedded, "plain", prompt="Once upon a time there was a fox", sampling=Sampling(0), seed=0, max_tokens=2)
    list(run)
    return run.trace


@pytest.fixture(scope="module")
def looks(embedded, trace):
    return list(LensRun(embedded, "diagram_of_thought", trace, params={"rounds": 3, "length": 8}))


# -- the parser --------------------------------------------------------------------------------------------------------


def test_a_transcript_with_two_refinements_has_exactly_these_edges():
    thoughts = parsed(WRITTEN)
    assert [one.role[0] for one in thoughts] == list("pcpcpcpccs")
    assert edges(thoughts) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (4, 7), (6, 8), (4, 9), (6, 9)]
    assert [one.verdict for one in thoughts if one.role == CRITIC] == [INVALID, INVALID, VALID, VALID, VALID]
    assert verified(thoughts) == [4, 6] and violations(thoughts) == [0], "the summary names P1, which was refuted"
    again = parsed(transcript(thoughts))
    assert [(a.role, a.parents, a.verdict) for a in again] == [(b.role, b.parents, b.verdict) for b in thoughts]


def test_markers_that_are_torn_nested_or_missing_never_raise():
    rng = random.Random(0)
    torn = ["<critic", "</summarizer>", "<proposer><proposer>", "P99", "P0", "\x00", "<<critic>>"]
    parts = [*re.split(r"(<[^>]*>|\s)", WRITTEN), *torn]
    for _ in range(300):
        text = "".join(rng.choice(parts) for _ in range(rng.randrange(60)))
        thoughts = parsed(text)
        check(thoughts)
        transcript(thoughts)
    assert parsed("") == parsed("no markers") == parsed("</critic>") == ()
    assert [one.text for one in parsed("<proposer>A <critic>B invalid")] == ["A", "B invalid"]
    assert len(parsed("<proposer>x" * 200)) == MOST


def check(thoughts) -> None:
    """The invariants: no cycle, every edge from earlier to later, every verified proposition with a critique that validates it, a
    summary behind verified ones alone."""
    made = networkx.DiGraph(edges(thoughts))
    assert networkx.is_directed_acyclic_graph(made)
    assert all(0 <= parent < i for i, one in enumerate(thoughts) for parent in one.parents)
    for i in verified(thoughts):
        assert thoughts[i].role == PROPOSER
        assert any(one.role == CRITIC and one.verdict == VALID and i in one.parents for one in thoughts)
    for i, one in enumerate(thoughts):
        if one.role == SUMMARIZER:
            assert set(one.parents) == set(verified(thoughts[:i]))


# -- the grammar -------------------------------------------------------------------------------------------------------


def grown(verdicts: str, rounds: int) -> list[Thought]:
    """The graph that these verdicts make."""
    thoughts: list[Thought] = []
    said = iter(verdicts)
    while role := next_role(thoughts, rounds):
        assert role in GRAMMAR[thoughts[-1].role if thoughts else ""]
        verdict = {"v": VALID, "i": INVALID}[next(said)] if role == CRITIC else ""
        thoughts.append(Thought(role, role, joined(thoughts, role, ""), verdict))
    return thoughts


def test_it_ends_when_enough_is_verified_or_after_the_rounds():
    assert [one.role for one in grown("vv", 6)] == [PROPOSER, CRITIC] * ENOUGH + [SUMMARIZER]
    assert len(grown("iiiiii", 6)) == 13 and len(grown("i", 1)) == 3
    for verdicts in ("iviivv", "iiiiiv", "viiiiv"):
        check(grown(verdicts, 6))


def test_a_refuted_proposition_is_refined_three_times_and_no_more_and_a_verified_one_is_not():
    chain = grown("iiiiii", 6)
    assert [one.parents for one in chain if one.role == PROPOSER] == [(), (1,), (3,), (5,), (), (9,)]
    assert [one.parents for one in grown("viv", 6) if one.role == PROPOSER] == [(), (), (3,)]
    assert judged(chain, 0) == INVALID and verified(chain) == [] and chain[-1].parents == ()


# -- the lens ----------------------------------------------------------------------------------------------------------


def test_the_graph_grows_and_keeps_its_invariants_while_it_streams(looks):
    sizes = [len(look.thoughts) for look in looks]
    assert sizes == sorted(sizes) and sizes[0] == 0 and sizes[-1] >= 7
    assert {0, 1, 2, 3} <= set(sizes), "one thought after the other"
    for look in looks:
        check(look.thoughts)
    last = looks[-1]
    assert last.thoughts[-1].role == SUMMARIZER and sum(one.role == CRITIC for one in last.thoughts) <= 3


def test_forced_markers_are_counted_apart_and_the_run_knows_nothing_of_any(embedded, looks, trace):
    before = trace
    for one in looks[-1].thoughts:
        assert 0 < one.free <= 8 and one.forced > 0 and "<" not in one.text
    own = [step.tokens for step in trace.steps]
    assert own == [step.tokens for step in before.steps] and trace.header.prompt_tokens == before.header.prompt_tokens
    written = sum(one.free + one.forced for one in looks[-1].thoughts)
    graph = next(look for look in looks if look.checks).rows_read
    assert written < graph, "what is written is read once, behind the instruction"


def test_a_verdict_is_the_models_own_p_of_the_two_words(embedded, looks):
    """Against the library's forward pass over the whole text of a statement."""
    head = lens.head_tokens(embedded, "Is this statement true?")
    pairs = [(statement, true) for pair in lens.STATEMENTS for statement, true in zip(pair, (True, False), strict=True)]
    assert [(one.statement, one.true) for one in looks[-1].checks] == pairs
    for one in looks[-1].checks[::7]:
        text = f"<proposer>\n{one.statement}\n</proposer>\n<critic>{lens.PUT[CRITIC]}"
        tokens = [*head, *embedded.tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.inference_mode():
            shares = embedded.target.model(torch.tensor([tokens])).logits[0, -1].softmax(-1)
        words = (embedded.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" valid", " invalid"))
        yes, no = (float(shares[word]) for word in words)
        assert (one.share, one.mass) == pytest.approx((yes / (yes + no), yes + no), abs=1e-3)


def test_a_model_without_a_template_is_said_to_have_none(looks, embedded):
    assert "never taught to follow instructions" in looks[-1].notes[0]
    assert lens.SYSTEM in embedded.text(lens.head_tokens(embedded, "Why?"))


def test_a_full_context_ends_the_graph_with_a_sentence(embedded, trace):
    small = shorter(embedded, 320)
    *_, look = LensRun(small, "diagram_of_thought", trace, params={"rounds": 6, "length": 32, "judge": False})
    check(look.thoughts)
    assert look.thoughts and (look.thoughts[-1].role == SUMMARIZER or "context is full" in look.notes[-1])
    assert look.rows_read <= 320


def shorter(family, context: int):
    """The same models with a shorter context."""
    return replace(family, target=replace(family.target, context=context))


def test_the_question_is_the_runs_last_message(trace):
    asked = msgspec.structs.replace(trace.header, messages=(Message("system", "Be kind."), Message("user", " Why is it so? ")))
    assert lens.question_of(msgspec.structs.replace(trace, header=asked)) == "Why is it so?"
    assert lens.question_of(trace) == "Once upon a time there was a fox"


# -- acceptance by role ------------------------------------------------------------------------------------------------


def test_every_thought_is_drafted_as_a_run_from_there_would_be(embedded):
    """Two stretches of one text: the counts are those of runs that begin where each begins, and nothing between them is counted."""
    plain = Run(embedded, "plain", prompt="Once upon a time there was a fox who", sampling=Sampling(0), max_tokens=30)
    list(plain)
    tokens = plain.trace.tokens_before(len(plain.steps))
    first = len(tokens) - 30
    thoughts = (Thought(PROPOSER, "a", at=first, greedy=12), Thought(CRITIC, ""), Thought(PROPOSER, "b", at=first + 18, greedy=12))
    look = DiagramOfThoughtLook(thoughts=thoughts, tokens=tokens)
    for method, params in (("speculative_sampling", {"length": 3}), ("eagle", {})):
        job = RoleDrafts(embedded, look, method, params)
        while not job.ended:
            next(job)
        assert next(job, None) is None and [role for role, _ in job.sections] == [PROPOSER, PROPOSER]
        for (_, trace), at in zip(job.sections, (first, first + 18), strict=True):
            alone = Run(embedded, method, params, tokens[:at], Sampling(0), max_tokens=12)
            list(alone)
            assert [verdicts(step) for step in trace.steps] == [verdicts(step) for step in alone.steps]
        row = by_role(job.sections).iloc[0]
        assert row["tokens"] == 24 and row["target calls"] == len(job.steps) and row["judged"] >= row["accepted"] > 0
        job.let_go()


def verdicts(step) -> list[str]:
    return [node.verdict for node in step.nodes]


def test_where_a_thought_was_chosen_greedily_is_noted(looks, embedded):
    """Only that is written again; on this family the first token of a thought is the one that does not end it."""
    last = looks[-1]
    for one in last.thoughts:
        assert one.free - 1 <= one.greedy <= one.free
        written = last.tokens[one.at + one.greedy - one.free : one.at + one.greedy]
        assert embedded.text(written).strip() == one.text


def test_what_cannot_be_drafted_is_refused(embedded, looks):
    thoughts = (Thought(PROPOSER, "a", at=2, greedy=2),)
    whole = DiagramOfThoughtLook(thoughts=thoughts, tokens=(5, 6, 7, 8))
    for look, method, words in (
        (DiagramOfThoughtLook(), "plain", "no thought that could be written again"),
        (msgspec.structs.replace(whole, tokens=(5, 6)), "plain", "no thought that could be written again"),
        (whole, "judge", "Judge Decoding as this run has it"),
    ):
        with pytest.raises(ValueError, match=words):
            RoleDrafts(embedded, look, method, {})


def test_a_family_that_draws_is_refused(embedded):
    """It looked, and ended with “Nothing was thought yet.”"""
    assert lens.LENS.lacks(embedded) == ""
    assert "draws pictures" in lens.LENS.lacks(type("Picture", (), {"raster": object(), "name": "digits"})())
