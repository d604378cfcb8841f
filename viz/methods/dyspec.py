"""DySpec's tree as it grew: the tree after k draws, the draws that were waiting then, and whether the estimates came true.

All of it follows from two numbers that every node carries: the estimate that its draw is reached, from before it was made, and W,
the product of q along its path, from after it. The next draw at a node is worth its own W less that of the children it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from msgspec.structs import replace

from decoding.score_names import ESTIMATE_AFTER, ESTIMATE_BEFORE
from decoding.trace import Step
from viz.step.boxes import ROOT
from viz.style import SERIES_LINE, SERIES_STRIPES, with_mark
from viz.tokens import as_html, name
from viz.words import node_name, number

LISTED = 8  # waiting draws that are shown


@dataclass(frozen=True)
class Waiting:
    """A draw that could be made next: one more child of a node."""

    node: int  # or ROOT
    child: int  # 1 = its first
    value: float  # the estimate that the verifier reaches it


def has_estimates(step: Step) -> bool:
    """Whether the nodes carry the numbers of this view; an imported trace may not."""
    return all(ESTIMATE_BEFORE in node.scores and ESTIMATE_AFTER in node.scores for node in step.nodes)


def weight(step: Step, node: int) -> float:
    """W: the product of q along the path down to `node`."""
    return 1.0 if node == ROOT else step.nodes[node].scores[ESTIMATE_AFTER]


def regrown(step: Step, count: int) -> Step:
    """The step with its first `count` draws only, and without the token the target added."""
    path = tuple(node for node in step.path if node < count)
    nodes = step.nodes[:count]
    tokens = tuple(nodes[node].token for node in path)
    return replace(step, nodes=nodes, rows=(), path=path, tokens=tokens, origins=("accepted",) * len(path))


def waiting(step: Step, count: int) -> list[Waiting]:
    """The draws that could be made after the first `count`, the most promising first."""
    spent, children = {ROOT: 0.0}, {ROOT: 0}
    for node in range(count):
        spent[node], children[node] = 0.0, 0
        parent = step.nodes[node].parent
        spent[parent] += weight(step, node)
        children[parent] += 1
    draws = [Waiting(node, children[node] + 1, max(0.0, weight(step, node) - spent[node])) for node in spent]
    return sorted(draws, key=lambda draw: (-draw.value, draw.node))


def draw_name(draw: Waiting, step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """Plain text."""
    at = node_name(step, draw.node, token_bytes)
    return f"child {draw.child} of {at}"


def waiting_bars(step: Step, count: int, token_bytes: Mapping[int, bytes]) -> str:
    """The most promising of the waiting draws as bars, the one that is made next marked: HTML."""
    draws = waiting(step, count)
    parent = step.nodes[count].parent if count < len(step.nodes) else None
    shown = [draw for i, draw in enumerate(draws) if i < LISTED or draw.node == parent]
    look = f"background:{SERIES_STRIPES['q']};border-color:{SERIES_LINE['q']}"
    rows = "".join(
        f'<div class="ds-bars-name{" ds-bars-now" * (draw.node == parent)}">{as_html(draw_name(draw, step, token_bytes))}'
        f"{'<small>▶ made next</small>' * (draw.node == parent)}</div>"
        f'<div class="ds-bars-group"><div><i style="--w:{100 * draw.value:.2f}%;{look}"></i><span>{number(draw.value, 2)}</span>'
        "</div></div>"
        for draw in shown
    )
    more = f"<span>and {len(draws) - len(shown)} more</span>" if len(draws) > len(shown) else ""
    alt = as_html(waiting_alt(step, count, token_bytes))
    return f'<div class="ds-bars" role="img" aria-label="{alt}">{rows}</div><div class="ds-keys">{more}</div>'


def waiting_alt(step: Step, count: int, token_bytes: Mapping[int, bytes]) -> str:
    """The bars in words; plain text."""
    listed = ", ".join(f"{draw_name(draw, step, token_bytes)} {number(draw.value, 2)}" for draw in waiting(step, count)[:3])
    return f"After {count} draws the most promising next ones: {listed}."


def draws_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """Every draw in the order it was made."""
    rows = [
        (
            order,
            name(node.token, token_bytes),
            node_name(step, node.parent, token_bytes),
            node.scores[ESTIMATE_BEFORE],
            node.scores[ESTIMATE_AFTER],
            with_mark(node.verdict),
        )
        for order, node in enumerate(step.nodes, 1)
    ]
    return pd.DataFrame(rows, columns=["draw", "token", "below", "estimate before", "W after", "verdict"])


def draw_words(step: Step, count: int, token_bytes: Mapping[int, bytes]) -> str:
    """What the last of the first `count` draws brought; plain text."""
    if not count:
        return "Before the first draw only the root's first child waits, with certainty."
    node = step.nodes[count - 1]
    before, after = node.scores[ESTIMATE_BEFORE], node.scores[ESTIMATE_AFTER]
    luck = " An unlikely token came out, and it stays: to throw it away would change the law." if after < 0.1 * before else ""
    return (
        f"Draw {count} was made because it was reached with an estimated chance of {number(before)}; it brought "
        f"{name(node.token, token_bytes)}, and the chance to get through it is {number(after)}.{luck}"
    )


def reached(steps: Sequence[Step]) -> pd.DataFrame:
    """Every draw of the steps: its estimate as `confidence`, and whether the verifier came to it as `accepted`."""
    rows = [
        (node.scores[ESTIMATE_BEFORE], node.verdict != "not judged") for step in steps if has_estimates(step) for node in step.nodes
    ]
    return pd.DataFrame(rows, columns=["confidence", "accepted"]).astype({"confidence": float, "accepted": bool})


def sum_words(steps: Sequence[Step]) -> str:
    """The sum of all W against the tokens that were accepted; plain text."""
    drafted = [step for step in steps if step.nodes and has_estimates(step)]
    if not drafted:
        return "Nothing was drafted so far."
    expected = sum(weight(step, node) for step in drafted for node in range(len(step.nodes))) / len(drafted)
    accepted = sum(len(step.path) for step in drafted) / len(drafted)
    return (
        f"Summed over a tree, W is the number of drafted tokens that the drafter expects to be accepted: {number(expected)} a step "
        f"so far, and {number(accepted)} were."
    )
