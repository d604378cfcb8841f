"""What is particular to Clover: a head's guesses depend on the token before it, gates say how much, and a budget cuts the tree.

Bars are what the heads offered behind one node, candidates that were cut among them, with the rule that cut them. Everything
follows from the scores of nodes and of cut candidates, and from the parameters of the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate

import pandas as pd

from decoding.score_names import GATE, JOINT, MOVED
from decoding.trace import Step, Trace, number_in
from viz.methods.shared.head_bars import Guess, guess_bars, has_numbers, in_words, line, line_html, offers, side_by_side
from viz.runs.tally import depths
from viz.style import SERIES_LINE, tint
from viz.tokens import as_html
from viz.words import node_name, number

SLACK = 1e-6  # of sums of probabilities that were added up in another order

Params = Mapping[str, int | float | bool | str]


def reasons(offered: Sequence[Guess], params: Params) -> list[Guess]:
    """The same guesses, those that were cut with the rule that did it."""
    top_p, ratio = number_in(params, "top_p", 1.0), number_in(params, "ratio", 0.0)
    best = max((g.probability for g in offered), default=0.0)
    before = [0.0, *accumulate(g.probability for g in offered)]

    def why(g: Guess, above: float) -> str:
        if above >= top_p - SLACK:
            return f"sum of {top_p:g} reached"
        return f"under {ratio:g} of the best" if g.probability < ratio * best else "budget spent"

    return [replace(g, why=why(g, above)) if g.why else g for g, above in zip(offered, before, strict=False)]


def guesses_html(trace: Trace, cursor: int) -> str:
    """The heads side by side down one path, each with the gates of its cell; "" where the trace lacks the numbers: HTML."""
    step, params = trace.steps[cursor], trace.header.params
    if not step.nodes or not has_numbers(step):
        return ""
    gates_below, cut_by = partial(gates_html, step), partial(reasons, params=params)
    return line_html(step, trace.token_bytes, gates_below, gates_alt(step), cut_by)


# -- the cell ----------------------------------------------------------------------------------------------------------


def gates(step: Step, parent: int) -> list[float]:
    """The gates of the cell that mixed in this parent's token, one per attention head, -1 to 1; [] if it has no children."""
    scores = next((node.scores for node in step.nodes if node.parent == parent), {})
    values = []
    while (value := scores.get(GATE.format(len(values) + 1))) is not None:
        values.append(value)
    return values


def moved(step: Step, parent: int) -> float | None:
    """How far the cell moved the state, as a share of its length."""
    return next((node.scores.get(MOVED) for node in step.nodes if node.parent == parent), None)


def gates_html(step: Step, parent: int) -> str:
    """A strip of gates, the stronger the darker, with their numbers; "" if there are none: HTML."""
    cells = "".join(
        f'<span style="flex:1;text-align:center;padding:0 .2rem;background:'
        f'{tint("#009E73" if value >= 0 else "#D55E00", min(1.0, abs(value)) * 0.6)}">{value:+.2f}</span>'
        for value in gates(step, parent)
    )
    if not cells:
        return ""
    strip = f'<div style="display:flex;border:1px solid {SERIES_LINE["q"]};font-size:.72rem;margin-top:.35rem">{cells}</div>'
    how = moved(step, parent)
    return strip + (
        f'<div class="ds-dim">the token moves the state by {number(how, 2)} of its length</div>' if how is not None else ""
    )


def gates_alt(step: Step) -> str:
    """The strips in words; plain text."""
    parts = [
        f"head {k}: {', '.join(f'{value:+.2f}' for value in values)}"
        for k, at in enumerate(line(step), 1)
        if (values := gates(step, at))
    ]
    return f"Gates of the cell, one per attention head: {'; '.join(parts)}." if parts else ""


# -- one head behind two tokens ----------------------------------------------------------------------------------------


def pair(step: Step) -> tuple[int, int] | None:
    """Two nodes at the same depth behind which the same head offered something, the accepted or more probable one first; None if no
    head was asked twice. The shallowest such depth."""
    at_depth: dict[int, list[int]] = {}
    for parent in sorted({node.parent for node in step.nodes if node.parent >= 0}):
        at_depth.setdefault(depths(step)[parent], []).append(parent)
    several = [parents for _, parents in sorted(at_depth.items()) if len(parents) > 1]
    if not several:
        return None
    first, second, *_ = sorted(several[0], key=lambda i: (i not in step.path, -step.nodes[i].scores[JOINT]))
    return first, second


def pair_html(step: Step, params: Params, token_bytes: Mapping[int, bytes]) -> str:
    """What one head offered behind two different tokens, side by side: HTML; "" if there are none."""
    both = pair(step)
    if both is None:
        return ""
    titles = [f"head {depths(step)[at] + 1}, behind {node_name(step, at, token_bytes)}" for at in both]
    lists = [reasons(offers(step, at), params) for at in both]
    columns = [
        guess_bars(as_html(title), one, token_bytes, gates_html(step, at))
        for title, one, at in zip(titles, lists, both, strict=True)
    ]
    words = "; ".join(in_words(title, one, token_bytes) for title, one in zip(titles, lists, strict=True))
    return side_by_side(columns, f"One head behind two tokens. {words}.")


def shared(step: Step, first: int, second: int) -> float | None:
    """The probability that the head's distributions behind two nodes share, sum_v min(q, q'), over the tokens that were recorded
    for both. None if there are none."""
    rows = [step.rows[at + 1] if step.rows else None for at in (first, second)]
    if any(row is None or row.q is None for row in rows):
        return None
    one, two = (dict(zip(row.tokens, row.q, strict=True)) for row in rows)
    return sum(min(q, two[token]) for token, q in one.items() if token in two)


def shared_words(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """The same in a sentence; plain text."""
    both = pair(step)
    if both is None:
        return "No head was asked behind two different tokens in this step."
    one, two = (node_name(step, at, token_bytes) for at in both)
    head, common = depths(step)[both[0]] + 1, shared(step, *both)
    if common is None:
        return f"Head {head} behind {one} and behind {two}."
    return (
        f"Head {head} behind {one} and behind {two}: of the tokens that were recorded for both, the two distributions share a "
        f"probability of {number(common, 2)}. A head that does not see the token before it would share all of it."
    )


# -- the budget --------------------------------------------------------------------------------------------------------


def budget_table(step: Step, params: Params) -> pd.DataFrame:
    """One row per level: parents, nodes kept, the budget left behind it, and the best of what was cut, with the rule."""
    rows, left = [], number_in(params, "nodes", len(step.nodes))
    levels = depths(step)
    for level in range(1, max(levels, default=0) + 1):
        parents = [-1] if level == 1 else [i for i, depth in enumerate(levels) if depth == level - 1]
        kept = levels.count(level)
        left -= kept
        cut = [g.why for at in parents for g in reasons(offers(step, at), params) if g.why]
        kinds = [sum(why.startswith(word) for why in cut) for word in ("sum", "under", "budget")]
        rows.append((level, len(parents), kept, left, *kinds))
    columns = [
        "head",
        "parents",
        "nodes kept",
        "budget left",
        "cut by the sum",
        "cut by the share of the best",
        "cut by the budget",
    ]
    return pd.DataFrame(rows, columns=columns)
