"""What is particular to Future Token Prediction: which vectors of the memory speak for which token, how much the one state carries,
and acceptance by level beside the weights of the training.

A node carries its q, the shares of the attention that its distribution paid to every vector of the memory, and, the same at all
nodes of a step, what the decoder gave the root, which it did not have to guess.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import JOINT, OWN, ROOT_Q, SLOT
from decoding.trace import Step, Trace
from viz.runs.tally import depths
from viz.style import COLOR, GRID, LOOKS, SERIES_LINE, SERIES_STRIPES, ink, layout, tint, with_mark
from viz.tokens import as_html, name, quoted
from viz.words import number

DECAY = 0.8  # weight of a level in the training, of the one before
ENOUGH = 0.5  # of the root's probability: the state carries it


def has_slots(step: Step) -> bool:
    """Whether the nodes carry the numbers of this view; an imported trace may not."""
    return all(ROOT_Q in node.scores and SLOT.format(1) in node.scores for node in step.nodes)


# -- one vector, many tokens -------------------------------------------------------------------------------------------


def path_shown(step: Step) -> list[int]:
    """The accepted nodes, and below them always the most probable child."""
    path = list(step.path)
    while children := [i for i, node in enumerate(step.nodes) if node.parent == (path[-1] if path else -1)]:
        path.append(max(children, key=lambda i: step.nodes[i].scores.get(OWN, 0.0)))
    return path


def shares(step: Step, i: int) -> list[float]:
    """What node i's distribution paid to every vector of the memory."""
    scores = step.nodes[i].scores
    paid = []
    while (value := scores.get(SLOT.format(len(paid) + 1))) is not None:
        paid.append(value)
    return paid


def fan_html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The state as one bead, its vectors as columns, and a row per token of the path with what it looked at: HTML."""
    path = path_shown(step)
    columns = len(shares(step, path[0])) if path else 0
    bead = f'<span style="background:{COLOR["bonus"]};color:#1F2328;border-radius:50%;padding:.1rem .5rem">h</span>'
    heads = "".join(f"<div>{i}</div>" for i in range(1, columns + 1))
    rows = "".join(fan_row(step, i, token_bytes) for i in path)
    grid = f"display:grid;grid-template-columns:max-content repeat({columns},minmax(1.6rem,1fr));gap:3px;align-items:center"
    return (
        f'<div role="img" aria-label="{as_html(fan_alt(step, token_bytes))}" style="{grid};text-align:center;font-size:.8rem">'
        f"<div>{bead} unfolds into</div>{heads}{rows}</div>"
    )


def fan_row(step: Step, i: int, token_bytes: Mapping[int, bytes]) -> str:
    node = step.nodes[i]
    cells = "".join(
        f'<div style="background:{tint(COLOR["accepted"], min(1.0, share))};border:1px solid {GRID};padding:.15rem 0">'
        f"{number(share, 2)}</div>"
        for share in shares(step, i)
    )
    return f'<div style="text-align:right">{LOOKS[node.verdict].mark} {as_html(name(node.token, token_bytes))}</div>{cells}'


def fan_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The rows in words; plain text."""
    parts = []
    for i in path_shown(step):
        values = shares(step, i)
        best = max(range(len(values)), key=values.__getitem__)
        parts.append(f"{name(step.nodes[i].token, token_bytes)} looks at vector {best + 1} most, {number(values[best], 2)}")
    return "What every token of the path reads of the one state. " + ("; ".join(parts) or "Nothing was drafted") + "."


def slots_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per node."""
    rows = []
    for i, (node, depth) in enumerate(zip(step.nodes, depths(step), strict=True)):
        verdict = with_mark(node.verdict)
        own = (depth, name(node.token, token_bytes), node.scores.get(OWN), node.scores.get(JOINT), verdict)
        rows.append(own + tuple(shares(step, i)))
    count = max((len(row) - 5 for row in rows), default=0)
    columns = ["level", "token", "q", "joint q", "verdict", *(f"vector {i}" for i in range(1, count + 1))]
    return pd.DataFrame(rows, columns=columns)


# -- the bottleneck meter ----------------------------------------------------------------------------------------------


def meter(step: Step) -> float | None:
    """What the decoder gave the root, from the state before it; None if nothing was drafted."""
    return step.nodes[0].scores.get(ROOT_Q) if step.nodes else None


def meant(trace: Trace, cursor: int) -> float | None:
    """What the target gave the root when it wrote it; None for a root from the prompt, or if it was not recorded."""
    if cursor == 0:
        return None
    before = trace.steps[cursor - 1]
    row = before.rows[before.end_row] if before.rows and len(before.tokens) > len(before.path) else None
    return None if row is None else dict(zip(row.tokens, row.p, strict=True)).get(before.tokens[-1])


def meter_html(trace: Trace, cursor: int) -> str:
    """The decoder's and the target's probability of the root as two bars: HTML."""
    bars = [("decoder, q", meter(trace.steps[cursor]), "q"), ("target, p", meant(trace, cursor), "p")]
    rows = "".join(
        f'<div class="ds-bars-name">{label}</div><div class="ds-bars-group"><div>'
        f'<i style="--w:{100 * value:.2f}%;background:{SERIES_STRIPES[key]};border-color:{SERIES_LINE[key]}"></i>'
        f"<span>{number(value, 2)}</span></div></div>"
        for label, value, key in bars
        if value is not None
    )
    return f'<div class="ds-bars" role="img" aria-label="{as_html(meter_words(trace, cursor))}">{rows}</div>'


def meter_words(trace: Trace, cursor: int) -> str:
    """The same in a sentence; plain text."""
    value, root, p = meter(trace.steps[cursor]), trace.root(cursor), meant(trace, cursor)
    if value is None or root is None:
        return "Nothing was drafted, so the root was not predicted again."
    target = "it comes from the prompt" if p is None else f"the target gave it {number(p, 2)}"
    return (
        f"The root {quoted(root, trace.token_bytes)} is known; predicted again, the decoder gives it {number(value, 2)}, {target}."
    )


def meter_run_words(steps: Sequence[Step]) -> str:
    """Whether the meter foretells anything: tokens accepted in steps where it was high and where it was low; plain text."""
    parts = []
    for label, chosen in ((f"at least {ENOUGH:g}", True), (f"below {ENOUGH:g}", False)):
        lengths = [len(step.path) for step in steps if (value := meter(step)) is not None and (value >= ENOUGH) == chosen]
        if lengths:
            steps_are = f"{len(lengths)} step{'s' * (len(lengths) > 1)}"
            parts.append(f"{number(sum(lengths) / len(lengths), 2)} drafted tokens were accepted in {steps_are} with q {label}")
    return "On average " + " and ".join(parts) + "." if parts else "Nothing was drafted so far."


# -- decay -------------------------------------------------------------------------------------------------------------


def levels(steps: Sequence[Step]) -> list[tuple[int, int, int]]:
    """(level, steps that drafted so far, steps in which a token of that level was accepted)."""
    tallied: list[list[int]] = []
    for step in steps:
        deepest = max(depths(step), default=0)
        tallied += [[0, 0] for _ in range(deepest - len(tallied))]
        for level in range(deepest):
            tallied[level][0] += 1
            tallied[level][1] += len(step.path) > level
    return [(level, *counts) for level, counts in enumerate(tallied, 1)]


def decay_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Bars: share of the steps in which a level was reached; line: how much the level weighed in the training."""
    counts = levels(steps)
    x = [level for level, _, _ in counts]
    figure = go.Figure(layout=layout(300, dark, bargap=0.35))
    figure.add_bar(
        name="accepted so deep",
        x=x,
        y=[accepted / asked for _, asked, accepted in counts],
        text=[f"{accepted}/{asked}" for _, asked, accepted in counts],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        marker={"color": COLOR["accepted"], "line": {"color": LOOKS["accepted"].line, "width": 1}},
        hovertemplate="level %{x}<br>accepted in %{text} steps, %{y:.2f}<extra></extra>",
    )
    figure.add_scatter(
        name="weight in the training",
        x=x,
        y=[DECAY**level for level in x],
        mode="lines+markers",
        line={"color": SERIES_LINE["q"], "dash": "dash"},
        marker={"symbol": "diamond", "size": 9},
        hovertemplate="level %{x}<br>weight %{y:.2f}<extra></extra>",
    )
    figure.update_xaxes(title="level of the draft", dtick=1, showgrid=False)
    figure.update_yaxes(range=[0, 1.12], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40})


def decay_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per level."""
    rows = [(level, asked, accepted, accepted / asked, DECAY**level) for level, asked, accepted in levels(steps)]
    return pd.DataFrame(rows, columns=["level", "steps", "accepted", "share", "weight in the training"])


def decay_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    parts = [f"level {level}: {accepted} of {asked}, weight {DECAY**level:.2f}" for level, asked, accepted in levels(steps)]
    return "Acceptance by level beside the weight in the training. " + ("; ".join(parts) or "Nothing was drafted yet") + "."
