"""What is particular to RASD: who found the accepted tokens of the fused tree, the draft model or retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import BOTH, DRAFTED, RETRIEVED
from decoding.trace import Step
from viz.methods.shared.retrieved import KINDS, kind_of
from viz.style import GRID, layout


@dataclass(frozen=True)
class Gain:
    """Accepted tokens of some steps: of the whole tree, and of the part that one source alone would have offered."""

    steps: int
    kept: int
    by: dict[str, int]  # kind -> accepted nodes of that kind
    alone: dict[str, int]  # DRAFTED or RETRIEVED -> accepted tokens without the other


def gain(steps: Sequence[Step]) -> Gain:
    """Who found the accepted tokens. Alone, a source would have got as far as the accepted path stays in its own tree, had
    the target drawn the same tokens."""
    by, alone = dict.fromkeys(KINDS, 0), {DRAFTED: 0, RETRIEVED: 0}
    for step in steps:
        path = [kind_of(step.nodes[i]) for i in step.path]
        for kind in path:
            by[kind] += 1
        for source, other in ((DRAFTED, RETRIEVED), (RETRIEVED, DRAFTED)):
            alone[source] += next((i for i, kind in enumerate(path) if kind == other), len(path))
    return Gain(len(steps), sum(by.values()), by, alone)


def gain_figure(total: Gain, dark: bool = False) -> go.Figure:
    """Accepted tokens of the fused tree by kind, and what either source would have got alone on the same states."""
    rows = ["draft tree alone", "retrieval alone", "fused tree"]
    figure = go.Figure(layout=layout(170, dark, barmode="stack", bargap=0.35))
    values = {
        DRAFTED: [total.alone[DRAFTED], 0, total.by[DRAFTED]],
        RETRIEVED: [0, total.alone[RETRIEVED], total.by[RETRIEVED]],
        BOTH: [0, 0, total.by[BOTH]],
    }
    for kind, counts in values.items():
        look, shape = KINDS[kind], {DRAFTED: "", RETRIEVED: "/", BOTH: "x"}[kind]
        marker = {"color": look.color, "pattern": {"shape": shape, "solidity": 0.3}, "line": {"color": look.color, "width": 1}}
        hovertemplate = f"%{{y}}: %{{x}} tokens, {look.meaning}<extra></extra>"
        figure.add_trace(go.Bar(name=kind, x=counts, y=rows, orientation="h", marker=marker, hovertemplate=hovertemplate))
    figure.update_xaxes(title="accepted tokens", gridcolor=GRID, zerolinecolor=GRID, rangemode="tozero")
    figure.update_yaxes(automargin=True, showgrid=False)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40})


def gain_table(total: Gain) -> pd.DataFrame:
    """The twin of `gain_figure`."""
    rows = {
        "fused tree": total.kept,
        **{f"of these {KINDS[kind].meaning}": count for kind, count in total.by.items()},
        "draft tree alone": total.alone[DRAFTED],
        "retrieval alone": total.alone[RETRIEVED],
    }
    per_step = [value / total.steps if total.steps else 0.0 for value in rows.values()]
    return pd.DataFrame({"tree": list(rows), "accepted tokens": list(rows.values()), "per step": per_step})
