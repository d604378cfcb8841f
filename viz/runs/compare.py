"""Several runs side by side: what each cost and gained, where it stood when, where the time went, and alpha by depth.

Knows traces under the names of their columns, nothing of methods or models. Times are those of the steps; reading the
prompt is not in them.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from decoding.trace import Trace
from viz.runs.lines import Runs, empty_figure, framed, pairs, styles
from viz.runs.tally import Tally, modelled, ratio, tally
from viz.style import PHASE_COLOR, PHASE_PATTERN, PHASES, layout
from viz.tokens import as_plotly, plain

HOW_TO_READ = {
    "progress": "The steeper a line, the more tokens per target call or per millisecond; plain decoding is dotted.",
    "time": "Where a run's time went: drafting (propose), the target (read), the verdicts (accept), the rest (commit).",
    "alpha": "How often a drafted token is kept, by its depth in the draft; a falling line asks for short drafts.",
}


# --- Numbers ----------------------------------------------------------------------------------------------------------


def comparison_table(runs: Runs, c: float | Mapping[str, float] | None = None) -> pd.DataFrame:
    """One line per run. Measured speed-up: against a plain run of the same prompt here, else empty; never estimated.

    Args:
        c: t(drafter call) / t(target call), one for all or by name of the run; None leaves the modelled speed-up empty.
    """
    listed = pairs(runs)
    rows = [table_row(label, trace, baseline(listed, trace), c) for label, trace in listed]
    return pd.DataFrame(rows, columns=list(table_row("", None, None, None)))


def table_row(label: str, trace: Trace | None, base: Trace | None, c: float | Mapping[str, float] | None) -> dict:
    """The columns of `comparison_table`; without a trace only their names count."""
    total = tally(trace.steps if trace else ())
    ms = {f"{phase} (ms)": total.ms[phase] for phase in PHASES}
    return {
        "run": label,
        "method": plain(trace.header.method) if trace else "",
        "tokens": total.tokens,
        "target calls": total.target_calls,
        "tau": total.tau,
        "alpha": total.alpha,
        "drafter calls": total.draft_calls,
        "drafted": total.drafted,
        "wasted": total.wasted,
        **ms,
        "total (ms)": sum(ms.values()),
        "tokens per second": total.tokens_per_second,
        "measured speed-up": measured_speedup(total, base),
        "modelled speed-up": modelled(total, c.get(label) if isinstance(c, Mapping) else c),
    }


def baseline(runs: Sequence[tuple[str, Trace]], trace: Trace) -> Trace | None:
    """The first plain run that did the same work on the same kind of device."""
    return next((other for _, other in runs if other.is_plain and work(other) == work(trace)), None)


def work(trace: Trace) -> tuple:
    """What must agree for two times to be comparable."""
    head = trace.header
    return head.family, head.prompt_tokens, head.sampling, head.device, head.dtype, head.versions


def measured_speedup(total: Tally, base: Trace | None) -> float | None:
    """Tokens per second over those of plain decoding."""
    speeds = total.tokens_per_second, tally(base.steps).tokens_per_second if base else None
    return ratio(*speeds) if all(speeds) else None


def duration(trace: Trace) -> float:
    """Milliseconds of all steps."""
    return sum((step.times.total for step in trace.steps), 0.0)


def until(trace: Trace, ms: float) -> int:
    """How many steps were finished `ms` milliseconds after the first one began."""
    return bisect_right(list(accumulate(step.times.total for step in trace.steps)), ms)


# --- Tokens against calls or time -------------------------------------------------------------------------------------


def progress(trace: Trace, against: Literal["calls", "time"]) -> tuple[list[float], list[int]]:
    """(target calls or milliseconds, tokens) after 0, 1, 2, ... steps."""
    ms = [0.0, *accumulate(step.times.total for step in trace.steps)]
    return ms if against == "time" else list(range(len(ms))), [0, *accumulate(len(step.tokens) for step in trace.steps)]


def progress_figure(runs: Runs, against: Literal["calls", "time"] = "calls", dark: bool = False) -> go.Figure:
    """Tokens against target calls, or against measured milliseconds; one line per run."""
    listed = pairs(runs)
    if not any(trace.steps for _, trace in listed):
        return empty_figure("No step was run yet.", dark)
    figure = go.Figure(layout=layout(340, dark, hovermode="closest"))
    unit = "target calls" if against == "calls" else "ms"
    for (label, trace), (color, dash, symbol) in zip(listed, styles(listed), strict=True):
        x, y = progress(trace, against)
        figure.add_scatter(
            x=x,
            y=y,
            name=as_plotly(label),
            mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2.2},
            marker={"symbol": symbol, "size": 8, "color": color, "maxdisplayed": 12},
            hovertext=[f"{as_plotly(label)}<br>{t} tokens after {at:,.4g} {unit}" for at, t in zip(x, y, strict=True)],
            hoverinfo="text",
        )
    figure.update_xaxes(rangemode="tozero").update_yaxes(rangemode="tozero")
    return framed(figure, unit if against == "calls" else "ms, measured", "tokens")


def progress_table(runs: Runs, against: Literal["calls", "time"] = "calls") -> pd.DataFrame:
    unit = "target calls" if against == "calls" else "ms"
    rows = [(label, *point) for label, trace in pairs(runs) for point in zip(*progress(trace, against), strict=True)]
    return pd.DataFrame(rows, columns=["run", unit, "tokens"])


def progress_alt(runs: Runs, against: Literal["calls", "time"] = "calls") -> str:
    """The lines in words; plain text."""
    ends = [(label, *(part[-1] for part in progress(trace, against))) for label, trace in pairs(runs) if trace.steps]
    if not ends:
        return "Tokens so far: no step was run yet."
    if against == "calls":
        parts = [f"{label}: {tokens} tokens after {x} target calls" for label, x, tokens in ends]
    else:
        parts = [f"{label}: {tokens} tokens after {x:.0f} ms" for label, x, tokens in ends]
    return f"Tokens against {'target calls' if against == 'calls' else 'measured milliseconds'}. {'; '.join(parts)}."


# --- Where the time went ----------------------------------------------------------------------------------------------


def time_split_figure(runs: Runs, per: Literal["run", "token"] = "run", dark: bool = False) -> go.Figure:
    """One bar per run, stacked by phase; per token the bars compare even where the texts differ in length."""
    table = time_split_table(runs, per)
    if table.empty:
        return empty_figure("No step was run yet.", dark)
    figure = go.Figure(layout=layout(100 + 40 * len(table), dark, barmode="stack", bargap=0.35))
    places = list(range(len(table)))
    for phase in PHASES:
        figure.add_bar(
            x=list(table[f"{phase} (ms)"]),
            y=places,
            orientation="h",
            name=phase,
            marker={"color": PHASE_COLOR[phase], "pattern": {"shape": PHASE_PATTERN[phase], "solidity": 0.25}},
            hovertemplate=f"{phase} %{{x:.2f}} ms<extra></extra>",
        )
    for place, total in zip(places, table["total (ms)"], strict=True):
        figure.add_annotation(x=total, y=place, text=f" {total:,.1f}", showarrow=False, xanchor="left")
    ticks = [f"{as_plotly(label)} " for label in table["run"]]
    figure.update_yaxes(tickvals=places, ticktext=ticks, range=[len(places) - 0.5, -0.5])
    figure.update_xaxes(range=[0, 1.12 * max(table["total (ms)"]) or 1])
    framed(figure, "ms per token, measured" if per == "token" else "ms, measured", "")
    return figure.update_yaxes(showgrid=False, zeroline=False)


def time_split_table(runs: Runs, per: Literal["run", "token"] = "run") -> pd.DataFrame:
    """Milliseconds by phase; a run without a step has none."""
    rows = []
    for label, total in ((label, tally(trace.steps)) for label, trace in pairs(runs) if trace.steps):
        share = max(total.tokens, 1) if per == "token" else 1
        rows.append([label, *(total.ms[phase] / share for phase in PHASES), sum(total.ms.values()) / share])
    return pd.DataFrame(rows, columns=["run", *(f"{phase} (ms)" for phase in PHASES), "total (ms)"])


def time_split_alt(runs: Runs, per: Literal["run", "token"] = "run") -> str:
    table = time_split_table(runs, per)
    if table.empty:
        return "Time by phase: no step was run yet."
    parts = [
        f"{row['run']} {row['total (ms)']:,.1f} ms (" + ", ".join(f"{phase} {row[f'{phase} (ms)']:,.1f}" for phase in PHASES) + ")"
        for row in table.to_dict("records")
    ]
    return f"Measured time by phase{' per token' if per == 'token' else ''}, stacked bars. {'; '.join(parts)}."


# --- Alpha by depth ---------------------------------------------------------------------------------------------------


def alpha_by_depth_figure(runs: Runs, dark: bool = False) -> go.Figure:
    """Share accepted among the judged, by depth; one line per run, the counts on hover and in the table."""
    listed = pairs(runs)
    table = alpha_by_depth_table(listed)
    if table.empty:
        return empty_figure("No drafted token was judged yet.", dark)
    figure = go.Figure(layout=layout(320, dark, hovermode="closest"))
    for (label, trace), (color, dash, symbol) in zip(listed, styles(listed), strict=True):
        points = tally(trace.steps).alpha_by_depth
        if points:
            figure.add_scatter(
                x=[depth for depth, _, _ in points],
                y=[accepted / judged for _, judged, accepted in points],
                name=as_plotly(label),
                mode="lines+markers",
                line={"color": color, "dash": dash, "width": 2.2},
                marker={"symbol": symbol, "size": 9, "color": color},
                hovertext=[f"{as_plotly(label)}<br>depth {d}: {a} of {j} accepted" for d, j, a in points],
                hoverinfo="text",
                cliponaxis=False,
            )
    figure.update_xaxes(range=[0.6, max(5, table["depth"].max()) + 0.4], dtick=1, showgrid=False)
    figure.update_yaxes(range=[0, 1.02], dtick=0.25).update_layout(showlegend=True)
    return framed(figure, "depth in the draft", "accepted / judged")


def alpha_by_depth_table(runs: Runs) -> pd.DataFrame:
    rows = [(label, d, j, a, a / j) for label, trace in pairs(runs) for d, j, a in tally(trace.steps).alpha_by_depth]
    return pd.DataFrame(rows, columns=["run", "depth", "judged", "accepted", "alpha"])


def alpha_by_depth_alt(runs: Runs) -> str:
    table = alpha_by_depth_table(runs)
    if table.empty:
        return "Alpha by depth: no drafted token was judged yet."
    parts = [
        f"{label}: " + ", ".join(f"{row.accepted} of {row.judged} at depth {row.depth}" for row in rows.itertuples())
        for label, rows in table.groupby("run", sort=False)
    ]
    return f"Accepted among the judged, by depth. {'; '.join(parts)}."
