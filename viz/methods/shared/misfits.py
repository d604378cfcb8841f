"""Guesses that do not belong together: a head that does not see the token in front of its own believes in what the target rules out
there."""

from collections.abc import Callable, Mapping

from decoding.trace import Node, Step
from viz.tokens import quoted
from viz.words import number

LIKELY, UNLIKELY = 0.1, 1e-3  # the head's probability and the target's behind the parent: a pair that does not belong together


def p_behind_parent(step: Step, i: int) -> float | None:
    """The target's probability of node i behind its parent, elder siblings or not; at temperature 1 in a greedy run. None if it was
    not recorded."""
    row = step.rows[step.nodes[i].parent + 1] if step.rows else None
    if row is None:
        return None
    return dict(zip(row.tokens, row.p, strict=True)).get(step.nodes[i].token, 0.0)  # what is not listed has no probability


def misfits(step: Step, score: str, unseen: Callable[[Node], bool]) -> list[int]:
    """Nodes that their head believed in and that the target rules out behind their parent.

    Args:
        score: the name of the head's probability.
        unseen: whether the head of a node guessed without its parent.
    """
    believed = [i for i, node in enumerate(step.nodes) if unseen(node) and node.scores[score] > LIKELY]
    return [i for i in believed if (p := p_behind_parent(step, i)) is not None and p < UNLIKELY]


def misfit_words(step: Step, i: int, score: str, token_bytes: Mapping[int, bytes]) -> str:
    """One of them as the end of a sentence; plain text."""
    node = step.nodes[i]
    return (
        f"behind {quoted(step.nodes[node.parent].token, token_bytes)} the target gives {quoted(node.token, token_bytes)} "
        f"{number(p_behind_parent(step, i) or 0.0)}, the head {number(node.scores[score])}."
    )
