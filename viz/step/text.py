"""The text as tokens, told apart by where they came from: a list of plain spans, and the same as escaped HTML.

Knows a trace and how far to show it. Origin is never colour alone: prompt is muted, what a chat template put around it is small,
accepted underlined, a correction underlined twice, a bonus has a plus sign, plain has nothing. Special tokens are chips.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence, Set
from itertools import accumulate, groupby
from typing import TypedDict

from decoding.trace import Trace
from viz.style import COLOR, LOOKS, MONO, tint
from viz.tokens import NEWLINE, SPACE, TAB, as_html, full, is_half, joined, label


class Span(TypedDict):
    """One token of the text."""

    label: str  # short, plain text
    text: str  # in full, every character visible
    origin: str  # "prompt", "template", "accepted", "bonus", "correction" or "plain"
    step: int | None  # index of the step that committed it; None in the prompt
    id: int
    special: bool  # a mark of the tokenizer, such as the end of a turn, and no text
    half: bool  # holds bytes that are no character by themselves
    group: int | None  # first span of the run of tokens that share a character; None if it shares none
    whole: str  # what that run spells; "" if it shares none


def strip(trace: Trace, upto_step: int | None = None, window: slice = slice(None)) -> list[Span]:
    """Prompt and committed tokens through step index `upto_step` (None: all; -1: the prompt alone), those in `window`."""
    tokens = committed(trace, upto_step)[window]
    token_bytes = [trace.token_bytes.get(token) for token, _, _ in tokens]
    special = set(trace.header.special_tokens)
    spans = [span(*item, piece, item[0] in special) for item, piece in zip(tokens, token_bytes, strict=True)]
    for group in joined([piece or b"" for piece in token_bytes]):
        if group.stop - group.start > 1:
            for member in spans[group.start : group.stop]:
                member["group"], member["whole"] = group.start, group.text
    return spans


def committed(trace: Trace, upto_step: int | None = None) -> list[tuple[int, str, int | None]]:
    """(token, origin, step) of every token; the step is None in the prompt."""
    last = len(trace.steps) if upto_step is None else upto_step + 1
    given = zip(trace.header.prompt_tokens, in_messages(trace), strict=True)
    tokens: list[tuple[int, str, int | None]] = [(token, "prompt" if said else "template", None) for token, said in given]
    for number, step in enumerate(trace.steps[:last]):
        tokens += [(token, origin, number) for token, origin in zip(step.tokens, step.origins, strict=True)]
    return tokens


def in_messages(trace: Trace) -> list[bool]:
    """For every token of the prompt whether it belongs to what the messages say; the others are the chat template's. Without
    messages all of it was said."""
    header = trace.header
    pieces = [trace.token_bytes.get(token, b"") for token in header.prompt_tokens]
    if not header.messages:
        return [True] * len(pieces)
    starts = [0, *accumulate(map(len, pieces))]
    special = set(header.special_tokens)
    marks = {start for start, token in zip(starts, header.prompt_tokens, strict=False) if token in special}
    said = contents(b"".join(pieces), [message.content for message in header.messages], marks)
    begins, ends = [a for a, _ in said], [b for _, b in said]  # both ascend: no message begins in the one before
    first = [bisect_right(ends, start) for start in starts[:-1]]  # of those that end behind the token's beginning
    return [at < len(said) and begins[at] < stop for at, stop in zip(first, starts[1:], strict=True)]


def contents(whole: bytes, messages: Sequence[str], marks: Set[int]) -> list[tuple[int, int]]:
    """Where the messages stand in a text, from byte to byte; of what the template changed nothing is found.

    Args:
        marks: where special tokens begin. A message stands where one follows, if there is such a place: its words may also occur in
            the template's own.

    >>> contents(b"<user>user<end>", ["user"], {0, 10})
    [(6, 10)]
    """
    found, at = [], 0
    for content in (message.strip().encode("utf-8", "replace") for message in messages):
        places = list(every(content, whole, at)) if content else []
        if places:
            start = next((place for place in places if place + len(content) in marks), places[0])
            at = start + len(content)
            found.append((start, at))
    return found


def every(part: bytes, whole: bytes, at: int, most: int = 1000) -> Iterator[int]:
    """Where a part occurs from `at` on; the first so many places."""
    for _ in range(most):
        if (at := whole.find(part, at)) < 0:
            return
        yield at
        at += 1


def span(token: int, origin: str, step: int | None, piece: bytes | None, special: bool = False) -> Span:
    """A token by itself; `strip` adds what it shares with its neighbours."""
    missing = f"#{token}"
    return Span(
        label=missing if piece is None else label(piece),
        text=missing if piece is None else full(piece),
        origin=origin,
        step=step,
        id=token,
        special=special,
        half=piece is not None and is_half(piece),
        group=None,
        whole="",
    )


def strip_html(spans: Sequence[Span], current: int | None = None, legend: bool = True) -> str:
    """The spans as HTML; the tokens of step index `current` are boxed. Put `CSS` on the page once."""
    parts = []
    for group, members in groupby(spans, key=lambda span: span["group"]):
        tokens = [(span["whole"], span_html(span, current is not None and span["step"] == current)) for span in members]
        inside = "".join(token for _, token in tokens)
        parts.append(inside if group is None else joined_html(inside, tokens[0][0]))
    body = "".join(parts) or '<span class="ds-none">no text yet</span>'
    strip_ = f'<div class="ds-strip" role="list" aria-label="The text, token by token">{body}</div>'
    return strip_ + (legend_html({span["origin"] for span in spans}) if legend else "")


def span_html(span: Span, now: bool) -> str:
    """One token: a space is a space with a thin mark below it, a newline breaks the line for what follows."""
    classes = f"ds-tok ds-{as_html(span['origin'])}" + " ds-now" * now + " ds-half" * span["half"] + " ds-special" * span["special"]
    title = as_html(describe(span))
    glyphs = {SPACE, NEWLINE, TAB}
    marks = {SPACE: '<span class="ds-sp"> </span>', TAB: ws(TAB), NEWLINE: f"{ws(NEWLINE)}<br>"}
    shown = "".join(marks.get(c) or as_html(c) for c in span["text"])
    before = "<wbr>" if span["text"][:1] in glyphs else ""  # lines wrap between words, not inside them
    return f'{before}<span class="{classes}" role="listitem" title="{title}" aria-label="{title}">{shown}</span>'


def ws(glyph: str) -> str:
    return f'<span class="ds-ws">{glyph}</span>'


def joined_html(tokens: str, whole: str) -> str:
    """Tokens that share a character, in a bracket, followed by what they spell."""
    return f'<span class="ds-joined">{tokens}<span class="ds-whole">= {as_html(whole)}</span></span>'


def describe(span: Span) -> str:
    """What the title of a token says; plain text."""
    where = "" if span["step"] is None else f", step {span['step'] + 1}"
    half = f", half character{' of ' + span['whole'] if span['whole'] else ''}" if span["half"] else ""
    special = ", a special token" if span["special"] else ""
    return f"{span['text']}: {span['origin']}{where}, id {span['id']}{special}{half}"


def origins(*traces: Trace) -> set[str]:
    """Where the tokens of these texts came from."""
    given = {"prompt", "template"} if any(trace.header.messages for trace in traces) else {"prompt"}
    return given.union(*(step.origins for trace in traces for step in trace.steps))


def legend_html(present: Set[str]) -> str:
    """The origins that occur in a text, each shown as its tokens are."""
    entries = (
        f'<span class="ds-tok ds-{origin}">{look.mark} {origin}</span> {as_html(look.meaning)}'
        for origin, look in LOOKS.items()
        if origin in present
    )
    keys = "".join(f'<span class="ds-key">{entry}</span>' for entry in entries)
    return f'<div class="ds-legend">{keys}</div>'


# Colours are laid over whatever the page has, so that one sheet serves the light and the dark theme.
CSS = f"""
<style>
.ds-strip {{ font-family: {MONO}; font-size: 0.95rem; line-height: 2.05; overflow-wrap: anywhere; }}
.ds-tok {{ padding: 0.12em 0.05em; border-radius: 0.2em; unicode-bidi: isolate; text-underline-offset: 0.28em;
  text-decoration-thickness: 2px; box-decoration-break: clone; -webkit-box-decoration-break: clone; }}
.ds-prompt {{ opacity: 0.76; }}
.ds-template {{ opacity: 0.76; font-size: 0.82em; }}
.ds-special {{ border: 1px solid currentColor; border-radius: 0.9em; padding: 0.05em 0.5em; margin: 0 0.12em; font-size: 0.76em; }}
.ds-accepted {{ background: {tint(COLOR["accepted"], 0.22)};
  text-decoration: underline solid {LOOKS["accepted"].line} 2px; }}
.ds-correction {{ background: {tint(COLOR["correction"], 0.38)};
  text-decoration: underline double {LOOKS["correction"].line} 2px; }}
.ds-bonus {{ background: {tint(COLOR["bonus"], 0.30)}; }}
.ds-strip .ds-bonus::before {{ content: "+"; font-size: 0.75em; vertical-align: super; font-weight: 700; }}
.ds-plain {{ background: transparent; }}
.ds-now {{ outline: 2px solid currentColor; outline-offset: 1px; margin: 0 0.16em; }}
.ds-half {{ font-size: 0.8em; }}
.ds-joined {{ border-left: 2px solid currentColor; border-right: 2px solid currentColor; border-radius: 0.4em;
  padding: 0 0.25em; margin: 0 0.1em; }}
.ds-whole {{ font-weight: 700; padding-left: 0.3em; }}
.ds-sp {{ white-space: pre-wrap; background: linear-gradient(color-mix(in srgb, currentColor 45%, transparent) 0 0) no-repeat
  center 88% / 55% 1px; }}
.ds-ws {{ opacity: 0.9; }}
.ds-none {{ opacity: 0.75; font-style: italic; }}
.ds-legend {{ display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; margin-top: 0.5rem; font-size: 0.82rem; }}
.ds-key .ds-tok {{ padding: 0.1em 0.4em; font-family: {MONO}; }}
</style>
"""
