"""Numbers of a run, added up over its steps, and their figures.

Knows steps only: no baseline, hence no measured speed-up. What cannot be said yet (nothing judged, no step) is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from decoding.trace import Step
from viz.style import COLOR, GRID, LOOKS, PHASE_COLOR, PHASE_PATTERN, PHASE_STRIPES, PHASES, ink, layout

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Tally:
    """Sums and ratios of a run; judged means accepted or rejected."""

    target_calls: int
    tokens: int  # committed, the target's own included
    drafted: int
    judged: int
    accepted: int
    draft_calls: int
    alpha_by_depth: tuple[tuple[int, int, int], ...]  # (depth from 1, judged, accepted)
    ms: dict[str, float]  # per phase

    @property
    def tau(self) -> float | None:
        return ratio(self.tokens, self.target_calls)

    @property
    def alpha(self) -> float | None:
        return ratio(self.accepted, self.judged)

    @property
    def accepted_per_drafted(self) -> float | None:
        return ratio(self.accepted, self.drafted)

    @property
    def wasted(self) -> int:
        return self.drafted - self.accepted

    @property
    def calls_per_step(self) -> float | None:
        """Drafter calls per target call."""
        return ratio(self.draft_calls, self.target_calls)

    @property
    def calls_saved(self) -> float | None:
        """Share of plain decoding's target calls that were not needed."""
        return 1 - self.target_calls / self.tokens if self.tokens else None

    @property
    def tokens_per_second(self) -> float | None:
        total = sum(self.ms.values())
        return self.tokens * 1000 / total if total > 0 else None


def ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def depths(step: Step) -> list[int]:
    """Depth of every node; 1 hangs below the root."""
    of_nodes: list[int] = []
    for node in step.nodes:
        of_nodes.append(1 if node.parent < 0 else of_nodes[node.parent] + 1)
    return of_nodes


def guesses_of(step: Step) -> dict[int, int]:
    """Places behind the text as it was before the call -> the node that guesses there; in a chain there is one."""
    by_place: dict[int, int] = {}
    for node, depth in enumerate(depths(step)):
        by_place.setdefault(depth - 1, node)
    return by_place


def tally(steps: Sequence[Step]) -> Tally:
    """Add up a run, or the part of it that is shown."""
    by_depth: dict[int, list[int]] = {}
    for step in steps:
        for node, depth in zip(step.nodes, depths(step), strict=True):
            counts = by_depth.setdefault(depth, [0, 0])
            counts[0] += node.verdict != "not judged"
            counts[1] += node.verdict == "accepted"
    return Tally(
        target_calls=len(steps),
        tokens=sum(len(step.tokens) for step in steps),
        drafted=sum(len(step.nodes) for step in steps),
        judged=sum(judged for judged, _ in by_depth.values()),
        accepted=sum(node.verdict == "accepted" for step in steps for node in step.nodes),
        draft_calls=sum(step.draft_calls for step in steps),
        alpha_by_depth=tuple((d, j, a) for d, (j, a) in sorted(by_depth.items()) if j),
        ms={phase: sum((getattr(step.times, phase) for step in steps), 0.0) for phase in PHASES},
    )


def reached(steps: Sequence[Step]) -> list[tuple[int, int, int]]:
    """(level, steps that came so far and drafted there, steps in which a token was accepted there)."""
    tallied: list[list[int]] = []
    for step in steps:
        for level, i in enumerate((-1, *step.path)):
            if any(node.parent == i for node in step.nodes):
                tallied += [[0, 0] for _ in range(level + 1 - len(tallied))]
                tallied[level][0] += 1
                tallied[level][1] += len(step.path) > level
    return [(level, *counts) for level, counts in enumerate(tallied, 1)]


def modelled_speedup(tau: float, calls_per_step: float, c: float) -> float:
    """Speed-up over plain decoding that follows from a cost ratio; a model, not a measurement.

    Assumes that reading a whole draft costs the target as much as reading one token (true while a device is bound by
    memory traffic, not on a busy GPU or a CPU), that a drafter call costs c target calls, and that all else is free.
    """
    return tau / (1 + c * calls_per_step)


def modelled(total: Tally, c: float | None) -> float | None:
    return None if c is None or total.tau is None else modelled_speedup(total.tau, total.calls_per_step, c)


def times_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """One bar per step, stacked by phase, in milliseconds."""
    numbers = list(range(1, len(steps) + 1))
    figure = go.Figure(layout=layout(300, dark, barmode="stack", bargap=0.15))
    for phase in PHASES:
        marker = {
            "color": PHASE_COLOR[phase],
            "pattern": {"shape": PHASE_PATTERN[phase], "solidity": 0.25},
            "line": {"width": 0},
        }
        ms = [getattr(step.times, phase) for step in steps]
        template = f"step %{{x}}<br>{phase} %{{y:.2f}} ms<extra></extra>"
        figure.add_bar(x=numbers, y=ms, name=phase, marker=marker, hovertemplate=template)
    figure.update_xaxes(title="step", range=[0.4, max(len(steps), 12) + 0.6], showgrid=False, tickformat="d")
    figure.update_yaxes(title="ms", rangemode="tozero", gridcolor=GRID, zerolinecolor=GRID)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40}, legend_traceorder="normal")


def phase_bar(total: Tally) -> str:
    """The mean step as one stacked bar, with its numbers below: HTML, light enough to be drawn anew with every step."""
    calls = total.target_calls or 1
    means = {phase: total.ms.get(phase, 0.0) / calls for phase in PHASES}
    whole = sum(means.values()) or 1.0
    parts = "".join(
        f'<span style="width:{100 * ms / whole:.2f}%;height:100%;background:{PHASE_STRIPES[phase]}"></span>'
        for phase, ms in means.items()
    )
    keys = "".join(
        '<span style="white-space:nowrap"><span style="display:inline-block;width:0.8em;height:0.8em;'
        f'background:{PHASE_STRIPES[phase]}">'
        f"</span> {phase} {ms:.1f} ms</span>"
        for phase, ms in means.items()
    )
    alt = "mean milliseconds per step: " + ", ".join(f"{phase} {ms:.1f}" for phase, ms in means.items())
    return (
        f'<div role="img" aria-label="{alt}" style="display:flex;height:0.9rem;border-radius:0.3rem;overflow:hidden">{parts}</div>'
        f'<div style="display:flex;gap:1.1rem;flex-wrap:wrap;font-size:0.86rem;margin-top:0.2rem">{keys}</div>'
    )


def times_table(steps: Sequence[Step]) -> pd.DataFrame:
    """Milliseconds per step and phase."""
    import pandas as pd  # not at the top: a page is painted before it is there

    rows = [
        {"step": i, **{f"{p} (ms)": getattr(s.times, p) for p in PHASES}, "total (ms)": s.times.total}
        for i, s in enumerate(steps, 1)
    ]
    return pd.DataFrame(rows, columns=["step", *(f"{p} (ms)" for p in PHASES), "total (ms)"])


def times_alt(steps: Sequence[Step]) -> str:
    if not steps:
        return "Time per step: no step was run yet."
    ms = tally(steps).ms
    parts = ", ".join(f"{phase} {ms[phase]:.1f}" for phase in PHASES)
    return f"Time per step, stacked bars. {len(steps)} steps took {sum(ms.values()):.1f} ms: {parts}."


def alpha_figure(tally: Tally, dark: bool = False) -> go.Figure:
    """Share accepted among the judged, by depth; the counts stand above the bars."""
    depth, judged, accepted = zip(*tally.alpha_by_depth, strict=True) if tally.alpha_by_depth else ((), (), ())
    figure = go.Figure(layout=layout(300, dark, bargap=0.35))
    figure.add_bar(
        x=list(depth),
        y=[a / j for j, a in zip(judged, accepted, strict=True)],
        text=[f"{a}/{j}" for j, a in zip(judged, accepted, strict=True)],
        textposition="outside",
        textfont={"color": ink(dark)},
        cliponaxis=False,
        marker={"color": COLOR["accepted"], "line": {"color": LOOKS["accepted"].line, "width": 1}},
        hovertemplate="depth %{x}<br>alpha %{y:.2f} (%{text})<extra></extra>",
    )
    figure.update_xaxes(title="depth in the draft", range=[0.4, max([5, *depth]) + 0.6], dtick=1, showgrid=False)
    figure.update_yaxes(title="accepted / judged", range=[0, 1.12], gridcolor=GRID, zerolinecolor=GRID, dtick=0.25)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 16, "b": 40})


def alpha_table(tally: Tally) -> pd.DataFrame:
    """Judged, accepted and their ratio, by depth."""
    import pandas as pd  # not at the top: a page is painted before it is there

    rows = [(depth, judged, accepted, accepted / judged) for depth, judged, accepted in tally.alpha_by_depth]
    return pd.DataFrame(rows, columns=["depth", "judged", "accepted", "alpha"])


def alpha_alt(tally: Tally) -> str:
    if tally.alpha is None:
        return "Acceptance by depth: no drafted token was judged yet."
    parts = "; ".join(f"depth {depth}: {accepted} of {judged}" for depth, judged, accepted in tally.alpha_by_depth)
    return f"Acceptance by depth. Overall {tally.accepted} of {tally.judged} judged tokens accepted. {parts}."
