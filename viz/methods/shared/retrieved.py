"""What was retrieved: the tree coloured by where nodes come from, the match, and where it stands.

Knows steps of the methods on a datastore, whose nodes say so in their source and scores. Where a match stands is looked up by the
page and handed in as plain bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import BOTH, COUNT, DRAFT_VALUE, DRAFTED, MATCHED, OCCURRENCES, RETRIEVED, SHARE, WEIGHT
from decoding.trace import Node, Step, number_in
from viz.step.boxes import HALF, Box, Frame, boxes_of, frame_of
from viz.step.tree import curve, tree_layout
from viz.style import GRID, LOOKS, MONO, PHASE_COLOR, SERIES, ink, layout, muted
from viz.tokens import as_html, as_plotly, full_name, joined, name
from viz.words import number

TAIL = 24  # tokens of the text that are shown before a draft
WIDTHS = (1.2, 2.4, 4.0)  # px of edges: few, some, most of the occurrences


@dataclass(frozen=True)
class Kind:
    """How nodes of one origin are drawn."""

    color: str
    symbol: str  # Plotly marker symbol; hollow unless the node was accepted
    dash: str
    meaning: str


KINDS = {
    DRAFTED: Kind(SERIES["q"], "circle", "solid", "drafted by the draft model alone"),
    RETRIEVED: Kind(PHASE_COLOR["accept"], "square", "dash", "retrieved alone"),
    BOTH: Kind(SERIES["p"], "diamond", "solid", "in both trees"),
}


@dataclass(frozen=True)
class Occurrence:
    """One place where the match stands."""

    where: str  # the document
    before: tuple[bytes, ...]
    match: tuple[bytes, ...]
    after: tuple[bytes, ...]


def kind_of(node: Node) -> str:
    """The entry of KINDS a node belongs to."""
    return node.source if node.source in KINDS else RETRIEVED


def match_of(step: Step) -> tuple[int, int] | None:
    """(tokens that matched, occurrences) of a step; None where nothing was drafted."""
    if not step.nodes:
        return None
    scores = step.nodes[0].scores
    return number_in(scores, MATCHED, 0), number_in(scores, OCCURRENCES, 0)


# -- the tree --------------------------------------------------------------------------------------------------------------


def source_figure(
    step: Step, token_bytes: Mapping[int, bytes], dark: bool = False, root: int | None = None, width: int = 680
) -> go.Figure:
    """The draft tree by source: colour, symbol and dash say where a node comes from, filled is accepted, an edge is as wide as its
    share of the occurrences."""
    boxes = boxes_of(step, root)
    frame = frame_of(boxes, step, width)
    figure = go.Figure(layout=tree_layout(frame, dark))
    figure.add_traces(edge_traces(boxes, frame, step))
    figure.add_trace(node_trace(boxes, frame, step, token_bytes, dark))
    return figure.add_traces(legend_traces(step, dark))


def edge_traces(boxes: Sequence[Box], frame: Frame, step: Step) -> list[go.Scatter]:
    """One trace per kind and width, the edges in it parted by None."""
    groups: dict[tuple[str, float], tuple[list[float | None], list[float | None]]] = {}
    heaviest = max((weight(node) for node in step.nodes), default=0.0)
    for i, box in enumerate(boxes):
        if box.parent >= 0:
            key = (kind_of(step.nodes[box.index]), edge_width(step.nodes[box.index], heaviest)) if is_node(box, step) else ("", 1.2)
            curve(*groups.setdefault(key, ([], [])), i, box.parent, frame)
    return [
        go.Scatter(x=xs, y=ys, mode="lines", line=edge_line(kind, px, frame), hoverinfo="skip", showlegend=False)
        for (kind, px), (xs, ys) in groups.items()
    ]


def edge_line(kind: str, px: float, frame: Frame) -> dict:
    if kind not in KINDS:
        return {"color": "#8A8F98", "width": frame.stroke(px), "dash": "dot"}
    return {"color": KINDS[kind].color, "width": frame.stroke(px), "dash": KINDS[kind].dash}


def weight(node: Node) -> float:
    """Occurrences that go through a node; 0 where it was not retrieved."""
    return node.scores.get(WEIGHT, node.scores.get(COUNT, 0.0))


def edge_width(node: Node, heaviest: float) -> float:
    share = weight(node) / heaviest if heaviest else 0.0
    return WIDTHS[0] if share < 0.15 else WIDTHS[1] if share < 0.6 else WIDTHS[2]


def is_node(box: Box, step: Step) -> bool:
    return 0 <= box.index < len(step.nodes)


def node_trace(boxes: Sequence[Box], frame: Frame, step: Step, token_bytes: Mapping[int, bytes], dark: bool) -> go.Scatter:
    """One point per box with its label behind it."""
    looks = [box_look(box, step) for box in boxes]
    return go.Scatter(
        name="nodes",
        x=[column - HALF for column in frame.column],
        y=frame.row,
        mode="markers+text",
        marker={
            "symbol": [symbol for symbol, _ in looks],
            "color": [color for _, color in looks],
            "size": frame.symbol + 1.5,
            "line": {"color": [color for _, color in looks], "width": 1.6},
        },
        text=[f" {as_plotly(label(box, step, token_bytes, frame.limit))}" for box in boxes],
        textposition="middle right",
        textfont={"family": MONO, "size": frame.font, "color": [ink(dark) if kept(box, step) else muted(dark) for box in boxes]},
        hovertext=[hover(box, step, token_bytes) for box in boxes],
        hoverinfo="text",
        showlegend=False,
    )


def box_look(box: Box, step: Step) -> tuple[str, str]:
    """(symbol, colour); a node that is not in the text is hollow."""
    if not is_node(box, step):
        look = LOOKS[box.state]
        return look.symbol, look.line
    kind = KINDS[kind_of(step.nodes[box.index])]
    return (kind.symbol if kept(box, step) else f"{kind.symbol}-open"), kind.color


def kept(box: Box, step: Step) -> bool:
    return not is_node(box, step) or step.nodes[box.index].verdict == "accepted"


def label(box: Box, step: Step, token_bytes: Mapping[int, bytes], limit: int) -> str:
    """Plain text of a box."""
    if box.token is None:
        return "end of the text"
    mark = LOOKS[box.state].mark
    return f"{mark} {name(box.token, token_bytes, max(3, limit - 2))}" if mark else name(box.token, token_bytes, max(3, limit))


def hover(box: Box, step: Step, token_bytes: Mapping[int, bytes]) -> str:
    if not is_node(box, step):
        return as_plotly("the end of the committed text" if box.index < 0 else f"{box.state}: {LOOKS[box.state].meaning}")
    node = step.nodes[box.index]
    lines = [
        full_name(node.token, token_bytes),
        f"{kind_of(node)}: {KINDS[kind_of(node)].meaning}",
        f"{node.verdict}, p {number(node.p)}",
        *(f"{key} {number(value)}" for key, value in node.scores.items() if key not in (MATCHED, OCCURRENCES)),
    ]
    return "<br>".join(as_plotly(line) for line in lines)


def legend_traces(step: Step, dark: bool) -> list[go.Scatter]:
    """One entry per kind that occurs."""
    seen = {kind_of(node) for node in step.nodes}
    return [
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            name=kind,
            marker={"symbol": look.symbol, "color": look.color, "size": 10, "line": {"color": ink(dark), "width": 0}},
            hoverinfo="skip",
        )
        for kind, look in KINDS.items()
        if kind in seen
    ]


def source_alt(step: Step) -> str:
    """The tree in a sentence."""
    if not step.nodes:
        return "Nothing was drafted in this step."
    counts = {kind: sum(kind_of(node) == kind for node in step.nodes) for kind in KINDS}
    taken = [kind_of(step.nodes[i]) for i in step.path]
    listed = ", ".join(f"{count} {KINDS[kind].meaning}" for kind, count in counts.items() if count)
    by = ", ".join(f"{taken.count(kind)} of them {KINDS[kind].meaning}" for kind in KINDS if kind in taken)
    return f"A tree of {len(step.nodes)} nodes: {listed}. Accepted: {len(taken)}{f', {by}' if by else ''}."


def source_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """The twin of the tree: one line per node."""
    return pd.DataFrame(
        {
            "node": range(len(step.nodes)),
            "below": ["root" if node.parent < 0 else str(node.parent) for node in step.nodes],
            "token": [name(node.token, token_bytes, 24) for node in step.nodes],
            "source": [kind_of(node) for node in step.nodes],
            "verdict": [node.verdict for node in step.nodes],
            "p": [node.p for node in step.nodes],
            "occurrences": [weight(node) for node in step.nodes],
            **own_scores(step),
        }
    )


def own_scores(step: Step) -> dict[str, list[float]]:
    """The drafter's own estimate: P of the infini-gram, the draft model's product of q."""
    shown = {SHARE: "P", DRAFT_VALUE: "draft model's product of q"}
    here = [key for key in shown if all(key in node.scores for node in step.nodes)]
    return {shown[key]: [node.scores[key] for node in step.nodes] for key in here}


# -- the match -------------------------------------------------------------------------------------------------------------


def context_html(tokens: Sequence[int], matched: int, token_bytes: Mapping[int, bytes]) -> str:
    """The end of the text, the matched tokens marked: bold, underlined and between brackets."""
    tail = tokens[-max(TAIL, matched + 4) :]
    cut = len(tail) - matched
    before, match = shown(tail[:cut], token_bytes), shown(tail[cut:], token_bytes)
    more = "… " if len(tail) < len(tokens) else ""
    return f'<p style="{LINE}">{more}{before}{marked(match) if matched else ""}</p>'


def occurrence_html(occurrences: Sequence[Occurrence]) -> str:
    """A few places where the match stands, one below the other, the match marked."""
    lines = [
        f'<p style="{LINE}"><span style="opacity:0.7">{as_html(place.where)}</span><br>'
        f"{plain(place.before)}{marked(plain(place.match))}{plain(place.after)}</p>"
        for place in occurrences
    ]
    return "".join(lines)


LINE = f"font-family:{MONO};font-size:0.82rem;line-height:1.5;margin:0 0 0.5rem 0;overflow-wrap:anywhere".replace("'", "")


def marked(html: str) -> str:
    style = f"font-weight:700;text-decoration:underline 3px {KINDS['retrieved'].color}"
    return f'<span style="{style}">⟦{html}⟧</span>'


def shown(tokens: Sequence[int], token_bytes: Mapping[int, bytes]) -> str:
    return plain([token_bytes.get(token, f"#{token}".encode()) for token in tokens])


def plain(token_bytes: Sequence[bytes]) -> str:
    """Pieces as escaped HTML, every character visible; spaces stay spaces so that lines can break."""
    return as_html("".join(group.text for group in joined(token_bytes)).replace("␣", " ")) if token_bytes else ""


def occurrence_table(occurrences: Sequence[Occurrence]) -> pd.DataFrame:
    """The twin of `occurrence_html`."""

    def text(part: Sequence[bytes]) -> str:
        return "".join(group.text for group in joined(part)) if part else ""

    return pd.DataFrame(
        {
            "document": [place.where for place in occurrences],
            "before": [text(place.before) for place in occurrences],
            "match": [text(place.match) for place in occurrences],
            "after": [text(place.after) for place in occurrences],
        }
    )


def match_figure(steps: Sequence[Step], cursor: int, dark: bool = False) -> go.Figure:
    """Tokens that matched in every step, as bars, and below them what was accepted; a gap where nothing was drafted."""
    places = list(range(1, len(steps) + 1))
    lengths = [(match_of(step) or (0, 0))[0] for step in steps]
    taken = [len(step.path) for step in steps]
    line = [2.5 if i == cursor else 0 for i in range(len(steps))]
    figure = go.Figure(layout=layout(210, dark, barmode="group", bargap=0.2))
    for title, values, kind, shape in (
        ("tokens matched", lengths, RETRIEVED, "/"),
        ("tokens accepted", taken, BOTH, ""),
    ):
        marker = {
            "color": KINDS[kind].color,
            "pattern": {"shape": shape, "solidity": 0.3},
            "line": {"color": ink(dark), "width": line},
        }
        hovertemplate = f"step %{{x}}: %{{y}} {title}<extra></extra>"
        figure.add_trace(go.Bar(name=title, x=places, y=values, marker=marker, hovertemplate=hovertemplate))
    figure.update_xaxes(title="step", showgrid=False, zeroline=False, tickformat="d")
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, rangemode="tozero", tickformat="d")
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40})


def match_table(steps: Sequence[Step]) -> pd.DataFrame:
    """The twin of `match_figure`."""
    pairs = [match_of(step) or (0, 0) for step in steps]
    return pd.DataFrame(
        {
            "step": range(1, len(steps) + 1),
            "tokens matched": [n for n, _ in pairs],
            "occurrences": [count for _, count in pairs],
            "nodes": [len(step.nodes) for step in steps],
            "tokens accepted": [len(step.path) for step in steps],
        }
    )
