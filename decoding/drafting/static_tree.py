"""A fixed tree of the ranks that are most often right: for guessers that each speak of one place and do not see each other's picks.

Cai et al. 2024, https://arxiv.org/abs/2401.10774, section 2.3.3. A path (2, 0) is the third-best token of the first guesser and,
behind it, the best of the second. How often every rank is right is measured on held-out text.
"""

import heapq
import math
from collections.abc import Sequence
from functools import cache

Path = tuple[int, ...]  # ranks, from 0: of guesser 1, guesser 2, ...


@cache
def sparse_tree(ranks: tuple[tuple[float, ...], ...], nodes: int) -> tuple[Path, ...]:
    """The `nodes` paths with the largest products of accuracies, breadth first (section 2.3.3).

    A path is worth the chance that all of its guesses are right, as if guessers were independent; grown from the root, always by
    the child or next sibling that is worth most. Of equals the shorter path comes first, then the lower ranks.

    Args:
        ranks: [k][i] how often rank i of guesser k + 1 is right.

    >>> sparse_tree(((0.5, 0.2, 0.1), (0.3, 0.15, 0.1)), 6)
    ((0,), (1,), (2,), (0, 0), (0, 1), (1, 0))
    """
    chosen: list[Path] = []
    waiting = [(-ranks[0][0], 1, (0,))]
    while waiting and len(chosen) < nodes:
        value, depth, path = heapq.heappop(waiting)
        chosen.append(path)
        *above, last = path
        if last + 1 < len(ranks[depth - 1]):
            sibling = (*above, last + 1)
            heapq.heappush(waiting, (-worth(ranks, sibling), depth, sibling))
        if depth < len(ranks):
            heapq.heappush(waiting, (value * ranks[depth][0], depth + 1, (*path, 0)))
    return tuple(sorted(chosen, key=lambda path: (len(path), path)))


def parents_of(paths: Sequence[Path]) -> tuple[int, ...]:
    """(n,) the place of the parent of every path among them, -1 for the root; parents stand first.

    >>> parents_of(((0,), (1,), (1, 0)))
    (-1, -1, 1)
    """
    place = {(): -1} | {path: i for i, path in enumerate(paths)}
    return tuple(place[path[:-1]] for path in paths)


def worth(ranks: Sequence[Sequence[float]], path: Path) -> float:
    """The chance that a whole path is right, if guessers were independent.

    >>> worth(((0.5, 0.2), (0.3, 0.15)), (0, 1))
    0.075
    """
    return math.prod(ranks[k][rank] for k, rank in enumerate(path))
