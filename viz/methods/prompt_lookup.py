"""Prompt lookup in pictures: the two places of the text that are alike, and what was copied from behind the earlier one; and where
nothing was, why. Everything follows from the text and from the place that the source of the nodes names."""

import re

from decoding.trace import Step, Trace, number_in
from viz.methods.shared.passages import passage
from viz.tokens import Say, quoted

AROUND = 10  # tokens shown in front of a match
LONGEST = 3  # tokens that are looked for, where the trace does not say


def place_of(step: Step) -> int | None:
    """The index of the token that the copy began with; None where nothing was copied, or the trace does not say."""
    found = re.fullmatch(r"copied from token (\d{1,9})", step.nodes[0].source) if step.nodes else None
    return int(found[1]) if found else None


def match_of(trace: Trace, cursor: int) -> tuple[int, int] | None:
    """(tokens that match, index of the first copied token) of a step; None where the text does not bear it out."""
    start, text = place_of(trace.steps[cursor]), trace.tokens_before(cursor)
    longest = number_in(trace.header.params, "ngram", LONGEST)
    if start is None or not 0 < start < len(text):
        return None
    alike = (n for n in range(min(longest, start), 0, -1) if text[start - n : start] == text[-n:])
    found = next(alike, 0)
    return (found, start) if found else None


def copy_html(trace: Trace, cursor: int) -> str:
    """Both places, one below the other: HTML; "" where nothing was copied."""
    found = match_of(trace, cursor)
    if found is None:
        return ""
    n, start = found
    text, step = trace.tokens_before(cursor), trace.steps[cursor]
    copied = tuple(node.token for node in step.nodes)
    shown = text[start : start + len(copied)]  # a copy that goes on from itself has less of the text behind its match
    kept = len(step.path)
    before = text[max(0, start - n - AROUND) : start - n], text[max(0, len(text) - n - AROUND) : -n]
    earlier = passage("Earlier in the text", before[0], text[start - n : start], shown, len(shown), trace.token_bytes)
    return earlier + passage("At its end now", before[1], text[-n:], copied, kept, trace.token_bytes)


def copy_words(trace: Trace, cursor: int) -> str:
    """The same in a sentence; plain text."""
    found = match_of(trace, cursor)
    step = trace.steps[cursor]
    if found is None:
        why = silence(trace, cursor) if not step.nodes else ""
        return f"Nothing was copied: {why}." if why else ""
    n, start = found
    back = len(trace.tokens_before(cursor)) - start
    last = f"The last {n} tokens stand" if n > 1 else "The last token stands"
    copied, kept = len(step.nodes), len(step.path)
    some = f"{copied} tokens were" if copied != 1 else "One token was"
    return f"{last} {back:,} tokens earlier too. {some} copied from behind that place, {kept or 'none'} of them kept."


def silence(trace: Trace, cursor: int, say: Say = quoted) -> str:
    """Why nothing was copied at a step, if the text says; plain text."""
    text = trace.tokens_before(cursor)
    if not text or text[-1] in text[:-1]:
        return ""
    return f"the last token, {say(text[-1], trace.token_bytes)}, stands nowhere else in the text"
