"""What the critical-token lens saw: the text by p over q and by the contrast, the disagreement along it, the candidates at the
cursor, contested guesses, and how texts go on with a token and without it."""

import math
from collections.abc import Sequence
from statistics import fmean, median

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.critical_tokens import BETAS, CriticalLook, Rollouts, Scored
from viz.small_table import small_table
from viz.style import GRID, LOOKS, MONO, SERIES, SERIES_LINE, layout, muted, series_marker, tint
from viz.tokens import as_html, as_plotly, full_name, joined, name, quoted
from viz.verdicts import percent
from viz.words import number

LOWEST = 3  # tokens that are underlined
FULL = 4.0  # nats at which the colour is deepest
SHOWN = 8  # candidates at the cursor
PLAUSIBLE = 0.01  # of the highest p: candidates below are left out
CSS = f"""<style>
.ds-parted {{ line-height: 2; font-size: 1.06rem; overflow-wrap: anywhere; margin: 0.1rem 0 0.8rem; }}
.ds-parted span {{ border-radius: 3px; padding: 0.12rem 0; white-space: pre-wrap; }}
.ds-parted .ds-drafts {{ border-bottom: 2px dotted {SERIES_LINE["q"]}; }}
.ds-parted .ds-lowest {{ text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 0.28em; }}
.ds-parted .ds-cursor {{ outline: 2px solid #8A8F98; }}
.ds-parted h4, .ds-fork h4 {{ margin: 0; padding: 0; font-size: 1rem; line-height: 1.5; font-weight: 600; }}
.ds-fork section {{ margin-bottom: 0.8rem; }}
.ds-fork .ds-sides {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 1.2rem; }}
.ds-fork li {{ margin: 0.15rem 0; overflow-wrap: anywhere; font-size: 0.95rem; }}
.ds-fork ol {{ padding-left: 1.3rem; margin: 0.2rem 0; }}
</style>"""


def index_of(beta: float) -> int:
    """The nearest of the betas that were computed."""
    return min(range(len(BETAS)), key=lambda i: abs(BETAS[i] - beta))


def ratio(one: Scored) -> float:
    """ln p - ln q."""
    return one.p - one.q


def score(one: Scored, beta: float) -> float:
    """The contrast of a token; its p where none was computed."""
    i = index_of(beta)
    return one.contrast[i] if i < len(one.contrast) else math.exp(min(0.0, one.p))


def lowest(look: CriticalLook, beta: float) -> list[int]:
    """Places of the text with the lowest contrast, the lowest first."""
    return sorted(range(len(look.text)), key=lambda i: (score(look.text[i], beta), i))[:LOWEST]


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(look: CriticalLook) -> str:
    """How far both agree, what is most the target's own, the guesses that were contested, and how the texts end."""
    if not look.text:
        return "Nothing was read yet."
    overlap = fmean(one.overlap for one in look.text)
    own = max(look.text, key=ratio)
    words = [
        f"Over {len(look.text):,} tokens p and q overlap by {percent(overlap)}; most the target's own is "
        f"{quoted(own.token, look.token_bytes)} ({ratio(own):+.1f} nats)."
    ]
    if look.judged:
        words.append(
            f"Of {look.judged:,} judged guesses {look.contested:,} were contested: the draft model sure, the target far from it."
        )
    if look.pairs:
        first = look.pairs[0]
        pair = f"{quoted(first.token, look.token_bytes)} → {quoted(first.rival, look.token_bytes)}"
        often = f"Most often refused: {pair}, {first.count:,} times, at {first.ratio:+.1f} nats in the mean."
        words.append(often if first.count > 1 else f"The refused guess that lay furthest off: {pair}, at {first.ratio:+.1f} nats.")
    if len(look.forks) == 2:
        words.append(of_forks(look))
    return " ".join(words)


def of_forks(look: CriticalLook) -> str:
    """How often texts are right with the token and without it, and whether that says anything."""
    accused, other = look.forks
    texts = len(accused.texts)
    if not accused.told and not other.told:
        what = "number" if look.answer else "sum"
        likely = f"a token behind it has {accused.likelihood:.2f} nats in the mean, behind the other side {other.likelihood:.2f}"
        return f"Nothing can be checked in {2 * texts:,} rollouts, for they hold no {what}; {likely}."
    with_it = f"{accused.right:,} of {texts:,} rollouts are right"
    ends = (
        f"With {said_of(look, accused)} {with_it}, {'with ' + said_of(look, other) if other.token is not None else 'without it'} "
    )
    ends += f"{other.right:,} of {len(other.texts):,}"
    if not accused.right and not other.right:
        return f"{ends}: the target does not solve this either way, so nothing says that the token is critical."
    apart = abs(accused.right / max(1, texts) - other.right / max(1, len(other.texts)))
    return f"{ends}, {'more than' if apart > noise(accused, other) else 'within'} what chance explains."


def noise(one: Rollouts, other: Rollouts) -> float:
    """Two standard errors of the difference of two shares, from their common share."""
    n, m = max(1, len(one.texts)), max(1, len(other.texts))
    share = (one.right + other.right) / (n + m)
    return 2 * math.sqrt(max(0.0, share * (1 - share)) * (1 / n + 1 / m))


def said_of(look: CriticalLook, fork: Rollouts) -> str:
    return "other tokens" if fork.token is None else quoted(fork.token, look.token_bytes)


# -- the text ----------------------------------------------------------------------------------------------------------


def html(look: CriticalLook, dark: bool) -> str:
    """The text by ln p - ln q; below it what both sides of the fork wrote, and the pairs of the run."""
    if not look.text:
        return ""
    keys = (
        f'<div class="ds-keys"><span><i style="background:{tint(SERIES["p"], 0.6)}"></i> the target\'s own</span>'
        f'<span><i style="background:{tint(SERIES["q"], 0.6)}"></i> <u>dotted</u>: more the draft model\'s</span></div>'
    )
    strip = strip_html(look, "p over q", [ratio(one) for one in look.text], [f"ln p − ln q {ratio(one):+.2f}" for one in look.text])
    return f"{CSS}{keys}{strip}{pairs_html(look)}{forks_html(look)}"


def strip_html(look: CriticalLook, title: str, values: Sequence[float], told: Sequence[str], marked: Sequence[int] = ()) -> str:
    """The text with one number per token, deepest at FULL nats; plain-text `told` shows on hovering."""
    pieces = [look.token_bytes.get(one.token, b"") for one in look.text]
    parts = []
    for group in joined(pieces):
        i = max(range(group.start, group.stop), key=lambda i: abs(values[i]))
        deep = min(1.0, abs(values[i]) / FULL)
        marks = ["ds-drafts"] if values[i] < -1 else []
        marks += ["ds-lowest"] if set(range(group.start, group.stop)) & set(marked) else []
        marks += ["ds-cursor"] if group.start <= look.at < group.stop else []
        shade = tint(SERIES["p" if values[i] >= 0 else "q"], 0.6 * deep)
        shown = as_html(b"".join(pieces[group.start : group.stop]).decode("utf-8", "replace")).replace("\n", "↵<br>")
        mark = f' class="{" ".join(marks)}"' if marks else ""
        parts.append(f'<span{mark} style="background:{shade}" title="{as_html(told[i])}">{shown}</span>')
    return f'<div class="ds-parted"><h4>{as_html(title)}</h4>{"".join(parts)}</div>'


def contrast_html(look: CriticalLook, beta: float) -> str:
    """The text by its contrast at one beta, a token the deeper the lower it is; the three lowest underlined."""
    if not look.text:
        return ""
    scores = [score(one, beta) for one in look.text]
    values = [max(-FULL, math.log(max(one, 1e-12)) / 2) for one in scores]
    told = [
        f"contrast {number(one)}, p {number(math.exp(min(0.0, token.p)))}" for one, token in zip(scores, look.text, strict=True)
    ]
    return CSS + strip_html(look, f"contrast at β = {beta:g}", values, told, lowest(look, beta))


def contrast_words(look: CriticalLook, beta: float) -> str:
    """The three lowest, with p beside them; plain text."""
    said = [
        f"{quoted(look.text[i].token, look.token_bytes)} {number(score(look.text[i], beta))} (p "
        f"{number(math.exp(min(0.0, look.text[i].p)))})"
        for i in lowest(look, beta)
    ]
    by_p = set(sorted(range(len(look.text)), key=lambda i: (look.text[i].p, i))[:LOWEST])
    same = len(by_p & set(lowest(look, beta)))
    return f"The lowest contrast at β = {beta:g}: {', '.join(said)}. Of these {same:,} are also among the {LOWEST} least probable."


def pairs_html(look: CriticalLook) -> str:
    """Refused guesses by what was written in their place."""
    if not look.pairs:
        return ""
    rows = [
        (" → ".join(name(token, look.token_bytes) for token in (pair.token, pair.rival)), f"{pair.count:,}", f"{pair.ratio:+.2f}",
         f"{pair.contested:,}")
        for pair in look.pairs
    ]  # fmt: skip
    return small_table(("guess → written", "times", "mean ln p − ln q", "contested"), rows, "Refused guesses of the run")


def forks_html(look: CriticalLook) -> str:
    """What the target wrote with the accused token and without it."""
    if len(look.forks) != 2:
        return ""
    sides = "".join(side_html(look, fork, i) for i, fork in enumerate(look.forks))
    return f'<div class="ds-fork"><div class="ds-sides">{sides}</div></div>'


def side_html(look: CriticalLook, fork: Rollouts, i: int) -> str:
    head = f"{'With' if i == 0 or fork.token is not None else 'Without it:'} {said_of(look, fork)}"
    texts = "".join(f"<li>{as_html(text)}</li>" for text in fork.texts[:6])
    checked = (
        f"right {fork.right:,} of {len(fork.texts):,}, {fork.told:,} of which could be checked" if fork.told else "nothing to check"
    )
    return f"<section><h4>{as_html(head)}</h4>{checked}; mean ln p {fork.likelihood:.2f}<ol>{texts}</ol></section>"


# -- the disagreement --------------------------------------------------------------------------------------------------


def figure(look: CriticalLook, dark: bool) -> go.Figure | None:
    """ln Z along the text, with a cross where a guess was refused."""
    if not look.text:
        return None
    made = go.Figure(layout=layout(250, dark))
    x = list(range(1, len(look.text) + 1))
    names = [as_plotly(name(one.token, look.token_bytes)) for one in look.text]
    made.add_scatter(
        x=x, y=[one.z for one in look.text], mode="lines", name="ln Z, how far p and q part",
        line={"color": SERIES["p"], "width": 2}, text=names, hovertemplate="token %{x} %{text}: %{y:.2f}<extra></extra>",
    )  # fmt: skip
    at = [i for i, one in enumerate(look.text) if one.refused]
    if at:
        made.add_scatter(
            x=[x[i] for i in at], y=[look.text[i].z for i in at], mode="markers", name="a guess was refused here",
            marker={"symbol": "x", "size": 9, "color": LOOKS["rejected"].color}, text=[names[i] for i in at],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    if 0 <= look.at < len(look.text):
        made.add_vline(x=look.at + 1, line={"dash": "dot", "width": 1.5, "color": muted(dark)})
    made.update_xaxes(title="token of the text", dtick=max(1, len(x) // 8), showgrid=False, zeroline=False, fixedrange=True)
    made.update_yaxes(title="ln Z", rangemode="tozero", gridcolor=GRID, zeroline=False, fixedrange=True)
    return made


def alt(look: CriticalLook) -> str:
    """The line in words."""
    if not look.text:
        return "Nothing was read yet."
    refused, others = ([one.z for one in look.text if one.refused is side] for side in (True, False))
    words = f"Disagreement of both models, ln Z, along {len(look.text):,} tokens: median {median(one.z for one in look.text):.2f}"
    return (
        f"{words}, {median(refused):.2f} where a guess was refused, {median(others):.2f} elsewhere."
        if refused and others
        else f"{words}."
    )


# -- the candidates at the cursor --------------------------------------------------------------------------------------


def candidates(look: CriticalLook, beta: float) -> list[tuple[int, float, float, float]]:
    """(token, p, q, contrast) of the plausible candidates at the cursor, by p."""
    i = index_of(beta)
    if i >= len(look.norms):
        return []
    most = max((one.p for one in look.choices), default=0.0)
    named = {look.token, look.rival}
    rows = []
    for one in look.choices:
        if one.p < most + math.log(PLAUSIBLE) and one.token not in named:
            continue
        exponent = (1 + BETAS[i]) * one.p - BETAS[i] * one.q - look.norms[i]
        rows.append((one.token, *(math.exp(max(-700.0, min(0.0, e))) for e in (one.p, one.q, exponent))))
    return rows[:SHOWN]


def candidates_figure(look: CriticalLook, beta: float, dark: bool) -> tuple[go.Figure, str] | None:
    """p, q and the contrast of the candidates, side by side; and the same in words."""
    rows = candidates(look, beta)
    if not rows:
        return None
    made = go.Figure(layout=layout(80 + 46 * len(rows), dark, barmode="group", bargap=0.3))
    at = [str(i) for i in range(len(rows))]
    marker = {"color": LOOKS["bonus"].color, "line": {"color": LOOKS["bonus"].line, "width": 1}}
    marker["pattern"] = {"shape": "x", "solidity": 0.3, "fgcolor": LOOKS["bonus"].line, "bgcolor": LOOKS["bonus"].color}
    bars = (("p", series_marker("p"), 1), ("q", series_marker("q"), 2), (f"contrast, β = {beta:g}", marker, 3))
    for title, look_of, column in reversed(bars):
        values = [row[column] for row in rows]
        made.add_bar(
            y=at, x=values, name=title, orientation="h", marker=look_of, text=[number(v) if v >= 0.005 else "" for v in values],
            textposition="outside", cliponaxis=False, textfont={"size": 12}, hovertemplate="%{x:.4f}<extra></extra>",
        )  # fmt: skip
    labels = [as_plotly(name(row[0], look.token_bytes)) for row in rows]
    made.update_yaxes(tickvals=at, ticktext=labels, autorange="reversed", tickfont={"family": MONO, "size": 13}, fixedrange=True)
    made.update_xaxes(range=[0, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1], gridcolor=GRID, fixedrange=True, zeroline=False)
    made.update_layout(legend_traceorder="reversed")
    said = [f"{quoted(t, look.token_bytes)}: p {number(p)}, q {number(q)}, contrast {number(c)}" for t, p, q, c in rows[:5]]
    return made, f"What could stand at the cursor. {'; '.join(said)}."


def table(look: CriticalLook) -> pd.DataFrame:
    """One row per token of the text."""
    rows = [
        (
            full_name(one.token, look.token_bytes),
            one.token,
            one.p,
            one.q,
            ratio(one),
            one.z,
            one.overlap,
            score(one, 1.0),
            one.refused,
        )
        for one in look.text
    ]
    columns = ["token", "id", "ln p", "ln q", "ln p − ln q", "ln Z", "overlap", "contrast, β = 1", "a guess was refused"]
    return pd.DataFrame(rows, columns=columns)
