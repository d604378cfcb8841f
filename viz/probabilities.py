"""What the models thought at one position: p and q side by side, what the correction is drawn from, and the dice.

Knows one row or one node; the numbers are those the trace recorded, after temperature, top-k and top-p.
"""

from collections.abc import Mapping
from math import ceil, isfinite

import pandas as pd
import plotly.graph_objects as go

from decoding.trace import Node, Row
from viz.style import COLOR, GRID, LOOKS, MONO, SERIES, SERIES_LINE, SERIES_PATTERN, ink, layout, tint
from viz.tokens import as_plotly, full, name, quoted
from viz.words import judgement, number

NAMES = {"p": "p target", "q": "q drafter", "rest": "rest, after the rejections"}
ROW_PX = {1: 32, 2: 36, 3: 48}  # per token, by how many bars it has


def probability_figure(
    row: Row, pieces: Mapping[int, bytes], highlight: int | None = None, dark: bool = False, limit: int = 10
) -> go.Figure:
    """p, q and the rest of a row as bars, one group per token, the likeliest on top.

    `highlight` is the token of the node that is looked at; it and the token the target drew are always shown.
    """
    places = shown(row, highlight, limit)
    series = series_of(row)
    height = 34 + 44 + ROW_PX[len(series)] * max(len(places), 1)
    figure = go.Figure(layout=layout(height, dark, barmode="group", bargap=0.28, bargroupgap=0.06))
    for key, values in series.items():
        figure.add_trace(bars(key, [values[i] for i in places], [row_name(row, i, pieces) for i in places], dark))
    if highlight is not None and highlight in row.tokens:
        figure.add_shape(band(places.index(row.tokens.index(highlight)), dark))
    ticks = [tick(row, i, pieces, highlight) for i in places]
    # Numbered places with tick texts: as categories equal labels would fall together, and "1" would be a number.
    figure.update_yaxes(tickvals=list(range(len(places))), ticktext=ticks, tickfont={"family": MONO, "size": 13})
    figure.update_yaxes(range=[max(len(places), 1) - 0.5, -0.5], showgrid=False, zeroline=False, automargin=True)
    figure.update_xaxes(range=[0, upper(series, places)], gridcolor=GRID, zerolinecolor=GRID, title="probability")
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40}, legend_traceorder="normal")


def shown(row: Row, highlight: int | None, limit: int = 10) -> list[int]:
    """Places in the row to draw: the largest by p or q, and always the marked ones; in the order of the row."""
    weight = [max(p, q) for p, q in zip(row.p, row.q or row.p, strict=True)]
    order = sorted(range(len(row.tokens)), key=lambda i: (row.tokens[i] not in (highlight, row.drawn), -weight[i]))
    return sorted(order[:limit])


def series_of(row: Row) -> dict[str, tuple[float, ...]]:
    """p, then q if the children were drawn from one, then the rest if it is not p itself."""
    found = {"p": row.p}
    if row.q is not None:
        found["q"] = row.q
    if row.rest != row.p:
        found["rest"] = row.rest
    return found


def bars(key: str, values: list[float], names: list[str], dark: bool) -> go.Bar:
    """One series; told apart by hatching as well as by colour."""
    return go.Bar(
        name=NAMES[key],
        x=values,
        y=list(range(len(values))),
        orientation="h",
        marker={
            "color": SERIES[key],
            "line": {"color": SERIES_LINE[key], "width": 1},
            "pattern": {
                "shape": SERIES_PATTERN[key],
                "solidity": 0.3,
                "fgcolor": SERIES_LINE[key],
                "bgcolor": SERIES[key],
            },
        },
        text=[number(value, 2) if value else "0" for value in values],
        textposition="outside",
        textfont={"color": ink(dark), "size": 11},
        constraintext="none",
        cliponaxis=False,
        hovertext=[
            f"{as_plotly(label)}<br>{NAMES[key]}: {number(v, 4)}" for label, v in zip(names, values, strict=True)
        ],
        hoverinfo="text",
    )


def upper(series: Mapping[str, tuple[float, ...]], places: list[int]) -> float:
    """End of the axis: the next quarter, so that it seldom moves, and room for the number behind the bar."""
    top = max([values[i] for values in series.values() for i in places if isfinite(values[i])], default=1.0)
    return min(1.0, max(1, ceil(top * 4)) / 4) * 1.15


def band(place: int, dark: bool) -> dict:
    """A frame around the token that is looked at."""
    ends = {"x0": 0, "x1": 1, "y0": place - 0.48, "y1": place + 0.48}
    return {"type": "rect", "xref": "paper", **ends, "line": {"color": ink(dark), "width": 1.6}, "layer": "below"}


def row_name(row: Row, i: int, pieces: Mapping[int, bytes], limit: int = 14) -> str:
    """Label of the i-th token of a row; with its id where another one looks the same."""
    label = name(row.tokens[i], pieces, limit)
    twins = sum(name(token, pieces, limit) == label for token in row.tokens)
    return f"{label} #{row.tokens[i]}" if twins > 1 else label


def tick(row: Row, i: int, pieces: Mapping[int, bytes], highlight: int | None) -> str:
    """Axis label, escaped; the marked tokens say in a second line what they are."""
    label = as_plotly(row_name(row, i, pieces))
    roles = ["▶ this node"] * (row.tokens[i] == highlight) + ["drawn"] * (row.tokens[i] == row.drawn)
    if not roles:
        return f"{label} "
    return f'<b>{label}</b> <br><span style="font-size:10px">{", ".join(roles)} </span>'


def probability_alt(row: Row, pieces: Mapping[int, bytes], highlight: int | None = None) -> str:
    """The bars in words; plain text."""
    if not row.tokens:
        return "No probabilities were recorded at this position."
    likeliest = ", ".join(f"{row_name(row, i, pieces)} {number(row.p[i], 2)}" for i in range(min(3, len(row.tokens))))
    parts = [f"Most likely for the target: {likeliest}."]
    if row.q is not None:
        guess = max(range(len(row.q)), key=row.q.__getitem__)
        parts.append(f"Most likely for the drafter: {row_name(row, guess, pieces)} {number(row.q[guess], 2)}.")
    if highlight in row.tokens:
        at = row.tokens.index(highlight)
        q = "" if row.q is None else f", q {number(row.q[at], 2)}"
        parts.append(f"Marked: {row_name(row, at, pieces)}, p {number(row.p[at], 2)}{q}.")
    if row.drawn is not None:
        parts.append(f"The target drew {quoted(row.drawn, pieces)}.")
    return " ".join(parts)


def probability_table(row: Row, pieces: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per recorded token; q is empty where nothing was drawn from it."""
    labels = [full(pieces[token]) if token in pieces else f"#{token}" for token in row.tokens]
    q = list(row.q) if row.q is not None else [None] * len(row.tokens)
    drawn = [token == row.drawn for token in row.tokens]
    columns = {
        "token": labels,
        "id": list(row.tokens),
        "p": list(row.p),
        "q": q,
        "rest": list(row.rest),
        "drawn": drawn,
    }
    return pd.DataFrame(columns)


def threshold(node: Node) -> float:
    """The u below which the node is accepted: min(1, p / q); a chosen node counts as drawn with certainty."""
    q = 1.0 if node.q is None else node.q
    if q <= 0:
        return 1.0 if node.p > 0 else 0.0
    return min(1.0, node.p / q)


def dice_figure(node: Node, dark: bool = False) -> go.Figure | None:
    """u on a rule from 0 to 1, with the part that accepts; None where the node was not judged with a u."""
    if node.u is None or node.verdict == "unread":
        return None
    limit = threshold(node)
    zones = [zone("accepted", 0, limit), zone("rejected", limit, 1)]
    figure = go.Figure(layout=layout(112, dark, shapes=[*zones, rule(limit, dark)], showlegend=False))
    look = LOOKS[node.verdict]
    figure.add_scatter(
        x=[node.u],
        y=[0.5],
        mode="markers+text",
        marker={"symbol": look.symbol, "size": 15, "color": look.color, "line": {"color": ink(dark), "width": 1.5}},
        text=[f"<b>u = {number(node.u)}</b>"],
        textposition="middle right" if node.u < 0.75 else "middle left",
        textfont={"color": ink(dark)},
        hovertext=[as_plotly(judgement(node))],
        hoverinfo="text",
        cliponaxis=False,
    )
    ratio = "p / q" if node.q is not None else "p"
    where = {
        "x": limit,
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "xanchor": "right" if limit > 0.5 else "left",
        "showarrow": False,
    }
    figure.add_annotation(**where, text=f"accepted below min(1, {ratio}) = {number(limit)}", font={"color": ink(dark)})
    figure.update_xaxes(
        range=[-0.01, 1.01], dtick=0.25, showgrid=False, zeroline=False, ticks="outside", tickcolor=GRID
    )
    figure.update_yaxes(visible=False, range=[0, 1])
    return figure.update_layout(margin={"l": 12, "r": 12, "t": 30, "b": 26})


def zone(state: str, start: float, end: float) -> dict:
    """A stretch of the rule; the two differ in their borders too."""
    line = {"color": LOOKS[state].line, "dash": LOOKS[state].dash, "width": 1.5}
    ends = {"x0": start, "x1": end, "y0": 0.08, "y1": 0.92}
    return {"type": "rect", **ends, "fillcolor": tint(COLOR[state], 0.28), "line": line, "layer": "below"}


def rule(limit: float, dark: bool) -> dict:
    return {"type": "line", "x0": limit, "x1": limit, "y0": 0, "y1": 1, "line": {"color": ink(dark), "width": 2.5}}


def dice_alt(node: Node) -> str:
    """The dice in words; plain text."""
    if node.u is None or node.verdict == "unread":
        return "This token was not judged with a random number."
    return f"u = {number(node.u)} on a rule from 0 to 1; accepted below {number(threshold(node))}. {judgement(node)}."
