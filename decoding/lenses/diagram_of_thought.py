"""Diagram of Thought: one model proposes, criticises and sums up, and what it writes is read as a graph.

Zhang, Yuan and Yao 2024, https://arxiv.org/abs/2409.10038, section 3: role markers open every part; a critique hangs behind a
proposition, a refinement behind the critique that asked for it, and the summary reads what was validated in topological order.

Departures: the paper trains for the markers and gives neither data nor measurements; here a small grammar forces them, the next
role only where it may stand, and the model writes freely in between. A verdict is no text but a comparison: p of the word *valid*
with p of *invalid*, and the mass that both have together is shown. A self-test says whether the model can judge at all: 20
statements, half of them false, by the area under the curve. All of it is the lens's own text: the run is only asked for its
question, and no token here enters what is counted of its drafts. `decoding.runs.role_drafts` has the thoughts written again by the
run's method, for acceptance by role.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import msgspec
from torch import Tensor

from decoding.lens import BLOCK, Cost, Cursor, Lens
from decoding.looks.diagram_of_thought import (
    CRITIC,
    INVALID,
    PROPOSER,
    SUMMARIZER,
    VALID,
    Checked,
    DiagramOfThoughtLook,
    Thought,
    joined,
    next_role,
    verified,
)
from decoding.method import param
from decoding.models.family import Family
from decoding.trace import Trace

SYSTEM = (
    "Solve the problem in small steps. The proposer states one step in one sentence. The critic says what is right or wrong about "
    "it. The summarizer gives the answer."
)
QUESTION = 400  # characters of a question, its last
PUT = {CRITIC: "\nThis step is"}  # what is put into a role's mouth behind what it wrote
SAID = {VALID: " valid", INVALID: " invalid"}
A_LOOK = 3  # tokens between two looks
AROUND = 48  # forced tokens of a round at most: markers, and what is put into the critic's mouth
HEAD = 240  # tokens of the instruction and the template at most
STATEMENTS = (
    ("2 + 2 is 4.", "2 + 2 is 5."),
    ("9.8 is larger than 9.11.", "9.11 is larger than 9.8."),
    ("A week has seven days.", "A week has nine days."),
    ("Ice is frozen water.", "Ice is frozen milk."),
    ("Paris is a city in France.", "Paris is a city in Japan."),
    ("A triangle has three sides.", "A triangle has five sides."),
    ("Half of ten is five.", "Half of ten is three."),
    ("Cats are animals.", "Cats are plants."),
    ("The sun is hot.", "The sun is cold."),
    ("3 apples and 4 apples are 7 apples.", "3 apples and 4 apples are 9 apples."),
)
CHECK_ROWS = 28  # tokens of a statement with its markers at most


@dataclass(frozen=True)
class Params:
    rounds: int = param(3, "Rounds", "Propositions with a critique, at most.", low=1, high=6)
    length: int = param(32, "Tokens of a thought", "Freely written, at most.", low=4, high=48)
    judge: bool = param(
        True, "Self-test", "Also judge 20 statements, half of them false, to see whether the verdicts mean anything."
    )


@dataclass
class Writer:
    """A text that grows in a cache of its own: what is forced, and what the model chooses greedily."""

    family: Family
    cache: Any
    logits: Tensor | None = None  # (vocab,) behind everything
    tokens: list[int] = field(default_factory=list)  # all of them
    free: list[int] = field(default_factory=list)  # of the thought that is being written
    at: int = 0  # from where on they are the likeliest: the first one is not if that would have ended the thought
    surprise: float = 0.0
    forced: int = 0

    @property
    def rows(self) -> int:
        return len(self.tokens)

    @property
    def room(self) -> int:
        return self.family.target.context - self.cache.committed

    def force(self, tokens: Sequence[int]) -> None:
        """Tokens that the model has no say in, up to BLOCK of them."""
        self.logits = self.family.target.extend(self.cache, tokens)[-1]
        self.tokens += tokens
        self.forced += len(tokens)

    def write(self, length: int) -> Iterator[str]:
        """Up to `length` tokens of the model's own, up to a new line or a marker; after each, the text so far."""
        self.at = len(self.tokens)
        while len(self.free) < length and (token := self.choice()) is not None:
            self.at += not self.free and token != int(self.shares().argmax())
            self.surprise -= log(max(1e-30, float(self.shares()[token])))
            self.logits = self.family.target.extend(self.cache, (token,))[-1]
            self.tokens.append(token)
            self.free.append(token)
            yield self.family.text(self.free)

    def choice(self) -> int | None:
        """The likeliest token; None if that would end the thought. A thought has one token at least."""
        best = self.shares().topk(16).indices.tolist()
        pieces = self.family.token_bytes(best)
        ends = [token in self.family.target.ends or any(mark in pieces[token] for mark in (b"\n", b"<")) for token in best]
        if self.free:
            return None if ends[0] else best[0]
        return next((token for token, ended in zip(best, ends, strict=True) if not ended), None)

    def shares(self) -> Tensor:
        """(vocab,) probabilities at temperature 1."""
        assert self.logits is not None  # something was forced before
        return self.logits.softmax(-1)

    def begin(self) -> None:
        """A new thought."""
        self.free, self.surprise, self.forced = [], 0.0, 0


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[DiagramOfThoughtLook]:
    """The prompt is made here, before the first look."""
    question = question_of(trace)
    notes = (
        () if family.chats else (f"{family.name} was never taught to follow instructions: its roles are a form without content.",)
    )
    base = DiagramOfThoughtLook(question=question, notes=notes)
    return looks(family, head_tokens(family, question), params, base)


def question_of(trace: Trace) -> str:
    """What the run was asked: the last message, or the end of its prompt."""
    asked = trace.header.messages[-1].content if trace.header.messages else trace.header.prompt
    return asked.strip()[-QUESTION:] or "What is 3 + 4?"


def head_tokens(family: Family, question: str) -> list[int]:
    """Instruction and question, as a chat where there is a template."""
    if family.chats:
        chat = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        text = family.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    else:
        text = f"{SYSTEM}\n\nProblem: {question}\n"
    return encoded(family, str(text))[-(family.target.context // 2) :]


def encoded(family: Family, text: str) -> list[int]:
    return family.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def looks(family: Family, head: Sequence[int], params: Params, base: DiagramOfThoughtLook) -> Iterator[DiagramOfThoughtLook]:
    """The graph grows while its texts are written; then come the statements, one by one."""
    writer = Writer(family, family.target.new_cache())
    for start in range(0, len(head), BLOCK):
        writer.force(head[start : start + BLOCK])
        yield msgspec.structs.replace(base, rows_read=writer.rows)
    thoughts: list[Thought] = []
    while role := next_role(thoughts, params.rounds):
        if writer.room < 2 * (params.length + AROUND):
            role = SUMMARIZER if len(thoughts) and thoughts[-1].role == CRITIC else ""
        if not role or writer.room < params.length + AROUND:
            base = msgspec.structs.replace(base, notes=(*base.notes, "The context is full: the graph stops here."))
            break
        one = Thought(role, "")
        for one in thought(writer, role, tuple(thoughts), params.length):
            yield msgspec.structs.replace(base, thoughts=(*thoughts, one), rows_read=writer.rows)
        thoughts.append(one)
    base = msgspec.structs.replace(base, thoughts=tuple(thoughts), tokens=tuple(writer.tokens), rows_read=writer.rows)
    yield base
    if params.judge:
        yield from self_test(family, base)


def thought(writer: Writer, role: str, before: Sequence[Thought], length: int) -> Iterator[Thought]:
    """One thought, as it grows: markers, what the model writes, and of a critique the verdict."""
    writer.begin()
    opening = encoded(writer.family, f"<{role}>\n{listed(before) if role == SUMMARIZER else ''}")
    writer.force(opening[-max(1, writer.room - length - AROUND) :])
    made = Thought(role, "", joined(before, role, ""))
    for text in writer.write(length):
        made = msgspec.structs.replace(
            made,
            text=text.strip(),
            parents=joined(before, role, text),
            surprise=writer.surprise / len(writer.free),
            free=len(writer.free),
        )
        if len(writer.free) % A_LOOK == 0:
            yield made
    made = msgspec.structs.replace(made, at=writer.at, greedy=len(writer.tokens) - writer.at)
    if role == CRITIC:
        writer.force(encoded(writer.family, PUT[CRITIC]))
        share, mass = verdict(writer)
        said = VALID if share > 0.5 else INVALID
        writer.force(encoded(writer.family, f"{SAID[said]}."))
        made = msgspec.structs.replace(made, verdict=said, share=share, mass=mass)
    writer.force(encoded(writer.family, f"\n</{role}>\n"))
    yield msgspec.structs.replace(made, forced=writer.forced)


def listed(before: Sequence[Thought]) -> str:
    """What is verified, in topological order, for the summarizer to read."""
    claims = [i for i, one in enumerate(before) if one.role == PROPOSER]
    return "".join(f"P{claims.index(i) + 1}: {before[i].text}\n" for i in verified(before))


def verdict(writer: Writer) -> tuple[float, float]:
    """p of the word valid over that of both verdict words, and p of both: at the token by which they differ first."""
    shares = writer.shares()
    yes, no = (float(shares[encoded(writer.family, SAID[word])[0]]) for word in (VALID, INVALID))
    return yes / max(1e-30, yes + no), min(1.0, yes + no)


def self_test(family: Family, base: DiagramOfThoughtLook) -> Iterator[DiagramOfThoughtLook]:
    """Every statement as if it had been proposed, judged as above; all behind the same instruction."""
    checks: list[Checked] = []
    head = head_tokens(family, "Is this statement true?")
    writer = Writer(family, family.target.new_cache())
    for start in range(0, len(head), BLOCK):
        writer.force(head[start : start + BLOCK])
        yield msgspec.structs.replace(base, rows_read=base.rows_read + writer.rows)
    for pair in STATEMENTS:
        for statement, true in zip(pair, (True, False), strict=True):
            kept = writer.cache.length
            writer.force(encoded(family, f"<proposer>\n{statement}\n</proposer>\n<critic>{PUT[CRITIC]}"))
            share, mass = verdict(writer)
            writer.cache.cut(kept)
            checks.append(Checked(statement, true, share, mass))
            yield msgspec.structs.replace(base, checks=tuple(checks), rows_read=base.rows_read + writer.rows)


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    rounds = params.rounds * (3 * params.length + 2 * AROUND) + 2 * (params.length + AROUND)
    tested = HEAD + 2 * len(STATEMENTS) * CHECK_ROWS if params.judge else 0
    return Cost(HEAD + QUESTION // 2 + rounds + tested, "It writes a text of its own, one token after the other.")


def lacks(family: Family) -> str:
    """Why a family has no thoughts to write; "" if it has."""
    return f"{family.name} draws pictures and writes no thoughts." if family.raster is not None else ""


LENS = Lens(
    key="diagram_of_thought",
    title="Diagram of Thought",
    paper="https://arxiv.org/abs/2409.10038",
    authors="Zhang, Yuan, Yao",
    year=2024,
    scope="prompt",
    asks="What if the model proposes, criticises itself, and sums up what held?",
    idea=(
        "One model plays three roles by turns, and its text is read as a graph: propositions, critiques behind them, refinements "
        "behind those, and a summary of all that was found valid."
    ),
    reading=(
        "P are propositions, C critiques, S is the summary; an edge leads from what was said to what answers it. A full circle is "
        "verified, a cross refuted, a hollow one not judged."
    ),
    checks="No cycle, every verified proposition has a critique that validates it, and the self-test's area is well above .5.",
    ours=(
        "A grammar forces the role markers, a verdict is the larger of two probabilities, and the self-test is ours: below .7 the "
        "verdicts are the grammar's and not the model's."
    ),
    params=Params,
    look=look,
    cost=cost,
    lacks=lacks,
)
