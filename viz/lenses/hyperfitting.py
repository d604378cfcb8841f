"""What the hyperfitting lens saw: the greedy texts side by side, their entropies, and who takes whose drafts."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.hyperfitting import Acceptance, HyperfittingLook, Text
from viz.small_table import small_table
from viz.style import GRID, LOOKS, SERIES, layout, tint
from viz.tokens import as_html, as_plotly, full_name, joined, name
from viz.verdicts import percent
from viz.words import number

GRAM = 4  # tokens in a row that are said again
COLOURS = (LOOKS["rejected"].line, LOOKS["accepted"].color)  # the first target, its twin
DASHES = ("dot", "solid")
COPIED = tint(LOOKS["correction"].color, 0.42)
CSS = """<style>
.ds-twins { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1.4rem; }
.ds-twins h4 { margin: 0 0 0.2rem; padding: 0; font-size: 1.06rem; }
.ds-twins .ds-text { font-size: 1.06rem; line-height: 1.8; overflow-wrap: anywhere; }
.ds-twins .ds-again { text-decoration: underline; text-underline-offset: 0.22em; text-decoration-thickness: 2px; }
.ds-twins .ds-squares { width: 100%; table-layout: fixed; border-collapse: separate; border-spacing: 4px; font-size: 0.95rem; }
.ds-twins .ds-squares td, .ds-twins .ds-squares th { text-align: left; border: none; font-weight: normal; }
.ds-twins .ds-squares th { overflow-wrap: anywhere; padding: 0.1rem 0.3rem; }
.ds-twins .ds-squares td { padding: 0.4rem 0.5rem; border-radius: 4px; }
.ds-twins .ds-squares b { font-size: 1.15rem; }
</style>"""


@dataclass(frozen=True)
class Numbers:
    """What is said of a text, all means or shares over its tokens."""

    entropy: float  # in nats
    top: float
    again: float  # of its 4-grams, those that stood in it before
    different: float  # different tokens per token
    copied: float
    longest: int  # tokens in a row that are copied


def numbers(text: Text) -> Numbers:
    """Of a text that has tokens.

    Raises:
        StatisticsError: it has none.
    """
    tokens = [row.token for row in text.tokens]
    grams = max(1, len(tokens) - GRAM + 1)
    return Numbers(
        entropy=fmean(row.entropy for row in text.tokens),
        top=fmean(row.top for row in text.tokens),
        again=len(said_before(tokens)) / grams,
        different=len(set(tokens)) / len(tokens),
        copied=sum(row.copied for row in text.tokens) / len(tokens),
        longest=longest([row.copied for row in text.tokens]),
    )


def said_before(tokens: Sequence[int]) -> list[int]:
    """Where a 4-gram begins that stood in the text before.

    >>> said_before([1, 2, 3, 4, 1, 2, 3, 4, 1])
    [4, 5]
    """
    seen: set[tuple[int, ...]] = set()
    found: list[int] = []
    for i in range(len(tokens) - GRAM + 1):
        gram = tuple(tokens[i : i + GRAM])
        found += [i] if gram in seen else []
        seen.add(gram)
    return found


def longest(marks: Sequence[bool]) -> int:
    """The most marks in a row.

    >>> longest([True, False, True, True])
    2
    """
    best = run = 0
    for mark in marks:
        run = run + 1 if mark else 0
        best = max(best, run)
    return best


def texts_of(look: HyperfittingLook, temperature: float) -> list[Text]:
    """The first target's, then its twin's; those that have tokens."""
    return [text for text in look.texts if text.temperature == temperature and text.tokens][:2]


def sentence(look: HyperfittingLook) -> str:
    """How much either repeats, how sure it is, what it copied, and who takes whose drafts."""
    greedy = texts_of(look, 0.0)
    if not greedy:
        return "Nothing was written yet."
    first = numbers(greedy[0])
    if len(greedy) < 2:
        count = len(greedy[0].tokens)
        return f"{greedy[0].target} has written {count:,} tokens and said {percent(first.again)} of its 4-grams before."
    twin = numbers(greedy[1])
    words = [
        f"Greedily {greedy[0].target} says {percent(first.again)} of its 4-grams again, {greedy[1].target} {percent(twin.again)}; "
        f"the mean entropy is {number(first.entropy)} and {number(twin.entropy)} nats.",
        f"{percent(twin.copied)} of the twin's tokens stand so in the {look.pieces:,} pieces that it knows by heart, up to "
        f"{twin.longest:,} in a row ({percent(first.copied)} of the other's).",
    ]
    pairs = {(pair.target, pair.draft): pair for pair in look.pairs if pair.temperature == 1.0}
    targets = [text.target for text in greedy]
    if all((a, b) in pairs for a in targets for b in targets):
        own = [pairs[a, a].expected for a in targets]
        crossed = [pairs[a, b].expected for a, b in (targets, targets[::-1])]
        words.append(
            f"At temperature 1 each takes {percent(own[0])} and {percent(own[1])} of the drafts of its own draft model, "
            f"{percent(crossed[0])} and {percent(crossed[1])} of the other's."
        )
    return " ".join(words)


# -- the texts ---------------------------------------------------------------------------------------------------------


def html(look: HyperfittingLook, dark: bool) -> str:
    """The greedy texts side by side, with their numbers and those at temperature 1; below them who takes whose drafts."""
    greedy = texts_of(look, 0.0)
    drawn = {text.target: text for text in texts_of(look, 1.0)}
    if not greedy:
        return ""
    keys = (
        f'<div class="ds-keys"><span><u>underlined</u>: said before, 4 tokens or more</span>'
        f'<span><i style="background:{COPIED}"></i> stands in the pieces learned by heart, 8 tokens or more</span></div>'
    )
    panels = "".join(
        f"<section><h4>{as_html(text.target)}, greedy</h4>{shown(text, look)}{numbers_html(text, drawn.get(text.target))}</section>"
        for text in greedy
    )
    pairs = "".join(squares(look, temperature) for temperature in (1.0, 0.0))
    return f'{CSS}{keys}<div class="ds-twins">{panels}{pairs}</div>'


def shown(text: Text, look: HyperfittingLook) -> str:
    """Every token, underlined and shaded."""
    tokens = [row.token for row in text.tokens]
    again = {i + k for i in said_before(tokens) for k in range(GRAM)}
    pieces = [look.token_bytes.get(token, b"") for token in tokens]
    parts = []
    for group in joined(pieces):
        row, said = text.tokens[group.start], as_html(b"".join(pieces[group.start : group.stop]).decode("utf-8", "replace"))
        style = f' style="background:{COPIED}"' if row.copied else ""
        mark = ' class="ds-again"' if group.start in again else ""
        told = as_html(f"entropy {number(row.entropy)} nats, largest p {number(row.top)}")
        parts.append(f'<span{mark}{style} title="{told}">{said.replace(chr(10), "<br>")}</span>')
    return f'<div class="ds-text">{"".join(parts)}</div>'


def numbers_html(greedy: Text, drawn: Text | None) -> str:
    """A small table: what is said of the greedy text and of the one at temperature 1."""
    columns = [numbers(text) for text in (greedy, drawn) if text is not None]
    rows = (
        ("entropy, nats", [number(one.entropy) for one in columns]),
        ("largest p", [number(one.top) for one in columns]),
        ("4-grams said before", [percent(one.again) for one in columns]),
        ("different tokens", [percent(one.different) for one in columns]),
        ("copied", [percent(one.copied) for one in columns]),
        ("longest copy, tokens", [f"{one.longest:,}" for one in columns]),
    )
    return small_table(("", "greedy", "T = 1")[: len(columns) + 1], [(words, *values) for words, values in rows])


# -- entropies ---------------------------------------------------------------------------------------------------------


def figure(look: HyperfittingLook, dark: bool) -> go.Figure | None:
    """Entropy along the greedy texts: thin lines per token, thick ones the mean of the last 16."""
    greedy = texts_of(look, 0.0)
    if not greedy:
        return None
    made = go.Figure(layout=layout(280, dark))
    for text, colour, dash in zip(greedy, COLOURS, DASHES, strict=False):
        values = [row.entropy for row in text.tokens]
        smooth = [fmean(values[max(0, i - 15) : i + 1]) for i in range(len(values))]
        names = [as_plotly(name(row.token, look.token_bytes)) for row in text.tokens]
        x = list(range(1, len(values) + 1))
        told = {"text": names, "hovertemplate": "token %{x} %{text}: %{y:.2f} nats<extra></extra>"}
        made.add_scatter(x=x, y=values, mode="lines", line={"color": tint(colour, 0.45), "width": 1}, showlegend=False, **told)
        made.add_scatter(
            x=x,
            y=smooth,
            mode="lines",
            name=as_plotly(text.target),
            line={"color": colour, "width": 3, "dash": dash},
            hoverinfo="skip",
        )
    made.update_xaxes(title="token of the greedy text", showgrid=False, zeroline=False, fixedrange=True)
    made.update_yaxes(title="entropy, nats", rangemode="tozero", gridcolor=GRID, zeroline=False, fixedrange=True)
    return made


def alt(look: HyperfittingLook) -> str:
    """The lines in words."""
    said = [
        f"{text.target}: {number(numbers(text).entropy)} nats in the mean over {len(text.tokens):,} tokens"
        for text in texts_of(look, 0.0)
    ]
    return f"Entropy along the greedy texts. {'; '.join(said)}." if said else "Nothing was written yet."


# -- acceptance --------------------------------------------------------------------------------------------------------


def squares(look: HyperfittingLook, temperature: float) -> str:
    """A table of two by two: what each target takes of each draft model's tokens, on its own text; darker is more."""
    found = {(pair.target, pair.draft): pair for pair in look.pairs if pair.temperature == temperature}
    if not found:
        return ""
    targets, drafts = (list(dict.fromkeys(key[i] for key in found)) for i in range(2))
    head = "".join(f"<th>draft of {as_html(draft)}</th>" for draft in drafts)
    body = "".join(
        f"<tr><th>{as_html(target)}</th>{''.join(cell(found.get((target, draft))) for draft in drafts)}</tr>" for target in targets
    )
    return (
        f"<section><h4>Drafted tokens that are accepted, T = {temperature:g}</h4>"
        f'<table class="ds-squares"><tr><th></th>{head}</tr>{body}</table></section>'
    )


def cell(pair: Acceptance | None) -> str:
    """The sum of min(p, q), what was measured with two standard errors, and the first where the text is copied."""
    if pair is None:
        return "<td></td>"
    error = f" ± {2 * pair.error:.3f}" if pair.temperature else ""
    copied = "" if pair.copied is None else f"<br>where it copies {pair.copied:.3f}"
    shade = tint(SERIES["p"], 0.08 + 0.5 * min(1.0, pair.expected))
    return (
        f'<td style="background:{shade}" title="of {pair.drafted:,} drafted"><b>{pair.expected:.3f}</b>'
        f"<br>measured {pair.measured:.3f}{error}{copied}</td>"
    )


def table(look: HyperfittingLook) -> pd.DataFrame:
    """One row per place of the texts."""
    rows = []
    for text in look.texts:
        again = {i + k for i in said_before([row.token for row in text.tokens]) for k in range(GRAM)}
        for i, row in enumerate(text.tokens):
            piece = full_name(row.token, look.token_bytes)
            rows.append((text.target, text.temperature, i + 1, piece, row.token, row.entropy, row.top, i in again, row.copied))
    columns = ["target", "temperature", "place", "token", "id", "entropy, nats", "largest p", "said before", "copied"]
    return pd.DataFrame(rows, columns=columns)
