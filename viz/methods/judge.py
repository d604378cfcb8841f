"""What is particular to Judge Decoding: the judge's score beside the standard rule, tokens that only the judge let through, and
what they cost in likeness to the target.

Everything follows from the numbers of the nodes, so another threshold is judged anew from a stored step; only what would have been
drafted behind a different text is not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import JUDGE_DEVIATION, JUDGE_ONLY, JUDGE_SCORE
from decoding.trace import Node, Step, Trace
from viz.methods.shared.token_bars import token_axes, token_bars, verdict_mark
from viz.step.text import span_html, strip
from viz.style import GRID, LOOKS, SERIES, SERIES_LINE, ink, layout, limit_line
from viz.tokens import as_html, full_name, name
from viz.words import number

MARK = "⚖"
CSS = """
<style>
.ds-judged { outline: 2px dashed #D55E00; outline-offset: 1px; border-radius: 0.2em; background: rgba(213,94,0,0.16);
  margin: 0 0.12em; }
.ds-judged::before { content: "⚖"; font-size: 0.72em; vertical-align: super; }
</style>
"""


def scored(step: Step) -> bool:
    """Whether the judge saw the draft."""
    return bool(step.nodes) and all(JUDGE_SCORE in node.scores for node in step.nodes)


def standard(node: Node) -> bool:
    """What speculative sampling says of the token, with the u it was judged with."""
    return node.u is not None and node.q is not None and node.u * node.q < node.p


def chance(node: Node) -> float:
    """min(1, p / q): the chance that speculative sampling accepts the token."""
    return min(1.0, node.p / node.q) if node.q else 0.0


def by_whom(node: Node, threshold: float) -> str:
    """Who lets the token through: "both", "standard only", "judge only" or "neither". What was judged says what happened: the judge
    has no say at the end of a text."""
    alone = bool(node.scores.get(JUDGE_ONLY))
    ordinary = standard(node)
    judge = alone or node.scores.get(JUDGE_SCORE, 0.0) > threshold
    if node.verdict == "rejected":
        return "neither"
    return "both" if ordinary and judge else "standard only" if ordinary else "judge only" if judge else "neither"


# -- one step ----------------------------------------------------------------------------------------------------------


def scores_figure(step: Step, token_bytes: Mapping[int, bytes], threshold: float, dark: bool = False) -> go.Figure:
    """Two bars per token: the judge's score with the threshold as a line, and the standard rule's chance."""
    figure = go.Figure(layout=layout(310, dark, barmode="group", bargap=0.3))
    series = (
        ("q", "judge's score", [node.scores.get(JUDGE_SCORE) for node in step.nodes]),
        ("p", "standard rule: min(1, p/q)", [chance(node) for node in step.nodes]),
    )
    pale = [0.45 if node.verdict == "not judged" else 1.0 for node in step.nodes]
    figure.add_traces(token_bars(step.nodes, series, token_bytes, opacity=pale))
    above = {"annotation_text": f"threshold {number(threshold)}", "annotation_position": "top right"}
    figure.add_hline(threshold, line=limit_line(), **above)
    alone = [place for place, node in enumerate(step.nodes, 1) if node.scores.get(JUDGE_ONLY)]
    figure.add_scatter(
        name=f"{MARK} only the judge let it through",
        x=alone or [None],
        y=[1.09] * len(alone) or [None],
        mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": LOOKS["rejected"].color, "line": {"color": ink(dark), "width": 1}},
        hoverinfo="skip",
        cliponaxis=False,
    )
    return token_axes(figure, step.nodes, token_bytes, 1.15, mark_of)


def mark_of(node: Node) -> str:
    return MARK if node.scores.get(JUDGE_ONLY) else verdict_mark(node)


def scores_table(step: Step, token_bytes: Mapping[int, bytes], threshold: float) -> pd.DataFrame:
    """One row per token: both verdicts, and what the target would have said."""
    rows = []
    for node in step.nodes:
        row = step.rows[node.parent + 1] if step.rows else None
        said = full_name(row.tokens[0], token_bytes) if row is not None and row.tokens else ""
        rows.append(
            [
                full_name(node.token, token_bytes),
                node.scores.get(JUDGE_SCORE),
                chance(node),
                "accepts" if standard(node) else "refuses",
                "not read" if node.verdict == "not judged" else by_whom(node, threshold),
                said,
            ]
        )
    columns = ["token", "judge's score", "min(1, p/q)", "standard rule", "let through by", "likeliest for the target"]
    return pd.DataFrame(rows, columns=columns)


def scores_alt(step: Step, token_bytes: Mapping[int, bytes], threshold: float) -> str:
    """The bars in words; plain text."""
    parts = [
        f"{name(node.token, token_bytes)} {number(node.scores.get(JUDGE_SCORE, 0.0))}, standard {number(chance(node))}"
        + (", only the judge let it through" if node.scores.get(JUDGE_ONLY) else f", {node.verdict}")
        for node in step.nodes
    ]
    return f"The judge's scores, threshold {number(threshold)}: {'; '.join(parts)}."


# -- the text ----------------------------------------------------------------------------------------------------------


def let_through(trace: Trace, upto: int) -> dict[int, tuple[Step, Node]]:
    """Place in the text (prompt included) -> the step and node of a token that only the judge let through."""
    alone, place = {}, len(trace.header.prompt_tokens)
    for step in trace.steps[: upto + 1]:
        for offset, i in enumerate(step.path):
            if step.nodes[i].scores.get(JUDGE_ONLY) and offset < len(step.tokens):
                alone[place + offset] = (step, step.nodes[i])
        place += len(step.tokens)
    return alone


def marked_html(trace: Trace, upto: int) -> str:
    """The text through step index `upto`, escaped; tokens that only the judge let through are boxed and say what the target would
    have written. Put `viz.step.text.CSS` and `CSS` on the page once."""
    alone, parts = let_through(trace, upto), []
    for place, span in enumerate(strip(trace, upto)):
        token = span_html(span, now=False)
        if place in alone:
            token = f'<span class="ds-judged" title="{as_html(instead(*alone[place], trace.token_bytes))}">{token}</span>'
        parts.append(token)
    label = f"The text, with {len(alone)} tokens marked that only the judge let through"
    return f'<div class="ds-strip" role="list" aria-label="{label}">{"".join(parts)}</div>'


def instead(step: Step, node: Node, token_bytes: Mapping[int, bytes]) -> str:
    """What a marked token says; plain text."""
    row = step.rows[node.parent + 1] if step.rows else None
    said = f"; likeliest for the target: {name(row.tokens[0], token_bytes)} ({number(row.p[0])})" if row and row.tokens else ""
    return (
        f"{name(node.token, token_bytes)}: only the judge let it through, score {number(node.scores.get(JUDGE_SCORE, 0.0))}{said}"
    )


def marked_table(trace: Trace, upto: int) -> pd.DataFrame:
    """The marked tokens, one row each."""
    rows = []
    for place, (step, node) in sorted(let_through(trace, upto).items()):
        row = step.rows[node.parent + 1] if step.rows else None
        said = (full_name(row.tokens[0], trace.token_bytes), row.p[0]) if row and row.tokens else ("", None)
        rows.append(
            [
                place - len(trace.header.prompt_tokens) + 1,
                full_name(node.token, trace.token_bytes),
                node.scores.get(JUDGE_SCORE),
                node.p,
                *said,
            ]
        )
    return pd.DataFrame(rows, columns=["token no.", "token", "judge's score", "p", "likeliest for the target", "its p"])


# -- the run -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """Judged tokens by who let them through, and the cost."""

    both: int
    standard_only: int
    judge_only: int
    neither: int
    deviation: float  # sum of J max(0, 1 - p / q) over the judged tokens
    steps: int
    accepted_standard: int  # what the standard rule alone would have kept of the same drafts

    @property
    def accepted(self) -> int:
        return self.both + self.standard_only + self.judge_only

    @property
    def judged(self) -> int:
        return self.accepted + self.neither


def count(steps: Sequence[Step], threshold: float) -> Count:
    """Add up the steps as they were judged."""
    whom = [by_whom(node, threshold) for step in steps for node in step.nodes if node.verdict != "not judged"]
    deviation = sum(node.scores.get(JUDGE_DEVIATION, 0.0) for step in steps for node in step.nodes if node.verdict != "not judged")
    alone = sum(leading([standard(node) for node in step.nodes]) for step in steps)
    numbers = (whom.count(word) for word in ("both", "standard only", "judge only", "neither"))
    return Count(*numbers, deviation, len(steps), alone)


def leading(values: Sequence[bool]) -> int:
    """How many are true before the first that is not.

    >>> leading([True, True, False, True])
    2
    """
    return next((i for i, value in enumerate(values) if not value), len(values))


def count_table(total: Count) -> pd.DataFrame:
    rows = [
        ["accepted by both", total.both],
        ["by the standard rule only", total.standard_only],
        ["by the judge only", total.judge_only],
        ["by neither: rejected", total.neither],
    ]
    return pd.DataFrame(rows, columns=["judged tokens", "count"])


def count_words(total: Count) -> str:
    """The counters in sentences; plain text."""
    if not total.steps:
        return "No step was taken yet."
    on, off = (1 + accepted / total.steps for accepted in (total.accepted, total.accepted_standard))
    tokens = "token" if total.judge_only == 1 else "tokens"
    return (
        f"{total.judge_only} {tokens} that only the judge let through, of {total.accepted} accepted. On these drafts "
        f"{number(on)} tokens per step with the judge, {number(off)} by the standard rule alone. Expected deviation from the "
        f"target so far: {number(total.deviation)} tokens."
    )


@dataclass(frozen=True)
class At:
    """The stored drafts under another threshold."""

    threshold: float
    per_step: float  # tokens, the target's own included
    alone: float  # share of the accepted tokens that only the judge lets through


def redecided(steps: Sequence[Step], threshold: float, own: float) -> At:
    """Judge the stored drafts again.

    Args:
        own: the threshold of the run. A token that scored above it and was rejected all the same ends the text, where the judge has
            no say.
    """
    accepted = alone = 0
    for step in steps:
        for node in step.nodes:
            score = node.scores.get(JUDGE_SCORE, 0.0)
            if not standard(node):
                if score <= threshold or (score > own and node.verdict == "rejected"):
                    break
                alone += 1
            accepted += 1
    return At(threshold, 1 + accepted / len(steps) if steps else 0.0, alone / accepted if accepted else 0.0)


def threshold_table(steps: Sequence[Step], own: float) -> pd.DataFrame:
    """The stored drafts under thresholds from 0.05 to 1."""
    rows = [[at.threshold, at.per_step, at.alone] for at in (redecided(steps, i / 20, own) for i in range(1, 21))]
    return pd.DataFrame(rows, columns=["threshold", "tokens per step", "share that only the judge lets through"])


def threshold_figure(steps: Sequence[Step], own: float, dark: bool = False) -> go.Figure:
    """Tokens per step of the stored drafts over the threshold; the run's own is marked."""
    table = threshold_table(steps, own)
    figure = go.Figure(layout=layout(240, dark, showlegend=False))
    figure.add_scatter(
        x=table["threshold"],
        y=table["tokens per step"],
        mode="lines+markers",
        line={"color": SERIES_LINE["q"], "width": 2},
        marker={"size": 6, "color": SERIES["q"]},
        customdata=table["share that only the judge lets through"],
        hovertemplate="threshold %{x:.2f}: %{y:.2f} tokens per step, %{customdata:.0%} by the judge only<extra></extra>",
    )
    figure.add_vline(own, line=limit_line(), annotation_text="this run", annotation_position="top left")
    figure.update_xaxes(title="threshold; at 1 the judge is silent", range=[0, 1.02], gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="tokens per step", rangemode="tozero", gridcolor=GRID, zerolinecolor=GRID)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 20, "b": 44})
