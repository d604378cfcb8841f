"""What is particular to SpecTr: the bundle of draft sequences, and the guesses at one position in the order of trial.

A position is a row of the step where something was drafted. Its rho, beta and the chances of other rules were found over the whole
vocabulary while the step was judged and stand in the scores of its children; `spectr_position` draws them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import OF_POSITION, RHO, UNIFORM_OF, part_of
from decoding.trace import Node, Step
from viz.runs.tally import depths
from viz.step.probabilities import threshold
from viz.step.tidy import tidy
from viz.style import LOOKS, MONO, ink, layout, muted, with_mark
from viz.tokens import as_plotly, full_name, name
from viz.words import number


@dataclass(frozen=True)
class Position:
    """A row of a step where sequences offered their guesses."""

    row: int
    children: tuple[int, ...]
    guesses: int
    rho: float
    beta: float  # sum of min(q, p / rho)
    beta_at_k: float
    overlap: float  # sum of min(p, q)
    r3w: float
    optimum: float

    @property
    def accepted(self) -> float:
        """The chance that one of the guesses is taken."""
        return self.rho * self.beta


def position_of(step: Step, row: int) -> Position | None:
    """The numbers of a row; None where nothing was drafted, or the trace does not carry what it takes."""
    children = tuple(i for i, node in enumerate(step.nodes) if node.parent == row - 1)
    if not children or not step.rows or step.rows[row] is None or step.rows[row].q is None:
        return None
    facts, guesses = step.nodes[children[0]].scores, sum(len(members(step.nodes[child])) for child in children)
    if not set(OF_POSITION) <= set(facts) or not 1 <= facts[RHO] <= guesses + 1e-9:
        return None
    rho, beta, beta_at_k, r3w, optimum = (facts[key] for key in OF_POSITION)
    return Position(row, children, guesses, rho, beta, beta_at_k, step.rows[row].overlap or 0.0, r3w, optimum)


def members(node: Node) -> tuple[int, ...]:
    """The sequences through a node, counted from 1."""
    numbers = (part_of(UNIFORM_OF, key) or "" for key in node.scores)
    return tuple(sorted(int(number) for number in numbers if number.isdecimal() and len(number) < 4))


# -- the bundle --------------------------------------------------------------------------------------------------------


def alive(step: Step) -> list[tuple[int, ...]]:
    """The sequences that still count at each depth, from the root's children down; () below the end of the walk."""
    deepest = max(depths(step), default=0)
    everyone = tuple(sorted({s for node in step.nodes for s in members(node)}))
    accepted = [members(node) for node in step.nodes if node.verdict == "accepted"]
    return ([everyone, *accepted] + [()] * deepest)[:deepest]


def bundle_figure(step: Step, token_bytes: Mapping[int, bytes], selected: int | None = None, dark: bool = False) -> go.Figure:
    """Every sequence as a strand: side by side where they agree, blue as far as they are alive."""
    column, row = tidy([-1, *(node.parent + 1 for node in step.nodes)])
    deepest, rows = max(column), max(row)
    figure = go.Figure(layout=layout(int(86 + 38 * (rows + 1)), dark, showlegend=True))
    figure.add_traces(strands(step, column, row))
    figure.add_trace(stations(step, column, row, token_bytes, selected, dark))
    for depth, survivors in enumerate(alive(step), 1):
        words = f"{len(survivors)} alive" if survivors else "not reached"
        where = {"x": depth, "y": -0.8, "showarrow": False, "font": {"size": 11, "color": muted(dark)}}
        figure.add_annotation(text=f"depth {depth}: {words}", **where)
    hidden = {"visible": False, "showgrid": False, "zeroline": False}
    figure.update_xaxes(range=[-0.4, deepest + 0.6], **hidden)
    return figure.update_yaxes(range=[rows + 0.6, -1.1], **hidden)


def strands(step: Step, column: Sequence[int], row: Sequence[float]) -> list[go.Scatter]:
    """One trace per verdict; a strand keeps the order of its sequence, and what was dropped is thin and dotted."""
    everyone = tuple(sorted({s for node in step.nodes for s in members(node)}))
    traces = []
    for verdict in ("not judged", "rejected", "accepted"):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for i, node in enumerate(step.nodes):
            if node.verdict != verdict:
                continue
            above = members(step.nodes[node.parent]) if node.parent >= 0 else everyone
            for sequence in members(node):
                start, end = row[node.parent + 1] + lane(above, sequence), row[i + 1] + lane(members(node), sequence)
                bend(xs, ys, column[node.parent + 1] + 0.06, start, column[i + 1] - 0.06, end)
        look = LOOKS[verdict]
        line = {"color": look.line, "dash": look.dash, "width": 2.4 if verdict == "accepted" else 1.3}
        label = with_mark(verdict)
        traces.append(go.Scatter(x=xs, y=ys, mode="lines", line=line, name=label, hoverinfo="skip", showlegend=bool(xs)))
    return traces


def lane(bundle: Sequence[int], sequence: int) -> float:
    """How far beside the middle of its bundle a strand runs, in rows.

    >>> lane((1, 4), 1), lane((2,), 2)
    (-0.035, 0.0)
    """
    return 0.07 * (bundle.index(sequence) - (len(bundle) - 1) / 2) if sequence in bundle else 0.0


def bend(xs: list[float | None], ys: list[float | None], x0: float, y0: float, x1: float, y1: float) -> None:
    """Append an S-shaped line."""
    for part in (k / 8 for k in range(9)):
        xs.append(x0 + (x1 - x0) * part)
        ys.append(y0 + (y1 - y0) * part * part * (3 - 2 * part))
    xs.append(None)
    ys.append(None)


def stations(
    step: Step, column: Sequence[int], row: Sequence[float], token_bytes: Mapping[int, bytes], selected: int | None, dark: bool
) -> go.Scatter:
    """The nodes: a symbol, the token, and how many sequences pass."""
    looks = [LOOKS["prompt"], *(LOOKS[node.verdict] for node in step.nodes)]
    labels = [as_plotly(name(node.token, token_bytes)) + times(node) for node in step.nodes]
    picked = [i - 1 == selected for i in range(len(looks))]
    borders = [ink(dark) if chosen else look.line for chosen, look in zip(picked, looks, strict=True)]
    return go.Scatter(
        name="nodes",
        x=column,
        y=row,
        mode="markers+text",
        marker={
            "symbol": [look.symbol for look in looks],
            "color": [look.color for look in looks],
            "size": [15 if chosen else 11 for chosen in picked],
            "line": {"color": borders, "width": 1.5},
            "opacity": 1,
        },
        text=["root", *(f"<b>{text}</b>" if chosen else text for text, chosen in zip(labels, picked[1:], strict=True))],
        textposition="top right",
        textfont={"family": MONO, "size": 12, "color": ink(dark)},
        hovertext=["root", *(as_plotly(station_words(node)) for node in step.nodes)],
        hoverinfo="text",
        cliponaxis=False,
        showlegend=False,
    )


def times(node: Node) -> str:
    """How many sequences pass; one needs no word."""
    return f" ×{len(members(node))}" if len(members(node)) > 1 else ""


def station_words(node: Node) -> str:
    through = ", ".join(map(str, members(node)))
    return f"{node.verdict}; sequences {through}; p/ρ {number(node.p)}, q {number(node.q or 0.0)}"


def bundle_alt(step: Step) -> str:
    """The bundle in words; plain text."""
    drafted = sum(len(members(node)) for node in step.nodes)
    counts = ", ".join(str(len(survivors)) for survivors in alive(step))
    return f"{drafted} drafted tokens on {len(step.nodes)} nodes. Sequences alive at each depth: {counts}."


def bundle_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node."""
    rows = [
        [i, depth, full_name(node.token, token_bytes), len(members(node)), ", ".join(map(str, members(node))), node.verdict]
        for i, (node, depth) in enumerate(zip(step.nodes, depths(step), strict=True))
    ]
    return pd.DataFrame(rows, columns=["node", "depth", "token", "copies", "sequences", "verdict"])


def cost_words(step: Step) -> str:
    """What the step cost and gave."""
    drafted = sum(len(members(node)) for node in step.nodes)
    tokens = "token" if len(step.tokens) == 1 else "tokens"
    return (
        f"{drafted} tokens drafted in {step.draft_calls} calls of the draft model, {len(step.nodes)} distinct nodes sent to the "
        f"target, {len(step.tokens)} {tokens} emitted."
    )


# -- one position ------------------------------------------------------------------------------------------------------


def trials_table(step: Step, position: Position, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """The guesses in the order of trial: one row per copy, each with its own u."""
    turns = sorted((sequence, child) for child in position.children for sequence in members(step.nodes[child]))
    reached = position.row == 0 or step.nodes[position.row - 1].verdict == "accepted"
    rows, over = [], not reached
    for sequence, child in turns:
        node = step.nodes[child]
        u, q = node.scores[UNIFORM_OF.format(sequence)], node.q or 0.0
        passed = u * q < node.p
        verdict = "not tried" if over else "accepted" if passed else "rejected"
        over = over or passed
        rows.append([sequence, full_name(node.token, token_bytes), q, node.p * position.rho, threshold(node), u, verdict])
    return pd.DataFrame(rows, columns=["sequence", "token", "q", "p", "min(1, p / ρq)", "u", "verdict"])
