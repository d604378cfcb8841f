"""Bars for the tokens of a chain, several beside each other: what a head said of a token, and what the standard rule does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from decoding.trace import Node
from viz.style import GRID, LOOKS, MONO, series_marker
from viz.tokens import as_plotly, name
from viz.words import number

Values = Sequence[float | None]


def token_bars(
    nodes: Sequence[Node], series: Sequence[tuple[str, str, Values]], token_bytes: Mapping[int, bytes], **marker: Any
) -> list[go.Bar]:
    """One trace per series, a bar per node, from 1 on.

    Args:
        series: (look, label, a number per node), None where there is none.
        marker: more of how the bars look.
    """
    return [
        go.Bar(
            name=label,
            x=list(range(1, len(nodes) + 1)),
            y=values,
            marker=series_marker(look) | marker,
            hovertext=[
                f"{as_plotly(name(node.token, token_bytes))}: {label} {'none' if value is None else number(value)}"
                for node, value in zip(nodes, values, strict=True)
            ],
            hoverinfo="text",
        )
        for look, label, values in series
    ]


def verdict_mark(node: Node) -> str:
    return LOOKS[node.verdict].mark or "·"


def token_axes(
    figure: go.Figure,
    nodes: Sequence[Node],
    token_bytes: Mapping[int, bytes],
    top: float,
    mark: Callable[[Node], str] = verdict_mark,
) -> go.Figure:
    """The tokens below their bars, each with a mark; probabilities up to 1, with room above them up to `top`."""
    figure.update_xaxes(
        tickvals=list(range(1, len(nodes) + 1)),
        ticktext=[f"{as_plotly(name(node.token, token_bytes, 8))}<br>{mark(node)}" for node in nodes],
        tickfont={"family": MONO, "size": 11},
        showgrid=False,
        range=[0.4, max(len(nodes), 4) + 0.6],
    )
    figure.update_yaxes(range=[0, top], gridcolor=GRID, zerolinecolor=GRID, tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 44})
