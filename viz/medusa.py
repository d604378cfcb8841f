"""What is particular to Medusa: what every head guessed, how often each was right so far, and guesses that do not belong
together.

A node says which head it comes from in its source, and carries the head's probability, the token's rank at that head and the worth
of its path in the tree as it was grown. All heads guess from one state, so none knows what another picked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.trace import Node, Step
from viz.style import GRID, LOOKS, SERIES, SERIES_LINE, SERIES_PATTERN, SERIES_STRIPES, ink, layout
from viz.tally import depths
from viz.tokens import as_html, full, name, quoted
from viz.words import number

PROBABILITY, RANK, VALUE = "head probability", "rank", "tree value"  # scores
P, THRESHOLD = "typical p", "typical threshold"
LIKELY, UNLIKELY = 0.1, 1e-3  # a head's probability and the target's behind the parent: a path that does not belong together
SHOWN = 6  # tokens of a head


@dataclass(frozen=True)
class Guess:
    """A token that a head offered, at one or more places of the tree."""

    token: int
    rank: int  # from 1
    probability: float
    places: int  # nodes
    verdict: str  # of the place that got furthest


@dataclass(frozen=True)
class Record:
    """A head over the run so far."""

    head: int
    asked: int  # steps in which it guessed and the text has got as far as its guess
    top: int  # its best token is what was written there
    any: int  # one of its tokens in the tree is
    accepted: int  # a node of its was accepted


def has_heads(step: Step) -> bool:
    """Whether the nodes carry the numbers of this view; an imported trace may not."""
    return all(PROBABILITY in node.scores and RANK in node.scores for node in step.nodes)


def guesses(step: Step) -> list[list[Guess]]:
    """Per head the tokens that it offered, the best first. Head k's nodes are those at depth k."""
    found: list[dict[int, list[Node]]] = []
    for node, depth in zip(step.nodes, depths(step), strict=True):
        found += [{} for _ in range(depth - len(found))]
        found[depth - 1].setdefault(node.token, []).append(node)
    return [sorted((guess(nodes) for nodes in by_token.values()), key=lambda g: g.rank) for by_token in found]


def guess(nodes: Sequence[Node]) -> Guess:
    best = min(nodes, key=lambda node: ("accepted", "rejected", "unread").index(node.verdict))
    return Guess(best.token, int(best.scores[RANK]), best.scores[PROBABILITY], len(nodes), best.verdict)


def heads_html(step: Step, pieces: Mapping[int, bytes]) -> str:
    """The heads side by side, each with its best tokens as bars and the mark of what became of them: HTML."""
    columns = "".join(head_bars(k, found, pieces) for k, found in enumerate(guesses(step), 1))
    alt = as_html(heads_alt(step, pieces))
    return f'<div role="img" aria-label="{alt}" style="display:flex;gap:1.2rem;flex-wrap:wrap">{columns}</div>'


def head_bars(k: int, found: Sequence[Guess], pieces: Mapping[int, bytes]) -> str:
    listed = [g for i, g in enumerate(found) if i < SHOWN or g.verdict == "accepted"]
    look = f"background:{SERIES_STRIPES['q']};border-color:{SERIES_LINE['q']}"
    rows = "".join(
        f'<div class="ds-bars-name{" ds-bars-now" * (g.verdict == "accepted")}">{LOOKS[g.verdict].mark} '
        f"{as_html(name(g.token, pieces))}</div>"
        f'<div class="ds-bars-group"><div><i style="--w:{100 * g.probability:.2f}%;{look}"></i>'
        f"<span>{number(g.probability, 2)}</span></div></div>"
        for g in listed
    )
    more = f'<div class="ds-dim">and {len(found) - len(listed)} more</div>' if len(found) > len(listed) else ""
    return f'<div style="flex:1;min-width:11rem"><b>head {k}</b><div class="ds-bars">{rows}</div>{more}</div>'


def heads_alt(step: Step, pieces: Mapping[int, bytes]) -> str:
    """The bars in words; plain text."""
    parts = [
        f"head {k}: " + ", ".join(f"{name(g.token, pieces)} {number(g.probability, 2)} {g.verdict}" for g in found[:3])
        for k, found in enumerate(guesses(step), 1)
    ]
    return "The best guesses of every head. " + ("; ".join(parts) or "Nothing was drafted") + "."


def heads_table(step: Step, pieces: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node: its head, its rank there, what its path was worth when the tree was grown, and what the target thought."""
    rows = []
    for i, (node, depth) in enumerate(zip(step.nodes, depths(step), strict=True)):
        above = "the root" if node.parent < 0 else shown(step.nodes[node.parent].token, pieces)
        rows.append(
            (
                depth,
                int(node.scores[RANK]),
                shown(node.token, pieces),
                above,
                node.scores.get(VALUE),
                node.scores[PROBABILITY],
                behind(step, i),
                node.scores.get(THRESHOLD),
                f"{LOOKS[node.verdict].mark} {node.verdict}".strip(),
            )
        )
    columns = ["head", "rank", "token", "below", "worth of the path", "head's probability", "p behind the parent"]
    frame = pd.DataFrame(rows, columns=[*columns, "threshold", "verdict"])
    return frame if any(THRESHOLD in node.scores for node in step.nodes) else frame.drop(columns="threshold")


def shown(token: int, pieces: Mapping[int, bytes]) -> str:
    return full(pieces[token]) if token in pieces else f"#{token}"


def behind(step: Step, i: int) -> float | None:
    """The target's probability of node i behind its parent, elder siblings or not; at temperature 1 in a greedy run. None if it was
    not recorded."""
    row = step.rows[step.nodes[i].parent + 1] if step.rows else None
    if row is None:
        return None
    return dict(zip(row.tokens, row.p, strict=True)).get(step.nodes[i].token, 0.0)  # what is not listed has no probability


def torn(step: Step) -> list[int]:
    """Nodes that their head believed in and that the target rules out behind their parent: the price of heads that do not see each
    other's picks. Children of the root are left out: there only one head is concerned."""
    return [
        i
        for i, node in enumerate(step.nodes)
        if node.parent >= 0 and node.scores[PROBABILITY] > LIKELY and (p := behind(step, i)) is not None and p < UNLIKELY
    ]


def torn_words(step: Step, pieces: Mapping[int, bytes]) -> str:
    """The same in a sentence; plain text."""
    found = torn(step)
    if not found:
        return "No head believed in a token that the target rules out behind its parent."
    first = step.nodes[found[0]]
    nodes = "node does" if len(found) == 1 else "nodes do"
    return (
        f"{len(found)} {nodes} not fit what stands before, though the head gave more than {LIKELY:g}: behind "
        f"{quoted(step.nodes[first.parent].token, pieces)} the target gives {quoted(first.token, pieces)} "
        f"{number(behind(step, found[0]) or 0.0)}, the head {number(first.scores[PROBABILITY])}."
    )


def typical_words(step: Step) -> str:
    """How typical acceptance decided; "" under another rule."""
    nodes = [node for node in step.nodes if THRESHOLD in node.scores]
    if not nodes:
        return ""
    passed = sum(node.scores.get(P, node.p) > node.scores[THRESHOLD] for node in nodes)
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
            for k, found in enumerate(offered):
                if start + k < len(text):
                    written = text[start + k]
                    sums[k][0] += 1
                    sums[k][1] += any(g.token == written and g.rank == 1 for g in found)
                    sums[k][2] += any(g.token == written for g in found)
                    sums[k][3] += any(g.verdict == "accepted" for g in found)
        start += len(step.tokens)
    return [Record(k, *counts) for k, counts in enumerate(sums, 1) if counts[0]]


BARS = (("top", "best token right", "q"), ("any", "one of its tokens right", "rest"), ("accepted", "accepted", "p"))


def records_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Three bars per head: its best token right, one of its tokens right, accepted; shares of the steps in which it guessed."""
    found = records(steps)
    figure = go.Figure(layout=layout(300, dark, barmode="group", bargap=0.3))
    for key, label, look in BARS:
        figure.add_bar(
            name=label,
            x=[f"head {r.head}" for r in found],
            y=[getattr(r, key) / r.asked for r in found],
            text=[f"{getattr(r, key)}/{r.asked}" for r in found],
            textposition="outside",
            textfont={"color": ink(dark)},
            cliponaxis=False,
            marker={
                "color": SERIES[look],
                "line": {"color": SERIES_LINE[look], "width": 1},
                "pattern": {"shape": SERIES_PATTERN[look], "solidity": 0.3, "fgcolor": SERIES_LINE[look], "bgcolor": SERIES[look]},
            },
            hovertemplate=f"%{{x}}<br>{label}: %{{text}}, %{{y:.2f}}<extra></extra>",
        )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(range=[0, 1.12], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 32})


def records_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per head."""
    rows = [(r.head, r.asked, r.top / r.asked, r.any / r.asked, r.accepted / r.asked) for r in records(steps)]
    return pd.DataFrame(rows, columns=["head", "steps", "best token right", "one of its tokens right", "accepted"])


def records_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    parts = [f"head {r.head}: best right {r.top}, any right {r.any}, accepted {r.accepted} of {r.asked}" for r in records(steps)]
    return "How often every head was right so far. " + ("; ".join(parts) or "No head has guessed yet") + "."
