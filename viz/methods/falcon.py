"""What is particular to Falcon: blocks of tokens guessed in one pass, candidates that do not see each other, what a block sees,
acceptance by place in the block.

A node says in its source which pass it comes from, and carries its place in the block, its q and the product of q down to it.
Inside a block all nodes of a level were picked from one distribution; the block of a later pass hangs below one path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import JOINT, OWN, SLOT_IN_BLOCK
from decoding.trace import Node, Step
from viz.methods.ftp import path_shown
from viz.methods.shared.misfits import misfit_words, misfits, p_behind_parent
from viz.runs.tally import depths, reached
from viz.style import COLOR, GRID, LOOKS, MONO, SERIES, SERIES_LINE, SERIES_STRIPES, ink, layout, tint, with_mark
from viz.tokens import as_html, as_plotly, name
from viz.words import node_name, number

SHOWN = 5  # tokens of a column
MOST_BLOCK, MOST_BLOCKS = 8, 4  # tokens of a block that are believed, and blocks whose mask is drawn


@dataclass(frozen=True)
class Column:
    """One place of a block: what was picked there, on one path."""

    number: int  # of the pass, from 1
    slot: int  # from 1
    nodes: tuple[Node, ...]  # one per token, the most probable first


def has_blocks(step: Step) -> bool:
    """Whether the nodes carry the numbers of this view; an imported trace may not."""
    return all(place_of(node) and 0 <= node.scores.get(OWN, -1.0) <= 1 + 1e-4 for node in step.nodes)


def place_of(node: Node) -> int:
    """The node's place in its block, from 1; 0 where the trace does not say one that can be."""
    slot = node.scores.get(SLOT_IN_BLOCK, 0.0)
    return int(slot) if slot in range(1, MOST_BLOCK + 1) else 0


def pass_of(depth: int, block: int) -> int:
    """The pass that level `depth` comes from, with blocks of `block` tokens.

    >>> [pass_of(depth, 2) for depth in (1, 2, 3, 4)]
    [1, 1, 2, 2]
    """
    return (depth - 1) // block + 1


def block_size(steps: Sequence[Step]) -> int:
    """Tokens per pass, as far as the trace shows it."""
    return max((place_of(node) or 1 for step in steps for node in step.nodes), default=1)


# -- blocks ------------------------------------------------------------------------------------------------------------


def columns(step: Step) -> list[Column]:
    """The places along the path that is shown: the accepted one, continued by the most probable children.

    A place shows the tokens of every parent in its block, since all were picked from the same distribution there.
    """
    path, levels = path_shown(step), depths(step)
    made = []
    for depth, i in enumerate(path, 1):
        slot = place_of(step.nodes[i])
        top = path[depth - slot - 1] if depth > slot else -1  # the node that the block hangs below
        below = [j for j, level in enumerate(levels) if level == depth and ancestor(step, j, slot) == top]
        best: dict[int, Node] = {}
        for j in below:
            node = step.nodes[j]
            if node.token not in best or rank(node) < rank(best[node.token]):
                best[node.token] = node
        ordered = sorted(best.values(), key=lambda node: -node.scores[OWN])
        made.append(Column(pass_of(depth, max(block_size([step]), slot)), slot, tuple(ordered)))
    return made


def ancestor(step: Step, i: int, levels: int) -> int:
    """The node so many levels above node i; -1 for the root."""
    for _ in range(levels):
        i = step.nodes[i].parent if i >= 0 else -1
    return i


def rank(node: Node) -> int:
    return ("accepted", "rejected", "not judged").index(node.verdict)


def blocks_html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """A frame per pass with the candidates of its places side by side: HTML."""
    frames: dict[int, list[Column]] = {}
    for column in columns(step):
        frames.setdefault(column.number, []).append(column)
    shown = "".join(frame(number_, of_pass, token_bytes) for number_, of_pass in frames.items())
    alt = as_html(blocks_alt(step, token_bytes))
    return f'<div role="img" aria-label="{alt}" style="display:flex;gap:1rem;flex-wrap:wrap">{shown}</div>'


def frame(number_: int, of_pass: Sequence[Column], token_bytes: Mapping[int, bytes]) -> str:
    inside = "".join(column_html(column, token_bytes) for column in of_pass)
    style = f"border:2px solid {SERIES_LINE['q']};border-radius:6px;padding:.4rem .7rem;flex:1;min-width:15rem"
    return f'<div style="{style}"><b>pass {number_}</b><div style="display:flex;gap:1rem;flex-wrap:wrap">{inside}</div></div>'


def column_html(column: Column, token_bytes: Mapping[int, bytes]) -> str:
    listed = [node for i, node in enumerate(column.nodes) if i < SHOWN or node.verdict == "accepted"]
    look = f"background:{SERIES_STRIPES['q']};border-color:{SERIES_LINE['q']}"
    rows = "".join(
        f'<div class="ds-bars-name{" ds-bars-now" * (node.verdict == "accepted")}">{LOOKS[node.verdict].mark} '
        f"{as_html(name(node.token, token_bytes))}</div>"
        f'<div class="ds-bars-group"><div><i style="--w:{100 * node.scores[OWN]:.2f}%;{look}"></i>'
        f"<span>{number(node.scores[OWN], 2)}</span></div></div>"
        for node in listed
    )
    more = f'<div class="ds-dim">and {len(column.nodes) - len(listed)} more</div>' if len(column.nodes) > len(listed) else ""
    return f'<div style="flex:1;min-width:9rem">place {column.slot}<div class="ds-bars">{rows}</div>{more}</div>'


def blocks_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The frames in words; plain text."""
    parts = [
        f"pass {column.number}, place {column.slot}: "
        + ", ".join(f"{name(node.token, token_bytes)} {number(node.scores[OWN], 2)} {node.verdict}" for node in column.nodes[:3])
        for column in columns(step)
    ]
    return "The best candidates of every place along the path. " + ("; ".join(parts) or "Nothing was drafted") + "."


def calls_words(step: Step) -> str:
    """Tokens per call of the head; plain text."""
    calls, deepest, kept = step.draft_calls, max(depths(step), default=0), len(step.path)
    if not calls:
        return "The head was not asked."
    passes = f"{calls} pass{'es' * (calls > 1)}"
    return f"{passes} of the head drafted {deepest} level{'s' * (deepest > 1)}; {kept} accepted, {number(kept / calls, 2)} a pass."


def blocks_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node."""
    rows = []
    for i, node in enumerate(step.nodes):
        above = node_name(step, node.parent, token_bytes)
        verdict = with_mark(node.verdict)
        scores = (node.scores[OWN], node.scores.get(JOINT), p_behind_parent(step, i))
        rows.append((node.source, place_of(node), name(node.token, token_bytes), above, *scores, verdict))
    return pd.DataFrame(rows, columns=["pass", "place", "token", "below", "q", "joint q", "p behind the parent", "verdict"])


# -- blindness ---------------------------------------------------------------------------------------------------------


def blind(step: Step) -> list[int]:
    """Nodes behind the first place of their block that the head believed in and that the target rules out behind their parent: it
    could not see the parent."""
    return misfits(step, OWN, lambda node: node.scores[SLOT_IN_BLOCK] > 1)


def blind_words(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The same in a sentence; plain text."""
    misplaced = blind(step)
    if not misplaced:
        return "No candidate that the head believed in contradicts the one before it in its block."
    pairs = "pair of a block does" if len(misplaced) == 1 else "pairs of a block do"
    return f"{len(misplaced)} {pairs} not belong together: {misfit_words(step, misplaced[0], OWN, token_bytes)}"


# -- the mask ----------------------------------------------------------------------------------------------------------


def sees(slots: int, block: int) -> list[list[bool]]:
    """Row by row which slots a slot sees: all before its block and all of its block. EAGLE's triangle is that of blocks of 1.

    >>> sees(3, 2)
    [[True, True, False], [True, True, False], [True, True, True]]
    """
    return [[j // block <= i // block for j in range(slots)] for i in range(slots)]


def asked(step: Step, before: Sequence[int], token_bytes: Mapping[int, bytes]) -> list[str]:
    """The slots of the blocks that the passes of this step asked along the path that is shown, by the token that a slot reads
    beside its state: the newest of the text for the first pass, what one pass picked for the next. Plain text; whole blocks alone.

    Args:
        before: the text up to the root, the root included.
    """
    k, path = block_size([step]), path_shown(step)
    blocks = min(pass_of(len(path), k), MOST_BLOCKS) if path else 0
    text = list(before)[-k:]
    picked = [step.nodes[i].token for i in path[: k * (blocks - 1)]]
    return [name(token, token_bytes, 9) for token in (*text, *picked)] if blocks and len(text) == k else []


def mask_figure(block: int, slots: Sequence[str], dark: bool = False) -> go.Figure:
    """Which slot sees which, row by row: EAGLE's triangle, and beside it the staircase of blocks, a frame around each.

    Args:
        slots: their names, plain text.
    """
    n = len(slots)
    figure = go.Figure(layout=layout(80 + 26 * max(n, 4), dark))
    labels = {"tickvals": list(range(n)), "ticktext": [as_plotly(slot) for slot in slots], "showgrid": False, "zeroline": False}
    labels |= {"tickfont": {"family": MONO, "size": 11}}
    for panel, (size, title) in enumerate(((1, "EAGLE: one by one"), (block, f"Falcon: blocks of {block}")), 1):
        axes = {"xaxis": f"x{panel}", "yaxis": f"y{panel}"}
        figure.add_trace(cells(size, slots, dark).update(axes))
        domain = [0, 0.46] if panel == 1 else [0.54, 1]
        head = {"text": title, "standoff": 6}
        figure.update_layout({f"xaxis{panel}": {**labels, "domain": domain, "anchor": f"y{panel}", "title": head, "side": "top"}})
        rows = {**labels, "anchor": f"x{panel}", "range": [n - 0.5, -0.5], "showticklabels": panel == 1}
        figure.update_layout({f"yaxis{panel}": rows})
    for start in range(0, n, block):
        ends = {f"{axis}{end}": start - 0.5 if end == 0 else min(start + block, n) - 0.5 for axis in "xy" for end in (0, 1)}
        figure.add_shape(type="rect", xref="x2", yref="y2", line={"color": ink(dark), "width": 2}, **ends)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 60, "b": 8})


def cells(block: int, slots: Sequence[str], dark: bool) -> go.Heatmap:
    """One mask: a dot where a slot sees another, a cross where that other one stands behind it."""
    seen = sees(len(slots), block)
    states = [[(1 if j <= i else 2) if yes else 0 for j, yes in enumerate(row)] for i, row in enumerate(seen)]
    said = ("does not see", "sees", "sees, though it stands behind it,")
    return go.Heatmap(
        z=states,
        zmin=0,
        zmax=2,
        colorscale=[[0, "rgba(0,0,0,0)"], [0.5, tint(SERIES["p"], 0.35)], [1, tint(SERIES["q"], 0.55)]],
        showscale=False,
        xgap=2,
        ygap=2,
        text=[[" •+"[state] for state in row] for row in states],
        texttemplate="%{text}",
        textfont={"color": ink(dark), "size": 13},
        hovertext=[
            [f"{as_plotly(slots[i])} {said[state]} {as_plotly(slots[j])}" for j, state in enumerate(row)]
            for i, row in enumerate(states)
        ],
        hoverinfo="text",
    )


def mask_alt(block: int, slots: Sequence[str]) -> str:
    """The two masks in words; plain text."""
    n = len(slots)
    blocks = [(start + 1, min(start + block, n)) for start in range(0, n, block)]
    parts = [f"slots {first} to {last} ({', '.join(slots[first - 1 : last])}) see slots 1 to {last}" for first, last in blocks]
    triangle = f"Which of {n} slots see each other. In EAGLE's triangle slot i sees slots 1 to i."
    return f"{triangle} In blocks of {block}: {'; '.join(parts)}."


def mask_words(block: int, slots: Sequence[str]) -> str:
    """What the staircase adds; plain text."""
    mine, theirs = (sum(map(sum, sees(len(slots), size))) for size in (block, 1))
    return (
        "A row is a slot, named by the token that it reads beside a state; dots: what it sees, and all of the text before besides. "
        "The first block holds the newest slots of the text, every later one the tokens that the pass before picked. A block is "
        f"asked at once, so a slot also sees those behind it in its block (crosses): {mine} pairs instead of {theirs}. What it "
        "does not see is what the others are about to guess."
    )


# -- the saw-tooth -----------------------------------------------------------------------------------------------------


def saw_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Acceptance at every place, given that all before it were accepted; places of a pass stand together, in one pattern."""
    counts, size = reached(steps), block_size(steps)
    figure = go.Figure(layout=layout(300, dark, bargap=0.3))
    for number_ in sorted({pass_of(level, size) for level, _, _ in counts}):
        mine = [(level, asked, accepted) for level, asked, accepted in counts if pass_of(level, size) == number_]
        figure.add_bar(
            name=f"pass {number_}",
            x=[[f"pass {number_}"] * len(mine), [f"place {(level - 1) % size + 1}" for level, _, _ in mine]],
            y=[accepted / asked for _, asked, accepted in mine],
            text=[f"{accepted}/{asked}" for _, asked, accepted in mine],
            textposition="outside",
            textfont={"color": ink(dark)},
            cliponaxis=False,
            marker={
                "color": COLOR["accepted"],
                "line": {"color": LOOKS["accepted"].line, "width": 1},
                "pattern": {"shape": ("", "/", ".", "x")[(number_ - 1) % 4]},
            },
            hovertemplate=f"pass {number_}, %{{x}}<br>accepted %{{text}}, %{{y:.2f}}<extra></extra>",
        )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(title="accepted", range=[0, 1.12], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 32})


def saw_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per place."""
    size = block_size(steps)
    rows = [(pass_of(level, size), (level - 1) % size + 1, of, got, got / of) for level, of, got in reached(steps)]
    return pd.DataFrame(rows, columns=["pass", "place", "steps that came so far", "accepted", "share"])


def saw_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    size = block_size(steps)
    parts = [f"pass {pass_of(level, size)} place {(level - 1) % size + 1}: {got} of {of}" for level, of, got in reached(steps)]
    return "Acceptance by place in the block. " + ("; ".join(parts) or "Nothing was drafted yet") + "."


def run_words(steps: Sequence[Step]) -> str:
    """Tokens and passes of the run so far; plain text."""
    calls, kept = sum(step.draft_calls for step in steps), sum(len(step.path) for step in steps)
    each = number(kept / calls, 2) if calls else "0"
    return f"So far {kept} drafted tokens were accepted in {calls} passes of the head, {each} each."
