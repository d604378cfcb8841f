"""What is particular to LazyLLM: how far up every token of the text came at a call, who came back, what the calls cost and what
the pruning did to the text.

Every step carries the last layer in which each token in front of it was alive, one byte each; within a call the alive sets shrink
from layer to layer, so that is all there is to know of them. A token that is alive deeper than ever before was read there now, from
the aux cache if it is not new. The scores are kept of the first steps only. A trace may come from anywhere: grids that do not fit
the text are not drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import (
    ATTENTION_PAID,
    AUX_ENTRIES,
    DEPTH_REACHED,
    FULL_AGREES,
    FULL_KL,
    FULL_OVERLAP,
    FULL_PASSES,
    PASSES,
)
from decoding.trace import Step, Trace
from viz.runs.lines import LINES, empty_figure, framed
from viz.style import GRID, MONO, SERIES, ink, layout, muted
from viz.tokens import NEWLINE, SPACE, TAB, as_html, as_plotly, full_name, name
from viz.words import number

FRAMES = 32  # steps of the film strip
DRAWN = 200_000  # cells of a heat map; 32 layers have 6,000 tokens
NAMED = 8_000  # cells of a heat map that get the name of their token
MARKED = 3_000  # marks of the film strip
SCALE = ((0.0, "rgba(0,114,178,0.12)"), (0.25, "#7FB8DC"), (0.6, "#0072B2"), (1.0, "#E69F00"))  # dead cells are empty
LEVELS = (  # how a token looks that stopped early, later, late, or did not: background, and a line that tells it without colour
    ("transparent;opacity:0.62", "none"),
    ("rgba(0,114,178,0.14)", "underline dotted 2px"),
    ("rgba(0,114,178,0.26)", "underline dashed 2px"),
    ("rgba(230,159,0,0.42)", "underline solid 2px"),
)
GLYPHS = (SPACE, NEWLINE, TAB)


@dataclass(frozen=True, eq=False)
class Reach:
    """How far up the tokens in front of a step came; layers count from 1."""

    now: np.ndarray  # (n,) the last layer in which each token was alive in this call
    before: np.ndarray  # (n,) the deepest it was read in any call before; 0 for a token that was not
    last: np.ndarray  # (n,) the same of the call right before; 0 for a token that was not there
    layers: int

    @property
    def ever(self) -> np.ndarray:
        """(n,) the deepest so far."""
        return np.maximum(self.now, self.before)

    @property
    def revived(self) -> np.ndarray:
        """(n,) bool: came back from the aux cache: read deeper than ever before, and not new."""
        return (self.before > 0) & (self.now > self.before)

    @property
    def returned(self) -> np.ndarray:
        """(n,) bool: alive again where it was read before; no layer reads it again."""
        return (self.last > 0) & (self.now > self.last) & ~self.revived


def depths_of(trace: Trace, step: int) -> np.ndarray | None:
    """(n,) uint8: the last layer in which each token in front of a step was alive; None where the trace does not say."""
    return depths_in(trace.steps[step], len(trace.tokens_before(step))) if 0 <= step < len(trace.steps) else None


def depths_in(step: Step, tokens: int) -> np.ndarray | None:
    """The same behind so many tokens; None also for what cannot be right: the last token is alive in all layers."""
    found = np.frombuffer(step.grids.get(DEPTH_REACHED, b""), dtype=np.uint8)
    wrong = not len(found) or len(found) != tokens or found.min() < 1 or found.max() != found[-1]
    return None if wrong else found


def reaches(trace: Trace, upto: int) -> list[Reach] | None:
    """Of every step through index `upto`; None if one of them does not say. Tokens of an accepted draft were read by all layers."""
    made: list[Reach] = []
    tokens = len(trace.header.prompt_tokens)
    for step in trace.steps[: upto + 1]:
        now = depths_in(step, tokens)
        if now is None or (made and now[-1] != made[0].layers):
            return None
        tokens += len(step.tokens)
        before, last = np.zeros_like(now), np.zeros_like(now)
        if made:
            old = len(made[-1].now)
            before[:old], last[:old] = made[-1].ever, made[-1].now
            before[old:-1] = last[old:-1] = now[-1]
        made.append(Reach(now, before, last, int(now[-1])))
    return made or None


def scores_of(trace: Trace, step: int) -> np.ndarray | None:
    """(layers, n) what the last token paid, of the layer's highest; NaN where a token was not alive. None if it was not kept."""
    depths = depths_of(trace, step)
    if depths is None:
        return None
    grid, layers = trace.steps[step].grids.get(ATTENTION_PAID, b""), int(depths[-1])
    if len(grid) != layers * len(depths):
        return None
    paid = (np.frombuffer(grid, dtype=np.uint8).reshape(layers, len(depths)) / 255) ** 2
    return np.where(np.arange(1, layers + 1)[:, None] <= depths, paid, np.nan)


def places_of(reach: Sequence[Reach]) -> list[int]:
    """The layers behind which tokens were dropped in these calls."""
    return sorted({int(depth) for one in reach for depth in np.unique(one.now)} - {reach[0].layers})


# -- the funnel ---------------------------------------------------------------------------------------------------------------


def survival_figure(trace: Trace, step: int, dark: bool = False) -> go.Figure:
    """Layers downwards, tokens to the right; a cell is filled where the token was alive, by what the last token paid it there."""
    depths = depths_of(trace, step)
    if depths is None:
        return empty_figure("This trace does not carry how far the tokens came.", dark)
    layers, n = int(depths[-1]), len(depths)
    if n * layers > DRAWN:
        return empty_figure(f"{n:,} tokens in {layers:,} layers are more than is drawn here: at most {DRAWN:,} cells are.", dark)
    scores = scores_of(trace, step)
    alive = np.where(np.arange(1, layers + 1)[:, None] <= depths, 1.0, np.nan)
    shown = alive * 0.5 if scores is None else np.sqrt(scores)
    names = [as_plotly(name(token, trace.token_bytes)) for token in trace.tokens_before(step)]
    named = n * layers <= NAMED
    figure = go.Figure(layout=layout(min(440, max(190, 14 * layers + 70)), dark, showlegend=False))
    figure.add_heatmap(
        z=np.round(shown, 3),
        x=list(range(1, n + 1)),
        y=list(range(1, layers + 1)),
        zmin=0,
        zmax=1,
        colorscale=[list(stop) for stop in SCALE],
        showscale=False,
        xgap=0.5 if n <= 200 else 0,
        ygap=1 if layers <= 16 else 0,
        text=[names] * layers if named else None,
        hovertemplate=("%{text}, " if named else "") + "token %{x}, layer %{y}<extra></extra>",
        hoverongaps=False,
    )
    line = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "line": {"color": muted(dark), "width": 1, "dash": "dot"}}
    places = sorted({int(depth) for depth in depths} - {layers})  # all at once: Plotly copies those that are there for each more
    figure.update_layout(shapes=[line | {"y0": place + 0.5, "y1": place + 0.5} for place in places])
    figure.update_xaxes(title="token of the text", showgrid=False, zeroline=False, range=[0.5, n + 0.5])
    figure.update_yaxes(title="layer", showgrid=False, zeroline=False, range=[layers + 0.5, 0.5], automargin=True)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 8, "b": 40})


def survival_alt(trace: Trace, step: int) -> str:
    """The funnel in words; plain text."""
    depths = depths_of(trace, step)
    if depths is None:
        return "How far the tokens came is not known."
    layers = int(depths[-1])
    ends = sorted({int(depth) for depth in depths})
    parts = [f"{int((depths > a).sum())}{' tokens' * (not a)} in {stretch(a, b)}" for a, b in pairwise([0, *ends])]
    return f"Alive in this call: {', '.join(parts)}. All {layers} layers read the last token."


def stretch(start: int, stop: int) -> str:
    """Layers between two places of pruning.

    >>> stretch(0, 3), stretch(3, 4)
    ('layers 1 to 3', 'layer 4')
    """
    return f"layer {stop}" if stop == start + 1 else f"layers {start + 1} to {stop}"


def survival_table(trace: Trace, step: int) -> pd.DataFrame:
    """One row per token of the text: the last layer in which it was alive now, the deepest so far, what it was paid there."""
    found = reaches(trace, step)
    columns = ["token", "text", "alive up to layer", "deepest so far", "paid there, of the highest", "came back"]
    if found is None:
        return pd.DataFrame(columns=columns)
    reach, scores = found[-1], scores_of(trace, step)
    rows = [
        (
            i + 1,
            full_name(token, trace.token_bytes),
            int(reach.now[i]),
            int(reach.ever[i]),
            None if scores is None else float(scores[reach.now[i] - 1, i]),
            "from the aux cache" if reach.revived[i] else "read before" if reach.returned[i] else "",
        )
        for i, token in enumerate(trace.tokens_before(step))
    ]
    return pd.DataFrame(rows, columns=columns)


# -- the text, by how far it came ---------------------------------------------------------------------------------------------


def level(depth: int, ends: Sequence[int]) -> int:
    """Which look of LEVELS a depth has: the last one for those that came to the top, and never for others.

    >>> [level(depth, (3, 6, 9, 12)) for depth in (3, 6, 9, 12)], level(3, (3, 6)), level(12, (12,))
    ([0, 1, 2, 3], 0, 3)
    """
    if depth >= ends[-1]:
        return len(LEVELS) - 1
    return min(len(LEVELS) - 2, (len(LEVELS) - 1) * list(ends).index(depth) // max(1, len(ends) - 1))


def prompt_html(trace: Trace, step: int, ever: bool = False) -> str:
    """The prompt, every token in the look of the deepest layer it reached at this step, or so far; HTML."""
    found = reaches(trace, step)
    if found is None:
        return ""
    reach = found[-1]
    depths = (reach.ever if ever else reach.now)[: len(trace.header.prompt_tokens)].tolist()
    ends = [*(end for end in sorted(set(depths)) if end < reach.layers), reach.layers]
    parts = []
    for i, (token, depth) in enumerate(zip(trace.header.prompt_tokens, depths, strict=False)):
        shown = full_name(token, trace.token_bytes)
        back = not ever and bool(reach.revived[i])
        title = as_html(f"{shown}: up to layer {depth} of {reach.layers}" + ", from the aux cache" * back)
        before = "<wbr>" if shown[:1] in GLYPHS else ""
        mark = '<sup aria-hidden="true">▲</sup>' if back else ""
        parts.append(f'{before}<span style="{look(level(depth, ends))}" title="{title}">{as_html(shown)}{mark}</span>')
        parts.append("<br>" * shown.count(NEWLINE))
    keys = "".join(key_html(end, start, ends, reach.layers) for start, end in zip((0, *ends), ends, strict=False))
    keys += "<span>▲ came back from the aux cache in this call</span>" * (not ever)
    box = f"font-family:{as_html(MONO)};font-size:0.86rem;line-height:1.9;overflow-wrap:anywhere;max-height:15rem;overflow-y:auto"
    return (
        f'<div class="ds-keys">{keys}</div><div role="group" aria-label="The prompt, by the deepest layer every token reached" '
        f'tabindex="0" style="{box}">{"".join(parts)}</div>'
    )


def look(number: int) -> str:
    """CSS of a level."""
    background, line = LEVELS[number]
    return f"background:{background};text-decoration:{line};text-underline-offset:0.25em;border-radius:0.2em;padding:0.1em 0"


def key_html(end: int, start: int, ends: Sequence[int], layers: int) -> str:
    """One entry of the legend."""
    words = f"came to the top, layer {layers}" if end == layers else f"stopped behind layer {end}"
    return f'<span><span style="{look(level(end, ends))}">token</span> {words}</span>'


# -- call by call -------------------------------------------------------------------------------------------------------------


def film_figure(trace: Trace, step: int, dark: bool = False) -> go.Figure:
    """Calls downwards, tokens to the right, the cell as high as the token came; a triangle where one came back from the aux cache,
    a dot where one is alive again that was read before."""
    found = reaches(trace, step)
    if found is None:
        return empty_figure("This trace does not carry how far the tokens came.", dark)
    first = max(0, len(found) - FRAMES)
    frames, layers, width = found[first:], found[-1].layers, len(found[-1].now)
    cells = np.full((len(frames), width), np.nan)
    for i, reach in enumerate(frames):
        cells[i, : len(reach.now)] = reach.now / layers
    calls = list(range(first + 1, first + len(frames) + 1))
    figure = go.Figure(layout=layout(min(560, max(190, 17 * len(frames) + 90)), dark))
    figure.add_heatmap(
        z=np.round(cells, 3),
        x=list(range(1, width + 1)),
        y=calls,
        zmin=0,
        zmax=1,
        colorscale=[list(stop) for stop in SCALE],
        showscale=False,
        ygap=1,
        customdata=np.round(cells * layers),
        hovertemplate="call %{y}, token %{x}: up to layer %{customdata}<extra></extra>",
        hoverongaps=False,
    )
    for words, of, symbol, size in (
        ("from the aux cache", "revived", "triangle-up", 7),
        ("alive again, read before", "returned", "circle-open", 4),
    ):
        points = [(call, at + 1) for call, reach in zip(calls, frames, strict=True) for at in np.flatnonzero(getattr(reach, of))]
        points = points[-MARKED:]
        figure.add_scatter(
            x=[at for _, at in points],
            y=[call for call, _ in points],
            mode="markers",
            name=words,
            marker={"symbol": symbol, "size": size, "color": ink(dark)},
            hovertemplate=f"call %{{y}}, token %{{x}}: {words}<extra></extra>",
        )
    figure.update_xaxes(title="token of the text", showgrid=False, zeroline=False, range=[0.5, width + 0.5])
    figure.update_yaxes(title="call", showgrid=False, zeroline=False, range=[calls[-1] + 0.5, calls[0] - 0.5], automargin=True)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 40})


def film_alt(trace: Trace, step: int) -> str:
    """The film strip in words; plain text."""
    found = reaches(trace, step)
    if found is None:
        return "How far the tokens came is not known."
    parts = [
        f"call {i + 1}: {int((reach.now == reach.layers).sum())} in the top layer, "
        f"{int(reach.revived.sum())} back from the aux cache"
        for i, reach in enumerate(found)
    ]
    return "; ".join(parts[-FRAMES:]) + "."


def film_table(trace: Trace, step: int) -> pd.DataFrame:
    """One row per call."""
    rows = []
    for i, reach in enumerate(reaches(trace, step) or ()):
        facts = trace.steps[i].facts
        rows.append(
            (
                i + 1,
                len(reach.now),
                int((reach.now == reach.layers).sum()),
                int(reach.revived.sum()),
                int(reach.returned.sum()),
                facts.get(PASSES),
                facts.get(FULL_PASSES),
                facts.get(AUX_ENTRIES),
            )
        )
    columns = ["call", "tokens", "in the top layer", "from the aux cache", "alive again", "passes", "full model", "aux entries"]
    return pd.DataFrame(rows, columns=columns)


# -- what it cost -------------------------------------------------------------------------------------------------------------


def counters_table(trace: Trace, step: int) -> pd.DataFrame:
    """Per stretch of layers between two places of pruning: tokens that each of them read, in this call and so far, beside the full
    model; the share of the prompt that none of the calls brought there. Drafted tokens are left out: all layers read them."""
    found = reaches(trace, step)
    columns = ["which", "read now", "read so far", "full model so far", "prompt tokens never read", "share"]
    if found is None:
        return pd.DataFrame(columns=columns)
    reach, prompt, rows = found[-1], len(trace.header.prompt_tokens), []
    for start, stop in pairwise([0, *places_of(found), reach.layers]):
        now = int(((reach.now > start) & (reach.before <= start)).sum())
        never = int((reach.ever[:prompt] <= start).sum())
        rows.append((stretch(start, stop), now, int((reach.ever > start).sum()), len(reach.now), never, never / max(1, prompt)))
    return pd.DataFrame(rows, columns=columns)


def never_words(trace: Trace, step: int) -> str:
    """How much of the prompt no call brought to the top layer; plain text."""
    found, prompt = reaches(trace, step), len(trace.header.prompt_tokens)
    if found is None or not prompt:
        return ""
    reach = found[-1]
    never = int((reach.ever[:prompt] < reach.layers).sum())
    back = sum(int(one.revived.sum()) for one in found)
    return (
        f"{never} of {prompt} prompt tokens ({never / prompt:.0%}) were never read by the top layer so far; {back} times one came "
        "back from the aux cache."
    )


def cost_words(trace: Trace, step: int) -> str:
    """What the calls took in passes of a row through a layer, beside the full model; plain text."""
    steps = trace.steps[: step + 1]
    pairs = [(one.facts.get(PASSES, -1.0), one.facts.get(FULL_PASSES, -1.0)) for one in steps]
    if not pairs or not all(0 <= mine <= 1e12 and 0 < full <= 1e12 for mine, full in pairs):
        return ""
    first, whole = pairs[0], (sum(mine for mine, _ in pairs), sum(full for _, full in pairs))
    later = f"; all {len(pairs)} calls together {share(*whole)}" if len(pairs) > 1 else ""
    return f"The first call took {share(*first)} of the full model's passes of a row through a layer{later}."


def share(mine: float, full: float) -> str:
    """'52 % (2,714 of 5,232)'."""
    return f"{mine / full:.0%} ({mine:,.0f} of {full:,.0f})"


# -- what it did to the text ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """How far the pruned target was from the full one at a step: means over the rows that its tokens were drawn from."""

    step: int  # from 1
    kl: float  # KL(full || pruned), nats
    overlap: float
    agrees: float


def damages(steps: Sequence[Step]) -> list[Damage]:
    """Of the steps that carry it, with numbers that can be."""
    made = []
    for i, step in enumerate(steps):
        kl, overlap, agrees = (step.facts.get(fact, -1.0) for fact in (FULL_KL, FULL_OVERLAP, FULL_AGREES))
        if -1e-3 <= kl <= 1e5 and 0 <= overlap <= 1.01 and 0 <= agrees <= 1:
            made.append(Damage(i + 1, max(0.0, kl), overlap, agrees))
    return made


def damage_words(steps: Sequence[Step], greedy: bool) -> str:
    """The means, and where greedy text parts; plain text."""
    found = damages(steps)
    if not found:
        return "The full model did not read along. Switch “Compare with the full model” on to see what pruning does to the text."
    means = [sum(getattr(one, part) for one in found) / len(found) for part in ("kl", "overlap", "agrees")]
    parted = next((one.step for one in found if one.agrees < 1), None)
    words = (
        f"Mean over {len(found)} {'step' if len(found) == 1 else 'steps'}: KL {number(means[0])} nats, overlap {number(means[1])}, "
        f"the likeliest token is the same in {means[2]:.0%}."
    )
    if not greedy:
        return words
    return words + (
        " The text is still that of the full model."
        if parted is None
        else f" In step {parted} the text parts from the full model's."
    )


def damage_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """KL step by step; a cross where the full model's likeliest token is another."""
    found = damages(steps)
    if not found:
        return empty_figure("The full model did not read along.", dark)
    color, _, symbol = LINES[0]
    figure = go.Figure(layout=layout(260, dark))
    figure.add_scatter(
        x=[one.step for one in found],
        y=[one.kl for one in found],
        mode="lines+markers",
        name="KL(full || pruned)",
        line={"color": color, "width": 2},
        marker={"symbol": symbol, "size": 6, "color": color},
        customdata=[(one.overlap, one.agrees) for one in found],
        hovertemplate="step %{x}: KL %{y:.3f}, overlap %{customdata[0]:.2f}<extra></extra>",
    )
    other = [one for one in found if one.agrees < 1]
    figure.add_scatter(
        x=[one.step for one in other],
        y=[one.kl for one in other],
        mode="markers",
        name="another token is the likeliest",
        marker={"symbol": "x", "size": 10, "color": SERIES["q"], "line": {"color": ink(dark), "width": 1}},
        hovertemplate="step %{x}: the full model would say another token<extra></extra>",
    )
    framed(figure, "step", "nats")
    return figure.update_yaxes(rangemode="tozero", gridcolor=GRID)


def damage_alt(steps: Sequence[Step]) -> str:
    """The line in words; plain text."""
    found = damages(steps)
    worst = max(found, key=lambda one: one.kl, default=None)
    if worst is None:
        return "The full model did not read along."
    return f"KL to the full model over {len(found)} steps; the highest is {number(worst.kl)} nats, in step {worst.step}."


def damage_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per step."""
    rows = [(one.step, one.kl, one.overlap, one.agrees) for one in damages(steps)]
    return pd.DataFrame(rows, columns=["step", "KL, nats", "overlap", "same likeliest token"])


def prunes(params: Mapping[str, object]) -> bool:
    """Whether a run with these parameters drops anything, as far as they say."""
    names = ("keep_early", "keep_middle", "keep_late")
    return any(params.get(one) != 1 for one in names)
