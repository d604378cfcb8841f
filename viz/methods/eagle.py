"""What is particular to EAGLE: which paths the head found worth drafting and which fell below the line, its confidence in a path
beside the target's, and whether that confidence came true over the run. How far it drifts stands in `viz.methods.eagle_drift`.

Every node carries the head's own probability of its token (q) and the product of those down its path (joint q); what was looked at
and left out stands in `step.pruned` with its joint q. The target's joint follows from the rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log10

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import JOINT, OWN
from decoding.trace import Pruned, Step
from viz.runs.tally import depths
from viz.style import GRID, LOOKS, MONO, SERIES_LINE, SERIES_STRIPES, ink, layout, muted, ring, with_mark
from viz.tokens import as_html, as_plotly, full_name, name
from viz.words import node_name, number

LISTED = 8  # paths that are shown as bars
NAMED = 3  # not judged nodes of a depth whose tokens are written into the picture
FLOOR = 1e-6  # what is less is drawn there
SPREAD = 0.8  # of a depth, over which its nodes lie side by side
HEIGHT, WIDTH = 420, 560  # px of the figure, and of its axes where a page is narrow: names that keep apart there keep apart
MARGIN = {"l": 8, "r": 8, "t": 34, "b": 44}
LETTER, LINE, DOT = 6.8, 13, 6  # px: a letter and a line of a name, and half of a node with a little room
SIDES = {  # where a name may stand: by how much of its width it begins left of the node, and whether above or below it
    "top center": (-0.5, -1),
    "middle right": (0, 0),
    "bottom center": (-0.5, 1),
    "middle left": (-1, 0),
    "top right": (0, -1),
    "bottom right": (0, 1),
    "top left": (-1, -1),
    "bottom left": (-1, 1),
}


@dataclass(frozen=True)
class Place:
    """A candidate in the picture."""

    token: int
    parent: int  # its node, or -1
    depth: int
    joint: float
    state: str  # a verdict, or "left out"
    x: float = 0.0
    name: str = ""  # where its name stands, in the words of Plotly; "" for nowhere

    @property
    def y(self) -> float:
        return max(self.joint, FLOOR)


def probability(value: float | None) -> bool:
    """Whether a number of a trace can be one, up to rounding."""
    return value is not None and -1e-4 <= value <= 1 + 1e-4  # NaN is not


def has_confidence(step: Step) -> bool:
    """Whether the nodes carry the numbers of this view; an imported trace may not."""
    return all(probability(node.scores.get(key)) for node in step.nodes for key in (JOINT, OWN))


def left_out(step: Step) -> tuple[Pruned, ...]:
    """The candidates that were not submitted, as far as they are worth what can be."""
    return tuple(candidate for candidate in step.pruned if probability(candidate.score))


def is_sampled(step: Step) -> bool:
    """Whether the tokens were drawn from q, and not chosen."""
    return any(node.q is not None for node in step.nodes)


def cut(step: Step) -> float | None:
    """The line: the joint q of the least probable node that was kept. None where nothing was left out, or less probable nodes were
    kept (a tree of fixed shape does not rank)."""
    kept = min((node.scores[JOINT] for node in step.nodes), default=None)
    if kept is None or not left_out(step):
        return None
    return kept if all(candidate.score <= kept * (1 + 1e-5) for candidate in left_out(step)) else None


def target_joint(step: Step) -> list[float | None]:
    """Per node the product of the target's probabilities down its path; None where a row was not recorded."""
    joints: list[float | None] = []
    for node in step.nodes:
        row = step.rows[node.parent + 1] if step.rows else None
        above = 1.0 if node.parent < 0 else joints[node.parent]
        p = None if row is None else dict(zip(row.tokens, row.p, strict=True)).get(node.token, 0.0)  # not listed: none
        joints.append(None if p is None or above is None else above * p)
    return joints


def path_words(step: Step, i: int, token_bytes: Mapping[int, bytes], limit: int = 12) -> str:
    """The tokens down to node i; plain text."""
    words = []
    while i >= 0:
        words.append(name(step.nodes[i].token, token_bytes, limit))
        i = step.nodes[i].parent
    return " ".join(reversed(words))


# -- what was kept and what was left out -------------------------------------------------------------------------------


def places(step: Step, both: bool) -> list[Place]:
    """Nodes and, if wanted, the candidates that were left out; at every depth the children of one parent side by side."""
    of = depths(step)
    candidates = [
        Place(node.token, node.parent, depth, node.scores[JOINT], node.verdict) for node, depth in zip(step.nodes, of, strict=True)
    ]
    if both:
        below = [(1 if c.parent < 0 else of[c.parent] + 1, c) for c in left_out(step)]
        candidates += [Place(c.token, c.parent, depth, c.score, "left out") for depth, c in below]
    xs = {}
    for depth in {place.depth for place in candidates}:
        here = [i for i, place in enumerate(candidates) if place.depth == depth]
        here.sort(key=lambda i: (candidates[i].parent, -candidates[i].joint))
        xs |= {i: depth + SPREAD * ((k + 0.5) / len(here) - 0.5) for k, i in enumerate(here)}
    return [replace(place, x=xs[i]) for i, place in enumerate(candidates)]


def frame(candidates: Sequence[Place]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of both axes: depths, and powers of ten."""
    deepest = max((place.depth for place in candidates), default=1)
    low, high = (log10(f((place.y for place in candidates), default=1.0)) for f in (min, max))
    room = 0.1 * max(high - low, 0.5)
    return (0.4, deepest + 0.6), (low - room, high + room)


def named(candidates: Sequence[Place], token_bytes: Mapping[int, bytes]) -> list[Place]:
    """The same with names where there is room for one: none across another, across a node, or beyond the axes. Judged tokens come
    first, then the best not judged ones of every depth; only what was accepted may stand across a node, where it must."""
    (left, right), (low, high) = frame(candidates)
    height = HEIGHT - MARGIN["t"] - MARGIN["b"]
    at = [((p.x - left) / (right - left) * WIDTH, (high - log10(p.y)) / (high - low) * height) for p in candidates]
    nodes = [
        (x - DOT, y - DOT, x + DOT, y + DOT) for (x, y), place in zip(at, candidates, strict=True) if place.state != "left out"
    ]
    names: list[Box] = []
    placed = list(candidates)
    for i in worth_a_name(candidates):
        boxes = [
            (side, box)
            for side, box in around(*at[i], len(name(candidates[i].token, token_bytes, 7)) * LETTER)
            if inside(box, height)
        ]
        free = [(side, box) for side, box in boxes if not any(overlap(box, other) for other in names)]
        clear = [(side, box) for side, box in free if not any(overlap(box, other) for other in nodes)]
        if chosen := clear or free * (candidates[i].state == "accepted"):
            placed[i] = replace(candidates[i], name=chosen[0][0])
            names.append(chosen[0][1])
    return placed


def worth_a_name(candidates: Sequence[Place]) -> list[int]:
    """Which candidates to name, those first for which there must be room."""
    judged = [i for state in ("accepted", "rejected") for i, place in enumerate(candidates) if place.state == state]
    not_judged = sorted(
        (i for i, place in enumerate(candidates) if place.state == "not judged"), key=lambda i: -candidates[i].joint
    )
    rank = {i: sum(candidates[j].depth == candidates[i].depth for j in not_judged[:k]) for k, i in enumerate(not_judged)}
    return judged + [i for i in not_judged if rank[i] < NAMED]


Box = tuple[float, float, float, float]  # left, top, right, bottom in px, from the upper left corner of the axes


def around(x: float, y: float, width: float) -> Iterator[tuple[str, Box]]:
    """Where a name of so many px may stand at a node."""
    for side, (across, down) in SIDES.items():
        left = x + across * width + (0 if across == -0.5 else DOT if across == 0 else -DOT)
        top = y + down * (DOT + LINE / 2) - LINE / 2
        yield side, (left, top, left + width, top + LINE)


def inside(box: Box, height: float) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= WIDTH and box[3] <= height


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def cut_figure(step: Step, token_bytes: Mapping[int, bytes], both: bool = True, dark: bool = False) -> go.Figure:
    """Depth against joint q on a logarithmic axis: kept nodes, what was left out as small diamonds, and the line between them; with
    the tokens that were judged and the best of the others, as far as there is room for names.

    Args:
        both: draw the second layer, the candidates that were not submitted.
    """
    candidates = named(places(step, both), token_bytes)
    figure = go.Figure(layout=layout(HEIGHT, dark, hovermode="closest"))
    xs, ys = edges(candidates, len(step.nodes))
    figure.add_scatter(x=xs, y=ys, mode="lines", line={"color": GRID, "width": 1}, hoverinfo="skip", showlegend=False)
    for state in ("left out", "not judged", "rejected", "accepted"):
        part = [place for place in candidates if place.state == state]
        if part:
            figure.add_trace(points(state, part, token_bytes, dark))
    line = cut(step)
    across, powers = frame(candidates)
    if line is not None:
        dashes = {"color": ink(dark), "dash": "dash", "width": 1.5}
        ends = {"x": list(across), "y": [max(line, FLOOR)] * 2}
        figure.add_scatter(**ends, mode="lines", line=dashes, name=f"cut at {number(line)}", hoverinfo="name")
    figure.update_xaxes(title="depth", tickvals=list(range(1, int(across[1]) + 1)), range=list(across), showgrid=False)
    figure.update_yaxes(title="joint q", type="log", range=list(powers), gridcolor=GRID, dtick=1, tickformat="~g", zeroline=False)
    return figure.update_layout(margin=MARGIN)


def edges(candidates: Sequence[Place], nodes: int) -> tuple[list[float | None], list[float | None]]:
    """From every candidate to its parent, one below the other on the axis."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for place in candidates:
        if 0 <= place.parent < nodes:
            above = candidates[place.parent]
            xs += [above.x, place.x, None]
            ys += [above.y, place.y, None]
    return xs, ys


def points(state: str, part: Sequence[Place], token_bytes: Mapping[int, bytes], dark: bool) -> go.Scatter:
    """The candidates of one state."""
    ghost = state == "left out"
    look = LOOKS["not judged" if ghost else state]
    marker = {"symbol": "diamond-open", "size": 6, "color": muted(dark), "opacity": 0.7} if ghost else {
        "symbol": look.symbol, "size": 10, "color": look.color, "line": {"color": ring(state), "width": 1}
    }  # fmt: skip
    return go.Scatter(
        name=state,
        x=[place.x for place in part],
        y=[place.y for place in part],
        mode="markers" if ghost else "markers+text",
        marker=marker,
        text=[as_plotly(name(place.token, token_bytes, 7)) if place.name else "" for place in part],
        textposition=[place.name or "top center" for place in part],
        textfont={"family": MONO, "size": 11, "color": muted(dark) if state == "not judged" else ink(dark)},
        hovertext=[
            f"<b>{as_plotly(name(place.token, token_bytes, 40))}</b><br>{state}<br>joint q {number(place.joint)}" for place in part
        ],
        hoverinfo="text",
    )


def cut_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The picture in words; plain text."""
    if not step.nodes:
        return "Nothing was drafted."
    best = sorted(range(len(step.nodes)), key=lambda i: -step.nodes[i].scores[JOINT])[:3]
    listed = ", ".join(f"{path_words(step, i, token_bytes)} {number(step.nodes[i].scores[JOINT])}" for i in best)
    line = cut(step)
    below = "" if line is None else f"; {len(left_out(step))} candidates of {number(line)} or less were left out"
    return f"{len(step.nodes)} nodes were kept, the most probable paths {listed}{below}."


def cut_words(step: Step) -> str:
    """How the tree came about; plain text."""
    line, nodes = cut(step), len(step.nodes)
    if is_sampled(step):
        return (
            "The tree has the same shape at every step. Its tokens were drawn from q, siblings without repeats, and are tried in "
            f"that order, so also an improbable one may stand first. {len(step.path)} of {nodes} were accepted."
        )
    how = (
        "The tree is the same at every step: ranks that were often right, whatever the head thinks of them here."
        if line is None
        else f"Of {nodes + len(left_out(step))} candidates in sight the {nodes} most probable were submitted; the line lies at "
        f"{number(line)}."
    )
    total = sum(node.scores[JOINT] for node in step.nodes)
    return f"{how} Their probabilities sum to {number(total)}, the head's own forecast of accepted tokens; {len(step.path)} were."


# -- the head's joint beside the target's ------------------------------------------------------------------------------


def joints_html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The most probable paths and those that were accepted, each with the head's joint and the target's as bars: HTML."""
    theirs = target_joint(step)
    order = sorted(range(len(step.nodes)), key=lambda i: -step.nodes[i].scores[JOINT])
    listed = [i for k, i in enumerate(order) if k < LISTED or step.nodes[i].verdict == "accepted"]
    rows = "".join(joint_bars(step, i, theirs[i], token_bytes) for i in listed)
    more = f'<div class="ds-dim">and {len(order) - len(listed)} more</div>' if len(order) > len(listed) else ""
    alt = as_html(joints_alt(step, token_bytes))
    return f'<div role="img" aria-label="{alt}"><div class="ds-bars">{rows}</div>{more}</div>'


def joint_bars(step: Step, i: int, theirs: float | None, token_bytes: Mapping[int, bytes]) -> str:
    """One path: its tokens, the head's bar, the target's bar."""
    node = step.nodes[i]
    bars = "".join(
        f'<div><i style="--w:{100 * min(value, 1.0):.2f}%;background:{SERIES_STRIPES[key]};border-color:{SERIES_LINE[key]}"></i>'
        f"<span>{key} {number(value)}</span></div>"
        for key, value in (("q", node.scores[JOINT]), ("p", theirs))
        if value is not None
    )
    now = " ds-bars-now" * (node.verdict == "accepted")
    words = as_html(f"{LOOKS[node.verdict].mark} {path_words(step, i, token_bytes, 8)}".strip())
    return f'<div class="ds-bars-name{now}">{words}</div><div class="ds-bars-group">{bars}</div>'


def joints_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The bars in words; plain text."""
    theirs = target_joint(step)
    order = sorted(range(len(step.nodes)), key=lambda i: -step.nodes[i].scores[JOINT])[:3]
    parts = [
        f"{path_words(step, i, token_bytes)}: head {number(step.nodes[i].scores[JOINT])}"
        + (f", target {number(p)}" if (p := theirs[i]) is not None else "")
        for i in order
    ]
    return "The head's probability of a path beside the target's. " + ("; ".join(parts) or "Nothing was drafted") + "."


def joints_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per candidate, those that were left out at the end."""
    rows = [
        (
            depth,
            full_name(node.token, token_bytes),
            node_name(step, node.parent, token_bytes, full_name),
            node.scores[OWN],
            node.scores[JOINT],
            theirs,
            with_mark(node.verdict),
        )
        for node, depth, theirs in zip(step.nodes, depths(step), target_joint(step), strict=True)
    ]
    of = [0, *depths(step)]
    rows += [
        (
            of[c.parent + 1] + 1,
            full_name(c.token, token_bytes),
            node_name(step, c.parent, token_bytes, full_name),
            None,
            c.score,
            None,
            "left out",
        )
        for c in left_out(step)
    ]
    columns = ["depth", "token", "below", "q", "joint q", "target's joint", "verdict"]
    return pd.DataFrame(rows, columns=columns).astype({"q": float, "joint q": float, "target's joint": float})


# -- over the run ------------------------------------------------------------------------------------------------------


def confidence(steps: Sequence[Step]) -> dict[str, pd.DataFrame]:
    """What came of the head's confidence, as `viz.drafter.reliability` takes it: of every path its joint q and whether all of it
    was accepted; of every token below an accepted one (or the root) its q and whether it was accepted itself. Tokens that were
    drawn are no matter of confidence: one that the target likes less than the head is accepted in proportion, others always."""
    paths, tokens = [], []
    for step in steps:
        if has_confidence(step) and not is_sampled(step):
            reached = {-1, *step.path}
            paths += [(node.scores[JOINT], node.verdict == "accepted") for node in step.nodes]
            tokens += [(node.scores[OWN], node.verdict == "accepted") for node in step.nodes if node.parent in reached]
    named = {"whole paths, joint q": paths, "tokens behind accepted ones, q": tokens}
    return {
        label: pd.DataFrame(rows, columns=["confidence", "accepted"]).astype({"confidence": float, "accepted": bool})
        for label, rows in named.items()
    }


def forecast_words(steps: Sequence[Step]) -> str:
    """The sum of all joints against the tokens that were accepted; plain text."""
    drafted = [step for step in steps if step.nodes and has_confidence(step) and not is_sampled(step)]
    if not drafted and any(map(is_sampled, steps)):
        return "Drawn tokens are not foretold: they are judged with p and q, the more alike the two, the more are accepted."
    if not drafted:
        return "Nothing was drafted so far."
    expected = sum(node.scores[JOINT] for step in drafted for node in step.nodes) / len(drafted)
    accepted = sum(len(step.path) for step in drafted) / len(drafted)
    return (
        f"The joints of a tree sum to the number of drafted tokens that the head expects to be accepted: {number(expected)} a step "
        f"so far, and {number(accepted)} were."
    )
