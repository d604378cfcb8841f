"""What of a draft tree is drawn, where and how big: boxes and the frame they stand in.

Left to right: the root (end of the committed text), one column per depth, siblings from top to bottom in the order
they were drawn, and the final token (bonus, correction or plain) as the last child where the walk stopped. Where not everything
fits, what was not judged is folded first. Knows one step and px, no colours and no letters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from decoding.trace import Step
from viz.runs.tally import depths
from viz.step.tidy import tidy

ROOT = -1
COLLAPSE_ABOVE = 160  # nodes; more than that and not judged branches become a count
FEW = (16, 8, 4, 2)  # not judged siblings still drawn when even that is too much: the first number that fits
HALF = 0.38  # of a box, in columns
COLUMN = 62  # px of a column that a word of six letters needs
MAX_HEIGHT, TOP, BOTTOM = 900, 40, 12  # px
ROOMY, TIGHT, TIGHTEST = 46, 22, 10.5  # px per row: two lines of text, one line, small print


@dataclass(frozen=True)
class Box:
    """One thing to draw: root, node or final token."""

    index: int
    parent: int  # place in the list of boxes; -1 for the root
    state: str
    token: int | None
    hidden: int = 0  # nodes below it that are not drawn


@dataclass(frozen=True)
class Frame:
    """Where the boxes are and how big, so that every part of the figure agrees."""

    column: list[int]
    row: list[float]
    columns: int
    rows: float
    width: int  # px the page is expected to give

    @property
    def row_px(self) -> float:
        return (self.height - TOP - BOTTOM) / self.rows

    @property
    def height(self) -> int:
        """px; grows with the rows, first at full size, then by squeezing, then by tight rows up to the cap."""
        wanted = max(min(self.rows, 10) * ROOMY, self.rows * TIGHT)
        return int(min(MAX_HEIGHT, wanted + TOP + BOTTOM))

    @property
    def column_px(self) -> float:
        return (self.width - 16) / self.columns

    @property
    def font(self) -> float:
        return max(7.5, min(13, 0.72 * self.row_px, max(9.5, self.column_px / 9)))

    @property
    def two_lines(self) -> bool:
        return self.row_px >= 40

    @property
    def limit(self) -> int:
        """Characters that fit into a box behind its symbol."""
        return int((2 * HALF * self.column_px - 12) / (0.61 * self.font)) - 1

    @property
    def symbol(self) -> float:
        """Size of the symbols in px."""
        return max(5.0, min(11.0, 0.55 * self.row_px))

    def stroke(self, width: float) -> float:
        """Line width in px, thinner where rows are tight."""
        return width * max(0.5, min(1.0, self.row_px / 20))


def final_index(step: Step) -> int:
    """The number the final token goes by in `customdata` and `selected`."""
    return len(step.nodes)


def has_final(step: Step) -> bool:
    """Whether the target added a token; not so where the text ended inside the accepted path."""
    return bool(step.origins) and step.origins[-1] != "accepted"


def extent_of(steps: Iterable[Step]) -> tuple[int, float]:
    """(columns, rows) that hold the tree of every step: pass it to `tree_figure` for a picture that keeps still."""
    frames = [frame_of(boxes_of(step), step) for step in steps]
    return max((f.columns for f in frames), default=6), max((f.rows for f in frames), default=3)


def wide_enough(step: Step) -> int:
    """px in which a deep tree keeps room for its words."""
    return COLUMN * (max(depths(step), default=0) + 2) + 16


def boxes_of(step: Step, root: int | None = None, selected: int | None = None) -> list[Box]:
    """Root, drawn nodes, final token: parents before children, siblings in draw order, the final token last."""
    drawn = shown_nodes(step, selected)
    place = {ROOT: 0} | {node: i for i, node in enumerate(drawn, 1)}
    hidden = hidden_below(step, place)
    boxes = [Box(ROOT, -1, "prompt", root, hidden.get(ROOT, 0))]
    for i in drawn:
        node = step.nodes[i]
        boxes.append(Box(i, place[node.parent], node.verdict, node.token, hidden.get(i, 0)))
    if has_final(step):
        end = step.path[-1] if step.path else ROOT
        boxes.append(Box(final_index(step), place[end], step.origins[-1], step.tokens[-1]))
    return boxes


def shown_nodes(step: Step, selected: int | None = None) -> list[int]:
    """The nodes to draw: all if they fit, else none not judged below not judged, else only the first few not judged siblings."""
    everything = list(range(len(step.nodes)))
    if len(everything) <= COLLAPSE_ABOVE and fits(step, everything):
        return everything
    outer = with_ancestors(step, [i for i in everything if not below_not_judged(step, i)], selected)
    fewer = (with_ancestors(step, first_siblings(step, outer, few), selected) for few in FEW)
    return next((drawn for drawn in (outer, *fewer) if fits(step, drawn)), outer)


def fits(step: Step, drawn: Sequence[int]) -> bool:
    """Whether every row can be tall enough for letters."""
    place = {ROOT: 0} | {node: i for i, node in enumerate(drawn, 1)}
    rows = tidy([-1, *(place[step.nodes[i].parent] for i in drawn)])[1]
    return max(rows) + 2 <= (MAX_HEIGHT - TOP - BOTTOM) / TIGHTEST


def below_not_judged(step: Step, i: int) -> bool:
    node = step.nodes[i]
    return node.verdict == "not judged" and node.parent != ROOT and step.nodes[node.parent].verdict == "not judged"


def first_siblings(step: Step, drawn: Sequence[int], few: int) -> list[int]:
    """All that was judged, and of the not judged the first `few` of each parent."""
    seen: dict[int, int] = {}
    kept = []
    for i in drawn:
        node = step.nodes[i]
        seen[node.parent] = seen.get(node.parent, 0) + (node.verdict == "not judged")
        if node.verdict != "not judged" or seen[node.parent] <= few:
            kept.append(i)
    return kept


def with_ancestors(step: Step, drawn: Iterable[int], selected: int | None) -> list[int]:
    """Add the selected node, and what the nodes hang from."""
    kept: set[int] = {ROOT}
    chosen = [selected] if selected is not None and 0 <= selected < len(step.nodes) else []
    for i in (*drawn, *step.path, *chosen):
        while i not in kept:
            kept.add(i)
            i = step.nodes[i].parent
    return sorted(kept - {ROOT})


def hidden_below(step: Step, place: Mapping[int, int]) -> dict[int, int]:
    """How many nodes are left out below each drawn one."""
    counts: dict[int, int] = {}
    for i in range(len(step.nodes)):
        if i not in place:
            above = i
            while above not in place:
                above = step.nodes[above].parent
            counts[above] = counts.get(above, 0) + 1
    return counts


def frame_of(boxes: Sequence[Box], step: Step, width: int = 900, extent: tuple[int, float] = (6, 3)) -> Frame:
    """Lay the boxes out; one column more than the draft is deep, for a bonus that may or may not come."""
    column, row = tidy([box.parent for box in boxes])
    deepest = max(column[: len(boxes) - has_final(step)])
    columns = max(extent[0], deepest + 2)
    rows = max(extent[1], max(row) + 1)
    return Frame(column, row, columns, rows, width)
