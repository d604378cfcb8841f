"""What is particular to SpecDec++: predicted against actual acceptance token by token, where drafting stopped, and whether the head
was right over the run so far.

A prediction stands in the scores of every node but the last of its step, which is submitted without having been fed to the draft
model. The actual chance of acceptance, min(1, p / q), follows from the node itself, also where the target never got to judge it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import PREDICTED
from decoding.trace import Node, Step
from viz.methods.shared.token_bars import token_axes, token_bars
from viz.style import GRID, SERIES, SERIES_LINE, ink, layout, limit_line, muted
from viz.tokens import full_name, name
from viz.words import number

WEIGHT = 6.0  # of a refusal in the training of the head
BINS = 10


@dataclass(frozen=True)
class Guess:
    """A drafted token as the head and the target saw it."""

    node: Node
    predicted: float | None
    product: float | None  # of the predictions up to this one: the head's chance that nothing was rejected so far
    actual: float | None  # min(1, p / q)


def guesses(step: Step) -> list[Guess]:
    """The step's chain with its predictions; those that a trace does not carry, or that cannot be, are None."""
    chain: list[Guess] = []
    product: float | None = 1.0
    for node in step.nodes:
        said = node.scores.get(PREDICTED, -1.0)
        predicted = said if 0 <= said <= 1 else None
        product = None if predicted is None or product is None else product * predicted
        chain.append(Guess(node, predicted, product, min(1.0, node.p / node.q) if node.q else None))
    return chain


def stop_words(step: Step, threshold: float, shortest: int, longest: int) -> str:
    """Why drafting stopped where it did, in a sentence; plain text."""
    drafted = len(step.nodes)
    products = [guess.product for guess in guesses(step) if guess.product is not None]
    if not drafted:
        return "Nothing was drafted."
    words = f"Drafting stopped behind {drafted} {'token' if drafted == 1 else 'tokens'}: "
    if drafted >= longest:
        return words + "that is the longest draft."
    if products and len(products) == drafted - 1 and 1 - products[-1] > threshold:
        passed = f"the predicted chance of a rejection was {number(1 - products[-1])}, above {number(threshold)}"
        at_least = (
            " (it was so earlier, but that is the shortest draft)"
            if drafted == shortest and passes_before(products, threshold)
            else ""
        )
        return words + passed + at_least + "."
    return words + "the text or the context ends there."


def passes_before(products: Sequence[float], threshold: float) -> bool:
    """Whether the threshold was passed by a prediction before the last."""
    return any(1 - product > threshold for product in products[:-1])


def acceptance_figure(step: Step, token_bytes: Mapping[int, bytes], threshold: float, dark: bool = False) -> go.Figure:
    """Two bars per token, predicted and actual; the product of the predictions as a line that falls towards the threshold."""
    chain = guesses(step)
    figure = go.Figure(layout=layout(300, dark, barmode="group", bargap=0.35))
    series = (
        ("q", "predicted by the head", [guess.predicted for guess in chain]),
        ("p", "actual: min(1, p/q)", [guess.actual for guess in chain]),
    )
    figure.add_traces(token_bars(step.nodes, series, token_bytes))
    figure.add_scatter(
        name="all accepted so far, as predicted",
        x=[0.5, *range(1, len(chain) + 1)],
        y=[1.0, *(guess.product for guess in chain)],
        mode="lines+markers",
        line={"color": ink(dark), "width": 2, "shape": "linear"},
        marker={"size": 7, "color": ink(dark)},
        hovertemplate="%{y:.3f}<extra>product of the predictions</extra>",
    )
    stop = {"annotation_text": f"stop below {number(1 - threshold)}", "annotation_position": "top right"}
    figure.add_hline(1 - threshold, line=limit_line(), **stop)
    return token_axes(figure, step.nodes, token_bytes, 1.08)


def acceptance_table(step: Step, token_bytes: Mapping[int, bytes]) -> pd.DataFrame:
    """One row per drafted token."""
    rows = [
        [
            full_name(g.node.token, token_bytes),
            g.predicted,
            g.product,
            g.actual,
            g.node.verdict,
        ]
        for g in guesses(step)
    ]
    return pd.DataFrame(rows, columns=["token", "predicted", "all accepted so far, predicted", "actual: min(1, p/q)", "verdict"])


def acceptance_alt(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The bars in words; plain text."""
    parts = [
        f"{name(g.node.token, token_bytes)} predicted {'nothing' if g.predicted is None else number(g.predicted)}, "
        f"actual {'unknown' if g.actual is None else number(g.actual)}, {g.node.verdict}"
        for g in guesses(step)
    ]
    return "Predicted against actual acceptance. " + ("; ".join(parts) or "Nothing was drafted") + "."


# -- over the run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bin:
    """Judged tokens whose predictions lie close together."""

    low: float
    count: int
    predicted: float  # mean
    accepted: float  # share
    chance: float  # mean of min(1, p / q)


def unweighted(predicted: float) -> float:
    """The chance behind a prediction that was trained with refusals counting six times: the inverse of P / (P + 6 (1 - P)).

    >>> round(unweighted(0.6), 6), unweighted(0.0), unweighted(1.0)
    (0.9, 0.0, 1.0)
    """
    return WEIGHT * predicted / (1 - predicted + WEIGHT * predicted)


def judged(steps: Sequence[Step]) -> list[Guess]:
    """The guesses that have a prediction and a verdict."""
    return [
        g
        for step in steps
        for g in guesses(step)
        if g.predicted is not None and g.actual is not None and g.node.verdict != "not judged"
    ]


def bins(steps: Sequence[Step], plain: bool = False) -> list[Bin]:
    """Tenths of the predictions, or of what they mean once the weight is taken out; tenths without a token are left out."""
    parts: dict[int, list[tuple[float, Guess]]] = {}
    for guess in judged(steps):
        value = unweighted(guess.predicted) if plain else guess.predicted
        parts.setdefault(min(int(value * BINS), BINS - 1), []).append((value, guess))
    filled = []
    for place, members in sorted(parts.items()):
        n = len(members)
        kept = sum(guess.node.verdict == "accepted" for _, guess in members)
        filled.append(
            Bin(place / BINS, n, sum(value for value, _ in members) / n, kept / n, sum(guess.actual for _, guess in members) / n)
        )
    return filled


def reliability_figure(steps: Sequence[Step], dark: bool = False) -> go.Figure:
    """Predicted against actual share of accepted tokens, twice; on the diagonal a prediction is right."""
    figure = go.Figure(layout=layout(320, dark))
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": muted(dark), "dash": "dot"}, name="right", hoverinfo="skip")
    for plain, label, key, symbol in ((False, "as predicted", "q", "circle"), (True, "weight taken out", "p", "diamond")):
        filled = bins(steps, plain)
        figure.add_scatter(
            x=[b.predicted for b in filled],
            y=[b.accepted for b in filled],
            mode="lines+markers",
            name=label,
            line={"color": SERIES_LINE[key], "width": 2},
            marker={
                "symbol": symbol,
                "color": SERIES[key],
                "size": [min(22.0, 6 + 2.2 * b.count**0.5) for b in filled],
                "line": {"color": SERIES_LINE[key], "width": 1},
            },
            text=[f"{label}: {number(b.predicted)} predicted, {number(b.accepted)} of {b.count} accepted" for b in filled],
            hoverinfo="text",
            cliponaxis=False,
        )
    figure.update_xaxes(title="predicted acceptance", range=[-0.02, 1.02], gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title="accepted", range=[-0.04, 1.06], gridcolor=GRID, zeroline=False)
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 34, "b": 44})


def reliability_table(steps: Sequence[Step]) -> pd.DataFrame:
    """One row per tenth of the predictions."""
    rows = [
        [f"{b.low:.1f} to {b.low + 1 / BINS:.1f}", b.count, b.predicted, unweighted(b.predicted), b.accepted, b.chance]
        for b in bins(steps)
    ]
    return pd.DataFrame(
        rows, columns=["prediction", "judged tokens", "mean prediction", "weight taken out", "accepted", "mean of min(1, p/q)"]
    )


def reliability_words(steps: Sequence[Step]) -> str:
    """How right the head was, in a sentence; plain text."""
    predictions = judged(steps)
    if not predictions:
        return "No token with a prediction was judged yet."
    n = len(predictions)
    kept = sum(guess.node.verdict == "accepted" for guess in predictions) / n
    predicted, plain = (
        sum(values) / n for values in ([g.predicted for g in predictions], [unweighted(g.predicted) for g in predictions])
    )
    tokens = "token" if n == 1 else "tokens"
    return (
        f"{n} judged {tokens}: predicted {number(predicted)} on average, {number(plain)} with the weight taken out; accepted were "
        f"{number(kept)}."
    )


def waste_words(steps: Sequence[Step]) -> str:
    """What was drafted in vain so far; plain text."""
    drafted = sum(len(step.nodes) for step in steps)
    kept = sum(node.verdict == "accepted" for step in steps for node in step.nodes)
    lengths = [len(step.nodes) for step in steps]
    if not drafted:
        return "Nothing was drafted yet."
    return (
        f"So far {drafted} tokens were drafted in {len(steps)} {'step' if len(steps) == 1 else 'steps'} "
        f"({min(lengths)} to {max(lengths)} each), {drafted - kept} of them in vain."
    )
