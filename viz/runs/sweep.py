"""One parameter of a method swept: tau and the modelled speed-up at every value of it, the best one starred.

Knows (value, trace) pairs, the name of the parameter and the cost ratio c.
"""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from decoding.trace import Trace
from viz.runs.lines import LINES, PLAIN, empty_figure
from viz.runs.tally import modelled, tally
from viz.style import GRID, layout
from viz.tokens import as_plotly, plain
from viz.words import number

Value = int | float | bool | str
HOW_TO_READ_SWEEP = (
    "Above, what the parameter does to tokens per target call; below, what is left when drafting is paid for. "
    "Where the lower line is under 1, plain decoding is quicker."
)


def sweep_table(points: Sequence[tuple[Value, Trace]], parameter: str = "value", c: float = 0.0) -> pd.DataFrame:
    """One line per value of the parameter, runs of equal value added up; `best` has the largest modelled speed-up."""
    values = list(dict.fromkeys(value for value, trace in points if trace.steps))
    rows = []
    for value in sorted(values) if are_numbers(values) else values:
        total = tally([step for other, trace in points if other == value for step in trace.steps])
        sums = [value, total.tokens, total.target_calls, total.tau, total.alpha, total.calls_per_step]
        rows.append([*sums, modelled(total, c), total.tokens_per_second])
    columns = ["tokens", "target calls", "tau", "alpha", "drafter calls per step", "modelled speed-up"]
    table = pd.DataFrame(rows, columns=[plain(parameter), *columns, "tokens per second"])
    top = table["modelled speed-up"].astype(float).max()
    return table.assign(best=[value == top for value in table["modelled speed-up"]])


def are_numbers(values: Sequence[Value]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def sweep_figure(points: Sequence[tuple[Value, Trace]], parameter: str = "value", c: float = 0.0, dark: bool = False) -> go.Figure:
    """tau above, the speed-up it is worth at cost ratio c below; the best value is starred."""
    table = sweep_table(points, parameter, c)
    if table.empty:
        return empty_figure("No value of the parameter was run yet.", dark)
    values = list(table.iloc[:, 0])
    x = values if are_numbers(values) else list(range(len(values)))
    best = list(table["best"]).index(True)
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.1)
    figure.update_layout(layout(440, dark, showlegend=False, margin={"l": 8, "r": 16, "t": 16, "b": 44}))
    figure.update_xaxes(showgrid=False, zeroline=False, tickvals=x, ticktext=[as_plotly(shown(v)) for v in values])
    for line, column in enumerate(("tau", "modelled speed-up"), 1):
        figure.add_trace(sweep_line(table, x, column, best, LINES[line - 1]), line, 1)
        top = 1.25 * max([1.0, *table[column]])
        figure.update_yaxes(range=[0, top], title=column, gridcolor=GRID, zerolinecolor=GRID, row=line, col=1)
        figure.add_hline(y=1, line={"color": PLAIN[0], "dash": "dot", "width": 1.5}, row=line, col=1)
    peak = table["modelled speed-up"].iloc[best]
    text = f"<b>best: {as_plotly(shown(values[best]))}</b>, {number(peak)}"
    figure.add_annotation(x=x[best], y=peak, text=text, showarrow=False, yshift=20, row=2, col=1)
    return figure.update_xaxes(title=as_plotly(plain(parameter)), row=2, col=1)


def sweep_line(table: pd.DataFrame, x: list, column: str, best: int, look: tuple[str, str, str]) -> go.Scatter:
    """One of the two lines; between values that are no numbers there is nothing to connect."""
    color, dash, symbol = look
    spots = [i == best for i in range(len(x))]
    return go.Scatter(
        x=x,
        y=list(table[column]),
        mode="lines+markers" if are_numbers(list(table.iloc[:, 0])) else "markers",
        line={"color": color, "dash": dash, "width": 2.2},
        marker={
            "symbol": ["star" if spot else symbol for spot in spots],
            "size": [17 if spot else 9 for spot in spots],
            "color": color,
            "opacity": 1,
            "line": {"width": 0},
        },
        hovertext=[f"{as_plotly(shown(v))}: {column} {number(y)}" for v, y in zip(table.iloc[:, 0], table[column], strict=True)],
        hoverinfo="text",
        cliponaxis=False,
    )


def shown(value: Value) -> str:
    """A value of a parameter, for a label; plain text."""
    return plain(f"{value:g}" if isinstance(value, float) else str(value), 24)


def sweep_alt(points: Sequence[tuple[Value, Trace]], parameter: str = "value", c: float = 0.0) -> str:
    table = sweep_table(points, parameter, c)
    if table.empty:
        return "Sweep: no value of the parameter was run yet."
    rows = list(table.itertuples(index=False))
    parts = "; ".join(f"{row[0]}: tau {number(row[3])}, speed-up {number(row[6])}" for row in rows)
    best = next(row for row in rows if row.best)
    head = f"tau and modelled speed-up at c = {number(c)} against {plain(parameter)}."
    return f"{head} {parts}. Best: {best[0]} with {number(best[6])}."
