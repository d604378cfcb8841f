"""What is particular to SentenceVAE: its two clocks, what a sentence's vector says for every word, and how long it lasts; and of
what the models answer on demand the sentences given back from their vectors, and the text that the sentence model writes alone.

A step says how many tokens of the open sentence stood before it and how old its vector was; a node carries its q and the q that it
would have had with no vector.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from math import exp, isfinite, log
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import JOINT, OWN, SENTENCE_SO_FAR, VECTOR_AGE, WITHOUT_VECTOR
from decoding.trace import Step, Trace
from viz.methods.ftp import path_shown
from viz.runs.tally import depths
from viz.step.text import strip, strip_html
from viz.style import COLOR, GRID, LOOKS, MONO, SERIES, SERIES_LINE, SERIES_STRIPES, ink, layout, tint, with_mark
from viz.tokens import as_html, full, name
from viz.words import number

LONGEST = 32  # tokens of a sentence
SHOWN = 6  # sentences in the picture
AGES = ((1, 1), (2, 3), (4, 7), (8, 15), (16, LONGEST))  # tokens since the vector, from and to
GRID_LINE = "#8A8F98"  # seen on white and on black
RARE = 0.01  # of the target's probability: it would hardly have written the token

GivenBack = tuple[Sequence[int], Sequence[int], Sequence[int], float]  # the sentence; from its own vector; foretold; cosine
Alone = tuple[Sequence[int], Sequence[float], int]  # tokens, what the target gives them, passes of the decoder


# -- two clocks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoken:
    """A sentence of the text that the run had a part in."""

    start: int  # of its first token in the text, prompt and all
    stop: int
    calls: int  # of the target, while it was the open one
    passes: int  # of the decoder
    over: bool  # the next one has begun

    @property
    def length(self) -> int:
        return self.stop - self.start


def fact(step: Step, key: str) -> int | None:
    """A number of tokens; None where the trace does not carry it, or one that cannot be."""
    value = step.facts.get(key)
    return int(value) if value is not None and isfinite(value) and 0 <= value <= LONGEST else None


def spoken(trace: Trace, cursor: int) -> list[Spoken]:
    """The sentences up to a step, in order."""
    found: list[Spoken] = []
    length = len(trace.header.prompt_tokens)
    for step in trace.steps[: cursor + 1]:
        so_far = fact(step, SENTENCE_SO_FAR)
        start = length if so_far is None else max(0, length - so_far)
        length += len(step.tokens)
        if found and (so_far is None or start <= found[-1].start):
            last = found.pop()
            found.append(Spoken(last.start, length, last.calls + 1, last.passes + step.draft_calls, False))
            continue
        if found:
            found[-1] = Spoken(found[-1].start, start, found[-1].calls, found[-1].passes, True)
        found.append(Spoken(start, length, 1, step.draft_calls, False))
    return found


def clocks_html(trace: Trace, cursor: int) -> str:
    """The last sentences, each with a bead per call of the target and a tick per pass of the decoder: HTML.

    It needs the CSS of `viz.step.text` too.
    """
    spans = strip(trace, cursor)
    rows = "".join(
        f'<div class="ds-sv-text">{strip_html(spans[one.start : one.stop], legend=False)}</div>'
        f'<div class="ds-sv-clock"><span class="ds-sv-beads">{"●" * min(one.calls, LONGEST)}</span> {one.calls:,} '
        f"{calls(one.calls)}<br>"
        f'<span class="ds-sv-ticks" style="width:{4 * min(one.passes, 60)}px"></span> {one.passes:,} small</div>'
        for one in spoken(trace, cursor)[-SHOWN:]
    )
    return f'<div class="ds-sv" role="group" aria-label="{as_html(clocks_words(trace, cursor))}">{rows}</div>'


def calls(count: float) -> str:
    return "call" if count == 1 else "calls"


def clocks_words(trace: Trace, cursor: int) -> str:
    """Both clocks in numbers; plain text."""
    over = [one for one in spoken(trace, cursor) if one.over]
    if not over:
        return "No sentence was finished so far, so there is nothing to count yet."
    n, tokens = len(over), sum(one.length for one in over)
    large, small = sum(one.calls for one in over), sum(one.passes for one in over)
    return (
        f"{n:,} {'sentence was' if n == 1 else 'sentences were'} finished, of {number(tokens / n)} tokens: per sentence "
        f"{number(large / n)} {calls(large)} of the target and {number(small / n)} small passes of the decoder. Alone the sentence "
        "model would take one large step per sentence, and write another text."
    )


def clocks_table(trace: Trace, cursor: int) -> pd.DataFrame:
    """One row per sentence."""
    tokens = trace.tokens_before(cursor + 1)
    rows = [
        (said(tokens[one.start : one.stop], trace.token_bytes), one.length, one.calls, one.passes, "yes" if one.over else "no")
        for one in spoken(trace, cursor)
    ]
    return pd.DataFrame(rows, columns=["sentence", "tokens", "target calls", "decoder passes", "finished"])


def said(tokens: Sequence[int], token_bytes: Mapping[int, bytes]) -> str:
    """Tokens as one text in which everything can be seen; plain text."""
    return full(b"".join(token_bytes.get(token, b"") for token in tokens))


# -- with the vector, and without --------------------------------------------------------------------------------------


def has_vector(step: Step) -> bool:
    """Whether the nodes carry the numbers of this view; an imported trace may not."""
    return all(OWN in node.scores and WITHOUT_VECTOR in node.scores for node in step.nodes)


def vector_html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """What the decoder gave the tokens of the path, with the vector and with none: HTML."""
    rows = "".join(vector_row(step, i, token_bytes) for i in path_shown(step))
    return f'<div class="ds-bars" role="img" aria-label="{as_html(vector_words(step))}">{rows}</div>'


def vector_row(step: Step, i: int, token_bytes: Mapping[int, bytes]) -> str:
    node = step.nodes[i]
    own, without = share(node.scores.get(OWN)), share(node.scores.get(WITHOUT_VECTOR))
    now = " ds-bars-now" * (node.verdict == "accepted")
    return (
        f'<div class="ds-bars-name{now}">{LOOKS[node.verdict].mark} {as_html(name(node.token, token_bytes))}</div>'
        f'<div class="ds-bars-group"><div title="q with the vector"><i style="--w:{100 * own:.2f}%;'
        f'background:{SERIES_STRIPES["q"]};border-color:{SERIES_LINE["q"]}"></i><span>{number(own, 2)}</span></div>'
        f'<div title="q with no vector"><i style="--w:{100 * without:.2f}%;background:transparent;border-color:{GRID_LINE}"></i>'
        f"<span>{number(without, 2)} without</span></div></div>"
    )


def share(value: float | None) -> float:
    """A probability; 0 for what is none."""
    return min(1.0, max(0.0, value)) if value is not None and isfinite(value) else 0.0


def gain(step: Step, nodes: Sequence[int]) -> float | None:
    """How many times as likely these nodes are together with the vector as without; None if that cannot be said."""
    pairs = [(share(step.nodes[i].scores.get(OWN)), share(step.nodes[i].scores.get(WITHOUT_VECTOR))) for i in nodes]
    if not pairs or any(own <= 0 or without <= 0 for own, without in pairs):
        return None
    return exp(max(-50.0, min(50.0, sum(log(own) - log(without) for own, without in pairs))))


def vector_words(step: Step) -> str:
    """The same in a sentence; plain text."""
    path = path_shown(step)
    times = gain(step, path)
    if times is None:
        return "Nothing was drafted of which it could be said what the vector did."
    what = "The word of this path is" if len(path) == 1 else f"The {len(path)} words of this path are together"
    if 0.95 < times < 1.05:
        return f"{what} as likely as with no vector."
    return f"{what} {number(times)} times as likely with the vector as without."


def vector_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node."""
    rows = []
    for node, depth in zip(step.nodes, depths(step), strict=True):
        numbers = (node.scores.get(key) for key in (OWN, WITHOUT_VECTOR, JOINT))
        rows.append((depth, name(node.token, token_bytes), *numbers, with_mark(node.verdict)))
    return pd.DataFrame(rows, columns=["level", "token", "q", "q without the vector", "joint q", "verdict"])


# -- how long a vector lasts -------------------------------------------------------------------------------------------


def ages(steps: Sequence[Step]) -> list[tuple[str, int, float]]:
    """(tokens since the vector, calls, drafted tokens accepted per call) of every age that occurs."""
    found = []
    for low, high in AGES:
        kept = [len(step.path) for step in steps if step.nodes and low <= (fact(step, VECTOR_AGE) or 0) <= high]
        if kept:
            found.append((str(low) if low == high else f"{low} to {high}", len(kept), sum(kept) / len(kept)))
    return found


def ages_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """A bar per age: drafted tokens that were accepted in a call."""
    found = ages(steps)
    figure = go.Figure(layout=layout(300, dark, bargap=0.35))
    figure.add_bar(
        x=[label for label, _, _ in found],
        y=[kept for _, _, kept in found],
        text=[f"{number(kept)} in {count:,} {calls(count)}" for _, count, kept in found],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        marker={"color": COLOR["accepted"], "line": {"color": LOOKS["accepted"].line, "width": 1}},
        hovertemplate="%{x} tokens since the vector<br>%{text}<extra></extra>",
    )
    top = max((kept for _, _, kept in found), default=1.0)
    figure.update_xaxes(title="tokens since the vector", type="category", showgrid=False)
    figure.update_yaxes(range=[0, max(1.0, 1.2 * top)], gridcolor=GRID, zerolinecolor=GRID, title="accepted per call")
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 20, "b": 40})


def ages_words(steps: Sequence[Step]) -> str:
    """The bars in words, and what the vector did for the tokens that were kept; plain text."""
    found = ages(steps)
    if not found:
        return "No vector was in use so far."
    parts = "; ".join(f"{label}: {number(kept)} in {count:,} {calls(count)}" for label, count, kept in found)
    gains = [times for step in steps if step.path and (times := gain(step, step.path)) is not None]
    kept = sum(len(step.path) for step in steps if step.path and gain(step, step.path) is not None)
    mean = exp(sum(map(log, gains)) / kept) if kept else None
    more = "" if mean is None else f" An accepted token was on average {number(mean)} times as likely with the vector as without."
    return f"Drafted tokens accepted per call, by the age of the vector in tokens, {parts}.{more}"


def ages_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per age."""
    return pd.DataFrame(ages(steps), columns=["tokens since the vector", "calls", "accepted per call"])


# -- sentences given back ----------------------------------------------------------------------------------------------


def right(sentence: Sequence[int], other: Sequence[int]) -> int:
    """At how many places the other one has the token of the sentence."""
    return sum(a == b for a, b in zip(sentence, other, strict=False))


def given_back_html(found: Sequence[GivenBack], token_bytes: Mapping[int, bytes]) -> str:
    """Every sentence, what its own vector gives back and what had been foretold, wrong tokens marked: HTML."""
    parts = []
    for sentence, again, foretold, near in found:
        marked = (
            ("the text", plainly(sentence, token_bytes), f"{len(sentence):,} tokens"),
            ("from its vector", compared(sentence, again, token_bytes), f"{right(sentence, again):,} right"),
            (
                "foretold",
                compared(sentence, foretold, token_bytes),
                f"{right(sentence, foretold):,} right, {number(near)} alike",
            ),
        )
        parts += [f'<div class="ds-sv-three">{"".join(three_row(*row) for row in marked)}</div>']
    return "".join(parts)


def three_row(label: str, text: str, count: str) -> str:
    return f'<div class="ds-sv-label">{label}</div><div class="ds-sv-words">{text}</div><div class="ds-sv-label">{count}</div>'


def plainly(tokens: Sequence[int], token_bytes: Mapping[int, bytes]) -> str:
    return "".join(f"<span>{shown(token, token_bytes)}</span>" for token in tokens)


def compared(sentence: Sequence[int], other: Sequence[int], token_bytes: Mapping[int, bytes]) -> str:
    """The other one, stretches of wrong tokens marked; how much it lacks at the end."""
    pairs = list(zip_longest(sentence, other[:LONGEST]))
    cells = []
    for wrong, stretch in groupby((pair for pair in pairs if pair[1] is not None), key=lambda pair: pair[0] != pair[1]):
        words = "".join(shown(token, token_bytes) for _, token in stretch)
        cells.append(f'<span class="ds-sv-wrong" title="wrong">✗{words}</span>' if wrong else f"<span>{words}</span>")
    if lacking := sum(token is None for _, token in pairs):
        cells.append(f'<span class="ds-sv-gap">✗ {lacking} missing</span>')
    return "".join(cells)


def shown(token: int, token_bytes: Mapping[int, bytes]) -> str:
    """A token in full, escaped; a space at its beginning is a space."""
    text = full(token_bytes[token]) if token in token_bytes else f"#{token}"
    return as_html(text.replace("␣", " "))


def given_back_words(found: Sequence[GivenBack]) -> str:
    """What was right, in a sentence; plain text."""
    total = sum(len(sentence) for sentence, *_ in found)
    if not total:
        return "The text has no whole sentence yet."
    again, foretold = (sum(right(one[0], one[part]) for one in found) for part in (1, 2))
    return (
        f"Of {total:,} tokens in {len(found):,} {'sentence' if len(found) == 1 else 'sentences'} the decoder gives back {again:,} "
        f"({100 * again / total:.0f} %) at their place from the sentences' own vectors, and {foretold:,} "
        f"({100 * foretold / total:.0f} %) from the vectors that foretold them."
    )


def given_back_table(found: Sequence[GivenBack], token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per sentence."""
    rows = [
        (
            *(said(tokens, token_bytes) for tokens in (sentence, again, foretold)),
            len(sentence), right(sentence, again), right(sentence, foretold), near,
        )
        for sentence, again, foretold, near in found
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["sentence", "from its vector", "foretold", "tokens", "right", "foretold right", "cosine"])


# -- what it writes alone ----------------------------------------------------------------------------------------------


def alone_html(found: Sequence[Alone], token_bytes: Mapping[int, bytes]) -> str:
    """The text that the sentence model wrote alone, a line per sentence; marked: the target would hardly have written it. HTML."""
    lines = []
    for tokens, p, _ in found:
        cells = "".join(
            f'<span class="ds-sv-wrong" title="p {number(share(value), 4)}">✗{shown(token, token_bytes)}</span>'
            if share(value) < RARE
            else f'<span title="p {number(share(value), 4)}">{shown(token, token_bytes)}</span>'
            for token, value in zip(tokens, p, strict=False)
        )
        lines.append(f'<div class="ds-sv-words">{cells}</div>')
    return f'<div class="ds-sv-alone">{"".join(lines)}</div>'


def values_of(found: Sequence[Alone]) -> Iterator[float]:
    for _, p, _ in found:
        yield from map(share, p)


def alone_words(found: Sequence[Alone], run_calls: int, run_tokens: int) -> str:
    """Both clocks of it beside those of the run, and what the target thinks of the text; plain text."""
    n, tokens, passes = len(found), sum(len(one[0]) for one in found), sum(one[2] for one in found)
    if not tokens:
        return "It wrote nothing."
    values = list(values_of(found))
    rare = sum(value < RARE for value in values)
    return (
        f"{tokens:,} tokens in {n:,} {calls(n)} of the target, one per sentence, and {passes:,} small passes; the run above took "
        f"{run_calls:,} {calls(run_calls)} for {run_tokens:,}. Nobody checked it: the target would have given {rare:,} of "
        f"the tokens less than {100 * RARE:g} %, and is surprised by {number(-sum(log(max(v, 1e-12)) for v in values) / tokens)} "
        "nats per token."
    )


def alone_table(found: Sequence[Alone], token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per sentence."""
    rows: list[tuple[Any, ...]] = [
        (said(tokens, token_bytes), len(tokens), passes, sum(share(v) < RARE for v in p)) for tokens, p, passes in found
    ]
    return pd.DataFrame(rows, columns=["sentence", "tokens", "decoder passes", "hardly the target's"])


CSS = f"""
<style>
.ds-sv {{ display: grid; grid-template-columns: minmax(0, 1fr) minmax(9rem, max-content); gap: 0.5rem 1.2rem; align-items: start; }}
.ds-sv-text {{ border-left: 3px solid {GRID_LINE}; padding-left: 0.7rem; min-width: 0; }}
.ds-sv-clock {{ font-size: 0.85rem; line-height: 1.5; }}
.ds-sv-beads {{ color: {SERIES["p"]}; letter-spacing: 0.08em; overflow-wrap: anywhere; }}
.ds-sv-ticks {{ display: inline-block; height: 0.6em; max-width: 100%; vertical-align: middle;
  background: repeating-linear-gradient(90deg, {SERIES_LINE["q"]} 0 2px, transparent 2px 4px); }}
.ds-sv-three {{ display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content; gap: 0.15rem 0.9rem;
  border-left: 3px solid {GRID_LINE}; padding-left: 0.7rem; margin-bottom: 0.9rem; align-items: baseline; }}
.ds-sv-label {{ font-size: 0.82rem; opacity: 0.85; }}
.ds-sv-words {{ font-family: {MONO}; font-size: 0.92rem; line-height: 1.7; white-space: pre-wrap; overflow-wrap: anywhere; }}
.ds-sv-wrong {{ background: {tint(COLOR["rejected"], 0.18)}; text-decoration: underline dashed {LOOKS["rejected"].line};
  text-underline-offset: 0.25em; border-radius: 0.2em; }}
.ds-sv-gap {{ border: 1px dashed {LOOKS["rejected"].line}; border-radius: 0.2em; padding: 0 0.2em; margin: 0 0.1em; }}
.ds-sv-alone {{ display: grid; gap: 0.3rem; border-left: 3px solid {GRID_LINE}; padding-left: 0.7rem; }}
@media (max-width: 640px) {{
  .ds-sv, .ds-sv-three {{ grid-template-columns: minmax(0, 1fr); }}
}}
</style>
"""
