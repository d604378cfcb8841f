"""Of a draft whose truth is known: up to which budget the truth is in its set.

As the sets are nested, this one number says it for every budget. What is promised from many of them stands in
`decoding.looks.pac_sets`, where pages read it too.
"""

from collections.abc import Sequence

from decoding.prediction_sets.pruning import as_flags, nested
from decoding.prediction_sets.trees import Tree, admits

BUDGETS = tuple(0.02 * 1.17**i for i in range(48))  # nats, .02 to 32


def holds_up_to(tree: Tree, costs: Sequence[float], truth: Tree, holes: int) -> float:
    """The largest budget at which the truth is in the set; 0 if it is in none but the one that is all hole."""
    found, before = 0.0, None
    for budget, kept in zip(BUDGETS, nested(tree, costs, BUDGETS, holes), strict=True):
        if kept != before and not admits(tree, as_flags(kept, len(tree)), truth):
            return found
        found, before = budget, kept
    return found
