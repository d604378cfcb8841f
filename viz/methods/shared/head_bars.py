"""Drafters that guess depth by depth: bars of one head's guesses, and how often every depth was right so far.

For heads that are told what stands before (Clover, Chimera): what a head offers belongs to one parent, and whether it was right is
judged there alone, where the tree holds what was written before. Heads that know nothing of each other (Medusa) share the bars and
the figures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import JOINT, OWN
from decoding.trace import Step
from viz.style import GRID, LOOKS, SERIES_LINE, SERIES_STRIPES, ink, layout, series_marker
from viz.tokens import as_html, name
from viz.words import node_name, number

SHOWN = 6  # tokens of a head
COLUMNS = "display:grid;gap:1.2rem;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr))"  # of equal width in every row
BARS = {
    "top": ("best token right", "q"),
    "any": ("one of its tokens right", "residual"),
    "accepted": ("accepted", "p"),
}


@dataclass(frozen=True)
class Guess:
    """A token that a head offered."""

    token: int
    rank: int  # from 1
    probability: float
    places: int  # nodes
    verdict: str  # of the place that got furthest; "" for a candidate that did not come into the tree
    why: str = ""  # it did not


@dataclass(frozen=True)
class Record:
    """A head, or a depth, over the run so far."""

    head: int
    asked: int  # guesses that can be judged
    top: int  # its best token is what was written there
    any: int  # one of its tokens in the tree is
    accepted: int  # a node of its was accepted


# -- the guesses of a step ---------------------------------------------------------------------------------------------


def has_numbers(step: Step) -> bool:
    """Whether the nodes carry the numbers of these views; an imported trace may not."""
    return all(JOINT in node.scores and OWN in node.scores for node in step.nodes)


def offers(step: Step, parent: int) -> list[Guess]:
    """What the drafter offered behind a node (-1: the root), the best first: its children, then candidates that were left out."""
    children = [node for node in step.nodes if node.parent == parent]
    above = step.nodes[parent].scores[JOINT] if parent >= 0 else 1.0
    out = [(one.token, one.score / above) for one in step.pruned if one.parent == parent and above > 0]
    offered = [(node.token, node.scores[OWN], node.verdict, "") for node in children]
    offered += [(token, min(q, 1.0), "", "left out") for token, q in out]
    ranked = sorted(offered, key=lambda one: (bool(one[3]), -one[1]))
    return [Guess(token, rank, q, 1, verdict, why) for rank, (token, q, verdict, why) in enumerate(ranked, 1)]


def line(step: Step) -> list[int]:
    """Parents down one path, the root (-1) first: along what was accepted, then along the most probable nodes with children."""
    with_children = {node.parent for node in step.nodes}
    at, path = -1, []
    while at in with_children:
        path.append(at)
        below = [i for i, node in enumerate(step.nodes) if node.parent == at]
        at = max(below, key=lambda i: (i in step.path, i in with_children, step.nodes[i].scores[OWN]))
    return path


def guess_bars(title: str, guesses: Sequence[Guess], token_bytes: Mapping[int, bytes], below: str = "") -> str:
    """One head's tokens as bars with the mark of what became of them: HTML.

    Args:
        title, below: HTML.
    """
    listed = [g for i, g in enumerate(guesses) if i < SHOWN or g.verdict == "accepted"]
    look = f"background:{SERIES_STRIPES['q']};border-color:{SERIES_LINE['q']}"
    rows = "".join(
        f'<div class="ds-bars-name{" ds-bars-now" * (g.verdict == "accepted")}">{LOOKS[g.verdict].mark if g.verdict else ""} '
        f"{as_html(name(g.token, token_bytes))}{f'<small>{as_html(g.why)}</small>' * bool(g.why)}</div>"
        f'<div class="ds-bars-group"><div><i style="--w:{100 * g.probability:.2f}%;{look}{";opacity:.45" * bool(g.why)}"></i>'
        f"<span>{number(g.probability, 2)}</span></div></div>"
        for g in listed
    )
    more = f'<div class="ds-dim">and {len(guesses) - len(listed)} more</div>' if len(guesses) > len(listed) else ""
    return f'<div><b>{title}</b><div class="ds-bars">{rows}</div>{more}{below}</div>'


def side_by_side(columns: Sequence[str], alt: str) -> str:
    """Columns of HTML in a row, with their text alternative (plain)."""
    joined = "".join(columns)
    return f'<div role="img" aria-label="{as_html(alt)}" style="{COLUMNS}">{joined}</div>'


def in_words(title: str, guesses: Sequence[Guess], token_bytes: Mapping[int, bytes]) -> str:
    """The best three of a column; plain text."""
    listed = ", ".join(f"{name(g.token, token_bytes)} {number(g.probability, 2)} {g.why or g.verdict}" for g in guesses[:3])
    return f"{title}: {listed}"


def line_html(
    step: Step,
    token_bytes: Mapping[int, bytes],
    below: Callable[[int], str],
    said: str,
    sifted: Callable[[list[Guess]], list[Guess]] = list,
) -> str:
    """The heads side by side down one path, each behind the token it was told: HTML.

    Args:
        below: parent -> HTML under the bars of the head that guesses behind it.
        said: what that shows, in words; plain text.
        sifted: what becomes of a head's guesses before they are drawn.
    """
    columns = [
        guess_bars(head_title(step, k, at, token_bytes), sifted(offers(step, at)), token_bytes, below(at))
        for k, at in enumerate(line(step), 1)
    ]
    return side_by_side(columns, f"{line_alt(step, token_bytes)} {said}")


def head_title(step: Step, head: int, parent: int, token_bytes: Mapping[int, bytes]) -> str:
    """'head 2, behind ␣cat': HTML."""
    return as_html(f"head {head}, behind {node_name(step, parent, token_bytes)}")


def line_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The guesses down one path in words; plain text."""
    titles = [f"head {k}, behind {node_name(step, at, token_bytes)}" for k, at in enumerate(line(step), 1)]
    parts = [in_words(title, offers(step, at), token_bytes) for title, at in zip(titles, line(step), strict=True)]
    return "The guesses of every head down one path. " + ("; ".join(parts) or "Nothing was drafted") + "."


# -- over the run ------------------------------------------------------------------------------------------------------


def records(steps: Sequence[Step]) -> list[Record]:
    """How often every depth was right about what was written in the end, where the tree holds all that was written before it."""
    text = [token for step in steps for token in step.tokens]
    sums: list[list[int]] = []
    start = 0
    for step in steps:
        for k, children in enumerate(followed(step, text[start:])):
            sums += [[0, 0, 0, 0]] if k == len(sums) else []
            right = [node for node in children if node.token == text[start + k]]
            best = max(children, key=lambda node: node.scores[OWN])
            sums[k][0] += 1
            sums[k][1] += best.token == text[start + k]
            sums[k][2] += bool(right)
            sums[k][3] += any(node.verdict == "accepted" for node in right)
        start += len(step.tokens)
    return [Record(k, *counts) for k, counts in enumerate(sums, 1)]


def followed(step: Step, text: Sequence[int]):
    """The children behind what was written, depth after depth, as far as the tree holds it."""
    at = -1
    for token in text if has_numbers(step) else ():
        below = [i for i, node in enumerate(step.nodes) if node.parent == at]
        if not below:
            return
        yield [step.nodes[i] for i in below]
        right = [i for i in below if step.nodes[i].token == token]
        if not right:
            return
        at = right[0]


def records_figure(of_heads: Sequence[Record], dark: bool = False, shown: Sequence[str] = tuple(BARS)) -> go.Figure:
    """A group of bars per head: its best token right, one of its tokens right, accepted; shares of what can be judged."""
    figure = go.Figure(layout=layout(300, dark, barmode="group", bargap=0.3))
    for key in shown:
        label, look = BARS[key]
        figure.add_bar(
            name=label,
            x=[f"head {r.head}" for r in of_heads],
            y=[getattr(r, key) / r.asked for r in of_heads],
            text=[f"{getattr(r, key)}/{r.asked}" for r in of_heads],
            textposition="outside",
            textfont={"color": ink(dark)},
            cliponaxis=False,
            marker=series_marker(look),
            hovertemplate=f"%{{x}}<br>{label}: %{{text}}, %{{y:.2f}}<extra></extra>",
        )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(range=[0, 1.12], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 32})


def records_table(of_heads: Sequence[Record]) -> pd.DataFrame:
    """One row per head."""
    rows = [(r.head, r.asked, r.top / r.asked, r.any / r.asked, r.accepted / r.asked) for r in of_heads]
    return pd.DataFrame(rows, columns=["head", "steps", "best token right", "one of its tokens right", "accepted"])


def records_alt(of_heads: Sequence[Record]) -> str:
    """The same in words; plain text."""
    parts = [f"head {r.head}: best right {r.top}, any right {r.any}, accepted {r.accepted} of {r.asked}" for r in of_heads]
    return "How often every head was right so far. " + ("; ".join(parts) or "No head has guessed yet") + "."
