"""What two methods drafted at the same place, in words."""

from collections.abc import Mapping, Sequence

from decoding.trace import Node, Step
from viz.runs.tally import depths
from viz.tokens import quoted


def beside_words(mine: Step, theirs: Step, title: str, token_bytes: Mapping[int, bytes], why: str = "") -> str:
    """How the drafts of one place differ; plain text.

    Args:
        theirs: the step of the other method, of the name `title`.
        token_bytes: of both.
        why: nothing was drafted, as the end of a sentence, if that is known.
    """
    if not theirs.nodes:
        if why:
            return f"{title} drafts nothing here: {why}."
        return f"{title} drafts nothing here. It was asked for this one step: what it may gather in steps before is not there."
    said = (
        f"{title} drafts {len(theirs.nodes)} {'token' if len(theirs.nodes) == 1 else 'tokens'}, {max(depths(theirs))} deep, and "
        f"{len(theirs.path)} would be accepted; here {len(mine.nodes)} were drafted and {len(mine.path)} accepted."
    )
    ours, others = paths(mine.nodes), paths(theirs.nodes)
    only = [path for path in others if path not in ours]
    shared = f" {len(others) - len(only)} of its {len(others)} paths are in this draft too"
    return f"{said}{shared}{f'; not {quoted(only[0][-1], token_bytes)}, for one' if only else ''}."


def paths(nodes: Sequence[Node]) -> dict[tuple[int, ...], int]:
    """The tokens down to every node -> the node; siblings may repeat a token, the eldest counts."""
    down: list[tuple[int, ...]] = []
    for node in nodes:
        down.append((*(down[node.parent] if node.parent >= 0 else ()), node.token))
    return {path: i for i, path in reversed(tuple(enumerate(down)))}
