"""Token Recycling in pictures: the rows of its table that a call walked, read back from the draft tree: the children of a node are
the candidates of its token, each with its rank."""

import pandas as pd

from decoding.score_names import RANK
from decoding.trace import Step, Trace
from viz.methods.shared.table_rows import table_rows_html
from viz.step.boxes import ROOT
from viz.tokens import Say, full_name, quoted

ROWS = 10  # that are shown; the table lists all
RANKS = 8  # the published table keeps so many


def walked(step: Step) -> dict[int, dict[int, int]]:
    """Node, ROOT first -> rank -> the child that stands at that rank; nodes without children have no row."""
    rows: dict[int, dict[int, int]] = {}
    for i, node in enumerate(step.nodes):
        rank = node.scores.get(RANK, -1.0)
        if 0 <= rank < RANKS and rank == int(rank):
            rows.setdefault(node.parent, {})[int(rank)] = i
    return dict(sorted(rows.items()))


def table_html(trace: Trace, cursor: int) -> str:
    """The first rows of the walk: HTML; "" where nothing was drafted or the trace lacks the ranks."""
    step, rows = trace.steps[cursor], walked(trace.steps[cursor])
    root = trace.root(cursor)
    lines = []
    for parent, ranks in list(rows.items())[:ROWS]:
        token = root if parent == ROOT else step.nodes[parent].token
        cells = [(step.nodes[ranks[r]].token, step.nodes[ranks[r]].verdict) if r in ranks else None for r in range(RANKS)]
        lines.append((token, cells))
    return table_rows_html(lines, trace.token_bytes) if lines else ""


def table_frame(trace: Trace, cursor: int) -> pd.DataFrame:
    """All rows of the walk."""
    step, rows, root = trace.steps[cursor], walked(trace.steps[cursor]), trace.root(cursor)
    named = lambda token: "–" if token is None else full_name(token, trace.token_bytes)  # noqa: E731
    return pd.DataFrame(
        [
            [named(root if parent == ROOT else step.nodes[parent].token)]
            + [named(step.nodes[ranks[r]].token) if r in ranks else "" for r in range(RANKS)]
            for parent, ranks in rows.items()
        ],
        columns=["behind", *(f"candidate {r + 1}" for r in range(RANKS))],
    )


def silence(trace: Trace, cursor: int, say: Say = quoted) -> str:
    """Why nothing was drafted at a step; plain text."""
    root = trace.root(cursor)
    return "" if root is None else f"no call has read {say(root, trace.token_bytes)} yet, so its row of the table is empty"
