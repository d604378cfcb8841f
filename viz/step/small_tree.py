"""A draft tree small enough for a column among others: shapes without letters, except where the text went on.

Knows one step. The result is plain data, SVG elements in drawing order; text is plain, for the page to put in as text.
"""

from collections.abc import Mapping
from math import cos, pi, sin
from typing import Any

from decoding.trace import Step, Trace
from viz.step.boxes import ROOT, Box, Frame, boxes_of, final_index, frame_of
from viz.step.tree import tree_alt
from viz.style import LOOKS, MONO
from viz.tokens import as_html, name
from viz.words import number

HEIGHT = 168
MARGIN = 12  # px below the lowest symbol
LETTER = 6.1  # px of a letter at 10 px

Element = dict[str, Any]


def small_tree(
    step: Step, token_bytes: Mapping[int, bytes], root: int | None = None, width: int = 300, columns: int = 6
) -> list[Element]:
    """The tree as SVG elements {"tag", "title", "text", attributes ...} on a canvas of `width` by `HEIGHT`.

    Args:
        columns: to reserve at least, so that the picture keeps still from step to step.
    """
    boxes = boxes_of(step, root)
    frame = frame_of(boxes, step, width, (columns, 4))
    places = [place(frame, i, width) for i in range(len(boxes))]
    radius = min(5.5, max(2.2, 0.4 * HEIGHT / frame.rows))
    nodes = [node(box, *places[i], radius, step, token_bytes) for i, box in enumerate(boxes)]
    return [*edges(boxes, places), *nodes, *labels(boxes, places, width / frame.columns, step, token_bytes)]


def small_tree_svg(trace: Trace, index: int, width: int = 300) -> str:
    """The tree of a step by its index as one SVG element that is escaped and takes the colour of the text around it."""
    step, token_bytes = trace.steps[index], trace.token_bytes
    boxes = boxes_of(step, trace.root(index))
    frame = frame_of(boxes, step, width, (1, 4))
    height = round(max(place(frame, i, width)[1] for i in range(len(boxes)))) + MARGIN  # no room is kept below a chain
    drawn = "".join(map(as_svg, small_tree(step, token_bytes, trace.root(index), width, 1)))
    alt = as_html(tree_alt(step, token_bytes))
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{alt}" style="width:100%;height:auto">{drawn}</svg>'


def as_svg(element: Element) -> str:
    """One element of `small_tree` as SVG."""
    given = {key: value for key, value in element.items() if key not in ("tag", "text", "title") and value != ""}
    attributes = "".join(f' {key}="{as_html(str(value))}"' for key, value in given.items())
    title = f"<title>{as_html(element['title'])}</title>" if "title" in element else ""
    return f"<{element['tag']}{attributes}>{title}{as_html(element.get('text', ''))}</{element['tag']}>"


def place(frame: Frame, i: int, width: int) -> tuple[float, float]:
    """Centre of a box in px."""
    return (frame.column[i] + 0.3) * width / frame.columns, 14 + (frame.row[i] + 0.2) * (HEIGHT - 16) / frame.rows


def edges(boxes: list[Box], places: list[tuple[float, float]]) -> list[Element]:
    """One path per state, what was accepted last, on top."""
    paths = []
    for state in sorted({box.state for box in boxes[1:]}, key=lambda state: LOOKS[state].width):
        parts = []
        for i, box in enumerate(boxes):
            if i and box.state == state:
                (x0, y0), (x1, y1) = places[box.parent], places[i]
                middle = (x0 + x1) / 2
                parts.append(f"M{x0:.1f},{y0:.1f}C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f}")
        look = LOOKS[state]
        dash = {"solid": "", "dash": "5 3", "dot": "1.5 3"}[look.dash]
        line = {
            "stroke": look.line,
            "stroke-width": round(0.6 * look.width, 2),
            "stroke-dasharray": dash,
            "fill": "none",
        }
        paths.append({"tag": "path", "d": "".join(parts), **line})
    return paths


def node(box: Box, x: float, y: float, radius: float, step: Step, token_bytes: Mapping[int, bytes]) -> Element:
    """The symbol of a state: filled if the token is in the text."""
    look = LOOKS[box.state]
    fill = look.color if look.filled else "transparent"
    shape = {"d": symbol(look.symbol, x, y, radius), "fill": fill, "stroke": look.line, "stroke-width": 1.3}
    return {"tag": "path", **shape, "title": title(box, step, token_bytes)}


def symbol(kind: str, x: float, y: float, r: float) -> str:
    """SVG path of a Plotly symbol."""
    match kind:
        case "x":
            return f"M{x - r:.1f},{y - r:.1f}L{x + r:.1f},{y + r:.1f}M{x - r:.1f},{y + r:.1f}L{x + r:.1f},{y - r:.1f}"
        case "square":
            return f"M{x - r:.1f},{y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}Z"
        case "diamond":
            return f"M{x:.1f},{y - r:.1f}L{x + r:.1f},{y:.1f}L{x:.1f},{y + r:.1f}L{x - r:.1f},{y:.1f}Z"
        case "triangle-right":
            return f"M{x - r:.1f},{y - r:.1f}L{x + r:.1f},{y:.1f}L{x - r:.1f},{y + r:.1f}Z"
        case "star":
            spikes = ((1.3 if k % 2 == 0 else 0.55, -pi / 2 + k * pi / 5) for k in range(10))
            return "M" + "L".join(f"{x + r * s * cos(a):.1f},{y + r * s * sin(a):.1f}" for s, a in spikes) + "Z"
    return f"M{x - r:.1f},{y:.1f}a{r:.1f},{r:.1f} 0 1,0 {2 * r:.1f},0a{r:.1f},{r:.1f} 0 1,0 {-2 * r:.1f},0Z"


def title(box: Box, step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """What the mouse finds."""
    if box.index == ROOT or box.token is None:  # the root alone may have none
        return "root: the end of the text so far"
    shown = f"{name(box.token, token_bytes)}: {LOOKS[box.state].mark} {box.state}"
    folded = f", {box.hidden} nodes below that were not judged are not drawn" if box.hidden else ""
    return shown + ("" if box.index == final_index(step) else f", p {number(step.nodes[box.index].p)}") + folded


def labels(
    boxes: list[Box], places: list[tuple[float, float]], room: float, step: Step, token_bytes: Mapping[int, bytes]
) -> list[Element]:
    """The tokens that went into the text, above their symbols, as far as there is room."""
    limit = int((room - 4) / LETTER)
    path = set(step.path) | {final_index(step)}
    if limit < 3:
        return []
    style = {"font-size": 10, "font-family": MONO, "fill": "currentColor"}
    return [
        {"tag": "text", "x": round(x - 5, 1), "y": round(y - 8, 1), **style, "text": name(box.token, token_bytes, limit)}
        for box, (x, y) in zip(boxes, places, strict=True)
        if box.index in path and box.token is not None
    ]
