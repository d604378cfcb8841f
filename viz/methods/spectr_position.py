"""SpecTr at one position: the search for rho, p against rho q, and what other rules would do with the same guesses.

The sums over the whole vocabulary were found while the step was judged; the bars and the curve are drawn from the tokens the trace
kept, with all others taken together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import expm1, log1p

import pandas as pd
import plotly.graph_objects as go

from decoding.trace import Row
from viz.methods.spectr import Position
from viz.step.probabilities import row_name, shown
from viz.style import GRID, LOOKS, MONO, ink, layout, muted, series_marker
from viz.tokens import as_plotly
from viz.words import number

POINTS = 121  # of the curve
OTHERS = "all other tokens"


def any_of(beta: float, k: int) -> float:
    """1 - (1 - beta)^k.

    >>> any_of(0.5, 2), any_of(1.0, 3)
    (0.75, 1.0)
    """
    return 1.0 if beta >= 1 else -expm1(k * log1p(-beta))


@dataclass(frozen=True)
class Residual:
    """The tokens of a row that the trace did not keep, taken together."""

    p: float
    q: float
    taken: tuple[tuple[float, float], ...]  # (rho, sum of min(p, rho q)) where it is known exactly, ascending

    def at(self, rho: float) -> float:
        """Sum of min(p, rho q), between the known places along a straight line."""
        for (left, low), (right, high) in zip(self.taken, self.taken[1:], strict=False):
            if rho <= right:
                return low + (high - low) * (rho - left) / (right - left)
        return self.taken[-1][1]


def residual_of(row: Row, position: Position) -> Residual:
    """What the row's tokens leave; sums over the whole vocabulary are known at 1, rho and k."""
    known = {1.0: position.overlap, position.rho: position.accepted, float(position.guesses): position.guesses * position.beta_at_k}
    taken = tuple((rho, max(0.0, total - listed(row, rho))) for rho, total in sorted(known.items()))
    return Residual(max(0.0, 1 - sum(row.p)), max(0.0, 1 - sum(row.q)), taken)


def listed(row: Row, rho: float) -> float:
    """Sum of min(p, rho q) over the tokens of the row."""
    return sum(min(p, rho * q) for p, q in zip(row.p, row.q, strict=True))


def g_table(row: Row, position: Position) -> pd.DataFrame:
    """rho from 1 to k with beta and g; exact at 1, rho* and k."""
    residual, k = residual_of(row, position), position.guesses
    grid = sorted({1 + (k - 1) * i / (POINTS - 1) for i in range(POINTS)} | {position.rho})
    rows = []
    for rho in grid:
        taken = min(1.0, listed(row, rho) + residual.at(rho))
        rows.append([rho, taken / rho, any_of(taken / rho, k) - taken])
    return pd.DataFrame(rows, columns=["ρ", "β(ρ)", "g(ρ)"])


def g_figure(row: Row, position: Position, dark: bool = False) -> go.Figure:
    """g over [1, k] with its root: left of it the rule is wrong, right of it it only accepts less."""
    table = g_table(row, position)
    figure = go.Figure(layout=layout(230, dark, showlegend=False))
    figure.add_scatter(
        x=table["ρ"],
        y=table["g(ρ)"],
        mode="lines",
        line={"color": ink(dark), "width": 2},
        name="g(ρ)",
        hovertemplate="ρ %{x:.3f}, g %{y:.4f}<extra></extra>",
    )
    look = LOOKS["accepted"]
    figure.add_scatter(
        x=[position.rho],
        y=[0],
        mode="markers+text",
        marker={"symbol": "diamond", "size": 13, "color": look.color, "line": {"color": ink(dark), "width": 1}},
        text=[f"<b>ρ* = {number(position.rho, 4)}</b>"],
        textposition="top right" if position.rho < (1 + position.guesses) / 2 else "bottom left",
        textfont={"color": ink(dark)},
        name="ρ*",
        hovertemplate="ρ* %{x:.4f}<extra></extra>",
        cliponaxis=False,
    )
    figure.update_xaxes(title="ρ", range=[1, position.guesses], gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="g(ρ)", gridcolor=GRID, zerolinecolor=ink(dark), zerolinewidth=1.2)
    return figure.update_layout(margin={"l": 8, "r": 16, "t": 12, "b": 40})


def overlap_table(row: Row, position: Position, token_bytes: Mapping[int, bytes], limit: int = 8) -> pd.DataFrame:
    """p and rho q token by token, with what is accepted and what is left for the residual; the last row holds all others."""
    rows = []
    places = shown(row, None, limit)
    for i in places:
        p, q = row.p[i], position.rho * row.q[i]
        rows.append([row_name(row, i, token_bytes), p, q, min(p, q), max(p - q, 0.0)])
    p, q, taken = (1 - sum(r[1] for r in rows), position.rho - sum(r[2] for r in rows), position.accepted - sum(r[3] for r in rows))
    rows.append([OTHERS, max(p, 0.0), max(q, 0.0), max(taken, 0.0), max(p - taken, 0.0)])
    return pd.DataFrame(rows, columns=["token", "p", "ρq", "accepted: min(p, ρq)", "residual: p − ρq"])


def overlap_figure(row: Row, position: Position, token_bytes: Mapping[int, bytes], dark: bool = False) -> go.Figure:
    """p on top of rho q: what they share is accepted, what p has over is the residual."""
    table = overlap_table(row, position, token_bytes)
    places = list(range(len(table)))
    figure = go.Figure(layout=layout(90 + 38 * len(table), dark, barmode="group", bargap=0.3))
    parts = (
        ("p", "accepted: min(p, ρq)", "accepted: min(p, ρq)", "upper", None),
        ("residual", "residual: p − ρq", "residual: p − ρq", "upper", table["accepted: min(p, ρq)"]),
        ("q", "ρq", "ρq", "lower", None),
    )
    for key, label, field, group, base in parts:
        figure.add_bar(
            name=label,
            x=table[field],
            y=places,
            base=base,
            orientation="h",
            offsetgroup=group,
            marker=series_marker(key),
            hovertext=[f"{as_plotly(t)}<br>{label}: {number(v, 4)}" for t, v in zip(table["token"], table[field], strict=True)],
            hoverinfo="text",
        )
    ticks = [f"{as_plotly(token)} " for token in table["token"]]
    figure.update_yaxes(tickvals=places, ticktext=ticks, tickfont={"family": MONO, "size": 12}, automargin=True)
    figure.update_yaxes(range=[len(table) - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_xaxes(rangemode="tozero", gridcolor=GRID, zerolinecolor=GRID, title="probability; ρq may exceed 1")
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40}, legend_traceorder="normal")


def chances(position: Position) -> pd.DataFrame:
    """The chance that a guess is accepted here, under five rules for the same p and q."""
    k = position.guesses
    rows = [
        ["R1: one guess only", position.overlap],
        ["K-SEQ with ρ = k", any_of(position.beta_at_k, k)],
        ["R3w: recursive rejection", position.r3w],
        ["K-SEQ with ρ*", position.accepted],
        ["optimal transport", position.optimum],
    ]
    return pd.DataFrame(rows, columns=["rule", "chance of acceptance"])


def chances_figure(position: Position, dark: bool = False) -> go.Figure:
    """The five chances as bars; the rule that judged is the filled one."""
    table = chances(position)
    look = LOOKS["accepted"]
    own = [rule == "K-SEQ with ρ*" for rule in table["rule"]]
    figure = go.Figure(layout=layout(210, dark, showlegend=False, bargap=0.35))
    figure.add_bar(
        x=table["chance of acceptance"],
        y=list(range(len(table))),
        orientation="h",
        marker={
            "color": [look.color if mine else "rgba(128,128,128,0.25)" for mine in own],
            "line": {"color": [look.line if mine else muted(dark) for mine in own], "width": 1.2},
        },
        text=[number(value, 4) for value in table["chance of acceptance"]],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_yaxes(tickvals=list(range(len(table))), ticktext=list(table["rule"]), automargin=True)
    figure.update_yaxes(range=[len(table) - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_xaxes(range=[0, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1], gridcolor=GRID, zerolinecolor=GRID)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 28})


def chances_words(position: Position) -> str:
    """The chances in one sentence; plain text."""
    parts = [f"{rule} {number(value, 4)}" for rule, value in chances(position).itertuples(index=False)]
    return f"Chance that one of {position.guesses} guesses is accepted: {'; '.join(parts)}."
