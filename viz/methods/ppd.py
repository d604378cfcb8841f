"""What is particular to PPD: the prompt tokens that hang below the guesses, the state that the step leads to, how the states follow
each other, and how many rows a pass should have.

A node carries the place ahead its guess is from (its source, and its depth), the rank, the prompt tokens below it and the state of
the tree; the first node of a step also what holds for the whole pass, and the times that were measured. The prompt tokens below the
node where acceptance ended speak in the next step; all others were read in vain. A trace may come from anywhere: numbers that
cannot be are not drawn.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import (
    LATENCY,
    MEMBERS,
    PROMPT_TOKEN_PROBABILITY,
    PROMPT_TOKENS,
    RANK,
    ROOT_PROMPT_TOKENS,
    ROW_BUDGET,
    STATE,
    TREE_VALUE,
    YIELD,
    part_of,
)
from decoding.trace import Step, number_in
from viz.runs.tally import depths
from viz.step.tidy import tidy
from viz.style import COLOR, GRID, LOOKS, MONO, SERIES, SERIES_LINE, fill, ink, layout, muted, with_mark
from viz.tokens import as_plotly, full_name, name
from viz.words import number

MOST, MOST_ROWS = 16, 4_096  # prompt tokens below a node, members of an ensemble, and rows of a pass that are believed
STEP, FIRST = 0.13, 0.24  # columns between prompt tokens, and from a node to its first
NAMED = 40  # nodes whose tokens are written into the figure


def prompt_tokens_of(step: Step) -> list[int] | None:
    """Prompt tokens below the root, node 0, 1, ...; None if the step does not say."""
    if not step.nodes:
        return None
    counts = [step.facts.get(ROOT_PROMPT_TOKENS, -1.0), *(node.scores.get(PROMPT_TOKENS, -1.0) for node in step.nodes)]
    states = [node.scores.get(STATE, -1.0) for node in step.nodes]
    known = all(0 <= count <= MOST for count in (*counts, *states))
    return [int(count) for count in counts] if known else None


def next_state(step: Step) -> int | None:
    """The state that the step leads to: the prompt tokens below the node where acceptance ended."""
    counts = prompt_tokens_of(step)
    return None if counts is None else counts[step.end_row]


# -- the tree with its prompt tokens ------------------------------------------------------------------------------------------


def prompt_tokens_figure(step: Step, token_bytes: Mapping[int, bytes], dark: bool = False) -> go.Figure:
    """Root and guesses as the marks of their verdicts, and behind each its prompt tokens as diamonds: those that speak in the next
    step are filled."""
    below = prompt_tokens_of(step)
    assert below is not None, "ask `prompt_tokens_of` first"
    column, row = tidy([-1, *(node.parent + 1 for node in step.nodes)])
    height = min(900, max(220, 26 * (int(max(row)) + 1) + 50))
    figure = go.Figure(layout=layout(height, dark, showlegend=False))
    add_edges(figure, step, column, row)
    for speaks in (False, True):
        places = [
            (column[item] + FIRST + STEP * i, row[item], i + 1)
            for item, count in enumerate(below)
            for i in range(count)
            if (item == step.end_row) == speaks
        ]
        what = "speaks in the next step" if speaks else "read in vain"
        figure.add_scatter(
            x=[x for x, _, _ in places],
            y=[-y for _, y, _ in places],
            mode="markers",
            marker={
                "symbol": "diamond" if speaks else "diamond-open",
                "size": 9,
                "color": SERIES["q"] if speaks else muted(dark),
                "line": {"color": SERIES_LINE["q"] if speaks else muted(dark), "width": 1.2},
            },
            hovertext=[f"prompt token {i}: {what}" for _, _, i in places],
            hoverinfo="text",
        )
    add_nodes(figure, step, token_bytes, column, row, dark)
    figure.update_xaxes(visible=False, range=[-0.4, max(column) + FIRST + STEP * max(below) + 0.15])
    figure.update_yaxes(visible=False, range=[-max(row) - 0.7, 0.7])
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 8})


def add_edges(figure: go.Figure, step: Step, column: list[int], row: list[float]) -> None:
    """Lines from parents to children, one trace per verdict."""
    for verdict, look in LOOKS.items():
        x: list[float | None] = []
        y: list[float | None] = []
        for i, node in enumerate(step.nodes):
            if node.verdict == verdict:
                x += [column[node.parent + 1], column[i + 1], None]
                y += [-row[node.parent + 1], -row[i + 1], None]
        if x:
            line = {"color": look.line, "width": look.width, "dash": look.dash}
            figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip")


def add_nodes(
    figure: go.Figure, step: Step, token_bytes: Mapping[int, bytes], column: list[int], row: list[float], dark: bool
) -> None:
    """The root and the guesses, with their tokens above them."""
    named = len(step.nodes) <= NAMED
    labels = ["root"]
    labels += [as_plotly(name(n.token, token_bytes, 9)) if named or n.verdict == "accepted" else "" for n in step.nodes]
    states = ["prompt", *(node.verdict for node in step.nodes)]
    hover = ["the root: the end of the text"] + [
        f"{as_plotly(name(n.token, token_bytes))}: {n.verdict}<br>{as_plotly(n.source)}, rank {n.scores.get(RANK, 0):.0f}, "
        f"probability {number(n.scores.get(PROMPT_TOKEN_PROBABILITY, 0.0))}, {n.scores[PROMPT_TOKENS]:.0f} prompt tokens below"
        for n in step.nodes
    ]
    figure.add_scatter(
        x=column,
        y=[-y for y in row],
        mode="markers+text",
        marker={
            "symbol": [LOOKS[state].symbol for state in states],
            "size": 12,
            "color": [fill(state) if LOOKS[state].filled else LOOKS[state].line for state in states],
            "line": {"color": [LOOKS[state].line for state in states], "width": 1.5},
        },
        text=labels,
        textposition="top center",
        textfont={"family": MONO, "size": 11, "color": ink(dark)},
        hovertext=hover,
        hoverinfo="text",
    )


def prompt_tokens_alt(step: Step) -> str:
    """The figure in words; plain text."""
    below = prompt_tokens_of(step)
    if below is None:
        return "No prompt tokens are known."
    state = int(step.nodes[0].scores[STATE])
    return (
        f"The tree of state {state}: {of(len(step.nodes), 'guess')}, and {of(sum(below), 'prompt token')} below them and the root. "
        f"Acceptance ended at {'the root' if not step.path else f'depth {len(step.path)}'}, below which "
        f"{of(below[step.end_row], 'prompt token')} hung: the next tree is that of state {below[step.end_row]}."
    )


def rows_words(step: Step) -> str:
    """What the rows of the pass were, and how many of them served; plain text."""
    below = prompt_tokens_of(step)
    if below is None:
        return ""
    members = int(step.facts[MEMBERS]) if 1 <= step.facts.get(MEMBERS, 0.0) <= MOST else 1
    total, spoke = members * sum(below), members * below[step.end_row]
    return (
        f"The target read {1 + len(step.nodes) + total} rows: the root, {of(len(step.nodes), 'guess')} "
        f"and {of(total, 'prompt token')}; {total - spoke} of these were read in vain."
    )


def of(count: int, word: str) -> str:
    """
    >>> of(1, "guess"), of(2, "guess"), of(2, "prompt token")
    ('1 guess', '2 guesses', '2 prompt tokens')
    """
    return f"{count} {word}" if count == 1 else f"{count} {word}{'es' if word.endswith('s') else 's'}"


def guesses_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per guess."""
    rows = [
        (
            depth,
            number_in(node.scores, RANK, 0),
            full_name(node.token, token_bytes),
            node.scores.get(PROMPT_TOKEN_PROBABILITY),
            node.scores.get(TREE_VALUE),
            number_in(node.scores, PROMPT_TOKENS, 0),
            with_mark(node.verdict),
        )
        for node, depth in zip(step.nodes, depths(step), strict=True)
    ]
    return pd.DataFrame(
        rows, columns=["prompt token", "rank", "token", "probability", "worth of the path", "prompt tokens below", "verdict"]
    )


# -- the states over the run -------------------------------------------------------------------------------------------


def states_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per state that was met: its steps, tokens per step, and how often every state followed."""
    known = [(int(step.nodes[0].scores[STATE]), next_state(step), len(step.tokens)) for step in steps if prompt_tokens_of(step)]
    followed = Counter((state, after) for state, after, _ in known)
    rows = []
    for state in sorted({state for state, _, _ in known}):
        tokens = [count for of_state, _, count in known if of_state == state]
        after = ", ".join(f"{to} ({n})" for (begin, to), n in sorted(followed.items()) if begin == state)
        rows.append((state, len(tokens), sum(tokens) / len(tokens), after))
    return pd.DataFrame(rows, columns=["state", "steps", "tokens per step", "next state (how often)"])


def states_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """How often every state was met, and the tokens its steps yielded in the mean."""
    states = states_table(steps)
    figure = go.Figure(layout=layout(240, dark, showlegend=False, bargap=0.4))
    figure.add_bar(
        x=[f"state {state}" for state in states["state"]],
        y=states["tokens per step"],
        text=[f"{t:.2f} in {of(count, 'step')}" for t, count in zip(states["tokens per step"], states["steps"], strict=True)],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        marker={"color": COLOR["accepted"], "line": {"color": LOOKS["accepted"].line, "width": 1}},
        hovertemplate="%{x}: %{text}<extra></extra>",
    )
    figure.update_xaxes(showgrid=False)
    top = float(states["tokens per step"].max()) if len(states) else 1.0
    figure.update_yaxes(title="tokens per step", range=[0, 1.2 * top], gridcolor=GRID, zerolinecolor=GRID)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 12, "b": 32})


def states_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    rows = states_table(steps).itertuples(index=False)
    parts = [f"state {row[0]}: {row[2]:.2f} in {of(row[1], 'step')}" for row in rows]
    return "Tokens per step by state. " + ("; ".join(parts) or "No state was met yet") + "."


# -- how many rows -----------------------------------------------------------------------------------------------------


def curve_of(steps: Sequence[Step]) -> list[tuple[int, float, float]]:
    """(rows, milliseconds of a pass, tokens per step that are expected), ascending; [] if nothing was measured."""
    facts = {key: value for step in steps for key, value in step.facts.items()}
    points = []
    for key, ms in facts.items():
        rows = part_of(LATENCY, key) or ""
        tokens = facts.get(YIELD.format(rows))
        if rows.isdecimal() and len(rows) < 6 and ms > 0 and tokens and tokens > 0:
            points.append((int(rows), ms, tokens))
    return sorted(points)


def budget_of(steps: Sequence[Step]) -> int | None:
    """The rows that were chosen."""
    return next((int(step.facts[ROW_BUDGET]) for step in steps if 0 < step.facts.get(ROW_BUDGET, 0) < MOST_ROWS), None)


def curve_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Expected tokens per second by rows as bars, the chosen one filled; the time of a pass as a line."""
    points, chosen = curve_of(steps), budget_of(steps)
    figure = go.Figure(layout=layout(260, dark, bargap=0.4))
    figure.add_bar(
        name="tokens per second, expected",
        x=[str(rows) for rows, _, _ in points],
        y=[1000 * tokens / ms for _, ms, tokens in points],
        text=[f"{1000 * tokens / ms:.0f}" for _, ms, tokens in points],
        textposition="auto",
        marker={
            "color": [SERIES["p"] if rows == chosen else "rgba(0,0,0,0)" for rows, _, _ in points],
            "line": {"color": SERIES_LINE["p"], "width": 2},
        },
        hovertext=[f"{rows} rows: {ms:.1f} ms, {tokens:.2f} tokens per step expected" for rows, ms, tokens in points],
        hoverinfo="text",
    )
    figure.add_scatter(
        name="milliseconds of a pass",
        x=[str(rows) for rows, _, _ in points],
        y=[ms for _, ms, _ in points],
        yaxis="y2",
        mode="lines+markers",
        line={"color": ink(dark), "width": 2},
        hovertemplate="%{y:.1f} ms<extra></extra>",
    )
    figure.update_xaxes(title="rows of a pass", type="category", showgrid=False)
    figure.update_yaxes(title="tokens per second", rangemode="tozero", gridcolor=GRID, zerolinecolor=GRID)
    second = {"overlaying": "y", "side": "right", "rangemode": "tozero", "title": "ms", "showgrid": False, "tickformat": ".0f"}
    return figure.update_layout(yaxis2=second, margin={"l": 8, "r": 8, "t": 34, "b": 44})


def curve_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    parts = [f"{rows} rows: {ms:.1f} ms, {tokens:.2f} tokens" for rows, ms, tokens in curve_of(steps)]
    chosen = budget_of(steps)
    said = "; ".join(parts) or "Nothing was measured"
    return f"Time of a pass and tokens per step by rows; {chosen} were chosen. {said}."
