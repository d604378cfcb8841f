"""What figures of several runs or drafters share: names, lines told apart without colour, the frame, a sentence for no data.

Knows of a trace no more than whether it is plain decoding, which steps back.
"""

from collections.abc import Mapping, Sequence
from textwrap import wrap

import plotly.graph_objects as go

from decoding.trace import Trace
from viz.style import GRID, layout, muted
from viz.tokens import as_plotly, plain

Runs = Mapping[str, Trace] | Sequence[tuple[str, Trace]]

# Seen on white and on black (contrast 3 or better) and told apart in normal, deutan, protan and tritan vision; the last
# one less well, but only six columns without plain decoding need it. Dashes and markers do the same without colour.
LINES = (
    ("#2F7FD1", "solid", "circle"),
    ("#C8553D", "dash", "square"),
    ("#B8860B", "dashdot", "triangle-up"),
    ("#7B61FF", "longdash", "diamond"),
    ("#00A0C0", "longdashdot", "star"),
    ("#C2477F", "dash", "x"),
)
PLAIN = ("#808790", "dot", "circle-open")


def pairs(runs: Runs) -> list[tuple[str, Trace]]:
    """(name, trace), the names made visible and cut."""
    return [(plain(label, 48), trace) for label, trace in (runs.items() if isinstance(runs, Mapping) else runs)]


def styles(runs: Sequence[tuple[str, Trace]]) -> list[tuple[str, str, str]]:
    """(colour, dash, marker) of each run; plain decoding steps back."""
    looks, lines = [], iter(LINES * (len(runs) // len(LINES) + 1))
    for _, trace in runs:
        looks.append(PLAIN if trace.is_plain else next(lines))
    return looks


def empty_figure(sentence: str, dark: bool = False, height: int = 160) -> go.Figure:
    """No data, and why."""
    figure = go.Figure(layout=layout(height, dark, xaxis={"visible": False}, yaxis={"visible": False}))
    place = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    lines = "<br>".join(map(as_plotly, wrap(sentence, 70)))
    return figure.add_annotation(**place, text=lines, font={"color": muted(dark), "size": 14})


def framed(figure: go.Figure, x: str, y: str) -> go.Figure:
    """Axis titles, quiet grid, margins that hold them."""
    figure.update_xaxes(title=x, gridcolor=GRID, zerolinecolor=GRID)
    figure.update_yaxes(title=y, gridcolor=GRID, zerolinecolor=GRID, automargin=True)
    return figure.update_layout(margin={"l": 8, "r": 16, "t": 34, "b": 44}, legend_traceorder="normal")
