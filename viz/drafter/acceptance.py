"""How often a drafted token is kept, by depth, position, domain, class, entropy or source, with intervals that know small numbers.

Knows what `viz.drafter.judgements.judgements` returns, of one drafter or of several by name; a table, a figure and a sentence
show the same counts.
"""

from collections.abc import Mapping
from math import sqrt

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from viz.drafter.judgements import CLASSES, judgements
from viz.runs.lines import LINES, empty_figure, framed
from viz.style import ink, layout, tint
from viz.tokens import as_plotly, plain

Frames = pd.DataFrame | Mapping[str, pd.DataFrame]  # one drafter, or several by name

BY = ("depth", "position", "domain", "class", "entropy", "source")
TITLES = {
    "depth": "depth in the draft",
    "position": "position in the text",
    "domain": "domain",
    "class": "class of the drafted token",
    "entropy": "entropy of the target, bits",
    "source": "where the token came from",
}
HOW_TO_READ = {
    "depth": "Accepted over judged counts every refused sibling; a level counts once.",
    "position": "Bars that fall along the text: the drafter loses the thread, or was trained on shorter texts.",
    "domain": "Low bars are what the drafter has not seen enough of.",
    "class": "Low bars are the kind of token it cannot guess; inside a word should be easiest.",
    "entropy": "Left the target is sure, right it could go on in many ways; low bars on the left are plain mistakes.",
    "source": "Which part of the drafter earns its keep.",
}
INTERVAL = "The whiskers are 95 % Wilson intervals: few tokens, long whiskers."


def wilson(accepted: int, judged: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share; stays inside 0 and 1 and is sane for few tokens.

    >>> [round(end, 3) for end in wilson(5, 10)], [round(end, 3) for end in wilson(0, 10)]
    ([0.237, 0.763], [0.0, 0.278])
    """
    if not judged:
        return 0.0, 1.0
    share, square = accepted / judged, z * z / judged
    middle = (share + square / 2) / (1 + square)
    half = z * sqrt(share * (1 - share) / judged + square / judged / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def groups(frame: pd.DataFrame, by: str) -> pd.Series:
    """The group of every line as an ordered category; numbers with many values are put into buckets."""
    if by == "position":
        size = 16
        top = int(frame["position"].max()) if len(frame) else 0
        labels = [f"{i + 1}–{i + size}" for i in range(0, top + 1, size)]
        return pd.Series(pd.Categorical.from_codes(frame["position"] // size, labels, ordered=True), index=frame.index)
    if by == "entropy":
        ends = [-1, 0.5, 1, 2, 3, 4, 6, np.inf]
        labels = ["0–0.5", "0.5–1", "1–2", "2–3", "3–4", "4–6", "over 6"]
        return pd.cut(frame["entropy"], ends, labels=labels)
    values = frame[by]
    known = [c for c in CLASSES if c in set(values)] if by == "class" else sorted(values.unique())
    return pd.Series(pd.Categorical(values, known, ordered=True), index=frame.index)


def acceptance(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Judged, accepted, alpha and its interval for each group of `by` (one of `BY`) that occurs."""
    counted = frame["accepted"].groupby(groups(frame, by), observed=True).agg(["size", "sum"])
    rows = []
    for group, judged, accepted in counted.itertuples():
        rows.append((plain(str(group)), int(judged), int(accepted), accepted / judged, *wilson(accepted, judged)))
    return pd.DataFrame(rows, columns=[by, "judged", "accepted", "alpha", "low", "high"])


def named(frames: Frames) -> dict[str, pd.DataFrame]:
    return {"": frames} if isinstance(frames, pd.DataFrame) else {plain(key, 32): frame for key, frame in frames.items()}


def acceptance_table(frames: Frames, by: str) -> pd.DataFrame:
    """`acceptance`, with a first column that names the drafter if there are several."""
    tables = {label: acceptance(frame, by) for label, frame in named(frames).items()}
    if list(tables) == [""]:
        return tables[""]
    parts = [table.assign(drafter=label)[["drafter", *table.columns]] for label, table in tables.items()]
    return pd.concat(parts, ignore_index=True)


def acceptance_figure(frames: Frames, by: str, dark: bool = False) -> go.Figure:
    """Share accepted among the judged, by group; whiskers are 95 % intervals, the counts stand below (one drafter)."""
    tables = {label: acceptance(frame, by) for label, frame in named(frames).items()}
    everything = pd.concat(list(named(frames).values()) or [judgements([])], ignore_index=True)
    return bars_figure(tables, by, list(acceptance(everything, by)[by]), dark)


def bars_figure(
    tables: Mapping[str, pd.DataFrame], by: str, order: list[str], dark: bool, y: str = "accepted / judged"
) -> go.Figure:
    """Tables as `acceptance` makes them, side by side; the counts of the first stand below unless they are of several drafters.

    Args:
        order: the groups, from left to right.
    """
    if not order:
        return empty_figure("No drafted token was judged here.", dark)
    figure = go.Figure(layout=layout_of(330, dark, several=len(tables) > 1))
    for i, (label, table) in enumerate(tables.items()):
        figure.add_trace(acceptance_bars(label, table, by, order, i, dark))
    alone = next(iter(tables.values())) if len(tables) == 1 else None
    counts = [f"<br>{row.accepted}/{row.judged}" for row in alone.itertuples()] if alone is not None else [""] * len(order)
    ticks = [as_plotly(plain(group, 18)) + count for group, count in zip(order, counts, strict=True)]
    figure.update_xaxes(tickvals=list(range(len(order))), ticktext=ticks, range=[-0.6, max(len(order), 4) - 0.4])
    framed(figure, TITLES.get(by, by), y).update_yaxes(range=[0, 1.02], dtick=0.25)
    return figure.update_xaxes(showgrid=False, zeroline=False).update_layout(margin={"b": 64})


def layout_of(height: int, dark: bool, several: bool) -> dict:
    return layout(height, dark, barmode="group", bargap=0.35, bargroupgap=0.08, showlegend=several)


def acceptance_bars(label: str, table: pd.DataFrame, by: str, order: list[str], i: int, dark: bool) -> go.Bar:
    """One drafter; hatched differently from the other one."""
    color = LINES[i % len(LINES)][0]
    rows = table.to_dict("records")
    return go.Bar(
        name=as_plotly(label),
        x=[order.index(row[by]) for row in rows],
        y=[row["alpha"] for row in rows],
        error_y={
            "type": "data",
            "array": [row["high"] - row["alpha"] for row in rows],
            "arrayminus": [row["alpha"] - row["low"] for row in rows],
            "color": ink(dark),
            "thickness": 1.4,
            "width": 5,
        },
        marker={
            "color": color,
            "line": {"color": color, "width": 1.5},
            "pattern": {
                "shape": ["", "/", ".", "x"][i % 4],
                "fgcolor": color,
                "bgcolor": tint(color, 0.25),
                "solidity": 0.4,
            },
        },
        hovertext=[
            f"{as_plotly(f'{label} {row[by]}'.strip())}<br>{row['accepted']} of {row['judged']} accepted: "
            f"{row['alpha']:.2f}<br>95 % interval {row['low']:.2f} to {row['high']:.2f}"
            for row in rows
        ],
        hoverinfo="text",
    )


def acceptance_alt(frames: Frames, by: str) -> str:
    """The bars in words; plain text."""
    parts = []
    for label, frame in named(frames).items():
        rows = acceptance(frame, by).to_dict("records")
        words = ", ".join(f"{row[by]}: {row['accepted']} of {row['judged']}" for row in rows)
        parts.append(f"{label}{': ' if label else ''}{words or 'nothing judged'}")
    return f"Accepted among the judged, by {TITLES.get(by, by)}. {'; '.join(parts)}."
