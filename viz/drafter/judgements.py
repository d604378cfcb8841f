"""Every judged token of many runs in one table, which is what all views of a drafter's mistakes are made from.

Knows runs as (prompt number, trace id, domain, trace) and turns them into DataFrames: one line per judged token
(`judgements`), per committed token (`positions`) or per run (`per_prompt`). Figures, sentences and `filtered` work on
these, so that one filter applies to all of them.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from zlib import crc32

import pandas as pd

from decoding.score_names import HEAD_PROBABILITY, OWN
from decoding.trace import Node, Row, Step, Trace
from viz.runs.committed import committed
from viz.runs.tally import depths, tally
from viz.tokens import full, full_name, word
from viz.words import ending

DrafterRun = tuple[int, int, str, Trace]  # prompt number, trace id, domain, trace
CONTEXT = 40  # characters shown before a token

CLASSES = {
    "word start": "A letter after a space, a line break, punctuation, or at the start of the text.",
    "inside a word": "A letter right behind a letter or an apostrophe that follows one.",
    "digit": "A digit, unless it belongs to an identifier.",
    "punctuation": "Anything else that is a character.",
    "whitespace": "Spaces, tabs and line breaks only.",
    "identifier": "Part of a name as code has them: the unbroken run of letters, digits and underscores that ends with "
    "this token holds a letter next to an underscore or before a digit, or a capital behind a small letter.",
    "other": "No characters: half of one, or an empty piece.",
}

KEPT = 8  # tokens of p, and of q, that a row of a trace keeps: `decoding.record.TOP`

NUMBERS = ["confidence", "target p", "p", "q", "u", "entropy", "overlap", "kl", "tv", "wanted p", "wanted rank", "wanted guess"]
WHOLE = ["prompt", "trace", "step", "node", "depth", "position", "id", "behind", "cost", "prefix"]
COLUMNS = [
    *("prompt", "trace", "domain", "step", "node", "depth", "position", "id", "token", "class", "source", "accepted", "right"),
    *("confidence", "target p", "p", "q", "u", "entropy", "overlap", "kl", "tv", "context", "wanted", "wanted p", "wanted rank"),
    *("wanted guess", "luck", "committed", "behind", "cost", "prefix"),
]


def judgements(runs: Sequence[DrafterRun]) -> pd.DataFrame:
    """One line per judged token, accepted or rejected. Steps, nodes and positions in the text count from 0.

    Tokens judged behind the end of the text (the limit came first) are left out: nothing came to stand there.

    Columns worth a word:
        right: whether one of the guesses for its place was accepted, this one or another.
        confidence: what the drafter gave the token at its position: q of the recorded row (in a greedy run, where q
            itself is one-hot, that is its draft probabilities at temperature 1), else q of the node, else what its head gave a
            token that was chosen; empty if it has none.
        target p: what the target gave the token there, whatever became of its elder siblings; p is what it was judged with.
        q, u: as judged; empty for a chosen token, or where the target drew a token instead.
        entropy, overlap, kl, tv: of the row it was judged at, in bits; tv = 1 - overlap, the total variation.
        wanted, wanted p: the target's likeliest token there. committed: the token that came to stand there.
        wanted rank: of that token in the drafter's distribution, from 1; empty if it is not among the KEPT likeliest, or there is
            no distribution. wanted guess: which of the drafter's guesses for this place it was, from 1; empty if none was.
        luck: rejected, although it was the target's likeliest token and could have been kept: the draw went against it.
        behind: drafted tokens that hang below it. cost: see `costs`.
        prefix: a checksum of all tokens before it, to find the same place in another run.
    """
    rows = [row for run in runs for row in judged_rows(*run)]
    return typed(pd.DataFrame(rows, columns=COLUMNS))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of one type each, also when they are empty, so that they can be written as Parquet."""
    kinds = dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(WHOLE, "int64") | dict.fromkeys(("accepted", "right", "luck"), "bool")
    return frame.astype({name: kind for name, kind in kinds.items() if name in frame})


def judged_rows(prompt: int, trace_id: int, domain: str, trace: Trace) -> list[tuple]:
    """The judged tokens of one run, in the order of `COLUMNS`."""
    rows: list[tuple] = []
    text = list(trace.header.prompt_tokens)
    start, sum_ = len(text), checksum(text)
    for number_, step in enumerate(trace.steps):
        deep, cost, behind = depths(step), costs(step), below(step)
        sums = [sum_]
        for token in step.tokens:
            sums.append(checksum([token], sums[-1]))
        for i, node in enumerate(step.nodes):
            place = deep[i] - 1  # in step.tokens: all that is judged hangs on the accepted path
            if node.verdict == "not judged" or place >= len(step.tokens):
                continue
            before = context([*text[-2 * CONTEXT :], *step.tokens[:place]], trace.token_bytes)
            piece = trace.token_bytes.get(node.token)
            label = full_name(node.token, trace.token_bytes)
            taken = full_name(step.tokens[place], trace.token_bytes)
            rows.append(
                (prompt, trace_id, domain, number_, i, deep[i], len(text) - start + place, node.token, label)
                + (token_class(piece or b"", before), word(node.source), node.verdict == "accepted", len(step.path) > place)
                + distributions(step, i, trace.token_bytes, before)
                + (taken, behind[i], cost[i], sums[place])
            )
        text += step.tokens
        sum_ = sums[-1]
    return rows


def distributions(step: Step, i: int, token_bytes: Mapping[int, bytes], before: str) -> tuple:
    """From `confidence` to `luck`: what both models thought at the place of node i."""
    node = step.nodes[i]
    row = step.rows[node.parent + 1] if step.rows else None
    judged = (node.p, node.q, node.u)
    if row is None or not row.tokens:
        return (confidence(row, node), None, *judged, None, None, None, None, visible_context(before), "", None, None, None, False)
    tv = None if row.overlap is None else 1 - row.overlap
    given = row.p[row.tokens.index(node.token)] if node.token in row.tokens else 0.0
    siblings = [other.token for other in step.nodes if other.parent == node.parent]
    guess = siblings.index(row.tokens[0]) + 1 if row.tokens[0] in siblings else None
    return (
        *(confidence(row, node), given, *judged),
        *(row.entropy, row.overlap, row.kl, tv, visible_context(before)),
        *(full_name(row.tokens[0], token_bytes), row.p[0], rank(row), guess, unlucky(node, row)),
    )


def confidence(row: Row | None, node: Node) -> float | None:
    """What the drafter gave the node's token: q of its row, else of a token that was drawn its q, else what a head gave it."""
    if row is not None and row.q is not None and node.token in row.tokens:
        return row.q[row.tokens.index(node.token)]
    return node.q if node.q is not None else node.scores.get(OWN, node.scores.get(HEAD_PROBABILITY))


def rank(row: Row) -> int | None:
    """Of the target's likeliest token in the drafter's distribution, from 1; None where that is not kept, or gives it nothing."""
    if row.q is None or not row.q[0]:
        return None
    place = 1 + sum(q > row.q[0] for q in row.q)
    return place if place <= KEPT else None


def unlucky(node: Node, row: Row) -> bool:
    """Whether a token was turned down by the draw alone: it is the target's likeliest, and another draw would have kept it."""
    if node.verdict != "rejected" or node.token != row.tokens[0] or not 0 < node.p < 1:
        return False
    return node.u is not None or row.sampled not in (None, node.token)


def below(step: Step) -> list[int]:
    """How many nodes hang below each."""
    counts = [0] * len(step.nodes)
    for i in reversed(range(len(counts))):
        parent = step.nodes[i].parent
        if parent >= 0:
            counts[parent] += counts[i] + 1
    return counts


def costs(step: Step) -> list[int]:
    """What each rejection cost, in tokens: the longest drafted path from the node on, itself included, less what the
    step accepted from that depth on through a sibling; 0 for everything that was not rejected.

    In a chain that is the number of tokens thrown away. It is an upper bound: the tokens behind it were never judged.
    """
    deep = depths(step)
    height = [1] * len(deep)
    for i in reversed(range(len(deep))):
        parent = step.nodes[i].parent
        if parent >= 0:
            height[parent] = max(height[parent], height[i] + 1)
    saved = [len(step.path) - depth + 1 for depth in deep]
    rejected = [node.verdict == "rejected" for node in step.nodes]
    return [max(0, h - max(0, s)) * r for h, s, r in zip(height, saved, rejected, strict=True)]


def checksum(tokens: Sequence[int], before: int = 0) -> int:
    """A running checksum: `checksum(a + b) == checksum(b, checksum(a))`."""
    for token in tokens:
        before = crc32(str(token).encode() + b" ", before)
    return before


def context(tokens: Sequence[int], token_bytes: Mapping[int, bytes]) -> str:
    """The end of the text as text; more than is shown, because a word may be long."""
    tail = b"".join(token_bytes.get(token, b"") for token in tokens[-2 * CONTEXT :])
    return tail.decode("utf-8", "replace")[-2 * CONTEXT :]


def visible_context(text: str) -> str:
    """The last characters, every one visible."""
    return full(text[-CONTEXT:].encode()) if text else ""


def token_class(piece: bytes, before: str = "") -> str:
    """Which of `CLASSES` a token is: by its first character that is not a space, and the word it goes on with.

    >>> [token_class(piece, "The c") for piece in (b"at", b" at", b"4", b".", b" \\n", b"_x", b"")]
    ['inside a word', 'word start', 'identifier', 'punctuation', 'whitespace', 'identifier', 'other']
    """
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "other"
    first = text.strip()[:1]
    if not first:
        return "whitespace" if text else "other"
    run = ending(before + text.rstrip(), lambda character: character.isalnum() or character == "_")
    camel = any(a.islower() and b.isupper() for a, b in pairwise(run))
    if camel or re.search(r"[^\W\d_]_|_[^\W\d_]|[^\W\d_]\d", run):
        return "identifier"
    if not first.isalpha():
        return "digit" if first.isdigit() else "punctuation"
    goes_on = re.search(r"\w$|\w['’]$", before) and text[0] == first
    return "inside a word" if goes_on else "word start"


def positions(runs: Sequence[DrafterRun]) -> pd.DataFrame:
    """One line per committed token: how far p and q were apart there; empty where nothing was drafted."""
    rows = []
    for prompt, trace_id, domain, trace in runs:
        for at in committed(trace):
            row = at.row
            numbers = (1 - row.overlap, row.kl) if row and row.overlap is not None else (None, None)
            entropy = row.entropy if row else None
            place = (prompt, trace_id, domain, at.step, at.position)
            rows.append((*place, at.token, full_name(at.token, trace.token_bytes), at.origin, *numbers, entropy))
    columns = ["prompt", "trace", "domain", "step", "position", "id", "token", "origin", "tv", "kl", "entropy"]
    return typed(pd.DataFrame(rows, columns=columns))


def per_prompt(runs: Sequence[DrafterRun]) -> pd.DataFrame:
    """One line per run: what it cost and gained."""
    rows = []
    for prompt, trace_id, domain, trace in runs:
        total = tally(trace.steps)
        sums = (
            total.tokens,
            total.target_calls,
            total.tau,
            total.alpha,
            total.drafted,
            total.wasted,
            total.draft_calls,
        )
        rows.append((prompt, trace_id, domain, *sums))
    columns = ["tokens", "target calls", "tau", "alpha", "drafted", "wasted", "drafter calls"]
    frame = pd.DataFrame(rows, columns=["prompt", "trace", "domain", *columns])
    return frame.astype({"tau": "float64", "alpha": "float64"})


def filtered(
    frame: pd.DataFrame,
    *,
    domains: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    depth: tuple[int, int] | None = None,
    entropy: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """The lines that pass every filter; None passes all, ranges hold both ends.

    A filter on a column the frame does not have (`positions` has no depth) is passed over, so that one set of filters
    serves every frame.
    """
    keep = pd.Series(True, index=frame.index)
    for column, values in {"domain": domains, "class": classes}.items():
        if values is not None and column in frame:
            keep &= frame[column].isin(list(values))
    for column, ends in {"depth": depth, "entropy": entropy}.items():
        if ends is not None and column in frame:
            keep &= frame[column].between(*ends)
    return frame[keep]
