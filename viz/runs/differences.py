"""Where two texts part, and whether rounding can explain it: exact, near-tie or mismatch, with the numbers.

Knows traces. Whether a method is lossless, and hence whether two texts ought to be the same, is for the page to know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import pandas as pd

from decoding.trace import Row, Trace
from viz.runs.committed import committed
from viz.runs.lines import pairs
from viz.tokens import full_name, quoted
from viz.words import number

Verdict = Literal["near-tie", "mismatch", "unknown"]
TOLERANCE = {"float64": 1e-3, "float32": 1e-3}  # in log-probability: tokens closer than that are a tie up to rounding
LOW_PRECISION = 0.1  # the same for every other dtype


@dataclass(frozen=True)
class Difference:
    """Where two texts part."""

    position: int  # in the committed text, from 0
    tokens: tuple[int, int]
    steps: tuple[int, int]  # indices
    rows: tuple[Row | None, Row | None]
    gaps: tuple[float | None, float | None]  # |log p| between the two tokens in each run; None where it is not recorded
    tolerance: float
    verdict: Verdict


def incomparable(one: Trace, other: Trace) -> str:
    """Why a difference of the two texts would mean nothing, or ""."""
    if one.header.prompt_tokens != other.header.prompt_tokens:
        return "the prompts differ"
    if one.header.family != other.header.family:
        return "the families differ"
    if one.header.sampling.temperature or other.header.sampling.temperature:
        return "the tokens were drawn at random: only their distribution can agree, not the text"
    return ""


def first_difference(one: Trace, other: Trace) -> Difference | None:
    """The first position where two texts differ; None as far as both go they are exact.

    A near-tie is a place where, for the target of either run, the two tokens are closer than the tolerance: rounding
    can tip it. The gap is that between the two tokens in question, not the best two: a third token is no rounding.
    """
    for a, b in zip(committed(one), committed(other), strict=False):
        if a.token != b.token:
            tolerance = max(TOLERANCE.get(trace.header.dtype, LOW_PRECISION) for trace in (one, other))
            gaps = gap(a.row, a.token, b.token), gap(b.row, a.token, b.token)
            known = [value for value in gaps if value is not None]
            verdict = "unknown" if not known else "near-tie" if min(known) < tolerance else "mismatch"
            ends = (a.token, b.token), (a.step, b.step), (a.row, b.row)
            return Difference(a.position, *ends, gaps, tolerance, verdict)
    return None


def gap(row: Row | None, a: int, b: int) -> float | None:
    """Distance in log-probability; infinite where one of the two is not among the recorded ones or impossible."""
    if row is None:
        return None
    p = dict(zip(row.tokens, row.p, strict=True))
    return abs(log(p[a]) - log(p[b])) if p.get(a, 0) > 0 and p.get(b, 0) > 0 else inf


def difference_sentence(one: tuple[str, Trace], other: tuple[str, Trace]) -> str:
    """Exact, near-tie or mismatch, with the numbers; plain text."""
    (name_a, a), (name_b, b) = pairs([one, other])
    if reason := incomparable(a, b):
        return f"{name_a} and {name_b} cannot be compared token for token: {reason}."
    difference = first_difference(a, b)
    if difference is None:
        shared = min(sum(len(step.tokens) for step in trace.steps) for trace in (a, b))
        return f"{name_b} is exact: the first {shared} tokens are those of {name_a}."
    tokens = quoted(difference.tokens[0], a.token_bytes), quoted(difference.tokens[1], b.token_bytes)
    both = f"{name_a} has {tokens[0]}, {name_b} has {tokens[1]}"
    return f"Token {difference.position + 1} is the first that differs: {both}. {verdict_words(difference)}"


def verdict_words(difference: Difference) -> str:
    """What the gaps say."""
    known = [value for value in difference.gaps if value is not None]
    if difference.verdict == "unknown":
        return "Probabilities were not recorded there, so nothing more can be said."
    if min(known) == inf:
        return "A mismatch: in neither run are both tokens among the target's likely ones there."
    apart = f"for the target the two are {number(min(known))} apart in log-probability"
    if difference.verdict == "near-tie":
        return f"A near-tie: {apart}, within the {number(difference.tolerance)} that rounding can tip."
    return f"A mismatch: {apart}, more than the {number(difference.tolerance)} that rounding can explain."


def exactness(one: Trace, other: Trace, lossless: bool) -> tuple[str, str]:
    """A badge on a run that is held against another: what can be said in two or three words, and what that means.

    Args:
        lossless: whether both promise the target's distribution.
    """
    if incomparable(one, other):
        if one.header.prompt_tokens != other.header.prompt_tokens or one.header.family != other.header.family:
            return "not comparable", f"It cannot be held against the other run: {incomparable(one, other)}."
        return (
            (
                "same distribution",
                "Drawn at random: a lossless method promises the same distribution over texts, not the same text.",
            )
            if lossless
            else ("may differ", "Drawn at random, by a method that does not keep the target's distribution exactly.")
        )
    found = first_difference(one, other)
    if found is None:
        ended = all(trace.steps and trace.steps[-1].ending for trace in (one, other))
        return ("exact" if ended else "exact so far"), "Token for token the text of the run that it is held against."
    said = f"It parts at token {found.position + 1}. {verdict_words(found)}"
    return (f"{found.verdict if lossless or found.verdict == 'near-tie' else 'differs'} at {found.position + 1}"), said


def difference_table(difference: Difference, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """The target's distributions of both runs at the place where they part, side by side; empty where not recorded."""
    columns = [dict(zip(row.tokens, row.p, strict=True)) if row else {} for row in difference.rows]
    occurring = {*columns[0], *columns[1], *difference.tokens}
    tokens = sorted(occurring, key=lambda token: (-max(column.get(token, 0) for column in columns), token))
    rows = [
        [full_name(t, token_bytes), t, *(column.get(t) for column in columns)]
        + [{difference.tokens[0]: "first run", difference.tokens[1]: "second run"}.get(t, "")]
        for t in tokens
    ]
    return pd.DataFrame(rows, columns=["token", "id", "p, first run", "p, second run", "taken by"])


def reference(runs: Sequence[tuple[str, Trace]]) -> int:
    """Index of the run the others are held against: plain decoding if it is there, else the first."""
    return next((i for i, (_, trace) in enumerate(runs) if trace.is_plain), 0)
