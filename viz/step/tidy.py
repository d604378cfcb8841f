"""Where the boxes of a tree go: columns by depth, rows without overlap. Knows parents only, no tokens and no pixels."""

from collections.abc import Sequence
from itertools import pairwise


def tidy(parents: Sequence[int]) -> tuple[list[int], list[float]]:
    """Tidy tree: (column, row) of each item; item 0 is the root, parents come before children.

    Siblings come best first, so the likely path runs straight along the top and the root never moves. Every column
    keeps the order of the one before it, so no edges cross; the fullest column sets the number of rows.
    """
    children: list[list[int]] = [[] for _ in parents]
    for item, parent in enumerate(parents[1:], 1):
        children[parent].append(item)
    levels = [[0]]
    while below := [child for item in levels[-1] for child in children[item]]:
        levels.append(below)
    column = [0] * len(parents)
    for depth, level in enumerate(levels):
        for item in level:
            column[item] = depth
    row = pack(levels, parents)
    last = max(row)
    for level in reversed(levels[1:]):
        settle(level, children, parents, row, last)
    return column, row


def pack(levels: Sequence[Sequence[int]], parents: Sequence[int]) -> list[float]:
    """Rows that fill every column from the top, no item above its parent."""
    row = [0.0] * len(parents)
    for level in levels[1:]:
        row[level[0]] = row[parents[level[0]]]
        for above, item in pairwise(level):
            row[item] = max(row[parents[item]], row[above] + gap(above, item, parents))
    return row


def settle(level: Sequence[int], children: Sequence[Sequence[int]], parents: Sequence[int], row: list[float], last: float) -> None:
    """Move the items of a column down, each level with its first child, as far as the rows up to `last` allow."""
    spaces = [gap(above, below, parents) for above, below in pairwise(level)]
    free, latest = 0.0, last - sum(spaces)
    for item, space in zip(level, [*spaces, 0.0], strict=True):
        wish = row[children[item][0]] if children[item] else row[item]
        row[item] = min(max(wish, free), latest)
        free, latest = row[item] + space, latest + space


def gap(above: int, below: int, parents: Sequence[int]) -> float:
    """Rows between neighbours of a column: cousins stand a little further apart than siblings."""
    return 1.0 if parents[above] == parents[below] else 1.3
