"""Places of a run that show something well, found by rules: whatever is recorded anew, the lessons stay true.

Every function takes a trace and gives indices; LookupError if the run has no such place.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from decoding.trace import Node, Row, Step, Trace

T = TypeVar("T")


def best(found: Sequence[T], worth: Callable[[T], float], what: str) -> T:
    if not found:
        raise LookupError(f"The recorded run shows no {what}.")
    return max(found, key=worth)


def is_word(trace: Trace, token: int) -> bool:
    """Whether a token is a word of two letters or more, with a space in front."""
    piece = trace.token_bytes.get(token, b"")
    return len(piece) > 2 and piece[:1] == b" " and piece[1:].isalpha()


def letters(trace: Trace, token: int) -> int:
    return sum(chr(byte).isalpha() for byte in trace.token_bytes.get(token, b""))


def border(node: Node) -> float:
    """The die keeps a guess below it; a chosen guess counts as one that the drafter was sure of."""
    return min(1.0, node.p / (1.0 if node.q is None else node.q)) if node.q != 0 else 1.0


def kept(step: Step) -> int:
    return sum(node.verdict == "accepted" for node in step.nodes)


def all_kept(trace: Trace) -> int:
    """A step whose whole chain was kept and that has a token on top: the one with the most letters."""
    found = [i for i, step in enumerate(trace.steps) if len(step.nodes) > 2 and kept(step) == len(step.nodes)]
    found = [i for i in found if trace.steps[i].origins[-1] == "bonus"]
    return best(found, lambda i: said(trace, i), "call whose guesses were all kept")


def well_kept(trace: Trace) -> int:
    """A step of a chain with the most kept guesses, then a refused one, then a token of the target's; of several that with the most
    letters."""
    found = [i for i, step in enumerate(trace.steps) if 0 < kept(step) < len(step.nodes) and step.origins[-1] == "correction"]
    return best(found, lambda i: 100 * kept(trace.steps[i]) + said(trace, i), "chain that was kept in part")


def said(trace: Trace, step: int) -> int:
    """Letters that a step wrote."""
    return sum(letters(trace, token) for token in trace.steps[step].tokens)


def diced(trace: Trace, verdict: str) -> Iterator[tuple[int, int]]:
    """(step, node) of the guesses that the die decided about, at the root of a chain or behind kept ones, without elder "
    "siblings."""
    for i, step in enumerate(trace.steps):
        for k, node in enumerate(step.nodes):
            elder = any(other.parent == node.parent for other in step.nodes[:k])
            if node.verdict == verdict and not elder and node.u is not None and node.q and 0 < node.p < node.q:
                yield i, k


def die_keeps(trace: Trace) -> tuple[int, int]:
    """A word that the drafter was too sure of, kept by the die."""
    found = [(i, k) for i, k in diced(trace, "accepted") if is_word(trace, trace.steps[i].nodes[k].token)]
    return best(found, lambda one: doubtful(node_at(trace, one)), "guess that the die kept")


def die_refuses(trace: Trace) -> tuple[int, int]:
    """A word that the die turned down, and for which the target wrote another word."""
    corrected = [(i, k) for i, k in diced(trace, "rejected") if trace.steps[i].origins[-1] == "correction"]
    found = [(i, k) for i, k in corrected if all(is_word(trace, token) for token in refused_for(trace.steps[i], k))]
    return best(found, lambda one: doubtful(node_at(trace, one)), "guess that the die refused")


def refused_for(step: Step, node: int) -> tuple[int, int]:
    """What was guessed, and what the target wrote."""
    return step.nodes[node].token, step.tokens[-1]


def doubtful(node: Node) -> float:
    """How far from both ends the border lies."""
    return min(border(node), 1 - border(node))


def node_at(trace: Trace, place: tuple[int, int]) -> Node:
    return trace.steps[place[0]].nodes[place[1]]


def liked_more(trace: Trace) -> tuple[int, int]:
    """A guess that the target likes more than the drafter did, and which the die would have turned down at any other border: the
    highest die."""
    found = [
        (i, k)
        for i, step in enumerate(trace.steps)
        for k, node in enumerate(step.nodes)
        if node.verdict == "accepted" and node.u is not None and node.q and 0.1 < node.q < node.p - 0.1
    ]
    found = [one for one in found if is_word(trace, node_at(trace, one).token)]
    return best(found, lambda one: node_at(trace, one).u or 0.0, "guess that the target likes more")


def varied(trace: Trace) -> tuple[int, int]:
    """(step, row) of a position where the two disagree, both about several tokens: where draws show most."""
    found = []
    for i, step in enumerate(trace.steps):
        for r, row in enumerate(step.rows):
            if row is not None and row.q is not None and row.overlap is not None and r in judged_rows(step):
                found.append((i, r, row))
    return best(found, lambda one: variety(trace, one[2]), "position with two distributions")[:2]


def judged_rows(step: Step) -> set[int]:
    return {node.parent + 1 for node in step.nodes if node.verdict != "not judged"}


def variety(trace: Trace, row: Row) -> float:
    """Number of words that either model thinks of, weighed by how much the two disagree."""
    assert row.q is not None and row.overlap is not None
    likely = [token for token, p, q in zip(row.tokens, row.p, row.q, strict=True) if max(p, q) > 0.04 and is_word(trace, token)]
    return min(len(likely), 6) * min(row.overlap, 1 - row.overlap)


def second_sibling(trace: Trace) -> tuple[int, int]:
    """(step, node) of a kept guess whose elder sibling was refused: a tree that was worth it, with words if possible."""
    found = []
    for i, step in enumerate(trace.steps):
        for k, node in enumerate(step.nodes):
            elder = [other for other in step.nodes[:k] if other.parent == node.parent and other.verdict == "rejected"]
            if node.verdict == "accepted" and elder:
                found.append((i, k, is_word(trace, node.token) + is_word(trace, elder[0].token) + 0.3 * min(kept(step), 3)))
    return best(found, lambda one: one[2], "sibling that was kept behind a refused one")[:2]


def most_kept(trace: Trace) -> int:
    """The step that gave most; of several the first."""
    return best(range(len(trace.steps)), lambda i: len(trace.steps[i].tokens) - i / 1e6, "call")


def none_kept(trace: Trace) -> int:
    """A step all of whose guesses were in vain; of several one with words."""
    found = [i for i, step in enumerate(trace.steps) if step.nodes and not kept(step)]
    return best(
        found, lambda i: sum(is_word(trace, node.token) for node in trace.steps[i].nodes), "call whose guesses were in vain"
    )
