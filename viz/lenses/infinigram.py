"""What the infini-gram lens saw: the text by the length of its matches, the next tokens beside p and q, and what mixing brings."""

from collections.abc import Sequence
from statistics import median

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from decoding.looks.infinigram import At, InfinigramLook
from viz.style import GRID, LOOKS, MONO, SERIES, SERIES_LINE, layout, series_marker, tint
from viz.tokens import as_html, as_plotly, full_name, joined, name, quoted
from viz.verdicts import percent
from viz.words import number

CLASSES = ((2, "1–2"), (4, "3–4"), (8, "5–8"), (16, "9–16"), (10**9, "17+"))  # of n: the last it holds, and its name
ALPHA = (0.0, 0.18, 0.36, 0.58, 0.85)
COUNTING = "P∞"
BLUE = LOOKS["accepted"].color
MIXES = 20  # steps of λ
CSS = """<style>
.ds-ngrams { font-size: 1.06rem; line-height: 1.9; overflow-wrap: anywhere; }
.ds-ngrams span { border-radius: 3px; padding: 0.1rem 0; }
.ds-ngrams .ds-sparse { text-decoration: underline; text-underline-offset: 0.22em; }
</style>"""


def known(look: InfinigramLook) -> list[At]:
    """The tokens that were looked up."""
    return [row for row in look.text if row.n > 0]


def agrees(row: At) -> bool:
    """Counting would have bet on it."""
    return row.share > 0.5


def sentence(look: InfinigramLook) -> str:
    """The match at the cursor, how often counting agrees along the text, and what it adds to the target."""
    rows, words = known(look), []
    if look.n > 1 and look.following:
        best = look.following[0]
        times = "once" if look.count == 1 else f"{look.count:,} times"
        words.append(
            f"The last {plural(look.n - 1, 'token')} stand {times} in what was searched; counting expects "
            f"{quoted(best.token, look.token_bytes)} at {percent(best.share)}, the target gives it {percent(best.p)}."
        )
    elif look.done or look.following:
        words.append("Not even the last token occurs in what was searched.")
    if rows:
        agree = sum(map(agrees, rows)) / len(rows)
        words.append(
            f"Over {plural(len(rows), 'token')} the median n is {median(row.n for row in rows):g}, and counting would have bet on "
            f"{percent(agree)} of them."
        )
        if (found := best_mix(rows)) is not None:
            weight, low, alone = found
            gain = f"falls from {number(alone)} to {number(low)} at λ = {weight:.2f}" if weight else f"stays at {number(alone)}"
            words.append(f"Mixed with the target the perplexity {gain}.")
    return " ".join(words) or "Nothing was looked up yet."


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


# -- the text ----------------------------------------------------------------------------------------------------------


def class_of(n: int) -> int:
    """The index in CLASSES."""
    return next(i for i, (last, _) in enumerate(CLASSES) if n <= last)


def html(look: InfinigramLook, dark: bool) -> str:
    """The text, a token the darker the longer its match, sparse ones underlined; and what the classes mean."""
    pieces = [look.token_bytes.get(row.token, b"") for row in look.text]
    parts = []
    for group in joined(pieces):
        row = look.text[group.start]
        shown = as_html(b"".join(pieces[group.start : group.stop]).decode("utf-8", "replace"))
        told = f"n = {row.n:,}, {row.count:,} times; P∞ {number(row.share)}, p {number(row.p)}" if row.n else "not looked up yet"
        style = f"background:{tint(BLUE, ALPHA[class_of(row.n)])}" if row.n else "opacity:0.5"
        ink = ";color:#FFFFFF" if row.n and class_of(row.n) >= 3 else ""
        sparse = ' class="ds-sparse"' if row.sparse else ""
        parts.append(f'<span{sparse} style="{style}{ink}" title="{as_html(told)}">{shown.replace(chr(10), "<br>")}</span>')
    keys = "".join(
        f'<span><i style="background:{tint(BLUE, alpha)}"></i> n {words}</span>'
        for (_, words), alpha in zip(CLASSES, ALPHA, strict=True)
    )
    legend = f'<div class="ds-keys">{keys}<span><u>underlined</u>: all occurrences go on the same way</span></div>'
    return f'{CSS}{legend}<div class="ds-ngrams">{"".join(parts)}</div>' if parts else ""


# -- the cursor --------------------------------------------------------------------------------------------------------


def figure(look: InfinigramLook, dark: bool) -> go.Figure | None:
    """Bars of P∞, p and q for what may come next at the cursor."""
    rows = look.following[:10]
    if not rows:
        return None
    names = [as_plotly(name(row.token, look.token_bytes)) for row in rows]
    bars = {COUNTING: [row.share for row in rows], "p": [row.p for row in rows]}
    if any(row.q is not None for row in rows):
        bars["q"] = [row.q or 0.0 for row in rows]
    made = go.Figure(layout=layout(60 + 46 * len(rows), dark, barmode="group", bargap=0.3))
    for series, values in reversed(bars.items()):
        marker = {"color": BLUE, "line": {"color": BLUE, "width": 1}} if series == COUNTING else series_marker(series)
        made.add_bar(
            y=[f"{i}" for i in range(len(rows))], x=values, name=f"{series}, counted" if series == COUNTING else series,
            orientation="h", marker=marker, text=[number(v) if v >= 0.005 else "" for v in values], textposition="outside",
            cliponaxis=False, textfont={"size": 12},
            hovertext=[as_plotly(full_name(row.token, look.token_bytes)) for row in rows], hoverinfo="text+x",
        )  # fmt: skip
    made.update_yaxes(
        tickvals=[f"{i}" for i in range(len(rows))], ticktext=names, autorange="reversed", tickfont={"family": MONO, "size": 14},
        fixedrange=True,
    )  # fmt: skip
    made.update_xaxes(range=[0, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1], gridcolor=GRID, fixedrange=True, zeroline=False)
    made.update_layout(legend_traceorder="reversed")
    return made


def alt(look: InfinigramLook) -> str:
    """The bars in words."""
    said = [
        f"{quoted(row.token, look.token_bytes)}: counted {number(row.share)}, p {number(row.p)}"
        + ("" if row.q is None else f", q {number(row.q)}")
        for row in look.following[:5]
    ]
    return f"What comes next by counting and by the models. {'; '.join(said)}." if said else "Nothing was looked up."


# -- along the text ----------------------------------------------------------------------------------------------------


def perplexity(rows: Sequence[At], weight: float) -> float:
    """Of the text under λ P∞ + (1 − λ) p; infinite where a token has no probability at all."""
    mixed = np.array([weight * row.share + (1 - weight) * row.p for row in rows])
    with np.errstate(divide="ignore", over="ignore"):
        return float(np.exp(-np.log(mixed).mean()))


def curve(rows: Sequence[At]) -> list[tuple[float, float]]:
    """(λ, perplexity) for λ below 1, where it is finite."""
    pairs = [(i / MIXES, perplexity(rows, i / MIXES)) for i in range(MIXES)] if rows else []
    return [(weight, value) for weight, value in pairs if np.isfinite(value)]


def best_mix(rows: Sequence[At]) -> tuple[float, float, float] | None:
    """λ of the lowest perplexity, that, and the target's own; None where there is none."""
    pairs = curve(rows)
    if not pairs or pairs[0][0]:
        return None
    weight, low = min(pairs, key=lambda pair: (pair[1], pair[0]))
    return weight, low, pairs[0][1]


def more(look: InfinigramLook, dark: bool) -> list[tuple[str, go.Figure, str]]:
    """The mixture, the tokens as points of P∞ against p, and agreement by n: title, figure, in words."""
    rows = known(look)
    if len(rows) < 2:
        return []
    return [mixture(rows, look, dark), points(rows, look, dark), agreement(rows, look, dark)]


def mixture(rows: Sequence[At], look: InfinigramLook, dark: bool) -> tuple[str, go.Figure, str]:
    pairs = curve(rows)
    made = go.Figure(layout=layout(260, dark, showlegend=False))
    made.add_scatter(
        x=[x for x, _ in pairs], y=[y for _, y in pairs], mode="lines+markers", line={"color": BLUE, "width": 2},
        hovertemplate="λ %{x:.2f}: %{y:.2f}<extra></extra>",
    )  # fmt: skip
    found, words = best_mix(rows), "No perplexity can be given: the target gave a token no probability."
    if found is not None:
        weight, low, alone = found
        made.add_scatter(x=[weight], y=[low], mode="markers", marker={"symbol": "star", "size": 15, "color": LOOKS["bonus"].line})
        words = f"The target alone has {number(alone)}; the lowest is {number(low)} at λ = {weight:.2f}, chosen on this text."
    made.update_xaxes(title="λ, the share of counting", range=[-0.03, 1], gridcolor=GRID, fixedrange=True)
    made.update_yaxes(title="perplexity", gridcolor=GRID, fixedrange=True)
    return f"Mixed with the target: perplexity on {look.said or 'the text'}", made, words


def points(rows: Sequence[At], look: InfinigramLook, dark: bool) -> tuple[str, go.Figure, str]:
    copied = sum(row.share > 0.5 and row.p < 0.2 for row in rows) / len(rows)
    knows = sum(row.share < 0.05 and row.p > 0.5 for row in rows) / len(rows)
    made = go.Figure(layout=layout(320, dark, showlegend=False))
    made.add_scatter(
        x=[row.share for row in rows], y=[row.p for row in rows], mode="markers",
        marker={"color": [tint(BLUE, 0.25 + 0.75 * ALPHA[class_of(row.n)]) for row in rows], "size": 9,
                "symbol": ["diamond" if row.sparse else "circle" for row in rows], "line": {"color": BLUE, "width": 1}},
        text=[as_plotly(f"{full_name(row.token, look.token_bytes)}: n {row.n:,}, {row.count:,} times") for row in rows],
        hovertemplate="%{text}<br>P∞ %{x:.2f}, p %{y:.2f}<extra></extra>",
    )  # fmt: skip
    made.update_xaxes(title="P∞ of the token that was written", range=[-0.04, 1.04], gridcolor=GRID, fixedrange=True)
    made.update_yaxes(title="p", range=[-0.04, 1.04], gridcolor=GRID, fixedrange=True)
    words = (
        f"Copied though the model was unsure (lower right): {percent(copied)}. The model knows, the text does not (upper left): "
        f"{percent(knows)}."
    )
    return "Every token: what counting gave it, and what the target did", made, words


def agreement(rows: Sequence[At], look: InfinigramLook, dark: bool) -> tuple[str, go.Figure, str]:
    found = agreement_table(rows)
    made = go.Figure(layout=layout(240, dark, showlegend=False))
    made.add_bar(
        x=found["n"].tolist(), y=found["agree"].tolist(), marker={"color": SERIES["p"], "line": {"color": SERIES_LINE["p"]}},
        text=[f"{count:,} tokens" for count in found["tokens"]], textposition="outside", cliponaxis=False,
    )  # fmt: skip
    made.update_xaxes(title="n: the match and the token itself", type="category", fixedrange=True)
    made.update_yaxes(title="agreed", range=[0, 1.15], tickformat=".0%", gridcolor=GRID, fixedrange=True)
    said = [f"n {n}: {percent(agree)} of {count:,}" for n, count, agree in found.itertuples(index=False)]
    return "How often counting bet on the right token, by n", made, "; ".join(said) + "."


def agreement_table(rows: Sequence[At]) -> pd.DataFrame:
    """One row per class of n that occurs."""
    classes = [(words, [row for row in rows if class_of(row.n) == i]) for i, (_, words) in enumerate(CLASSES)]
    return pd.DataFrame(
        [(words, len(mine), sum(map(agrees, mine)) / len(mine)) for words, mine in classes if mine],
        columns=["n", "tokens", "agree"],
    )


def table(look: InfinigramLook) -> pd.DataFrame:
    """One row per token of the text."""
    return pd.DataFrame(
        [
            (full_name(row.token, look.token_bytes), row.token, row.n, row.count, row.share, row.sparse, row.p, row.entropy)
            for row in look.text
        ],
        columns=["token", "id", "n", "count", "P∞", "sparse", "p", "entropy of p"],
    )
