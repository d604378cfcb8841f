"""What is particular to S2D: how deep every drafted token went, what each exit brought, how many layers were saved, and what the
other sub-models would have said.

Everything but the last stands in the scores of the nodes; a trace may come from anywhere, so a node whose scores do not hang
together is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import CONFIDENCE_AFTER, EXIT, LAYER_PASSES, LAYERS, ROWS_READ, part_of
from decoding.trace import Node, Step
from viz.style import GRID, LOOKS, MONO, SERIES, SERIES_LINE, ink, layout, muted, tint, with_mark
from viz.tokens import as_plotly, full_name, name
from viz.words import number

DEPTHS = (EXIT, LAYERS, ROWS_READ, LAYER_PASSES)  # scores
MOST = 64  # layers that are believed
PATTERN = {"accepted": "", "rejected": "/", "not judged": "."}
EXIT_COLOR = ("#E69F00", "#CC79A7", "#009E73", "#7F7F7F")  # from the first exit on
EXIT_PATTERN = ("", "/", "x", ".")
FEWEST = 10  # judged tokens of an exit before anything is said of its acceptance
OPINIONS, NAMED = 6, 5  # tokens of the figure and of a line of the table, at most

Opinion = tuple[int, tuple[int, ...], tuple[float, ...], float]  # layers, likeliest tokens, their q, q of the drafted token


@dataclass(frozen=True)
class Guess:
    """How one drafted token came about."""

    node: int
    exit: int  # layers
    layers: int  # of the whole draft model
    met: tuple[tuple[int, float], ...]  # exits in order, with the confidence there
    rows: int  # tokens read for the first time
    passes: int  # rows times layers

    @property
    def caught_up(self) -> int:
        """Passes of rows that had left early and waited."""
        return self.passes - self.exit * self.rows

    @property
    def whole(self) -> int:
        """Passes that the whole draft model would have made."""
        return self.layers * self.rows


def guess_of(number: int, node: Node) -> Guess | None:
    """None if the scores are not those of this method."""
    scores = node.scores
    if not set(DEPTHS) <= set(scores):
        return None
    exit_, layers, rows, passes = (scores[key] for key in DEPTHS)
    if not (1 <= exit_ <= layers <= MOST and 1 <= rows <= 4096 and exit_ * rows <= passes <= 1e9):
        return None
    levels = ((part_of(CONFIDENCE_AFTER, key) or "", value) for key, value in scores.items())
    met = sorted((int(level), value) for level, value in levels if level.isascii() and level.isdigit() and len(level) < 4)
    if not met or met[-1][0] != exit_ or not all(0 <= value <= 1 + 1e-6 for _, value in met):
        return None
    return Guess(number, int(exit_), int(layers), tuple(met), int(rows), int(passes))


def guesses(step: Step) -> list[Guess]:
    """Of one step, in the order they were drafted."""
    return [guess for i, node in enumerate(step.nodes) if (guess := guess_of(i, node)) is not None]


def exits_seen(steps: Sequence[Step]) -> list[int]:
    """Exits at which a token was drafted or looked for, and the deepest one."""
    drafted = [guess for step in steps for guess in guesses(step)]
    return sorted({level for guess in drafted for level, _ in guess.met} | {guess.layers for guess in drafted})


def way(guess: Guess) -> str:
    """The confidences on the way.

    >>> way(Guess(0, 2, 4, ((1, 0.61), (2, 0.78)), 1, 2))
    '0.61 ✗ → 0.78 ✓'
    """
    return " → ".join([*(f"{number(c, 2)} ✗" for _, c in guess.met[:-1]), f"{number(guess.met[-1][1], 2)} ✓"])


WRITTEN = 500  # confidences in a stack; of a run 80 tokens have some

# -- the stack ---------------------------------------------------------------------------------------------------------


def stack_figure(
    step: Step,
    token_bytes: Mapping[int, bytes],
    exits: Sequence[int],
    thresholds: Mapping[int, float],
    selected: int | None = None,
    dark: bool = False,
) -> go.Figure:
    """A bar per drafted token, as high as the layer it left at.

    Args:
        exits: the levels to rule, of the whole run, so that steps look alike.
        thresholds: exit -> what its confidence had to be above; the last one has none.
    """
    drafted = guesses(step)
    deepest = max([guess.layers for guess in drafted], default=1)
    figure = go.Figure(layout=layout(250 + 14 * min(deepest, 8), dark, barmode="overlay", showlegend=True))
    for verdict in ("accepted", "rejected", "not judged"):
        group = [guess for guess in drafted if step.nodes[guess.node].verdict == verdict]
        if group:
            figure.add_trace(bars(group, verdict, selected, dark))
            figure.add_trace(tops(step, group, verdict))
    ghosts = [guess for guess in drafted if guess.caught_up]
    if ghosts:
        figure.add_trace(ghost_bars(ghosts, min(exits, default=1), dark))
    figure.update_layout(annotations=levels(drafted, dark)[:WRITTEN])
    ticks = [f"layer {e}" + (f"<br>more than {number(thresholds[e], 2)}" if e in thresholds else "<br>always") for e in exits]
    labels = [as_plotly(name(step.nodes[guess.node].token, token_bytes)) for guess in drafted]
    figure.update_yaxes(range=[0, deepest + 0.75], tickvals=list(exits), ticktext=ticks, gridcolor=GRID, zerolinecolor=GRID)
    figure.update_xaxes(
        range=[-0.6, max(len(drafted), 6) - 0.4],
        tickvals=list(range(len(drafted))),
        ticktext=[f"<b>{text}</b>" if guess.node == selected else text for text, guess in zip(labels, drafted, strict=True)],
        tickfont={"family": MONO, "size": 12, "color": ink(dark)},
        showgrid=False,
    )
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 30})


def bars(group: Sequence[Guess], verdict: str, selected: int | None, dark: bool) -> go.Bar:
    look = LOOKS[verdict]
    picked = [guess.node == selected for guess in group]
    return go.Bar(
        name=with_mark(verdict),
        x=[guess.node for guess in group],
        y=[guess.exit for guess in group],
        width=0.5,
        marker={
            "color": tint(look.color, 0.85 if look.filled else 0.18),
            "line": {"color": [ink(dark) if p else look.line for p in picked], "width": [3 if p else 1.5 for p in picked]},
            "pattern": pattern(PATTERN[verdict], look.line),
        },
        hovertext=[f"{verdict}; left after layer {guess.exit} of {guess.layers}: {way(guess)}" for guess in group],
        hoverinfo="text",
    )


def pattern(shape: str, color: str) -> dict:
    """Of a bar, so that it is told by more than its colour."""
    return {"shape": shape, "fgcolor": color, "solidity": 0.2, "fillmode": "overlay"}


def tops(step: Step, group: Sequence[Guess], verdict: str) -> go.Scatter:
    """The state's own symbol on top of each bar: a verdict is never told by colour alone."""
    look = LOOKS[verdict]
    return go.Scatter(
        x=[guess.node for guess in group],
        y=[guess.exit for guess in group],
        mode="markers",
        marker={"symbol": look.symbol, "color": look.color, "size": 11, "line": {"color": look.line, "width": 1.5}},
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )


def ghost_bars(ghosts: Sequence[Guess], first: int, dark: bool) -> go.Bar:
    """The rows that had waited, pushed through the deeper layers by a later token."""
    return go.Bar(
        name="caught up: rows that had waited",
        x=[guess.node + 0.36 for guess in ghosts],
        y=[guess.exit - first for guess in ghosts],
        base=[first] * len(ghosts),
        width=0.14,
        marker={"color": "rgba(0,0,0,0)", "line": {"color": muted(dark), "width": 1.2}},
        text=[f"+{guess.caught_up}" for guess in ghosts],
        textposition="outside",
        textfont={"color": muted(dark), "size": 11},
        hovertext=[f"{guess.caught_up} layer passes of rows that had left early" for guess in ghosts],
        hoverinfo="text",
        cliponaxis=False,
    )


def levels(drafted: Sequence[Guess], dark: bool) -> list[dict]:
    """Annotations: the confidence at every exit that was met, right above that level, on a ground of its own over the bars."""
    common = {"showarrow": False, "yanchor": "bottom", "yshift": 3, "borderpad": 1, "font": {"size": 12, "color": ink(dark)}}
    ground = "rgba(20,23,28,0.8)" if dark else "rgba(255,255,255,0.85)"
    return [
        {
            "x": guess.node,
            "y": level,
            "text": f"<b>{number(c, 2)} ✓</b>" if level == guess.exit else f"{number(c, 2)} ✗",
            "bgcolor": ground,
            **common,
        }
        for guess in drafted
        for level, c in guess.met
    ]


def stack_alt(step: Step) -> str:
    """The stack in words; plain text."""
    drafted = guesses(step)
    if not drafted:
        return "No token of this step says how deep it went."
    parts = [f"layer {guess.exit} ({step.nodes[guess.node].verdict})" for guess in drafted]
    return f"{len(drafted)} drafted tokens left after {', '.join(parts)}."


def stack_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per drafted token."""
    rows = [
        [
            g.node,
            full_name(step.nodes[g.node].token, token_bytes),
            g.exit,
            way(g),
            g.exit * g.rows,
            g.caught_up,
            step.nodes[g.node].verdict,
        ]
        for g in guesses(step)
    ]
    return pd.DataFrame(rows, columns=["node", "token", "left after layer", "confidence", "own passes", "caught up", "verdict"])


# -- the exits over a run ----------------------------------------------------------------------------------------------


def exits_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per exit: how many tokens left there, how sure it was, and how many of those that were judged the target kept."""
    drafted = [(guess, step.nodes[guess.node].verdict) for step in steps for guess in guesses(step)]
    rows = []
    for level in exits_seen(steps):
        here = [(guess, verdict) for guess, verdict in drafted if guess.exit == level]
        judged = [verdict for _, verdict in here if verdict != "not judged"]
        kept = judged.count("accepted")
        sure = sum(guess.met[-1][1] for guess, _ in here) / len(here) if here else None
        rate = kept / len(judged) if judged else None
        rows.append([level, len(here), len(here) / max(len(drafted), 1), sure, len(judged), kept, rate])
    columns = ["left after layer", "drafted", "share", "mean confidence", "judged", "accepted", "acceptance"]
    return pd.DataFrame(rows, columns=columns)


def exits_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Share of the drafted tokens and acceptance, exit by exit."""
    table = exits_table(steps)
    labels = [f"layer {level}" for level in table["left after layer"]]
    figure = go.Figure(layout=layout(110 + 62 * len(table), dark, barmode="group", bargap=0.28))
    look = LOOKS["accepted"]
    parts = (
        ("acceptance", "accepted / judged", look.color, look.line, "", table["judged"]),
        ("share", "share of the drafted tokens", SERIES["q"], SERIES_LINE["q"], "/", [table["drafted"].sum()] * len(table)),
    )
    for field, label, color, line, shape, counts in parts:
        values = [None if pd.isna(value) else value for value in table[field]]
        figure.add_bar(
            name=label,
            y=labels,
            x=values,
            orientation="h",
            marker={"color": tint(color, 0.85), "line": {"color": line, "width": 1.2}, "pattern": pattern(shape, line)},
            text=["none" if v is None else f"{v:.0%} of {count}" for v, count in zip(values, counts, strict=True)],
            textposition="outside",
            textfont={"color": ink(dark)},
            hoverinfo="skip",
            cliponaxis=False,
        )
    figure.update_xaxes(range=[0, 1.18], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1], gridcolor=GRID, zeroline=False)
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 24})


def exits_alt(steps: Sequence[Step]) -> str:
    """The same in words; plain text."""
    parts = []
    for _, row in exits_table(steps).iterrows():
        rate = "none judged" if pd.isna(row["acceptance"]) else f"{row['acceptance']:.0%} of {row['judged']:.0f} judged accepted"
        parts.append(f"layer {row['left after layer']:.0f}: {row['share']:.0%} of the drafted tokens, {rate}")
    return "; ".join(parts) + "."


def threshold_words(steps: Sequence[Step]) -> str:
    """What the acceptance of the exits says about the thresholds; "" as long as too little was judged."""
    table = exits_table(steps)
    judged = table[table["judged"] >= FEWEST]
    if len(judged) < 2:
        return ""
    first, last = judged.iloc[0], judged.iloc[-1]
    early, late = f"{first['acceptance']:.0%}", f"{last['acceptance']:.0%}"
    if first["acceptance"] < last["acceptance"]:
        return (
            f"Tokens that left after layer {first['left after layer']:.0f} were kept less often ({early}) than those that went to "
            f"layer {last['left after layer']:.0f} ({late}): the threshold lets too much through."
        )
    return (
        f"Tokens that left after layer {first['left after layer']:.0f} were kept at least as often ({early}) as those that went to "
        f"layer {last['left after layer']:.0f} ({late}): what is easy is left to the small sub-model, what is hard goes deep."
    )


def work_words(steps: Sequence[Step]) -> str:
    """Layers run and layer passes per drafted token against the whole draft model; "" if nothing was drafted."""
    drafted = [guess for step in steps for guess in guesses(step)]
    if not drafted:
        return ""
    kinds = ([g.exit for g in drafted], [g.passes for g in drafted], [g.caught_up for g in drafted], [g.whole for g in drafted])
    run, passes, late, whole = (sum(kind) / len(drafted) for kind in kinds)
    layers = max(g.layers for g in drafted)
    return (
        f"Layers run one after the other per drafted token: {number(run)} of {layers}, {1 - run / layers:.0%} fewer. Counted row "
        f"by row that is {number(passes)} passes, {number(late)} of them for rows that had waited, against {number(whole)}: what "
        "left early is read later, several rows at once, unless it was dropped before."
    )


# -- what the others would have said -----------------------------------------------------------------------------------


def opinions_table(opinions: Sequence[Opinion], token: int, answered: int, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per sub-model.

    Args:
        token: the drafted one.
        answered: the exit that drafted it.
    """
    rows = []
    for level, tokens, q, asked in opinions:
        likeliest = list(zip(tokens, q, strict=True))[:NAMED]
        words = ", ".join(f"{full_name(t, token_bytes)} {number(value, 2)}" for t, value in likeliest)
        place = "drafted it" if level == answered else "deeper" if level > answered else "passed it on"
        rows.append([level, place, number(q[0], 2), words, asked])
    column = f"q of the drafted {full_name(token, token_bytes)}"
    return pd.DataFrame(rows, columns=["layers", "", "confidence", "would have said", column])


def opinions_figure(
    opinions: Sequence[Opinion], token: int, answered: int, token_bytes: Mapping[int, bytes], dark: bool = False
) -> go.Figure:
    """q of the likeliest tokens, one series per sub-model."""
    tokens = favourites(opinions, token)
    figure = go.Figure(layout=layout(90 + 14 * len(tokens) * (len(opinions) + 1), dark, barmode="group", bargap=0.25))
    for place, (level, top, q, asked) in enumerate(opinions):
        known = dict(zip(top, q, strict=True)) | {token: asked}
        color = EXIT_COLOR[place % len(EXIT_COLOR)]
        figure.add_bar(
            name=("layer 1" if level == 1 else f"layers 1 to {level}") + (" (drafted it)" if level == answered else ""),
            y=list(range(len(tokens))),
            x=[known.get(t) for t in tokens],
            orientation="h",
            marker={
                "color": tint(color, 0.8),
                "line": {"color": ink(dark) if level == answered else color, "width": 1.6},
                "pattern": pattern(EXIT_PATTERN[place % len(EXIT_PATTERN)], ink(dark)),
            },
            hovertemplate="%{x:.4f}<extra></extra>",
        )
    labels = [as_plotly(name(t, token_bytes)) for t in tokens]
    figure.update_yaxes(
        tickvals=list(range(len(tokens))),
        ticktext=[f"<b>{label}</b> drafted" if t == token else label for t, label in zip(tokens, labels, strict=True)],
        tickfont={"family": MONO, "color": ink(dark)},
        autorange="reversed",
        showgrid=False,
    )
    figure.update_xaxes(range=[0, 1], title="q at temperature 1", gridcolor=GRID, zeroline=False)
    return figure.update_layout(margin={"l": 8, "r": 16, "t": 34, "b": 40}, legend={"traceorder": "normal"})


def favourites(opinions: Sequence[Opinion], token: int) -> list[int]:
    """The drafted token and the likeliest ones of all sub-models, the deepest one's first."""
    likely = {token: 1.0}
    for _, tokens, q, _ in reversed(opinions):
        for t, value in zip(tokens, q, strict=True):
            likely.setdefault(t, value)
    others = sorted((t for t in likely if t != token), key=likely.__getitem__, reverse=True)
    return [token, *others[: OPINIONS - 1]]


def opinions_words(opinions: Sequence[Opinion], token: int, answered: int, token_bytes: Mapping[int, bytes]) -> str:
    """One sentence; plain text."""
    deeper = [(level, tokens[0]) for level, tokens, *_ in opinions if level > answered]
    if not deeper:
        return f"The deepest sub-model drafted {full_name(token, token_bytes)}; there is none below it."
    same = [level for level, favourite in deeper if favourite == token]
    if len(same) == len(deeper):
        return f"Every deeper sub-model likes {full_name(token, token_bytes)} best as well: its layers would have changed little."
    parts = ", ".join(f"{full_name(favourite, token_bytes)} after layer {level}" for level, favourite in deeper)
    return f"{full_name(token, token_bytes)} was drafted after layer {answered}; likeliest further down: {parts}."
