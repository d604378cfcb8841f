"""The draft tree of one step as a Plotly figure, a table and a sentence.

Left to right: the root (end of the committed text), one column per depth, siblings from top to bottom in the order
they were drawn, and the final token (bonus, correction or plain) as the last child where the walk stopped. Knows one
step; not the run, nor which node the page has selected unless told.

Every point of the figure that can be clicked carries as `customdata` the number of what it stands for: a node's index
in `step.nodes`, `ROOT` (-1, as in `Node.parent`) for the root, `len(step.nodes)` (`final_index`) for the final token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from decoding.trace import Step
from viz.runs.tally import depths
from viz.step.boxes import BOTTOM, HALF, ROOT, TOP, Box, Frame, boxes_of, final_index, frame_of, has_final
from viz.style import LOOKS, MONO, fill, ink, layout, ring, text_color, with_mark
from viz.tokens import as_plotly, full_name, name, plain, quoted, word
from viz.words import judgement, number, score_words

if TYPE_CHECKING:
    import pandas as pd

Trace = dict[str, Any]  # of a Plotly figure


def picked(points: Sequence[Mapping]) -> int | None:
    """What was clicked, from the points of a Plotly selection (`st.plotly_chart(...).selection.points`)."""
    for point in points:
        data = point.get("customdata")
        data = data[0] if isinstance(data, (list, tuple)) and data else data
        if isinstance(data, (int, float)):
            return int(data)
    return None


def tree_figure(
    step: Step,
    token_bytes: Mapping[int, bytes],
    selected: int | None = None,
    dark: bool = False,
    root: int | None = None,
    width: int = 900,
    extent: tuple[int, float] = (6, 3),
) -> go.Figure:
    """Draw the tree of a step.

    Args:
        selected: node to outline; `ROOT` and `final_index(step)` work too.
        root: the last committed token, to label the root with.
        width: px the figure will get; decides how much of a label fits, not the width itself.
        extent: (columns, rows) to reserve at least, so that the picture keeps still from step to step: `extent_of`.
    """
    boxes = boxes_of(step, root, selected)
    frame = frame_of(boxes, step, width, extent)
    shapes = outlines(boxes, frame) + [selection(i, frame, dark) for i, box in enumerate(boxes) if box.index == selected]
    traces = [
        *edge_traces(boxes, frame),
        hit_trace(boxes, frame, step, token_bytes),
        node_trace(boxes, frame, step, token_bytes, dark),
        *count_traces(boxes, frame, dark),
        *legend_traces(boxes, dark),
    ]
    # at once and unchecked, which is seven times as fast: this is drawn with every step, and a test has Plotly check it
    return go.Figure({"data": traces, "layout": tree_layout(frame, dark) | {"shapes": shapes}}, _validate=False)


def scatter(**what: Any) -> Trace:
    return {"type": "scatter", **what}


def tree_layout(frame: Frame, dark: bool) -> dict:
    """Fixed ranges: the same tree is always drawn at the same place."""
    hidden = {"visible": False, "showgrid": False, "zeroline": False}
    return layout(
        frame.height,
        dark,
        margin={"l": 8, "r": 8, "t": TOP, "b": BOTTOM},
        xaxis={"range": [-0.5, frame.columns - 0.5], **hidden},
        yaxis={"range": [frame.rows - 0.5, -0.5], **hidden},  # first row on top
        hovermode="closest",
        hoverdistance=30,
        clickmode="event+select",
    )


def rounded(x0: float, x1: float, y0: float, y1: float, rx: float, ry: float) -> str:
    """SVG path, in data coordinates, of a box with round corners."""
    return (
        f"M{x0 + rx:.4f},{y0:.4f} L{x1 - rx:.4f},{y0:.4f} Q{x1:.4f},{y0:.4f} {x1:.4f},{y0 + ry:.4f} "
        f"L{x1:.4f},{y1 - ry:.4f} Q{x1:.4f},{y1:.4f} {x1 - rx:.4f},{y1:.4f} L{x0 + rx:.4f},{y1:.4f} "
        f"Q{x0:.4f},{y1:.4f} {x0:.4f},{y1 - ry:.4f} L{x0:.4f},{y0 + ry:.4f} Q{x0:.4f},{y0:.4f} {x0 + rx:.4f},{y0:.4f} Z"
    )


def box_path(i: int, frame: Frame, grow: float = 0) -> str:
    """The outline of box i, `grow` px larger on each side."""
    gx, gy = grow / frame.column_px, grow / frame.row_px
    half = (min(36.0, 0.84 * frame.row_px) if frame.two_lines else min(24.0, 0.84 * frame.row_px)) / frame.row_px / 2
    x, y = frame.column[i], frame.row[i]
    radius = min(6.0, 0.25 * frame.row_px) + grow
    ends = (x - HALF - gx, x + HALF + gx, y - half - gy, y + half + gy)
    return rounded(*ends, radius / frame.column_px, radius / frame.row_px)


def outlines(boxes: Sequence[Box], frame: Frame) -> list[dict]:
    """The boxes themselves, one path for all of a state: filled if the token is in the text, else hollow with the border of it.

    A browser spends most of a redraw on the number of shapes, hardly any on the length of a path.
    """
    places: dict[str, list[int]] = {}
    for i, box in enumerate(boxes):
        places.setdefault(box.state, []).append(i)
    return [outline(state, " ".join(box_path(i, frame) for i in here), frame) for state, here in places.items()]


def outline(state: str, path: str, frame: Frame) -> dict:
    look = LOOKS[state]
    line = {"color": look.line, "dash": look.dash, "width": frame.stroke(1.6)}
    return {"type": "path", "name": state, "path": path, "layer": "below", "fillcolor": fill(state), "line": line}


def selection(i: int, frame: Frame, dark: bool) -> dict:
    """A second outline around the selected box."""
    grow = 3.5 if frame.row_px > 14 else 1.5
    return {"type": "path", "path": box_path(i, frame, grow), "line": {"color": ink(dark), "width": 2.5}}


def edge_traces(boxes: Sequence[Box], frame: Frame) -> list[Trace]:
    """One trace per state, its edges parted by None; the accepted ones last, on top."""
    traces = []
    for state in sorted({box.state for box in boxes[1:]}, key=lambda s: LOOKS[s].width):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for i, box in enumerate(boxes):
            if box.state == state and box.parent >= 0:
                curve(xs, ys, i, box.parent, frame)
        look = LOOKS[state]
        line = {"color": look.line, "dash": look.dash, "width": frame.stroke(look.width)}
        traces.append(scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False, name=f"{state} edges"))
    return traces


def curve(xs: list[float | None], ys: list[float | None], child: int, parent: int, frame: Frame) -> None:
    """Append an S-shaped edge from the parent's right side to the child's left one."""
    start, end = frame.column[parent] + HALF, frame.column[child] - HALF - frame.symbol / 2 / frame.column_px
    top, bottom = frame.row[parent], frame.row[child]
    for part in (k / 8 for k in range(9)):
        xs.append(start + (end - start) * part)
        ys.append(top + (bottom - top) * part * part * (3 - 2 * part))
    xs.append(None)
    ys.append(None)


def node_trace(boxes: Sequence[Box], frame: Frame, step: Step, token_bytes: Mapping[int, bytes], dark: bool) -> Trace:
    """One point per box: the symbol of its state on the left border, its label behind it."""
    looks = [LOOKS[box.state] for box in boxes]
    return scatter(
        name="nodes",
        x=[column - HALF for column in frame.column],
        y=frame.row,
        mode="markers+text",
        marker={
            "symbol": [look.symbol for look in looks],
            "color": [look.color for look in looks],
            "size": frame.symbol,
            "opacity": 1,
            "line": {"color": [ring(box.state) for box in boxes], "width": 1},
        },
        text=[box_text(box, frame, step, token_bytes) for box in boxes],
        textposition="middle right",
        textfont={"color": [text_color(box.state, dark) for box in boxes], "family": MONO, "size": frame.font},
        customdata=[box.index for box in boxes],
        hovertext=[hover_text(box, step, token_bytes) for box in boxes],
        hoverinfo="text",
        showlegend=False,
        selected={"marker": {"opacity": 1}},  # Plotly dims what is not selected; the outline says it better
        unselected={"marker": {"opacity": 1}},
    )


def hit_trace(boxes: Sequence[Box], frame: Frame, step: Step, token_bytes: Mapping[int, bytes]) -> Trace:
    """Two unseen points per box, middle and right: Plotly finds the nearest point, and a box is wider than a symbol."""
    hover = [hover_text(box, step, token_bytes) for box in boxes]
    return scatter(
        name="hits",
        x=[column + shift for shift in (0, HALF * 0.9) for column in frame.column],
        y=frame.row * 2,
        mode="markers",
        marker={"opacity": 0, "size": 6},
        customdata=[box.index for box in boxes] * 2,
        hovertext=hover * 2,
        hoverinfo="text",
        showlegend=False,
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
    )


def box_text(box: Box, frame: Frame, step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """Mark and label of a box, escaped; where there is room the mark goes to a second line, with p or the state."""
    if box.state == "not judged" and frame.row_px < 9:
        return ""  # too tight for letters even after folding; the hover text still has it
    is_root = box.index == ROOT
    mark = "" if is_root else f"{LOOKS[box.state].mark} ".lstrip()
    if not frame.two_lines and frame.limit - len(mark) < 4:
        mark = ""  # the symbol on the border still says it
    room = frame.limit - len(count_text(box)) - (0 if frame.two_lines else len(mark))
    label = "root" if box.token is None else name(box.token, token_bytes, max(4, min(12, room)))
    if not frame.two_lines:
        return f" {mark}{as_plotly(label)}"
    if is_root:
        below = "root" if box.token is not None else ""
    else:
        below = box.state if box.index == final_index(step) else f"p {number(step.nodes[box.index].p, 2)}"
    return f" {as_plotly(label)}" + second_line(mark, below, frame)


def second_line(mark: str, text: str, frame: Frame) -> str:
    """In small print; the mark alone where the text does not fit."""
    size = frame.font - 2
    fits = len(f" {mark}{text}") * 0.61 * size <= 2 * HALF * frame.column_px - 10
    shown = f"{mark}{text if fits else ''}".strip()
    return f'<br><span style="font-size:{size:.1f}px"> {shown}</span>' if shown else ""


def hover_text(box: Box, step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """Everything known of a box, escaped, one line each."""
    if box.index == ROOT:
        lines = ["root: the end of the committed text"]
        if box.token is not None:
            lines.append(f"last token {name(box.token, token_bytes, 40)}, id {box.token}")
    elif box.index == final_index(step):
        lines = [f"{LOOKS[box.state].mark} {box.state}: {LOOKS[box.state].meaning}", f"token id {box.token}"]
    else:
        lines = node_lines(box.index, step, token_bytes)
    if box.hidden:
        lines.append(f"{box.hidden} nodes below that were not judged are not drawn")
    if box.index == ROOT or box.token is None:  # the root alone may have none
        return "<br>".join(map(as_plotly, lines))
    head = f"<b>{as_plotly(name(box.token, token_bytes, 60))}</b>"
    return "<br>".join([head, *map(as_plotly, lines)])


def node_lines(index: int, step: Step, token_bytes: Mapping[int, bytes]) -> list[str]:
    """What is known of a node, as plain text."""
    node = step.nodes[index]
    q = "chosen, not drawn" if node.q is None else number(node.q)
    u = "none" if node.u is None else number(node.u)
    lines = [with_mark(node.verdict), judgement(node, token_bytes, step)]
    lines += [f"p {number(node.p)}, q {q}, u {u}", f"from {word(node.source)}"]
    lines += [f"{score_words(key)} {number(value)}" for key, value in node.scores.items()]
    return [*lines, f"node {index}, token id {node.token}"]


def count_traces(boxes: Sequence[Box], frame: Frame, dark: bool) -> list[Trace]:
    """'+k' at the right end of a box with k nodes below it that are not drawn."""
    places = [i for i, box in enumerate(boxes) if box.hidden]
    if not places:
        return []
    colors = [text_color(boxes[i].state, dark) for i in places]
    return [
        scatter(
            name="collapsed",
            x=[frame.column[i] + HALF for i in places],
            y=[frame.row[i] for i in places],
            mode="text",
            text=[f"<b>{count_text(boxes[i])}</b> " for i in places],
            textposition="middle left",
            textfont={"color": colors, "family": MONO, "size": frame.font},
            hoverinfo="skip",
            showlegend=False,
        )
    ]


def count_text(box: Box) -> str:
    return f"+{box.hidden}" if box.hidden else ""


def legend_traces(boxes: Sequence[Box], dark: bool) -> list[Trace]:
    """A legend entry for each state in the tree; they draw nothing."""
    present = {box.state for box in boxes[1:]}
    return [
        scatter(
            name=with_mark(state),
            x=[None],
            y=[None],
            mode="markers+lines",
            marker={"symbol": look.symbol, "color": look.color, "size": 10, "line": {"color": look.line, "width": 1}},
            line={"color": look.line, "dash": look.dash, "width": min(look.width, 2.5)},
            hoverinfo="skip",
        )
        for state, look in LOOKS.items()
        if state in present
    ]


def tree_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The tree in words, for a chart's `alt`; plain text."""
    if not step.nodes:
        return f"Empty draft tree.{final_alt(step, token_bytes)}"
    by_verdict = {v: [node for node in step.nodes if node.verdict == v] for v in ("accepted", "rejected", "not judged")}
    path = " ".join(quoted(step.nodes[i].token, token_bytes) for i in step.path) or "nothing"
    parts = [f"Draft tree of {len(step.nodes)} tokens, {max(depths(step))} deep.", f"Accepted: {path}."]
    if rejected := by_verdict["rejected"]:
        some = ", ".join(quoted(node.token, token_bytes) for node in rejected[:8])
        parts.append(f"Rejected: {some}{f' and {len(rejected) - 8} more' if len(rejected) > 8 else ''}.")
    if not_judged := by_verdict["not judged"]:
        parts.append(f"Never looked at: {len(not_judged)}.")
    return " ".join(parts) + final_alt(step, token_bytes)


def final_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    if not has_final(step):
        return ""
    words = {"plain": "Written by the target", "bonus": "Bonus", "correction": "Correction"}
    return f" {words[step.origins[-1]]}: {quoted(step.tokens[-1], token_bytes)}."


def score_name(key: str, taken: Collection[str]) -> str:
    """The name of a score where other things have names too; plain text."""
    return f"score {plain(key)}" if plain(key) in taken else plain(key)


def node_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node, in draft order; a column per score that any node has."""
    import pandas as pd  # not at the top: a page is painted before it is there

    columns = ["node", "parent", "depth", "token", "id", "verdict", "p", "q", "u", "why", "source"]
    scores = {key: score_name(key, columns) for node in step.nodes for key in node.scores}
    rows = [
        [i, node.parent, depth, full_name(node.token, token_bytes), node.token]
        + [node.verdict, node.p, node.q, node.u, judgement(node, token_bytes, step), word(node.source)]
        + [node.scores.get(key) for key in scores]
        for i, (node, depth) in enumerate(zip(step.nodes, depths(step), strict=True))
    ]
    return pd.DataFrame(rows, columns=[*columns, *scores.values()])
