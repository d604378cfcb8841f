"""What the models thought at one position: p and q side by side, what the correction is drawn from, and the uniforms.

Knows one row or one node; the numbers are those the trace recorded, after temperature, top-k and top-p.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, isfinite
from typing import TYPE_CHECKING

from decoding.trace import Node, Row
from viz.style import LOOKS, SERIES_LINE, SERIES_STRIPES, tint
from viz.tokens import as_html, full_name, name, quoted
from viz.words import judgement, number

if TYPE_CHECKING:
    import pandas as pd

NAMES = {"p": "p target", "q": "q drafter", "residual": "residual, after the rejections"}
SAME = 1e-4  # less is rounding: without children the residual is p, scaled to sum to 1 again
BORDER = {"dash": "dashed", "dot": "dotted"}  # Plotly's words -> those of CSS


def probability_bars(row: Row, token_bytes: Mapping[int, bytes], highlight: int | None = None, limit: int = 10) -> str:
    """p, q and the residual of a row as bars, one group per token, the likeliest on top: HTML, light enough for every step.

    `highlight` is the token of the node that is looked at; it and the token the target drew are always shown.
    """
    places, series = shown(row, highlight, limit), series_of(row)
    top = upper(series, places)
    groups = "".join(
        f'<div class="ds-bars-name{" ds-bars-now" * (row.tokens[i] == highlight)}">{heading(row, i, token_bytes, highlight)}</div>'
        f'<div class="ds-bars-group">{"".join(bar(key, series[key][i], top, named) for key in series)}</div>'
        for i, named in ((i, row_name(row, i, token_bytes)) for i in places)
    )
    keys = "".join(
        f'<span><i style="background:{SERIES_STRIPES[key]};border-color:{SERIES_LINE[key]}"></i> {NAMES[key]}</span>'
        for key in series
    )
    alt = as_html(probability_alt(row, token_bytes, highlight))
    scale = f"<span>full width {number(top, 2)}</span>"
    return f'<div class="ds-keys">{keys}{scale}</div><div class="ds-bars" role="img" aria-label="{alt}">{groups}</div>'


def shown(row: Row, highlight: int | None, limit: int = 10) -> list[int]:
    """Places in the row to draw: the largest by p or q, and always the marked ones; in the order of the row."""
    weight = [max(p, q) for p, q in zip(row.p, row.q or row.p, strict=True)]
    order = sorted(range(len(row.tokens)), key=lambda i: (row.tokens[i] not in (highlight, row.sampled), -weight[i]))
    return sorted(order[:limit])


def series_of(row: Row) -> dict[str, tuple[float, ...]]:
    """p, then q if the children were drawn from one, then the residual if it is not p itself."""
    series = {"p": row.p}
    if row.q is not None:
        series["q"] = row.q
    if any(abs(residual - p) > SAME * p for residual, p in zip(row.residual, row.p, strict=True)):
        series["residual"] = row.residual
    return series


def bar(key: str, value: float, top: float, label: str) -> str:
    """One bar with its number behind it; told apart by hatching as well as by colour."""
    width = 100 * min(1.0, value / top) if isfinite(value) else 0.0
    hint = as_html(f"{label}: {NAMES[key]} {number(value, 4)}")
    look = f"--w:{width:.2f}%;background:{SERIES_STRIPES[key]};border-color:{SERIES_LINE[key]}"
    return f'<div title="{hint}"><i style="{look}"></i><span>{number(value, 2) if value else "0"}</span></div>'


def upper(series: Mapping[str, tuple[float, ...]], places: list[int]) -> float:
    """End of the scale: the next quarter, so that it seldom moves."""
    top = max([values[i] for values in series.values() for i in places if isfinite(values[i])], default=1.0)
    return min(1.0, max(1, ceil(top * 4)) / 4)


def row_name(row: Row, i: int, token_bytes: Mapping[int, bytes], limit: int = 14) -> str:
    """Label of the i-th token of a row; with its id where another one looks the same."""
    label = name(row.tokens[i], token_bytes, limit)
    twins = sum(name(token, token_bytes, limit) == label for token in row.tokens)
    return f"{label} #{row.tokens[i]}" if twins > 1 else label


def heading(row: Row, i: int, token_bytes: Mapping[int, bytes], highlight: int | None) -> str:
    """What stands before a token's bars, escaped; the marked tokens say in a second line what they are."""
    roles = ["▶ this node"] * (row.tokens[i] == highlight) + ["⚄ drawn"] * (row.tokens[i] == row.sampled)
    below = f"<small>{', '.join(roles)}</small>" if roles else ""
    return as_html(row_name(row, i, token_bytes)) + below


def probability_alt(row: Row, token_bytes: Mapping[int, bytes], highlight: int | None = None) -> str:
    """The bars in words; plain text."""
    if not row.tokens:
        return "No probabilities were recorded at this position."
    likeliest = ", ".join(f"{row_name(row, i, token_bytes)} {number(row.p[i], 2)}" for i in range(min(3, len(row.tokens))))
    parts = [f"Most likely for the target: {likeliest}."]
    if row.q is not None:
        guess = max(range(len(row.q)), key=row.q.__getitem__)
        parts.append(f"Most likely for the drafter: {row_name(row, guess, token_bytes)} {number(row.q[guess], 2)}.")
    if highlight in row.tokens:
        at = row.tokens.index(highlight)
        q = "" if row.q is None else f", q {number(row.q[at], 2)}"
        parts.append(f"Marked: {row_name(row, at, token_bytes)}, p {number(row.p[at], 2)}{q}.")
    if row.sampled is not None:
        parts.append(f"The target drew {quoted(row.sampled, token_bytes)}.")
    return " ".join(parts)


def probability_table(row: Row, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per recorded token; q is empty where nothing was drawn from it."""
    import pandas as pd  # not at the top: a page is painted before it is there

    labels = [full_name(token, token_bytes) for token in row.tokens]
    q = list(row.q) if row.q is not None else [None] * len(row.tokens)
    sampled = [token == row.sampled for token in row.tokens]
    columns = {
        "token": labels,
        "id": list(row.tokens),
        "p": list(row.p),
        "q": q,
        "residual": list(row.residual),
        "drawn": sampled,
    }
    return pd.DataFrame(columns)


def threshold(node: Node) -> float:
    """The u below which the node is accepted: min(1, p / q); a chosen node counts as drawn with certainty."""
    q = 1.0 if node.q is None else node.q
    if q <= 0:
        return 1.0 if node.p > 0 else 0.0
    return min(1.0, node.p / q)


def uniform_rule(node: Node) -> str:
    """u on a rule from 0 to 1, with the part that accepts, as HTML; "" where the node was not judged with a u."""
    if node.u is None or node.verdict == "not judged":
        return ""
    limit = threshold(node)
    ratio = "p / q" if node.q is not None else "p"
    zones = zone("accepted", limit) + zone("rejected", 1 - limit)
    look, at = LOOKS[node.verdict], 100 * node.u
    side = "left" if node.u < 0.7 else "right"  # of the mark there is room for the number
    shift = f"{side}:{at if side == 'left' else 100 - at:.2f}%"
    return (
        f'<div class="ds-dice" role="img" aria-label="{as_html(uniform_alt(node))}">'
        f'<div class="ds-dice-rule">{zones}<b style="left:{at:.2f}%;background:{look.color}"></b>'
        f'<span style="{shift}">{look.mark} u = {number(node.u)}</span></div>'
        f"<div><span>0</span><span>accepted below min(1, {ratio}) = {number(limit)}</span><span>1</span></div></div>"
    )


def zone(state: str, share: float) -> str:
    """A stretch of the rule; the two differ in their borders too."""
    look = LOOKS[state]
    border = f"1.5px {BORDER.get(look.dash, look.dash)} {look.line}"
    return f'<i style="width:{100 * share:.2f}%;background:{tint(look.color, 0.28)};border:{border}"></i>' if share > 0 else ""


def uniform_alt(node: Node) -> str:
    """The uniforms in words; plain text."""
    if node.u is None or node.verdict == "not judged":
        return "This token was not judged with a random number."
    return f"u = {number(node.u)} on a rule from 0 to 1; accepted below {number(threshold(node))}. {judgement(node)}."
