"""What another eta, gamma or depth of the target would bring Kangaroo, computed from a recorded run without a model.

A recorded chain with its confidences and verdicts says what every shorter draft at the same position would have been: drafting
goes on while the confidence is above eta, the token at which it is not is kept and judged, the first one is always made. So an
eta not under the run's and a gamma not over the run's are known exactly, and nothing else is. A trace may come from anywhere:
steps that do not carry the numbers are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import CONFIDENCE
from decoding.trace import Step
from viz.methods.kangaroo import Depths, depths_of
from viz.runs.lines import LINES, PLAIN, empty_figure, framed
from viz.style import LOOKS, ink, layout
from viz.words import number

ETA, GRADES = 0.6, 20  # eta if the trace does not tell; parts of [0, 1] between the values that are tried
ADAPTER = 1 / 3  # of a layer: attention without a gated layer has about 4 d² of the 12 d² weights of a Llama layer
MOST_GAMMA = 512  # of a header that is believed
DEEPEST = 80  # layers to which the curve is drawn at least
NOTHING = "No step so far carries the confidences of a draft: there is nothing to try other settings on."
UNJUDGED = "No drafted token was judged so far: there is no acceptance to model with."


@dataclass(frozen=True)
class Knobs:
    """The two settings of a draft: the confidence that must be passed to go on, and the most tokens."""

    eta: float
    gamma: int


@dataclass(frozen=True)
class Chain:
    """One recorded draft: its confidences, and how many tokens from the front were accepted."""

    confidences: tuple[float, ...]
    accepted: int


@dataclass(frozen=True)
class Point:
    """Means per step at one setting, in tokens."""

    knobs: Knobs
    drafted: float
    accepted: float

    @property
    def tokens(self) -> float:
        """Written per step: the accepted ones and the target's own. The cut at the end of a text is not counted."""
        return self.accepted + 1

    @property
    def wasted(self) -> float:
        """Share of the drafted tokens that were not accepted: rejected, or never judged behind a rejected one."""
        return 1 - self.accepted / self.drafted

    def speedup(self, c: float) -> float:
        """Modelled: tokens per unit of work, the unit being one pass of the whole target, a drafted token costing c of it."""
        return self.tokens / (1 + self.drafted * c)


def chains(steps: Sequence[Step]) -> list[Chain]:
    """The drafts of all steps that carry the numbers."""
    drafts = []
    for step in steps:
        if depths_of(step):
            first = next((i for i, node in enumerate(step.nodes) if node.verdict != "accepted"), len(step.nodes))
            drafts.append(Chain(tuple(node.scores[CONFIDENCE] for node in step.nodes), first))
    return drafts


def knobs_of(params: Mapping[str, object], steps: Sequence[Step] = ()) -> Knobs:
    """The settings of a run, from its header; what cannot be is replaced by the usual eta and by the longest draft."""
    eta, gamma = params.get("threshold"), params.get("length")
    longest = max((len(chain.confidences) for chain in chains(steps)), default=1)
    eta = float(eta) if isinstance(eta, (int, float)) and 0 <= eta <= 1 else ETA
    return Knobs(eta, max(gamma, longest) if isinstance(gamma, int) and gamma <= MOST_GAMMA else longest)


# -- other settings ----------------------------------------------------------------------------------------------------


def cut(chain: Chain, knobs: Knobs) -> tuple[int, int]:
    """(drafted, accepted) tokens of this draft at a higher eta or a smaller gamma than its own.

    >>> cut(Chain((0.9, 0.7, 0.5), 2), Knobs(0.7, 6)), cut(Chain((0.1, 0.7), 1), Knobs(0.9, 6))
    ((2, 2), (1, 1))
    """
    most = min(len(chain.confidences), knobs.gamma)
    unsure = (i + 1 for i, confidence in enumerate(chain.confidences[:most]) if confidence <= knobs.eta)
    drafted = next(unsure, most)
    return drafted, min(chain.accepted, drafted)


def point(drafts: Sequence[Chain], knobs: Knobs) -> Point:
    """Means over the drafts; at least one is needed."""
    drafted, accepted = (sum(column) / len(drafts) for column in zip(*(cut(chain, knobs) for chain in drafts), strict=True))
    return Point(knobs, drafted, accepted)


def etas(lowest: float) -> list[float]:
    """The run's own, and the steps of the grid above it."""
    return [lowest, *(i / GRADES for i in range(1, GRADES + 1) if i / GRADES > lowest + 1e-9)]


def gammas(most: int) -> list[int]:
    """1 to the run's own; evenly spread if they are more than there are lines to tell apart."""
    lines = min(most, len(LINES))
    return [1 + round(i * (most - 1) / max(lines - 1, 1)) for i in range(lines)]


def sweep(steps: Sequence[Step], own: Knobs) -> list[Point]:
    """Every setting that the run tells about, the run's own among them; none without a draft."""
    drafts = chains(steps)
    return [point(drafts, Knobs(eta, gamma)) for gamma in gammas(own.gamma) for eta in etas(own.eta)] if drafts else []


def best_of(points: Sequence[Point], c: float) -> Point:
    """The largest modelled speed-up; among equals the shortest drafts."""
    return max(points, key=lambda one: (round(one.speedup(c), 9), -one.knobs.gamma, one.knobs.eta))


def lines_of(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Name -> the settings of one gamma, rising in eta. What brings the very same as the gamma before it joins its line."""
    groups: list[list[list[Point]]] = []
    for gamma in sorted({one.knobs.gamma for one in points}):
        line = [one for one in points if one.knobs.gamma == gamma]
        if groups and all(a.drafted == b.drafted for a, b in zip(groups[-1][0], line, strict=True)):
            groups[-1].append(line)
        else:
            groups.append([line])
    ends = ((group[0], group[0][0].knobs.gamma, group[-1][0].knobs.gamma) for group in groups)
    return {f"γ {low}" if low == high else f"γ {low} to {high}": line for line, low, high in ends}


def sweep_figure(points: Sequence[Point], own: Knobs, c: float, dark: bool = False) -> go.Figure:
    """The modelled speed-up over eta, one line per gamma; the best point is starred and the run's own ringed."""
    if not points:
        return empty_figure(NOTHING, dark)
    figure = go.Figure(layout=layout(330, dark))
    for (label, line), (color, dash, symbol) in zip(lines_of(points).items(), LINES, strict=False):
        figure.add_scatter(
            x=[one.knobs.eta for one in line],
            y=[one.speedup(c) for one in line],
            mode="lines+markers",
            name=label,
            line={"color": color, "dash": dash, "width": 2.2},
            marker={"symbol": symbol, "size": 8, "color": color},
            hovertext=[point_words(one, c) for one in line],
            hoverinfo="text",
            cliponaxis=False,
        )
    starred(figure, points, own, c, dark)
    return scaled(figure, [1.0, *(one.speedup(c) for one in points)], own)


def starred(figure: go.Figure, points: Sequence[Point], own: Knobs, c: float, dark: bool) -> None:
    """The best setting and the run's own, on top of the lines."""
    best = best_of(points, c)
    star = {"symbol": "star", "size": 17, "color": LOOKS["correction"].color, "line": {"width": 1.5, "color": ink(dark)}}
    ring = {"symbol": "circle-open", "size": 22, "color": ink(dark), "line": {"width": 2}}
    of_run = next((one for one in points if one.knobs == own), None)
    for label, one, look in (("best", best, star), ("this run", of_run, ring)):
        if one is not None:
            x, y = [one.knobs.eta], [one.speedup(c)]
            figure.add_scatter(x=x, y=y, mode="markers", name=label, marker=look, hoverinfo="skip", cliponaxis=False)
    words = f"<b>best: η {number(best.knobs.eta)}, γ {best.knobs.gamma}</b>, {number(best.speedup(c))}"
    side = "left" if best.knobs.eta < (own.eta + 1) / 2 else "right"
    figure.add_annotation(x=best.knobs.eta, y=best.speedup(c), text=words, showarrow=False, yshift=24, xanchor=side)


def scaled(figure: go.Figure, heights: Sequence[float], own: Knobs) -> go.Figure:
    """The axes, with room for star and label, and the line of plain decoding."""
    figure.add_hline(1, line={"color": PLAIN[0], "dash": "dot", "width": 1.5})
    framed(figure, "η: stop at a confidence not above this", "modelled speed-up")
    room, span = 0.01 + 0.03 * (1 - own.eta), max(heights) - min(heights) + 0.05
    figure.update_xaxes(range=[own.eta - room, 1 + room], zeroline=False)
    return figure.update_yaxes(range=[min(heights) - 0.12 * span, max(heights) + 0.25 * span], zeroline=False)


def point_words(one: Point, c: float) -> str:
    """One setting and what it would have brought; plain text."""
    return (
        f"η {number(one.knobs.eta)}, γ {one.knobs.gamma}: {number(one.drafted)} drafted and {number(one.accepted)} accepted per "
        f"step, {number(one.wasted)} of the drafted wasted, modelled {number(one.speedup(c))}"
    )


def sweep_alt(points: Sequence[Point], own: Knobs, c: float) -> str:
    """The lines by their ends, the run's own point and the best; plain text."""
    if not points:
        return NOTHING
    parts = []
    for label, line in lines_of(points).items():
        ends = dict.fromkeys(f"{number(one.speedup(c))} at η {number(one.knobs.eta)}" for one in (line[0], line[-1]))
        parts.append(f"{label}: {', '.join(ends)}")
    said = [f"This run: {point_words(one, c)}." for one in points if one.knobs == own]
    best = point_words(best_of(points, c), c)
    return " ".join([f"Modelled speed-up over η at c = {number(c)}. {'; '.join(parts)}.", *said, f"Best: {best}."])


def sweep_table(points: Sequence[Point], c: float) -> pd.DataFrame:
    """One row per setting: tokens per step, shares, and the modelled speed-up."""
    best = best_of(points, c) if points else None
    rows = [
        (o.knobs.eta, o.knobs.gamma, o.drafted, o.accepted, o.wasted, o.tokens, o.speedup(c), "★" if o is best else "")
        for o in points
    ]
    columns = ["drafted per step", "accepted per step", "wasted share", "tokens per step", "modelled speed-up", "best"]
    return pd.DataFrame(rows, columns=["η", "γ", *columns])


# -- another depth -----------------------------------------------------------------------------------------------------


def target_of(steps: Sequence[Step]) -> Depths | None:
    """Exit layer and layers of the target, from the first step that tells."""
    return next((target for step in steps if (target := depths_of(step))), None)


def ratio(exit: int, layers: int) -> float:
    """c: what one drafted token costs, in passes of the whole target; (exit + adapter) / layers.

    A step reads the root and m drafted tokens through the first layers one by one, m of them through the adapter, and all of them
    through the other layers at once: (m + 1) exit + m adapter + (layers - exit) = layers (1 + m c), if reading several tokens at
    once costs a layer no more than reading one. Simplified: the language-model head, which every drafted token needs too, is not
    counted: layer 1 of 8 at a width of 256 and 2,048 tokens comes to 0.230 with it and to 0.167 here.
    """
    return (exit + ADAPTER) / layers


def expected(alpha: float, gamma: int) -> float:
    """E: tokens per step if gamma are drafted and each is accepted with chance alpha: (1 - alpha^(gamma + 1)) / (1 - alpha).

    Added up term by term, so that alpha = 1 is no exception.

    >>> round(expected(0.7, 6), 4), round(expected(0.8, 4), 4), expected(1.0, 3)
    (3.0588, 3.3616, 4.0)
    """
    return sum((alpha**i for i in range(gamma + 1)), 0.0)


def ceiling(alpha: float, gamma: int, c: float) -> float:
    """The speed-up of the cost model, E / (1 + gamma c): modelled, not measured."""
    return expected(alpha, gamma) / (1 + gamma * c)


def alpha_of(steps: Sequence[Step]) -> float | None:
    """Share of the judged tokens that were accepted; None if none was judged."""
    verdicts = [node.verdict for step in steps if depths_of(step) for node in step.nodes if node.verdict != "not judged"]
    return verdicts.count("accepted") / len(verdicts) if verdicts else None


def reach(target: Depths) -> tuple[int, int]:
    """Fewest and most layers that are tried, the target's own between them; two and 80 if nothing speaks against it."""
    return min(target.layers, max(2, target.exit)), max(DEEPEST, target.layers + 1)


def depth_table(steps: Sequence[Step], own: Knobs) -> pd.DataFrame:
    """One row per number of layers, the exit as it is: c, the ceiling of the cost model, and what this run's drafts come to."""
    target, alpha = target_of(steps), alpha_of(steps)
    rows = []
    if target is not None and alpha is not None:
        low, high = reach(target)
        mean = point(chains(steps), own)
        every = ((layers, ratio(target.exit, layers)) for layers in range(low, high + 1))
        rows = [(layers, c, ceiling(alpha, own.gamma, c), mean.speedup(c)) for layers, c in every]
    columns = ["layers", "c", "modelled: γ drafted every time", "modelled: drafts as long as in this run"]
    return pd.DataFrame(rows, columns=columns)


def depth_figure(steps: Sequence[Step], own: Knobs, layers: int, dark: bool = False) -> go.Figure:
    """The modelled speed-up over the number of layers, this model and the chosen number marked."""
    table, target = depth_table(steps, own), target_of(steps)
    if table.empty:
        return empty_figure(UNJUDGED, dark)
    figure = go.Figure(layout=layout(300, dark))
    for column, (color, dash, symbol) in zip(table.columns[2:], LINES, strict=False):
        figure.add_scatter(
            x=table["layers"],
            y=table[column],
            mode="lines+markers",
            name=column.removeprefix("modelled: "),
            line={"color": color, "dash": dash, "width": 2.2},
            marker={
                "symbol": symbol,
                "color": color,
                "size": [11 if n in (target.layers, layers) else 0 for n in table["layers"]],
                "opacity": 1,
            },
            hovertemplate=f"%{{x}} layers: {column} %{{y:.2f}}<extra></extra>",
        )
    for n, label, dash, edge in ((target.layers, "this model", "dash", "top"), (layers, "chosen", "dot", "bottom")):
        if label != "chosen" or n != target.layers:
            line = {"color": ink(dark), "width": 1.5, "dash": dash}
            side = "left" if n > 0.8 * table["layers"].max() else "right"
            figure.add_vline(n, line=line, annotation_text=f"{label}: {n}", annotation_position=f"{edge} {side}")
    figure.add_hline(1, line={"color": PLAIN[0], "dash": "dot", "width": 1.5})
    framed(figure, f"layers of the target, left behind layer {target.exit}", "modelled speed-up")
    return figure.update_yaxes(range=[0, 1.2 * max(1.0, table.iloc[:, 2:].max().max())])


def depth_words(steps: Sequence[Step], own: Knobs, layers: int) -> str:
    """The cost model in numbers, for this model and for another depth; plain text. Also the figure's alt text."""
    target, alpha = target_of(steps), alpha_of(steps)
    if target is None or alpha is None:
        return UNJUDGED
    parts = []
    for n in dict.fromkeys((target.layers, layers)):
        c = ratio(target.exit, n)
        mine = point(chains(steps), own).speedup(c)
        full = number(ceiling(alpha, own.gamma, c))
        parts.append(f"{n} layers: c = {number(c)}, modelled {full}, with this run's drafts {number(mine)}")
    tokens = number(expected(alpha, own.gamma))
    return f"α = {number(alpha)} so far and γ = {own.gamma} give E = {tokens} tokens per step. {'; '.join(parts)}."
