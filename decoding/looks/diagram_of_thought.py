"""What the lens Diagram of Thought sees: propositions, critiques and a summary as a graph; and the grammar and the parser that make
one of a text with role markers.

Zhang, Yuan and Yao 2024, https://arxiv.org/abs/2409.10038, section 3. Every edge leads from an earlier to a later thought, so that
the graph has no cycle, and the order in which it was written is a topological one.
"""

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from decoding.looks import Look
from decoding.trace import Count, Place, Share, Text, Token, Word

PROPOSER, CRITIC, SUMMARIZER = "proposer", "critic", "summarizer"
GRAMMAR = {"": {PROPOSER}, PROPOSER: {CRITIC}, CRITIC: {PROPOSER, SUMMARIZER}, SUMMARIZER: set()}  # role -> what may follow it
VALID, INVALID = "valid", "invalid"
ENOUGH = 2  # verified propositions that are summed up
REFINEMENTS = 3  # in a row
MOST = 64  # thoughts
MOST_TOKENS = 8192  # of the text
TAG = re.compile(r"<(/?)(proposer|critic|summarizer)>")
VERDICTS = re.compile(r"\b(valid|invalid|refine)\b", re.IGNORECASE)
NAMED = re.compile(r"\bP([0-9]{1,3})\b")
Nats = Annotated[float, Meta(ge=0, le=1e4)]


class Thought(msgspec.Struct, frozen=True):
    """A node of the graph."""

    role: Word
    text: Text
    parents: Annotated[tuple[Place, ...], Meta(max_length=MOST)] = ()  # thoughts in front of it
    verdict: Word = ""  # of a critique
    share: Share = 0.5  # p of the word valid over that of both verdict words
    mass: Share = 0.0  # p of both together
    surprise: Nats = 0.0  # mean -log p of what was written freely
    free: Count = 0  # tokens that the model chose
    forced: Count = 0  # of its markers and of what was put in its mouth
    at: Count = 0  # in the text, from where on its tokens are the likeliest
    greedy: Count = 0  # how many these are


class Checked(msgspec.Struct, frozen=True):
    """A statement of the self-test, as the critic judged it."""

    statement: Word
    true: bool
    share: Share
    mass: Share


class DiagramOfThoughtLook(Look, frozen=True, kw_only=True, tag="diagram_of_thought"):
    question: Text = ""
    thoughts: Annotated[tuple[Thought, ...], Meta(max_length=MOST)] = ()
    checks: Annotated[tuple[Checked, ...], Meta(max_length=64)] = ()
    tokens: Annotated[tuple[Token, ...], Meta(max_length=MOST_TOKENS)] = ()  # the whole text, instruction and markers included


LOOK = DiagramOfThoughtLook


# -- the grammar -------------------------------------------------------------------------------------------------------


def next_role(thoughts: Sequence[Thought], rounds: int) -> str:
    """Who speaks next; "" at the end. The summary comes when enough is verified, or after so many rounds."""
    last = thoughts[-1].role if thoughts else ""
    if last != CRITIC:
        return next(iter(GRAMMAR.get(last, ())), "")
    done = sum(one.role == CRITIC for one in thoughts)
    return SUMMARIZER if len(verified(thoughts)) >= ENOUGH or done >= rounds else PROPOSER


def joined(thoughts: Sequence[Thought], role: str, text: str) -> tuple[int, ...]:
    """What a new thought hangs behind: a critique behind the proposition that it names or the last one without a verdict, a
    refinement behind the critique that asked for it, a summary behind all that is verified."""
    if role == SUMMARIZER:
        return tuple(verified(thoughts))
    claims = propositions(thoughts)
    if role == CRITIC:
        named = [claims[int(n) - 1] for n in NAMED.findall(text) if 0 < int(n) <= len(claims)]
        unjudged = [i for i in claims if not judged(thoughts, i)]
        return (*named[:1], *unjudged[-1:], *claims[-1:])[:1]
    critiques = [i for i, one in enumerate(thoughts) if one.role == CRITIC]
    if not critiques or thoughts[critiques[-1]].verdict != INVALID or any(critiques[-1] in one.parents for one in thoughts):
        return ()
    return (critiques[-1],) if refinements(thoughts, critiques[-1]) < REFINEMENTS else ()


def propositions(thoughts: Sequence[Thought]) -> list[int]:
    return [i for i, one in enumerate(thoughts) if one.role == PROPOSER]


def judged(thoughts: Sequence[Thought], which: int) -> str:
    """The last verdict on a proposition; "" if there is none."""
    found = [one.verdict for one in thoughts if one.role == CRITIC and which in one.parents and one.verdict]
    return found[-1] if found else ""


def verified(thoughts: Sequence[Thought]) -> list[int]:
    """Propositions whose last critique validates them, in the order in which they may be read: none before what it hangs behind."""
    return [i for i in propositions(thoughts) if judged(thoughts, i) == VALID]


def refinements(thoughts: Sequence[Thought], which: int) -> int:
    """How many refinements lie in a row above a thought."""
    found = 0
    while 0 <= which < len(thoughts) and thoughts[which].parents:
        found += thoughts[which].role == PROPOSER
        which = thoughts[which].parents[0] if thoughts[which].parents[0] < which else -1
    return found


def violations(thoughts: Sequence[Thought]) -> list[int]:
    """Propositions that a summary names by their number though nothing verified them."""
    claims, known = propositions(thoughts), set(verified(thoughts))
    named = [int(n) for one in thoughts if one.role == SUMMARIZER for n in NAMED.findall(one.text)]
    return sorted({claims[n - 1] for n in named if 0 < n <= len(claims)} - known)


# -- the parser --------------------------------------------------------------------------------------------------------


def parsed(text: str) -> tuple[Thought, ...]:
    """The thoughts of a text with role markers. What stands outside of them is left out; a marker that opens inside another ends
    that one; one without an end lasts to the end.

    >>> [(t.role, t.parents, t.verdict) for t in parsed("<proposer>A</proposer><critic>It is invalid.</critic><proposer>B")]
    [('proposer', (), ''), ('critic', (0,), 'invalid'), ('proposer', (1,), '')]
    """
    found: list[Thought] = []
    tags = list(TAG.finditer(text))
    for number, tag in enumerate(tags):
        after = tags[number + 1].start() if number + 1 < len(tags) else len(text)
        if tag[1] or len(found) == MOST:
            continue
        role, said = tag[2], text[tag.end() : after].strip()
        found.append(Thought(role, said, joined(found, role, said), verdict_of(said) if role == CRITIC else ""))
    return tuple(found)


def verdict_of(text: str) -> str:
    """The last verdict word of a critique; a wish for a refinement is a verdict, too."""
    words = VERDICTS.findall(text)
    return "" if not words else VALID if words[-1].lower() == VALID else INVALID


def transcript(thoughts: Sequence[Thought]) -> str:
    """The text with role markers that `parsed` makes the same graph of."""
    said = (f"{one.text}\nThis step is {one.verdict}." if one.verdict else one.text for one in thoughts)
    return "\n".join(f"<{one.role}>\n{text}\n</{one.role}>" for one, text in zip(thoughts, said, strict=True))
