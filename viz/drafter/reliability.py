"""What a predicted probability is worth: how often what was given it came true, in a diagram and as calibration error.

Knows DataFrames with the columns `confidence` (the prediction; may be empty) and `accepted` (whether it came true).
The words are those of a drafter's own probability q unless told otherwise, since other predictions are drawn alike.
"""

from math import sqrt

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from viz.drafter.acceptance import Frames, layout_of, named, wilson
from viz.runs.lines import LINES, empty_figure, framed
from viz.style import ink, muted
from viz.tokens import as_plotly

BINS = 10  # of the reliability diagram
HOW_TO_READ_RELIABILITY = (
    "A point on the diagonal: of tokens drafted with probability q, a share of q was accepted. "
    "Below it the drafter is too sure of itself, above it too modest."
)


def reliability_table(frame: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Equal bins of the drafted probability: how often their tokens were accepted. Empty bins are left out."""
    known = frame[usable(frame)]
    place = np.minimum((known["confidence"].to_numpy() * bins).astype(int), bins - 1)
    rows = []
    for b, part in known.groupby(place):
        judged, accepted = len(part), int(part["accepted"].sum())
        ends = (b / bins, (b + 1) / bins, part["confidence"].mean())
        rows.append((*ends, judged, accepted, accepted / judged, *wilson(accepted, judged)))
    columns = ["from", "to", "mean q", "judged", "accepted", "alpha", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def usable(frame: pd.DataFrame) -> pd.Series:
    """Which lines have a drafted probability that can be one."""
    return frame["confidence"].between(0, 1.01)


def calibration_error(frame: pd.DataFrame, bins: int = BINS) -> float | None:
    """Expected calibration error: the mean distance of acceptance from drafted probability over the bins, each weighted
    with its tokens: sum over bins of n_bin / n * |accepted / judged - mean q|. None without a drafted probability."""
    table = reliability_table(frame, bins)
    if table.empty:
        return None
    return float((table["judged"] * (table["alpha"] - table["mean q"]).abs()).sum() / table["judged"].sum())


def excluded(frame: pd.DataFrame) -> str:
    """Which tokens the reliability diagram leaves out, and why; "" if none."""
    missing = int((~usable(frame)).sum())
    if not missing:
        return ""
    return (
        f"{missing} of {len(frame)} judged tokens are left out: they were chosen, not drawn (looked up, recycled), "
        "and their drafter has no probability for them."
    )


def reliability_figure(
    frames: Frames,
    dark: bool = False,
    *,
    x: str = "drafted probability q",
    y: str = "accepted / judged",
    short: str = "q",
    empty: str = "",
) -> go.Figure:
    """Acceptance against drafted probability, with the diagonal of a calibrated drafter; counts at the points.

    Args:
        x, y: what another prediction calls the axes.
        short: the prediction where there is little room, on hover.
        empty: said if there is no prediction at all; by default what `excluded` says of the drafter's tokens.
    """
    tables = {label: reliability_table(frame) for label, frame in named(frames).items()}
    if all(table.empty for table in tables.values()):
        reasons = filter(None, map(excluded, named(frames).values()))
        return empty_figure(empty or next(reasons, "No drafted token was judged here."), dark)
    figure = go.Figure(layout=layout_of(400, dark, several=True))
    diagonal = {"color": muted(dark), "dash": "dot", "width": 1.5}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=diagonal, name="calibrated", hoverinfo="skip")
    for i, (label, table) in enumerate(tables.items()):
        figure.add_trace(reliability_line(label, table, i, dark, short))
    framed(figure, x, y)
    figure.update_xaxes(range=[-0.02, 1.02], dtick=0.1, zeroline=False)
    return figure.update_yaxes(range=[-0.02, 1.06], dtick=0.25, zeroline=False)


def reliability_line(label: str, table: pd.DataFrame, i: int, dark: bool, short: str) -> go.Scatter:
    """One drafter; the area of a point grows with its count."""
    color, dash, symbol = LINES[i % len(LINES)]
    rows = table.to_dict("records")
    most = max((row["judged"] for row in rows), default=1)
    return go.Scatter(
        name=as_plotly(label) or "drafter",
        x=[row["mean q"] for row in rows],
        y=[row["alpha"] for row in rows],
        mode="lines+markers+text",
        line={"color": color, "dash": dash, "width": 2},
        marker={
            "symbol": symbol,
            "color": color,
            "opacity": 1,
            "size": [7 + 13 * sqrt(row["judged"] / most) for row in rows],
            "line": {"width": 0},
        },
        error_y={
            "type": "data",
            "array": [row["high"] - row["alpha"] for row in rows],
            "arrayminus": [row["alpha"] - row["low"] for row in rows],
            "color": muted(dark),
            "thickness": 1.2,
            "width": 4,
        },
        text=[f"  {row['judged']}" for row in rows],
        textposition="middle right",
        textfont={"size": 11, "color": ink(dark)},
        hovertext=[
            f"{as_plotly(label)}<br>{short} {row['from']:.1f} to {row['to']:.1f}, mean {row['mean q']:.2f}<br>"
            f"{row['accepted']} of {row['judged']} accepted: {row['alpha']:.2f}"
            for row in rows
        ],
        hoverinfo="text",
        cliponaxis=False,
    )


def reliability_alt(
    frames: Frames, *, noun: str = "drafted probability", short: str = "q", none: str = "no drafted probabilities"
) -> str:
    """The diagram in words; plain text. `noun` and `short` name the prediction, `none` says that there is none."""
    parts = []
    for label, frame in named(frames).items():
        rows = reliability_table(frame).to_dict("records")
        words = ", ".join(f"{short} {r['from']:.1f} to {r['to']:.1f}: {r['accepted']} of {r['judged']}" for r in rows)
        error = calibration_error(frame)
        ends = f"; expected calibration error {error:.3f}" if error is not None else ""
        parts.append(f"{label}{': ' if label else ''}{words or none}{ends}")
    return f"Accepted among the judged, by {noun}. {'. '.join(parts)}."
