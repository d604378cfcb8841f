"""What is particular to Medusa: what every head guessed, how often each was right so far, and guesses that do not belong
together.

A node says which head it comes from in its source, and carries the head's probability, the token's rank at that head and the worth
of its path in the tree as it was grown. All heads guess from one state, so none knows what another picked.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import HEAD_PROBABILITY, RANK, TREE_VALUE, TYPICAL_P, TYPICAL_THRESHOLD
from decoding.trace import Node, Step, Trace, number_in
from viz.methods.shared import head_bars as depths_view
from viz.methods.shared.head_bars import Guess, Record, guess_bars, in_words, side_by_side
from viz.methods.shared.misfits import LIKELY, misfit_words, misfits, p_behind_parent
from viz.runs.tally import depths
from viz.style import with_mark
from viz.tokens import full_name
from viz.words import node_name


def has_heads(step: Step) -> bool:
    """Whether the nodes carry the numbers of this view; an imported trace may not."""
    return all(HEAD_PROBABILITY in node.scores and RANK in node.scores for node in step.nodes)


def guesses(step: Step) -> list[list[Guess]]:
    """Per head the tokens that it offered, the best first. Head k's nodes are those at depth k."""
    by_head: list[dict[int, list[Node]]] = []
    for node, depth in zip(step.nodes, depths(step), strict=True):
        by_head += [{} for _ in range(depth - len(by_head))]
        by_head[depth - 1].setdefault(node.token, []).append(node)
    return [sorted((guess(nodes) for nodes in by_token.values()), key=lambda g: g.rank) for by_token in by_head]


def guess(nodes: Sequence[Node]) -> Guess:
    best = min(nodes, key=lambda node: ("accepted", "rejected", "not judged").index(node.verdict))
    return Guess(best.token, number_in(best.scores, RANK, 0), best.scores[HEAD_PROBABILITY], len(nodes), best.verdict)


def guesses_html(trace: Trace, cursor: int) -> str:
    """The heads of one step, "" where the trace lacks the numbers: HTML."""
    step = trace.steps[cursor]
    return heads_html(step, trace.token_bytes) if step.nodes and has_heads(step) else ""


def heads_html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The heads side by side, each with its best tokens as bars and the mark of what became of them: HTML."""
    columns = [guess_bars(f"head {k}", offered, token_bytes) for k, offered in enumerate(guesses(step), 1)]
    return side_by_side(columns, heads_alt(step, token_bytes))


def heads_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The bars in words; plain text."""
    parts = [in_words(f"head {k}", offered, token_bytes) for k, offered in enumerate(guesses(step), 1)]
    return "The best guesses of every head. " + ("; ".join(parts) or "Nothing was drafted") + "."


def heads_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node: its head, its rank there, what its path was worth when the tree was grown, and what the target thought."""
    rows = []
    for i, (node, depth) in enumerate(zip(step.nodes, depths(step), strict=True)):
        above = node_name(step, node.parent, token_bytes, full_name)
        rows.append(
            (
                depth,
                number_in(node.scores, RANK, 0),
                full_name(node.token, token_bytes),
                above,
                node.scores.get(TREE_VALUE),
                node.scores[HEAD_PROBABILITY],
                p_behind_parent(step, i),
                node.scores.get(TYPICAL_THRESHOLD),
                with_mark(node.verdict),
            )
        )
    columns = ["head", "rank", "token", "below", "worth of the path", "head's probability", "p behind the parent"]
    frame = pd.DataFrame(rows, columns=[*columns, "threshold", "verdict"])
    return frame if any(TYPICAL_THRESHOLD in node.scores for node in step.nodes) else frame.drop(columns="threshold")


def torn(step: Step) -> list[int]:
    """Nodes that their head believed in and that the target rules out behind their parent: the price of heads that do not see each
    other's picks. Children of the root are left out: there only one head is concerned."""
    return misfits(step, HEAD_PROBABILITY, lambda node: node.parent >= 0)


def torn_words(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The same in a sentence; plain text."""
    misfitting = torn(step)
    if not misfitting:
        return "No head believed in a token that the target rules out behind its parent."
    nodes = "node does" if len(misfitting) == 1 else "nodes do"
    return f"{len(misfitting)} {nodes} not fit what stands before, though the head gave more than {LIKELY:g}: " + misfit_words(
        step, misfitting[0], HEAD_PROBABILITY, token_bytes
    )


def typical_words(step: Step) -> str:
    """How typical acceptance decided; "" under another rule."""
    nodes = [node for node in step.nodes if TYPICAL_THRESHOLD in node.scores]
    if not nodes:
        return ""
    passed = sum(node.scores.get(TYPICAL_P, node.p) > node.scores[TYPICAL_THRESHOLD] for node in nodes)
    return (
        f"Typical acceptance: {passed} of {len(nodes)} nodes lie above their threshold min(ε, δ·exp(−H)); the longest path of such "
        "nodes is kept, whatever the target would have drawn."
    )


# -- over the run ------------------------------------------------------------------------------------------------------


def records(steps: Sequence[Step]) -> list[Record]:
    """How often every head was right about what was written in the end, and how often a node of its was accepted.

    Right and not accepted is a guess that the tree did not offer behind the path that was taken.
    """
    text = [token for step in steps for token in step.tokens]
    sums: list[list[int]] = []
    start = 0
    for step in steps:
        if has_heads(step):
            offered = guesses(step)
            sums += [[0, 0, 0, 0] for _ in range(len(offered) - len(sums))]
            for k, of_head in enumerate(offered):
                if start + k < len(text):
                    written = text[start + k]
                    sums[k][0] += 1
                    sums[k][1] += any(g.token == written and g.rank == 1 for g in of_head)
                    sums[k][2] += any(g.token == written for g in of_head)
                    sums[k][3] += any(g.verdict == "accepted" for g in of_head)
        start += len(step.tokens)
    return [Record(k, *counts) for k, counts in enumerate(sums, 1) if counts[0]]


def records_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Three bars per head, as shares of the steps in which it guessed."""
    return depths_view.records_figure(records(steps), dark)


def records_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per head."""
    return depths_view.records_table(records(steps))


def records_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    return depths_view.records_alt(records(steps))
