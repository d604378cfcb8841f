"""The window of Jacobi decoding over its calls: one row per target call, one column per place of the text, settling from left to
right.

Knows a trace and a cursor. A cell is a token that the text holds, or a guess at a place that is still open, compared with the guess
that stood there one call before. Only the last few calls and places are drawn; the table beside the figure holds the same cells.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import pandas as pd
import plotly.graph_objects as go

from decoding.trace import Trace
from viz.runs.tally import depths, guesses_of
from viz.style import LOOKS, MONO, Look, ink, layout, muted, tint
from viz.tokens import as_plotly, full_name, name, plain, word
from viz.words import judgement, number

CALLS, PLACES = 10, 14  # drawn at most
FEWEST = 5  # calls drawn, however wide the window is
ROW_PX, TOP, BOTTOM = 40, 64, 10

STATES: dict[str, Look] = {
    "text": Look("#8A8F98", "#8A8F98", "▪", "square", "solid", 1, True, "", "settled by an earlier call"),
    **{state: LOOKS[state] for state in ("accepted", "correction", "bonus", "plain")},
    "same": Look("#009E73", "#007A59", "=", "circle-open", "solid", 2, False, "", "still open, the same guess as one call before"),
    "changed": Look(
        "#CC79A7", "#A85483", "≠", "diamond-open", "dash", 1.6, False, "", "still open, another guess than one call before"
    ),
    "new": Look("#999999", "#999999", "○", "x-thin-open", "dot", 1.2, False, "", "still open, the first guess at this place"),
}


@dataclass(frozen=True)
class Cell:
    """A place of the text in one call."""

    call: int  # index of the step
    place: int  # 0 is the first token behind the prompt
    token: int
    state: str  # a key of STATES
    node: int | None  # the guess that stood here


@dataclass(frozen=True)
class Grid:
    """The cells of the last calls up to the cursor, and how far they reach."""

    cells: tuple[Cell, ...]
    calls: range
    places: range
    cut: int  # places of the window that lie to the right of what is drawn


def grid_of(trace: Trace, cursor: int) -> Grid:
    """The last calls up to step index `cursor`, as many as fit, from the first place on that the first of them found open. What the
    call at the cursor settled is drawn before its window is, and that before earlier calls are."""
    done = [0, *accumulate(len(step.tokens) for step in trace.steps[: cursor + 1])]  # tokens before every call
    end = max(done[cursor + 1], done[cursor] + max(depths(trace.steps[cursor]), default=0))
    first = cursor
    while first > 0 and cursor - first + 1 < CALLS:
        few = cursor - first + 1 < FEWEST and done[cursor + 1] - done[first - 1] <= PLACES
        if not few and end - done[first - 1] > PLACES:
            break
        first -= 1
    calls = range(first, cursor + 1)
    places = range(done[first], min(end, done[first] + PLACES))
    text = [token for step in trace.steps[: cursor + 1] for token in step.tokens]
    cells = (cell for call in calls for cell in cells_of(trace, call, done[call], text, places.start))
    return Grid(tuple(cell for cell in cells if cell.place in places), calls, places, end - places.stop)


def cells_of(trace: Trace, call: int, done: int, text: list[int], start: int) -> Iterator[Cell]:
    """One row: what was settled before, what this call settled, and the guesses it left open."""
    step = trace.steps[call]
    for place in range(start, done):
        yield Cell(call, place, text[place], "text", None)
    guesses = guesses_of(step)
    for i, (token, origin) in enumerate(zip(step.tokens, step.origins, strict=True)):
        yield Cell(call, done + i, token, origin, guesses.get(i))
    before = trace.steps[call - 1] if call else None
    earlier = guesses_of(before) if before else {}
    for i, node in guesses.items():
        if i < len(step.tokens):
            continue
        was = earlier.get(i + len(before.tokens)) if before else None
        token = step.nodes[node].token
        state = "new" if was is None else "same" if before.nodes[was].token == token else "changed"
        yield Cell(call, done + i, token, state, node)


# -- the figure --------------------------------------------------------------------------------------------------------


def window_figure(trace: Trace, cursor: int, dark: bool = False, width: int = 680) -> go.Figure:
    """The grid. `width` is what the page is expected to give, in px; it decides how much of a label fits."""
    grid = grid_of(trace, cursor)
    height = TOP + BOTTOM + ROW_PX * len(grid.calls)
    room = max(3, int(((width - 70) / PLACES - 5) / 6.4))
    figure = go.Figure(layout=layout(height, dark, margin={"l": 62, "r": 8, "t": TOP, "b": BOTTOM}, hovermode="closest"))
    figure.update_layout(shapes=[box(cell, cell.call == cursor) for cell in grid.cells])
    figure.add_trace(labels(grid, trace, room, dark))
    figure.add_traces(legend(grid))
    figure.update_layout(legend={"y": 1, "yref": "container", "yanchor": "top"})
    axis = {"showgrid": False, "zeroline": False, "fixedrange": True, "tickfont": {"color": muted(dark), "size": 11}}
    left = grid.places.start - 0.5
    figure.update_xaxes(range=[left, left + PLACES], side="top", **axis)
    figure.update_xaxes(tickvals=list(grid.places), ticktext=[str(place + 1) for place in grid.places])
    figure.update_yaxes(range=[cursor + 0.5, grid.calls.start - 0.5], tickvals=list(grid.calls), **axis)
    return figure.update_yaxes(ticktext=[f"<b>call {c + 1}</b>" if c == cursor else f"call {c + 1}" for c in grid.calls])


def box(cell: Cell, current: bool) -> dict:
    """The cell itself: filled if the token is in the text, else hollow with the border of its state; thicker in the last row."""
    look = STATES[cell.state]
    ends = {"x0": cell.place - 0.45, "x1": cell.place + 0.45, "y0": cell.call - 0.42, "y1": cell.call + 0.42}
    line = {"color": look.line, "dash": look.dash, "width": 2.2 if current else 1.3}
    alpha = 0.18 if cell.state == "text" else 1.0 if look.filled else 0.08
    return {"type": "rect", "layer": "below", "fillcolor": tint(look.color, alpha), "line": line, **ends}


def labels(grid: Grid, trace: Trace, room: int, dark: bool) -> go.Scatter:
    """The token of every cell and the mark of its state below it."""
    return go.Scatter(
        name="cells",
        x=[cell.place for cell in grid.cells],
        y=[cell.call for cell in grid.cells],
        mode="text",
        text=[f"{as_plotly(name(c.token, trace.token_bytes, room))}<br>{STATES[c.state].mark}" for c in grid.cells],
        textfont={"family": MONO, "size": 10.5, "color": [text_color(cell.state, dark) for cell in grid.cells]},
        customdata=[cell.state for cell in grid.cells],
        hovertext=["<br>".join(map(as_plotly, lines(cell, trace))) for cell in grid.cells],
        hoverinfo="text",
        showlegend=False,
    )


def text_color(state: str, dark: bool) -> str:
    return STATES[state].ink or (muted(dark) if state in ("text", "new") else ink(dark))


def legend(grid: Grid) -> list[go.Scatter]:
    """One entry per state that occurs: its mark says it where the colour does not."""
    states = {cell.state for cell in grid.cells}
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"symbol": "square" if look.filled else "square-open", "color": look.color, "size": 12, "line": {"width": 2}},
            name=f"{look.mark} {state if state != 'text' else 'settled before'}",
            hoverinfo="skip",
        )
        for state, look in STATES.items()
        if state in states
    ]


def lines(cell: Cell, trace: Trace) -> list[str]:
    """What is known of a cell, as plain text."""
    look, step, token_bytes = STATES[cell.state], trace.steps[cell.call], trace.token_bytes
    said = [f"{full_name(cell.token, token_bytes)} at place {cell.place + 1}", f"{look.mark} {look.meaning}"]
    if cell.node is None:
        return said
    node = step.nodes[cell.node]
    if node.token != cell.token:
        said.append(f"the guess was {full_name(node.token, token_bytes)}")
    if node.verdict != "not judged":
        said.append(judgement(node, token_bytes, step))
    said.append(f"guess: {word(node.source)}" + ("" if node.q is None else f", drawn with q {number(node.q)}"))
    return said + [f"{plain(key)}: {value:g}" for key, value in node.scores.items()]


# -- the same in words -------------------------------------------------------------------------------------------------


def window_table(trace: Trace, cursor: int) -> pd.DataFrame:
    """The cells of the figure: one row per call, one column per place; empty where the window did not reach."""
    grid = grid_of(trace, cursor)
    columns: dict[str, list[str | int]] = {"call": [call + 1 for call in grid.calls]}
    columns |= {str(place + 1): [""] * len(grid.calls) for place in grid.places}
    for cell in grid.cells:
        shown = f"{STATES[cell.state].mark} {full_name(cell.token, trace.token_bytes)}"
        columns[str(cell.place + 1)][cell.call - grid.calls.start] = shown
    return pd.DataFrame(columns)


def window_alt(trace: Trace, cursor: int) -> str:
    """The last row in words; plain text."""
    step, counts = trace.steps[cursor], Counter(cell.state for cell in grid_of(trace, cursor).cells if cell.call == cursor)
    open_places = ", ".join(f"{counts[state]} {state}" for state in ("same", "changed", "new") if counts[state])
    settled = f"Call {cursor + 1} settled {count_of(len(step.tokens), 'place')}"
    return f"{settled}; of the guesses left open and drawn {open_places}." if open_places else f"{settled}; no guess is left open."


def pace_words(trace: Trace, cursor: int) -> str:
    """How many tokens the calls so far settled, and for how long right guesses had stood; plain text."""
    steps = trace.steps[: cursor + 1]
    counts = Counter(len(step.tokens) for step in steps)
    parts = ", ".join(f"{calls} settled {count_of(tokens, 'token')}" for tokens, calls in sorted(counts.items()))
    held = [stood(trace, call, i) for call, step in enumerate(steps) for i in range(len(step.path))]
    if not held:
        return f"Calls so far: {parts}. No guess was right yet."
    right, mean = count_of(len(held), "guess", "guesses"), sum(held) / len(held)
    return f"Calls so far: {parts}. {right} right, standing for {mean:.1f} calls on average when settled."


def cut_words(trace: Trace, cursor: int) -> str:
    """What the figure leaves out, or ""; plain text."""
    cut = grid_of(trace, cursor).cut
    return f" {count_of(cut, 'place')} of the window to the right not drawn." if cut else ""


def stood(trace: Trace, call: int, i: int) -> int:
    """For how many calls in a row, this one included, the guess that became token `i` of the call has been the same."""
    token, count = trace.steps[call].tokens[i], 0
    while call >= 0:
        step = trace.steps[call]
        node = guesses_of(step).get(i)
        if node is None or step.nodes[node].token != token:
            break
        count, call = count + 1, call - 1
        i += len(trace.steps[call].tokens) if call >= 0 else 0
    return count


def count_of(count: int, one: str, several: str = "") -> str:
    """
    >>> count_of(1, "token"), count_of(2, "token"), count_of(0, "guess", "guesses")
    ('1 token', '2 tokens', '0 guesses')
    """
    return f"{count} {one if count == 1 else several or one + 's'}"
