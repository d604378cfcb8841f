"""The texts of several runs as strips one above the other: a cell per token, a block per target call, ≠ where a text parts.

Knows traces under their names; the position in the committed text is what aligns them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.trace import Trace
from viz.runs.committed import Committed, committed
from viz.runs.differences import first_difference, reference
from viz.runs.lines import Runs, empty_figure, framed, pairs
from viz.style import COLOR, LOOKS, MONO, ink, layout, text_color
from viz.tokens import as_plotly, full_name, name, plain

HOW_TO_READ_ALIGNED = (
    "Each cell is a token of the text, each block what one target call brought; longer blocks are better. "
    "≠ marks where a text first differs from that of plain decoding (without a plain row: of the first row)."
)


def align(runs: Runs) -> pd.DataFrame:
    """One line per run and output position: the token, where it came from, the step that brought it (both from 1)."""
    rows = [
        (label, at.position + 1, full_name(at.token, trace.token_bytes), at.token) + (at.origin, at.step + 1)
        for label, trace in pairs(runs)
        for at in committed(trace)
    ]
    return pd.DataFrame(rows, columns=["run", "position", "token", "id", "origin", "step"])


def partings(runs: Sequence[tuple[str, Trace]]) -> dict[int, int]:
    """Index of a run -> first position where its text differs from the reference's, where both have the same prompt."""
    if not runs:
        return {}
    first = runs[reference(runs)][1]
    same = [(i, trace) for i, (_, trace) in enumerate(runs) if trace.header.prompt_tokens == first.header.prompt_tokens]
    differences = ((i, first_difference(first, trace)) for i, trace in same)
    return {i: difference.position for i, difference in differences if difference}


@dataclass(frozen=True)
class Cell:
    """One token of one run, in its place."""

    run: int
    at: Committed
    first: bool  # of its step
    last: bool


def cells(runs: Sequence[tuple[str, Trace]], start: int, count: int) -> list[Cell]:
    """The cells of the window, run by run."""
    drawn = []
    for i, (_, trace) in enumerate(runs):
        tokens = list(committed(trace))
        steps = [None, *(at.step for at in tokens), None]
        for at, before, after in zip(tokens, steps, steps[2:], strict=False):
            if start <= at.position < start + count:
                drawn.append(Cell(i, at, before != at.step, after != at.step))
    return drawn


def aligned_figure(runs: Runs, start: int = 0, count: int = 64, dark: bool = False, width: int = 900) -> go.Figure:
    """A strip per run: a cell per token, a block per step. `start` and `count` choose the output positions shown.

    Points carry `customdata` [index of the run, index of the step].
    """
    listed = pairs(runs)
    window = cells(listed, start, count)
    if not window:
        return empty_figure("No token was committed here yet.", dark)
    end = max(cell.at.position for cell in window) + 1
    room = (width - 150) / max(end - start, 12)  # px of a cell
    height = 56 if room >= 44 else 46
    figure = go.Figure(layout=layout(110 + height * len(listed), dark, hovermode="closest"))
    for origin in LOOKS:
        if members := [cell for cell in window if cell.at.origin == origin]:
            figure.add_trace(blocks(origin, members))
    figure.add_trace(cell_texts(window, listed, room, dark))
    figure.add_traces(parting_traces(listed, start, end, dark))
    ticks = [f"{as_plotly(plain(label, 22))} " for label, _ in listed]
    figure.update_yaxes(tickvals=list(range(len(listed))), ticktext=ticks, range=[len(listed) - 0.4, -0.7])
    figure.update_xaxes(range=[start + 0.4, max(end, start + 12) + 0.6], showgrid=False, tickformat="d", nticks=16)
    return framed(figure, "position in the text", "").update_yaxes(showgrid=False, zeroline=False)


def blocks(origin: str, members: Sequence[Cell]) -> go.Scatter:
    """The boxes of all cells of one origin, parted by None; the ends of a step stand back from its neighbours'."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for cell in members:
        left = cell.at.position + (0.6 if cell.first else 0.5)
        right = cell.at.position + (1.4 if cell.last else 1.5)
        xs += [left, right, right, left, left, None]
        ys += [cell.run - 0.3, cell.run - 0.3, cell.run + 0.3, cell.run + 0.3, cell.run - 0.3, None]
    look = LOOKS[origin]
    drawn = {"fill": "toself", "fillcolor": COLOR[origin], "mode": "lines", "line": {"color": look.line, "width": 1}}
    return go.Scatter(x=xs, y=ys, name=f"{look.mark} {origin}", hoverinfo="skip", **drawn)


def cell_texts(window: Sequence[Cell], runs: Sequence[tuple[str, Trace]], room: float, dark: bool) -> go.Scatter:
    """The mark of each cell, with its token where there is room; everything on hover."""
    fits = int((room - 6) / 6.8)
    texts, hovers = [], []
    for cell in window:
        label, trace = runs[cell.run]
        mark, short = LOOKS[cell.at.origin].mark, name(cell.at.token, trace.token_bytes, fits)
        texts.append(f"{as_plotly(short)}<br>{mark}" if fits >= 5 else mark if room >= 9 else "")
        lines = [name(cell.at.token, trace.token_bytes, 60), f"{mark} {cell.at.origin}", f"{label}: step {cell.at.step + 1}"]
        lines.append(f"position {cell.at.position + 1}, token id {cell.at.token}")
        hovers.append("<br>".join(map(as_plotly, lines)))
    return go.Scatter(
        name="tokens",
        x=[cell.at.position + 1 for cell in window],
        y=[cell.run for cell in window],
        mode="markers+text",
        marker={"size": 18, "opacity": 0},
        text=texts,
        textfont={"family": MONO, "size": 11, "color": [text_color(cell.at.origin, dark) for cell in window]},
        customdata=[[cell.run, cell.at.step] for cell in window],
        hovertext=hovers,
        hoverinfo="text",
        showlegend=False,
    )


def parting_traces(runs: Sequence[tuple[str, Trace]], start: int, end: int, dark: bool) -> list[go.Scatter]:
    """≠ where a text leaves that of the reference, as far as it is in the window."""
    inside = {run: at for run, at in partings(runs).items() if start <= at < end}
    if not inside:
        return []
    xs = [x for at in inside.values() for x in (at + 0.5, at + 0.5, None)]
    ys = [y for run in inside for y in (run - 0.42, run + 0.42, None)]
    label = f"≠ differs from {as_plotly(runs[reference(runs)][0])}"
    line = go.Scatter(x=xs, y=ys, mode="lines", line={"color": ink(dark), "width": 3}, name=label, hoverinfo="skip")
    mark = go.Scatter(
        x=[at + 0.5 for at in inside.values()],
        y=[run - 0.44 for run in inside],
        mode="text",
        text=["<b>≠</b>"] * len(inside),
        textposition="top center",
        textfont={"size": 14, "color": ink(dark)},
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )
    return [line, mark]


def aligned_alt(runs: Runs) -> str:
    listed = pairs(runs)
    if not any(trace.steps for _, trace in listed):
        return "Steps by output position: no token was committed yet."
    apart = partings(listed)
    parts = [
        f"{label}: {sum(len(step.tokens) for step in trace.steps)} tokens in {len(trace.steps)} steps"
        + (f", differs from {listed[reference(listed)][0]} at token {apart[i] + 1}" if i in apart else "")
        for i, (label, trace) in enumerate(listed)
    ]
    return f"Steps by output position, a strip per run. {'; '.join(parts)}."
