"""What is particular to Kangaroo: how sure the drafter was of every token and why it stopped, which layers read what, and whether
the confidence was worth stopping for.

Every node carries the confidence with which it was drafted, the exit layer and the number of layers; the last of a draft also the
reason for stopping. A trace may come from anywhere: numbers that cannot be are not drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import CONFIDENCE, EXIT_LAYER, LAYERS, STOPPED
from decoding.trace import Step, number_in
from viz.runs.lines import LINES, empty_figure, framed
from viz.style import (
    COLOR,
    GRID,
    LOOKS,
    MONO,
    PHASE_STRIPES,
    SERIES,
    fill,
    ink,
    layout,
    series_marker,
    with_mark,
)
from viz.tokens import as_html, as_plotly, full_name, name, quoted
from viz.words import number

UNSURE, FULL, ENDED = 1, 2, 3  # values of the last
MOST_LAYERS, RUNGS = 512, 32  # layers that are believed, and rungs that are drawn one by one
BINS = 5  # of the confidence


@dataclass(frozen=True)
class Depths:
    """Where the target was left."""

    exit: int
    layers: int


def depths_of(step: Step) -> Depths | None:
    """None for a step without a draft, or one whose nodes do not carry the numbers of this view."""
    if not step.nodes or not all(0 <= node.scores.get(CONFIDENCE, -1.0) <= 1 + 1e-6 for node in step.nodes):
        return None
    if any(node.parent != i - 1 for i, node in enumerate(step.nodes)):
        return None
    exits, layers = step.nodes[0].scores.get(EXIT_LAYER, 0.0), step.nodes[0].scores.get(LAYERS, 0.0)
    return Depths(int(exits), int(layers)) if 1 <= exits <= layers <= MOST_LAYERS else None


# -- how sure ----------------------------------------------------------------------------------------------------------


def stop_words(step: Step, threshold: float, token_bytes: Mapping[int, bytes]) -> str:
    """Why drafting stopped, and what would have been the right moment; plain text."""
    *_, last = step.nodes
    count = f"{len(step.nodes)} {'token' if len(step.nodes) == 1 else 'tokens'}"
    confidence = number(last.scores[CONFIDENCE])
    reasons = {
        UNSURE: f"the confidence of {quoted(last.token, token_bytes)} was {confidence}, not above {number(threshold)}",
        FULL: "that is the longest draft, or the context ends there",
        ENDED: "the text ends there",
    }
    reason = reasons.get(number_in(last.scores, STOPPED, 0), "the text or the context ends there")
    return f"Drafting stopped behind {count}: {reason}. {hindsight(step, token_bytes)}"


def hindsight(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """Where a drafter that knew the verdicts would have stopped; plain text."""
    rejected = next((node for node in step.nodes if node.verdict == "rejected"), None)
    if rejected is None:
        return "All were accepted: a longer draft might have brought more."
    behind = sum(node.verdict == "not judged" for node in step.nodes)
    vain = ", and nothing behind it was drafted"
    if behind:
        vain = f"; {behind} behind it {'was' if behind == 1 else 'were'} drafted in vain"
    return f"The first one turned down is {quoted(rejected.token, token_bytes)} at {number(rejected.scores[CONFIDENCE])}{vain}."


def confidence_figure(step: Step, token_bytes: Mapping[int, bytes], threshold: float, dark: bool = False) -> go.Figure:
    """One bar per drafted token, in the look of its verdict, against the threshold."""
    places = list(range(1, len(step.nodes) + 1))
    looks = [LOOKS[node.verdict] for node in step.nodes]
    figure = go.Figure(layout=layout(230, dark, showlegend=False, bargap=0.45))
    figure.add_bar(
        x=places,
        y=[node.scores[CONFIDENCE] for node in step.nodes],
        marker={
            "color": [fill(node.verdict) for node in step.nodes],
            "line": {"color": [look.line for look in looks], "width": 2},
        },
        text=[number(node.scores[CONFIDENCE], 2) for node in step.nodes],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        hovertext=[
            f"{as_plotly(name(node.token, token_bytes))}: confidence {number(node.scores[CONFIDENCE])}, {node.verdict}"
            for node in step.nodes
        ],
        hoverinfo="text",
    )
    line = {"color": ink(dark), "width": 2, "dash": "dash"}
    figure.add_hline(threshold, line=line, annotation_text=f"η {number(threshold)}", annotation_position="top right")
    ticks = [f"{as_plotly(name(node.token, token_bytes, 9))}<br>{LOOKS[node.verdict].mark or '·'}" for node in step.nodes]
    font = {"family": MONO, "size": 12}
    most = max(len(places), 4)
    figure.update_xaxes(tickvals=places, ticktext=ticks, tickfont=font, showgrid=False, range=[0.4, most + 0.6])
    figure.update_yaxes(range=[0, 1.12], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 12, "b": 44})


def confidence_alt(step: Step, token_bytes: Mapping[int, bytes], threshold: float) -> str:
    """The bars in words; plain text."""
    parts = [f"{name(node.token, token_bytes)} {number(node.scores[CONFIDENCE])} {node.verdict}" for node in step.nodes]
    return f"Confidence of every drafted token; the threshold is {number(threshold)}. " + "; ".join(parts) + "."


# -- which layers ------------------------------------------------------------------------------------------------------


def ladder_html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """A ladder per token, the deepest layer on top: what the first layers read while drafting, the adapter, and what the others
    read in the one call of the target: HTML."""
    stack = depths_of(step)
    assert stack is not None, "ask `depths_of` first"
    several = stack.layers <= RUNGS
    shallow, deep = (stack.exit, stack.layers - stack.exit) if several else (1, 1)
    columns = [("root", "plain"), *((name(node.token, token_bytes, 9), node.verdict) for node in step.nodes)]
    body = "".join(
        column_html(label, verdict, shallow, deep, adapter=i < len(columns) - 1) for i, (label, verdict) in enumerate(columns)
    )
    keys = "".join(
        f'<span><i style="background:{look}"></i> {as_html(words)}</span>'
        for look, words in (
            (PHASE_STRIPES["read"], f"layers {stack.exit + 1} to {stack.layers}: all tokens in one call")
            if stack.exit < stack.layers
            else (PHASE_STRIPES["read"], "no layer is left for the call"),
            (SERIES["residual"], "adapter: one attention layer"),
            (PHASE_STRIPES["propose"], f"layers 1 to {stack.exit}: token after token, while drafting"),
        )
    )
    alt = as_html(ladder_alt(step))
    return (
        f'<div class="ds-keys">{keys}</div><div role="img" aria-label="{alt}" '
        f'style="display:flex;gap:0.5rem;align-items:flex-end;overflow-x:auto">{body}</div>'
    )


def column_html(label: str, verdict: str, shallow: int, deep: int, adapter: bool) -> str:
    """One token: its rungs from the deepest down, and below them its label with the mark of its verdict."""
    rung = '<i style="display:block;height:0.5rem;margin-top:2px;{}"></i>'
    rungs = rung.format(f"background:{PHASE_STRIPES['read']}") * deep
    kept = f"background:{COLOR['correction']};border:1px solid {LOOKS['correction'].line}" if adapter else "border:1px dotted #8886"
    rungs += rung.format(kept) + rung.format(f"background:{PHASE_STRIPES['propose']}") * shallow
    mark = LOOKS[verdict].mark if verdict != "plain" else ""
    name_html = f'<span style="font-family:{as_html(MONO)};font-size:0.78rem">{as_html(label)}<br>{as_html(mark) or "·"}</span>'
    return f'<div style="flex:1;min-width:3rem;max-width:7rem;text-align:center">{rungs}{name_html}</div>'


def ladder_alt(step: Step) -> str:
    """The ladders in words; plain text."""
    stack = depths_of(step)
    if stack is None:
        return "No layers are known."
    drafted = len(step.nodes)
    return (
        f"The root and {drafted} drafted {'token' if drafted == 1 else 'tokens'} each went once through all {stack.layers} layers: "
        f"through the first {stack.exit} one after the other, while drafting, and through the others all at once."
    )


def cost_words(step: Step) -> str:
    """What the step took in passes of a row through a layer; plain text."""
    stack = depths_of(step)
    if stack is None:
        return ""
    rows = len(step.nodes) + 1
    kept = len(step.tokens) * stack.layers
    return (
        f"{rows} rows × {stack.layers} layers = {rows * stack.layers} passes, {rows * stack.exit} of them one token at a time, "
        f"and {len(step.nodes)} through the adapter. Without a draft the {len(step.tokens)} "
        f"{'token' if len(step.tokens) == 1 else 'tokens'} of this step take {kept}, all of them one token at a time."
    )


# -- over the run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Judged tokens whose confidences lie close together."""

    low: float
    high: float
    judged: int
    accepted: int


def bins(steps: Sequence[Step]) -> list[Bin]:
    """Judged tokens by confidence; bins without any are left out."""
    sums = [[0, 0] for _ in range(BINS)]
    for step in steps:
        for node in step.nodes if depths_of(step) else ():
            if node.verdict != "not judged":
                place = min(int(node.scores[CONFIDENCE] * BINS), BINS - 1)
                sums[place][0] += 1
                sums[place][1] += node.verdict == "accepted"
    return [Bin(i / BINS, (i + 1) / BINS, *counts) for i, counts in enumerate(sums) if counts[0]]


def worth_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """How often tokens were accepted, by the confidence with which they were drafted."""
    filled = bins(steps)
    figure = go.Figure(layout=layout(260, dark, showlegend=False, bargap=0.3))
    figure.add_bar(
        x=[f"{one.low:.1f} to {one.high:.1f}" for one in filled],
        y=[one.accepted / one.judged for one in filled],
        text=[f"{one.accepted}/{one.judged}" for one in filled],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        marker=series_marker("q"),
        hovertemplate="confidence %{x}<br>accepted: %{text}, %{y:.2f}<extra></extra>",
    )
    figure.update_xaxes(title="confidence", showgrid=False)
    figure.update_yaxes(title="accepted", range=[0, 1.12], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 12, "b": 44})


def worth_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    parts = [f"{one.low:.1f} to {one.high:.1f}: {one.accepted} of {one.judged}" for one in bins(steps)]
    return "Accepted tokens by confidence. " + ("; ".join(parts) or "Nothing was judged yet") + "."


def lengths_table(steps: Sequence[Step]) -> pd.DataFrame:
    """How many steps yielded more than w tokens, w = 0, 1, ... (the paper's CTAR)."""
    longest = max((len(step.tokens) for step in steps), default=0)
    rows = [(w, sum(len(step.tokens) > w for step in steps) / len(steps)) for w in range(longest)]
    return pd.DataFrame(rows, columns=["more than … tokens", "share of the steps"])


def lengths_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """The same as a curve (CTAR)."""
    table = lengths_table(steps)
    if table.empty:
        return empty_figure("No step was made so far.", dark)
    color, _, symbol = LINES[0]
    figure = go.Figure(layout=layout(260, dark, showlegend=False))
    figure.add_scatter(
        x=table.iloc[:, 0],
        y=table.iloc[:, 1],
        mode="lines+markers",
        line={"color": color, "width": 2.2},
        marker={"symbol": symbol, "size": 9, "color": color},
        hovertemplate="more than %{x} tokens: %{y:.2f} of the steps<extra></extra>",
        cliponaxis=False,
    )
    framed(figure, "more than w tokens", "share of the steps")
    figure.update_xaxes(range=[-0.2, max(len(table), 4) - 0.8], dtick=1, zeroline=False)
    return figure.update_yaxes(range=[0, 1.08], dtick=0.25).update_layout(margin_t=12)


def lengths_alt(steps: Sequence[Step]) -> str:
    """The curve in words; plain text."""
    parts = [f"{w}: {number(share)}" for w, share in lengths_table(steps).itertuples(index=False)]
    return "Share of the steps that yield more than w tokens. " + ("; ".join(parts) or "No step was made yet") + "."


def reasons_words(steps: Sequence[Step]) -> str:
    """How often drafting stopped for which reason; plain text."""
    reasons = [number_in(step.nodes[-1].scores, STOPPED, 0) for step in steps if depths_of(step)]
    said = (
        (UNSURE, "was not sure enough"),
        (FULL, "had drafted as many as it may"),
        (ENDED, "came to the end of the text"),
    )
    counts = ((reasons.count(reason), words) for reason, words in said)
    parts = [f"{count} {'time' if count == 1 else 'times'} it {words}" for count, words in counts if count]
    return f"Why the drafter stopped so far: {'; '.join(parts)}." if parts else "Nothing was drafted so far."


def tokens_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per drafted token."""
    rows = [
        (
            full_name(node.token, token_bytes),
            node.scores[CONFIDENCE],
            node.q,
            node.p,
            with_mark(node.verdict),
        )
        for node in step.nodes
    ]
    return pd.DataFrame(rows, columns=["token", "confidence", "q", "p", "verdict"])
