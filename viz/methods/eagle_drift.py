"""What a head that feeds on its own states loses on the way (EAGLE): how like the target's its states are, depth by depth, beside
how often a token of that depth was accepted; and which of the target's layers its mix is made of.

Once the target has read a tree, its true state at every accepted node is known. A node that the head went on from carries the
cosine between that state, or the mix of several layers that the head reads, and what the head had put in its place. Where layers
are mixed, the step's facts hold the share of each of them at the root.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import COSINE, LAYER_SHARE, part_of
from decoding.trace import Step
from viz.runs.tally import depths, reached
from viz.style import COLOR, GRID, LOOKS, SERIES_LINE, ink, layout
from viz.tokens import as_html

LAYER = re.compile(r"layer \d{1,4}|the last layer|the embeddings")
STRIPES = (  # of layers, low to high
    ("#E69F00", "#A87400"),
    ("repeating-linear-gradient(45deg,#009E73 0 5px,#007A59 5px 7px)", "#007A59"),
    ("repeating-linear-gradient(90deg,#7F7F7F 0 4px,#5A5A5A 4px 5px)", "#5A5A5A"),
)


@dataclass(frozen=True)
class Depth:
    """One depth over the run so far."""

    depth: int  # from 1
    asked: int  # steps in which all before was accepted and something was drafted here
    accepted: int  # those in which a token of this depth was accepted
    cosines: tuple[float, ...]  # of the states behind those tokens, where the head went on from them

    @property
    def share(self) -> float:
        return self.accepted / self.asked

    @property
    def cosine(self) -> float | None:
        """The mean."""
        return sum(self.cosines) / len(self.cosines) if self.cosines else None


# -- depth by depth ----------------------------------------------------------------------------------------------------


def drift(steps: Sequence[Step]) -> list[Depth]:
    """Depth by depth what was accepted, and how like the target's the head's states were."""
    by_depth: dict[int, list[float]] = {}
    for step in steps:
        for node, depth in zip(step.nodes, depths(step), strict=True):
            cosine = node.scores.get(COSINE)
            if node.verdict == "accepted" and cosine is not None and abs(cosine) <= 1 + 1e-4:  # NaN is not
                by_depth.setdefault(depth, []).append(cosine)
    return [Depth(depth, *counts, tuple(by_depth.get(depth, ()))) for depth, *counts in reached(steps)]


def has_cosines(steps: Sequence[Step]) -> bool:
    """Whether any node carries one that can be; a trace of an older version does not."""
    return any(depth.cosines for depth in drift(steps))


def drift_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Bars: accepted, given that all before was; line: the mean cosine behind the accepted tokens of a depth."""
    drifts = drift(steps)
    figure = go.Figure(layout=layout(300, dark, bargap=0.35))
    figure.add_bar(
        name="accepted",
        x=[one.depth for one in drifts],
        y=[one.share for one in drifts],
        customdata=[f"{one.accepted}/{one.asked}" for one in drifts],
        marker={"color": COLOR["accepted"], "line": {"color": LOOKS["accepted"].line, "width": 1}},
        hovertemplate="depth %{x}<br>accepted %{customdata}, %{y:.2f}<extra></extra>",
    )
    known = [one for one in drifts if one.cosines]
    figure.add_scatter(
        name="cosine with the true state",
        x=[one.depth for one in known],
        y=[one.cosine for one in known],
        customdata=[len(one.cosines) for one in known],
        mode="lines+markers",
        line={"color": SERIES_LINE["q"], "dash": "dash"},
        marker={"symbol": "diamond", "size": 10, "line": {"color": ink(dark), "width": 1}},
        hovertemplate="depth %{x}<br>mean cosine %{y:.3f} of %{customdata}<extra></extra>",
    )
    least = min((one.cosine for one in known), default=0.0)
    counts = [f"{one.depth}<br>{one.accepted}/{one.asked}" for one in drifts]
    ticks = {"tickvals": [one.depth for one in drifts], "ticktext": counts}
    figure.update_xaxes(title="depth, and accepted of asked", showgrid=False, **ticks)
    figure.update_yaxes(range=[min(0.0, least - 0.1), 1.05], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 60})


def drift_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per depth."""
    rows = [(one.depth, one.asked, one.accepted, one.share, one.cosine, len(one.cosines)) for one in drift(steps)]
    columns = ["depth", "steps that came so far", "accepted", "share", "mean cosine", "states compared"]
    return pd.DataFrame(rows, columns=columns).astype({"mean cosine": float})


def drift_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    parts = [
        f"depth {one.depth}: {one.accepted} of {one.asked}" + (f", cosine {one.cosine:.2f}" if one.cosines else "")
        for one in drift(steps)
    ]
    return "Acceptance by depth, and how like the true states the head's were. " + ("; ".join(parts) or "Nothing was drafted") + "."


def drift_words(steps: Sequence[Step]) -> str:
    """Whether the states get worse on the way; plain text."""
    known = [one for one in drift(steps) if one.cosines]
    if not known:
        return "No state can be compared so far: nothing was accepted that the head went on from."
    first, last = known[0], known[-1]
    compared = f"depth {first.depth}, {first.cosine:.2f} over {len(first.cosines)}"
    if len(known) > 1:
        compared += f"; depth {last.depth}, {last.cosine:.2f} over {len(last.cosines)}"
    return f"Mean cosine behind accepted tokens: {compared}."


# -- the mix -----------------------------------------------------------------------------------------------------------


def mix(step: Step) -> list[tuple[str, float]]:
    """The layers that the head mixes and the share of each at the root, in the trace's order; [] if they are not recorded, or
    cannot be shares of one whole."""
    shares = [(layer, value) for key, value in step.facts.items() if LAYER.fullmatch(layer := part_of(LAYER_SHARE, key) or "")]
    right = all(isfinite(value) and value >= 0 for _, value in shares) and abs(sum(value for _, value in shares) - 1) < 1e-3
    return shares if right and len(shares) == len(STRIPES) else []


def mix_html(step: Step) -> str:
    """One bar, a part per layer, and the layers by name: HTML; "" without shares."""
    shares = mix(step)
    if not shares:
        return ""
    parts = "".join(
        f'<span style="width:{100 * share:.2f}%;height:100%;background:{STRIPES[i][0]}"></span>'
        for i, (_, share) in enumerate(shares)
    )
    keys = "".join(
        f'<span><i style="background:{STRIPES[i][0]};border-color:{STRIPES[i][1]}"></i> {as_html(layer)} {100 * share:.0f} %</span>'
        for i, (layer, share) in enumerate(shares)
    )
    bar = "display:flex;height:0.9rem;border-radius:0.3rem;overflow:hidden"
    return f'<div class="ds-keys">{keys}</div><div role="img" aria-label="{as_html(mix_alt(step))}" style="{bar}">{parts}</div>'


def mix_alt(step: Step) -> str:
    """The bar in words; plain text."""
    listed = ", ".join(f"{layer} {100 * share:.0f} %" for layer, share in mix(step))
    return f"What the mix at the root is made of: {listed or 'not recorded'}."
