"""What is particular to SpecTr: the bundle of draft sequences, the search for rho, p against rho q, and what other rules would do.

A position is a row of the step where something was drafted. Its rho, beta and the chances of other rules were found over the whole
vocabulary while the step was judged and stand in the scores of its children; the bars and the curve are drawn from the tokens
the trace kept, with all others taken together.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb, expm1, factorial, log1p

import networkx
import pandas as pd
import plotly.graph_objects as go
from networkx.algorithms.flow import shortest_augmenting_path

from decoding.trace import Node, Row, Step
from viz.runs.tally import depths
from viz.step.probabilities import row_name, shown, threshold
from viz.step.tidy import tidy
from viz.style import GRID, LOOKS, MONO, SERIES, SERIES_LINE, SERIES_PATTERN, ink, layout, muted
from viz.tokens import as_plotly, full, name
from viz.words import number

DIE = re.compile(r"u of sequence (\d{1,3})")  # score: the uniform of one sequence at the node
FACTS = ("rho", "beta", "beta at k", "R3w", "optimum")  # scores: what was found for the node's position
SETS = 3100  # of guesses, at most, in the transport problem
UNITS = 2**52  # a probability of 1 as a capacity: whole numbers flow without rounding
POINTS = 121  # of the curve
OTHERS = "all other tokens"


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
    if not set(FACTS) <= set(facts) or not 1 <= facts["rho"] <= guesses + 1e-9:
        return None
    rho, beta, beta_at_k, r3w, optimum = (facts[key] for key in FACTS)
    return Position(row, children, guesses, rho, beta, beta_at_k, step.rows[row].overlap or 0.0, r3w, optimum)


def members(node: Node) -> tuple[int, ...]:
    """The sequences through a node, counted from 1."""
    return tuple(sorted(int(found[1]) for key in node.scores if (found := DIE.fullmatch(key))))


def any_of(beta: float, k: int) -> float:
    """1 - (1 - beta)^k.

    >>> any_of(0.5, 2), any_of(1.0, 3)
    (0.75, 1.0)
    """
    return 1.0 if beta >= 1 else -expm1(k * log1p(-beta))


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
        label = f"{look.mark} {verdict}".strip()
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
        [i, depth, shown_token(node.token, token_bytes), len(members(node)), ", ".join(map(str, members(node))), node.verdict]
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


def shown_token(token: int, token_bytes: Mapping[int, bytes]) -> str:
    return full(token_bytes[token]) if token in token_bytes else f"#{token}"


# -- one position ------------------------------------------------------------------------------------------------------


def trials_table(step: Step, position: Position, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """The guesses in the order of trial: one row per copy, each with its own u."""
    turns = sorted((sequence, child) for child in position.children for sequence in members(step.nodes[child]))
    reached = position.row == 0 or step.nodes[position.row - 1].verdict == "accepted"
    rows, over = [], not reached
    for sequence, child in turns:
        node = step.nodes[child]
        u, q = node.scores[f"u of sequence {sequence}"], node.q or 0.0
        passed = u * q < node.p
        verdict = "not tried" if over else "accepted" if passed else "rejected"
        over = over or passed
        rows.append([sequence, shown_token(node.token, token_bytes), q, node.p * position.rho, threshold(node), u, verdict])
    return pd.DataFrame(rows, columns=["sequence", "token", "q", "p", "min(1, p / ρq)", "u", "verdict"])


@dataclass(frozen=True)
class Residual:
    """The tokens of a row that the trace did not keep, taken together."""

    p: float
    q: float
    taken: tuple[tuple[float, float], ...]  # (rho, sum of min(p, rho q)) where it is known exactly, ascending

    def at(self, rho: float) -> float:
        """Sum of min(p, rho q), between the known places along a straight line."""
        for (left, low), (right, high) in zip(self.taken, self.taken[1:], strict=False):
            if rho <= right:
                return low + (high - low) * (rho - left) / (right - left)
        return self.taken[-1][1]


def residual_of(row: Row, position: Position) -> Residual:
    """What the row's tokens leave; sums over the whole vocabulary are known at 1, rho and k."""
    known = {1.0: position.overlap, position.rho: position.accepted, float(position.guesses): position.guesses * position.beta_at_k}
    taken = tuple((rho, max(0.0, total - listed(row, rho))) for rho, total in sorted(known.items()))
    return Residual(max(0.0, 1 - sum(row.p)), max(0.0, 1 - sum(row.q)), taken)


def listed(row: Row, rho: float) -> float:
    """Sum of min(p, rho q) over the tokens of the row."""
    return sum(min(p, rho * q) for p, q in zip(row.p, row.q, strict=True))


def g_table(row: Row, position: Position) -> pd.DataFrame:
    """rho from 1 to k with beta and g; exact at 1, rho* and k."""
    residual, k = residual_of(row, position), position.guesses
    grid = sorted({1 + (k - 1) * i / (POINTS - 1) for i in range(POINTS)} | {position.rho})
    rows = []
    for rho in grid:
        taken = min(1.0, listed(row, rho) + residual.at(rho))
        rows.append([rho, taken / rho, any_of(taken / rho, k) - taken])
    return pd.DataFrame(rows, columns=["ρ", "β(ρ)", "g(ρ)"])


def g_figure(row: Row, position: Position, dark: bool = False) -> go.Figure:
    """g over [1, k] with its root: left of it the rule is wrong, right of it it only accepts less."""
    table = g_table(row, position)
    figure = go.Figure(layout=layout(230, dark, showlegend=False))
    figure.add_scatter(
        x=table["ρ"],
        y=table["g(ρ)"],
        mode="lines",
        line={"color": ink(dark), "width": 2},
        name="g(ρ)",
        hovertemplate="ρ %{x:.3f}, g %{y:.4f}<extra></extra>",
    )
    look = LOOKS["accepted"]
    figure.add_scatter(
        x=[position.rho],
        y=[0],
        mode="markers+text",
        marker={"symbol": "diamond", "size": 13, "color": look.color, "line": {"color": ink(dark), "width": 1}},
        text=[f"<b>ρ* = {number(position.rho, 4)}</b>"],
        textposition="top right" if position.rho < (1 + position.guesses) / 2 else "bottom left",
        textfont={"color": ink(dark)},
        name="ρ*",
        hovertemplate="ρ* %{x:.4f}<extra></extra>",
        cliponaxis=False,
    )
    figure.update_xaxes(title="ρ", range=[1, position.guesses], gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="g(ρ)", gridcolor=GRID, zerolinecolor=ink(dark), zerolinewidth=1.2)
    return figure.update_layout(margin={"l": 8, "r": 16, "t": 12, "b": 40})


def overlap_table(row: Row, position: Position, token_bytes: Mapping[int, bytes], limit: int = 8) -> pd.DataFrame:
    """p and rho q token by token, with what is accepted and what is left for the residual; the last row holds all others."""
    rows = []
    places = shown(row, None, limit)
    for i in places:
        p, q = row.p[i], position.rho * row.q[i]
        rows.append([row_name(row, i, token_bytes), p, q, min(p, q), max(p - q, 0.0)])
    p, q, taken = (1 - sum(r[1] for r in rows), position.rho - sum(r[2] for r in rows), position.accepted - sum(r[3] for r in rows))
    rows.append([OTHERS, max(p, 0.0), max(q, 0.0), max(taken, 0.0), max(p - taken, 0.0)])
    return pd.DataFrame(rows, columns=["token", "p", "ρq", "accepted: min(p, ρq)", "residual: p − ρq"])


def overlap_figure(row: Row, position: Position, token_bytes: Mapping[int, bytes], dark: bool = False) -> go.Figure:
    """p on top of rho q: what they share is accepted, what p has over is the residual."""
    table = overlap_table(row, position, token_bytes)
    places = list(range(len(table)))
    figure = go.Figure(layout=layout(90 + 38 * len(table), dark, barmode="group", bargap=0.3))
    parts = (
        ("p", "accepted: min(p, ρq)", "accepted: min(p, ρq)", "upper", None),
        ("residual", "residual: p − ρq", "residual: p − ρq", "upper", table["accepted: min(p, ρq)"]),
        ("q", "ρq", "ρq", "lower", None),
    )
    for key, label, field, group, base in parts:
        figure.add_bar(
            name=label,
            x=table[field],
            y=places,
            base=base,
            orientation="h",
            offsetgroup=group,
            marker={
                "color": SERIES[key],
                "line": {"color": SERIES_LINE[key], "width": 1},
                "pattern": {"shape": SERIES_PATTERN[key], "solidity": 0.3, "fgcolor": SERIES_LINE[key], "bgcolor": SERIES[key]},
            },
            hovertext=[f"{as_plotly(t)}<br>{label}: {number(v, 4)}" for t, v in zip(table["token"], table[field], strict=True)],
            hoverinfo="text",
        )
    ticks = [f"{as_plotly(token)} " for token in table["token"]]
    figure.update_yaxes(tickvals=places, ticktext=ticks, tickfont={"family": MONO, "size": 12}, automargin=True)
    figure.update_yaxes(range=[len(table) - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_xaxes(rangemode="tozero", gridcolor=GRID, zerolinecolor=GRID, title="probability; ρq may exceed 1")
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40}, legend_traceorder="normal")


def chances(position: Position) -> pd.DataFrame:
    """The chance that a guess is accepted here, under five rules for the same p and q."""
    k = position.guesses
    rows = [
        ["R1: one guess only", position.overlap],
        ["K-SEQ with ρ = k", any_of(position.beta_at_k, k)],
        ["R3w: recursive rejection", position.r3w],
        ["K-SEQ with ρ*", position.accepted],
        ["optimal transport", position.optimum],
    ]
    return pd.DataFrame(rows, columns=["rule", "chance of acceptance"])


def chances_figure(position: Position, dark: bool = False) -> go.Figure:
    """The five chances as bars; the rule that judged is the filled one."""
    table = chances(position)
    look = LOOKS["accepted"]
    own = [rule == "K-SEQ with ρ*" for rule in table["rule"]]
    figure = go.Figure(layout=layout(210, dark, showlegend=False, bargap=0.35))
    figure.add_bar(
        x=table["chance of acceptance"],
        y=list(range(len(table))),
        orientation="h",
        marker={
            "color": [look.color if mine else "rgba(128,128,128,0.25)" for mine in own],
            "line": {"color": [look.line if mine else muted(dark) for mine in own], "width": 1.2},
        },
        text=[number(value, 4) for value in table["chance of acceptance"]],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_yaxes(tickvals=list(range(len(table))), ticktext=list(table["rule"]), automargin=True)
    figure.update_yaxes(range=[len(table) - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_xaxes(range=[0, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1], gridcolor=GRID, zerolinecolor=GRID)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 28})


def chances_words(position: Position) -> str:
    """The chances in one sentence; plain text."""
    parts = [f"{rule} {number(value, 4)}" for rule, value in chances(position).itertuples(index=False)]
    return f"Chance that one of {position.guesses} guesses is accepted: {'; '.join(parts)}."


# -- the transport problem itself --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transport:
    """The optimum over a few tokens and all others taken as one, found in two ways."""

    tokens: int  # kept apart
    sets: int  # of guesses
    solved: float  # as a flow
    read: float  # from the sorted tokens


def transport(row: Row, k: int) -> Transport:
    """Solve the transport problem with membership cost for k independent guesses, over as many tokens as fit.

    The guesses are independent, so only which tokens occur how often matters: it is a flow from sets of guesses to their members.
    At most all of the set's probability leaves it, and at most p arrives at a token.

    Raises:
        ValueError: the row has no q.
    """
    if row.q is None:
        raise ValueError("Nothing was drawn from a distribution here: there is no transport problem.")
    p, q = together(row, k)
    sets = list(combinations_with_replacement(range(len(p)), k))
    return Transport(len(p) - 1, len(sets), largest_flow(p, q, sets), best(p, q, k))


def together(row: Row, k: int) -> tuple[list[float], list[float]]:
    """p and q of the likeliest tokens, the last entry all others; so many that there are at most SETS sets of k guesses."""
    room = max(v for v in range(2, len(row.tokens) + 2) if comb(v + k - 1, k) <= SETS or v == 2)
    order = sorted(range(len(row.tokens)), key=lambda i: -max(row.p[i], row.q[i]))[: room - 1]
    p, q = ([values[i] for i in order] for values in (row.p, row.q))
    return [*p, max(0.0, 1 - sum(p))], [*q, max(0.0, 1 - sum(q))]


def largest_flow(p: Sequence[float], q: Sequence[float], sets: Sequence[tuple[int, ...]]) -> float:
    """The largest probability that the output is one of the guesses: what can flow from the sets to their members."""
    graph = networkx.DiGraph()
    for guesses in sets:
        graph.add_edge("all", guesses, capacity=round(chance_of(guesses, q) * UNITS))
        graph.add_edges_from((guesses, token) for token in set(guesses))  # without a capacity: whatever comes may go on
    for token, chance in enumerate(p):
        graph.add_edge(token, "output", capacity=round(chance * UNITS))
    return networkx.maximum_flow_value(graph, "all", "output", flow_func=shortest_augmenting_path) / UNITS


def chance_of(guesses: tuple[int, ...], q: Sequence[float]) -> float:
    """Probability that k independent draws give this set, in any order.

    >>> chance_of((0, 1), [0.5, 0.5]), chance_of((0, 0), [0.5, 0.5])
    (0.5, 0.25)
    """
    chance = float(factorial(len(guesses)))
    for token in set(guesses):
        count = guesses.count(token)
        chance *= q[token] ** count / factorial(count)
    return chance


def best(p: Sequence[float], q: Sequence[float], k: int) -> float:
    """The optimum without a flow: the least p(H) + 1 - q(H)^k over the tokens H of the smallest p / q."""
    order = sorted(range(len(p)), key=lambda i: p[i] / q[i] if q[i] > 0 else float("inf"))
    least, of_p, of_q = 1.0, 0.0, 0.0
    for i in order:
        of_p, of_q = of_p + p[i], of_q + q[i]
        least = min(least, of_p + 1 - min(1.0, of_q) ** k)
    return least
