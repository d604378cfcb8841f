"""Several runs side by side: what each cost, where it stood when, and where the texts part.

Knows traces under the names of their columns, nothing of methods or models: whether a method is lossless, and hence
whether two texts ought to be the same, is for the page to know. Times are those of the steps; reading the prompt is
not in them.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, log
from textwrap import wrap
from typing import Literal

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from decoding.trace import Row, Step, Trace
from viz.style import COLOR, GRID, LOOKS, MONO, PHASE_COLOR, PHASE_PATTERN, PHASES, ink, layout, muted, text_color
from viz.tally import Tally, modelled_speedup, ratio, tally
from viz.tokens import as_plotly, full, name, plain, quoted
from viz.words import number

Runs = Mapping[str, Trace] | Sequence[tuple[str, Trace]]
Value = int | float | bool | str
Verdict = Literal["near-tie", "mismatch", "unknown"]

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
TOLERANCE = {"float64": 1e-3, "float32": 1e-3}  # in log-probability: tokens closer than that are a tie up to rounding
LOW_PRECISION = 0.1  # the same for every other dtype
HOW_TO_READ = {
    "progress": "The steeper a line, the more tokens per target call or per millisecond; plain decoding is dotted.",
    "time": "Where a run's time went: drafting (propose), the target (read), the verdicts (accept), the rest (commit).",
    "alpha": "How often a drafted token is kept, by its depth in the draft; a falling line asks for short drafts.",
    "aligned": "Each cell is a token of the text, each block what one target call brought; longer blocks are better. "
    "≠ marks where a text first differs from that of plain decoding (without a plain row: of the first row).",
    "sweep": "Above, what the parameter does to tokens per target call; below, what is left when drafting is paid for. "
    "Where the lower line is under 1, plain decoding is quicker.",
}


def pairs(runs: Runs) -> list[tuple[str, Trace]]:
    """(name, trace), the names made visible and cut."""
    return [(plain(label, 48), trace) for label, trace in (runs.items() if isinstance(runs, Mapping) else runs)]


def styles(runs: Sequence[tuple[str, Trace]]) -> list[tuple[str, str, str]]:
    """(colour, dash, marker) of each run; plain decoding steps back."""
    found, lines = [], iter(LINES * (len(runs) // len(LINES) + 1))
    for _, trace in runs:
        found.append(PLAIN if trace.header.method == "plain" else next(lines))
    return found


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
    return next((other for _, other in runs if other.header.method == "plain" and work(other) == work(trace)), None)


def work(trace: Trace) -> tuple:
    """What must agree for two times to be comparable."""
    head = trace.header
    return head.family, head.prompt_tokens, head.sampling, head.device, head.dtype, head.versions


def measured_speedup(total: Tally, base: Trace | None) -> float | None:
    """Tokens per second over those of plain decoding."""
    speeds = total.tokens_per_second, tally(base.steps).tokens_per_second if base else None
    return ratio(*speeds) if all(speeds) else None


def modelled(total: Tally, c: float | None) -> float | None:
    return None if c is None or total.tau is None else modelled_speedup(total.tau, total.calls_per_step, c)


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
        f"{row['run']} {row['total (ms)']:,.1f} ms ("
        + ", ".join(f"{phase} {row[f'{phase} (ms)']:,.1f}" for phase in PHASES)
        + ")"
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


# --- Where texts part -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Committed:
    """One token of the text, and the distributions it was chosen with."""

    position: int  # in the committed text, from 0; the prompt does not count
    step: int  # index
    token: int
    origin: str
    row: Row | None  # None where recording was off


def committed(trace: Trace) -> Iterator[Committed]:
    """Every committed token, in order."""
    position = 0
    for number_, step in enumerate(trace.steps):
        for place, (token, origin) in enumerate(zip(step.tokens, step.origins, strict=True)):
            yield Committed(position, number_, token, origin, row_at(step, place))
            position += 1


def row_at(step: Step, place: int) -> Row | None:
    """The row that decided the token at `place` of `step.tokens`: behind the path so far."""
    index = step.path[place - 1] + 1 if place else 0
    return step.rows[index] if index < len(step.rows) else None


@dataclass(frozen=True)
class Difference:
    """Where two texts part."""

    position: int  # in the committed text, from 0
    tokens: tuple[int, int]
    steps: tuple[int, int]  # indices
    rows: tuple[Row | None, Row | None]
    gaps: tuple[float | None, float | None]  # |log p| between the two tokens in each run; None where it is not recorded
    tolerance: float
    verdict: Verdict


def incomparable(one: Trace, other: Trace) -> str:
    """Why a difference of the two texts would mean nothing, or ""."""
    if one.header.prompt_tokens != other.header.prompt_tokens:
        return "the prompts differ"
    if one.header.family != other.header.family:
        return "the families differ"
    if one.header.sampling.temperature or other.header.sampling.temperature:
        return "the tokens were drawn at random: only their distribution can agree, not the text"
    return ""


def first_difference(one: Trace, other: Trace) -> Difference | None:
    """The first position where two texts differ; None as far as both go they are exact.

    A near-tie is a place where, for the target of either run, the two tokens are closer than the tolerance: rounding
    can tip it. The gap is that between the two tokens in question, not the best two: a third token is no rounding.
    """
    for a, b in zip(committed(one), committed(other), strict=False):
        if a.token != b.token:
            tolerance = max(TOLERANCE.get(trace.header.dtype, LOW_PRECISION) for trace in (one, other))
            gaps = gap(a.row, a.token, b.token), gap(b.row, a.token, b.token)
            known = [value for value in gaps if value is not None]
            verdict = "unknown" if not known else "near-tie" if min(known) < tolerance else "mismatch"
            ends = (a.token, b.token), (a.step, b.step), (a.row, b.row)
            return Difference(a.position, *ends, gaps, tolerance, verdict)
    return None


def gap(row: Row | None, a: int, b: int) -> float | None:
    """Distance in log-probability; infinite where one of the two is not among the recorded ones or impossible."""
    if row is None:
        return None
    p = dict(zip(row.tokens, row.p, strict=True))
    return abs(log(p[a]) - log(p[b])) if p.get(a, 0) > 0 and p.get(b, 0) > 0 else inf


def difference_sentence(one: tuple[str, Trace], other: tuple[str, Trace]) -> str:
    """Exact, near-tie or mismatch, with the numbers; plain text."""
    (name_a, a), (name_b, b) = pairs([one, other])
    if reason := incomparable(a, b):
        return f"{name_a} and {name_b} cannot be compared token for token: {reason}."
    found = first_difference(a, b)
    if found is None:
        shared = min(sum(len(step.tokens) for step in trace.steps) for trace in (a, b))
        return f"{name_b} is exact: the first {shared} tokens are those of {name_a}."
    tokens = quoted(found.tokens[0], a.pieces), quoted(found.tokens[1], b.pieces)
    both = f"{name_a} has {tokens[0]}, {name_b} has {tokens[1]}"
    return f"Token {found.position + 1} is the first that differs: {both}. {verdict_words(found)}"


def verdict_words(found: Difference) -> str:
    """What the gaps say."""
    known = [value for value in found.gaps if value is not None]
    if found.verdict == "unknown":
        return "Probabilities were not recorded there, so nothing more can be said."
    if min(known) == inf:
        return "A mismatch: in neither run are both tokens among the target's likely ones there."
    apart = f"for the target the two are {number(min(known))} apart in log-probability"
    if found.verdict == "near-tie":
        return f"A near-tie: {apart}, within the {number(found.tolerance)} that rounding can tip."
    return f"A mismatch: {apart}, more than the {number(found.tolerance)} that rounding can explain."


def difference_table(found: Difference, pieces: Mapping[int, bytes]) -> pd.DataFrame:
    """The target's distributions of both runs at the place where they part, side by side; empty where not recorded."""
    columns = [dict(zip(row.tokens, row.p, strict=True)) if row else {} for row in found.rows]
    occurring = {*columns[0], *columns[1], *found.tokens}
    tokens = sorted(occurring, key=lambda token: (-max(column.get(token, 0) for column in columns), token))
    rows = [
        [full(pieces[t]) if t in pieces else f"#{t}", t, *(column.get(t) for column in columns)]
        + [{found.tokens[0]: "first run", found.tokens[1]: "second run"}.get(t, "")]
        for t in tokens
    ]
    return pd.DataFrame(rows, columns=["token", "id", "p, first run", "p, second run", "taken by"])


def exactness_table(runs: Runs) -> pd.DataFrame:
    """Every run against the reference: exact, near-tie, mismatch, unknown, or why it cannot be said."""
    listed = pairs(runs)
    first = reference(listed)
    rows = []
    for i, (label, trace) in enumerate(listed):
        if i != first:
            reason = incomparable(listed[first][1], trace)
            found = None if reason else first_difference(listed[first][1], trace)
            verdict = "not comparable" if reason else found.verdict if found else "exact"
            position = found.position + 1 if found else None
            rows.append([label, verdict, position, difference_sentence(listed[first], (label, trace))])
    return pd.DataFrame(rows, columns=["run", "verdict", "token", "why"]).astype({"token": "Int64"})


def reference(runs: Sequence[tuple[str, Trace]]) -> int:
    """Index of the run the others are held against: plain decoding if it is there, else the first."""
    return next((i for i, (_, trace) in enumerate(runs) if trace.header.method == "plain"), 0)


# --- Steps by output position -----------------------------------------------------------------------------------------


def align(runs: Runs) -> pd.DataFrame:
    """One line per run and output position: the token, where it came from, the step that brought it (both from 1)."""
    rows = [
        (label, at.position + 1, full(trace.pieces[at.token]) if at.token in trace.pieces else f"#{at.token}", at.token)
        + (at.origin, at.step + 1)
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
    found = ((i, first_difference(first, trace)) for i, trace in same)
    return {i: difference.position for i, difference in found if difference}


@dataclass(frozen=True)
class Cell:
    """One token of one run, in its place."""

    run: int
    at: Committed
    first: bool  # of its step
    last: bool


def cells(runs: Sequence[tuple[str, Trace]], start: int, count: int) -> list[Cell]:
    """The cells of the window, run by run."""
    found = []
    for i, (_, trace) in enumerate(runs):
        tokens = list(committed(trace))
        steps = [None, *(at.step for at in tokens), None]
        for at, before, after in zip(tokens, steps, steps[2:], strict=False):
            if start <= at.position < start + count:
                found.append(Cell(i, at, before != at.step, after != at.step))
    return found


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
        mark, short = LOOKS[cell.at.origin].mark, name(cell.at.token, trace.pieces, fits)
        texts.append(f"{as_plotly(short)}<br>{mark}" if fits >= 5 else mark if room >= 9 else "")
        lines = [name(cell.at.token, trace.pieces, 60), f"{mark} {cell.at.origin}", f"{label}: step {cell.at.step + 1}"]
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


# --- One parameter swept ----------------------------------------------------------------------------------------------


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


def sweep_figure(
    points: Sequence[tuple[Value, Trace]], parameter: str = "value", c: float = 0.0, dark: bool = False
) -> go.Figure:
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
        hovertext=[
            f"{as_plotly(shown(v))}: {column} {number(y)}" for v, y in zip(table.iloc[:, 0], table[column], strict=True)
        ],
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
