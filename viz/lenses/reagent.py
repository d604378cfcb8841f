"""What ReAGent saw: the text once for each number that it explains, the reasons as bars with their spread, the altered texts, and
how far the map can be trusted."""

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.reagent import Altered, Cause, ReagentLook
from viz.small_table import small_table
from viz.style import GRID, LOOKS, MONO, SERIES, SERIES_LINE, SERIES_PATTERN, layout, muted, tint
from viz.tokens import as_html, as_plotly, full_name, joined, name, quoted
from viz.verdicts import percent
from viz.words import number

STABLE, NOISE = 0.7, 0.4
BARS = 10  # tokens in the figure
LEANT, SHARED = 3, 6  # a token is the draft's own if it is among so many of its reasons and not among so many of the target's
FOR, AGAINST = LOOKS["accepted"].color, LOOKS["rejected"].color
SAID = {"target": "the target", "draft": "the draft model", "contrast": "the choice"}
CSS = f"""<style>
.ds-why {{ line-height: 2; font-size: 1.06rem; overflow-wrap: anywhere; margin: 0.1rem 0 0.7rem; }}
.ds-why span {{ border-radius: 3px; padding: 0.12rem 0; white-space: pre-wrap; }}
.ds-why .ds-against {{ border-bottom: 2px dotted {LOOKS["rejected"].line}; }}
.ds-why .ds-own {{ outline: 2px solid {SERIES_LINE["q"]}; outline-offset: -1px; }}
.ds-why .ds-fixed {{ opacity: 0.62; }}
.ds-why h4, .ds-log h4 {{ margin: 0; padding: 0; font-size: 1rem; line-height: 1.5; font-weight: 600; }}
.ds-log ol {{ list-style: none; padding: 0; margin: 0.2rem 0 0.8rem; }}
.ds-log li {{ display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 0.9rem; margin: 0;
  padding: 0.18rem 0; border-bottom: 1px solid #8883; font-size: 0.95rem; overflow-wrap: anywhere; }}
.ds-log b {{ font-weight: 600; text-decoration: underline; text-underline-offset: 0.2em; }}
.ds-log i {{ font-style: normal; font-variant-numeric: tabular-nums; }}
</style>"""


def lead_of(look: ReagentLook) -> Cause | None:
    """What the look is about: the choice after a refusal, otherwise what the target says."""
    return next((cause for kind in ("contrast", "target") for cause in look.causes if cause.kind == kind), None)


def reasons(look: ReagentLook, cause: Cause) -> list[int]:
    """Places of the text whose token speaks for a number, the strongest first."""
    count = min(len(look.text), len(cause.effects))
    return sorted((i for i in range(count) if cause.effects[i] > 0), key=lambda i: (-cause.effects[i], i))


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(look: ReagentLook) -> str:
    """What the models gave the token, which tokens made them, and how far that can be trusted."""
    if not look.text:
        return "Nothing was read yet."
    token = quoted(look.token, look.token_bytes)
    if not look.enough:
        more = f", the draft model {percent(look.q)}" if look.q is not None and look.rival is not None else ""
        return f"The target gave {token} {percent(look.p)}{more}: nothing to explain."
    lead = lead_of(look)
    if lead is None:
        return f"The target is reading the last {len(look.text):,} tokens."
    words = [given(look, token)]
    found = [quoted(look.text[i], look.token_bytes) for i in reasons(look, lead)[:3]]
    if found:
        what = f"wrote {quoted(look.rival, look.token_bytes)} and not {token}" if look.rival is not None else f"expects {token}"
        unit = f" ({lead.effects[reasons(look, lead)[0]]:.2f} nats)" if look.way != "ReAGent" else ""
        words.append(f"That the target {what} is owed to {found[0]}{unit}{', then ' + ', '.join(found[1:]) if found[1:] else ''}.")
    words.append(trust(lead.agree))
    if look.rival is None:
        words.append("Nothing was refused here; at a refused guess of the tree the lens says why.")
    return " ".join(words)


def given(look: ReagentLook, token: str) -> str:
    """What both gave it, and the die."""
    both = f"The target gives {token} {percent(look.p)}"
    both += "" if look.q is None else f", the draft model {percent(look.q)}"
    if look.judged is None or not look.judged[1] > 0:
        return f"{both}."
    p, q, u = look.judged
    chance = min(1.0, p / q)
    luck = "; the die alone refused it" if chance > 0.9 else ""
    return f"{both}. Its chance to be kept was {percent(chance)}, and the die fell on {number(u)}{luck}."


def trust(agree: float | None) -> str:
    """The rank correlation of two halves, and what it means."""
    if agree is None or not math.isfinite(agree):
        return "Not settled yet."
    kind = "stable" if agree > STABLE else "noise" if agree < NOISE else "half settled"
    return f"Two halves of the draws rank the tokens alike to {agree:.2f}: {kind}."


# -- the text, once for each number ------------------------------------------------------------------------------------


def html(look: ReagentLook, dark: bool) -> str:
    """The text for every number, then the altered texts, then the scores."""
    if not look.causes:
        return ""
    own = leant(look)
    rows = "".join(row_html(look, cause, own if cause.kind == "draft" else frozenset()) for cause in ordered(look))
    return f"{CSS}{keys(look)}{rows}{held_html(look)}{kept_html(look)}{log_html(look)}"


def ordered(look: ReagentLook) -> list[Cause]:
    """What the look is about first."""
    lead = lead_of(look)
    return sorted(look.causes, key=lambda cause: cause is not lead)


def keys(look: ReagentLook) -> str:
    parts = [
        f'<span><i style="background:{tint(FOR, 0.7)}"></i> speaks for it</span>',
        f'<span><i style="background:{tint(AGAINST, 0.5)}"></i> <u>dotted</u>: against it</span>',
    ]
    if any(cause.kind == "draft" for cause in look.causes):
        frame = f"outline:2px solid {SERIES_LINE['q']};background:none;margin:0 0.3rem 0 0.15rem"
        parts.append(f'<span><i style="{frame}"></i>the draft model leant on it, the target did not</span>')
    return f'<div class="ds-keys">{"".join(parts)}</div>'


def leant(look: ReagentLook) -> frozenset[int]:
    """Places among the first reasons of the draft model that are not among the target's."""
    found = {cause.kind: reasons(look, cause) for cause in look.causes}
    return frozenset(found.get("draft", [])[:LEANT]) - frozenset(found.get("target", [])[:SHARED])


def title(look: ReagentLook, cause: Cause) -> str:
    """What a row explains; plain text."""
    token = quoted(look.token, look.token_bytes)
    if cause.kind == "contrast":
        rival = "another" if look.rival is None else quoted(look.rival, look.token_bytes)
        return f"Why the target wrote {rival} and not {token}"
    share = math.exp(min(0.0, cause.before))
    return f"Why {SAID[cause.kind]} gives {token} {percent(share)}"


def row_html(look: ReagentLook, cause: Cause, own: frozenset[int]) -> str:
    """The text, a token the darker the more it did for the number."""
    count = min(len(look.text), len(cause.effects), len(cause.spread))
    most = max((abs(effect) for effect in cause.effects[:count]), default=0.0) or 1.0
    pieces = [look.token_bytes.get(token, b"") for token in look.text]
    parts = ["… "] if look.earlier else []
    for group in joined(pieces):
        i = max(range(group.start, group.stop), key=lambda i: abs(cause.effects[i]) if i < count else -1.0)
        if i >= count:
            continue
        effect, swapped = cause.effects[i], i < len(look.swapped) and look.swapped[i]
        marks = ["ds-against"] if effect < -0.1 * most else []
        marks += ["ds-own"] if own & set(range(group.start, group.stop)) else []
        marks += [] if swapped else ["ds-fixed"]
        shade = tint(FOR, 0.72 * effect / most) if effect >= 0 else tint(AGAINST, -0.5 * effect / most)
        told = f"{effect:+.3f} ± {cause.spread[i]:.3f}" if swapped else "never swapped"
        shown = as_html(b"".join(pieces[group.start : group.stop]).decode("utf-8", "replace"))
        mark = f' class="{" ".join(marks)}"' if marks else ""
        parts.append(f'<span{mark} style="background:{shade}" title="{as_html(told)}">{shown}</span>')
    return f'<div class="ds-why"><h4>{as_html(title(look, cause))}</h4>{"".join(parts)}</div>'


# -- altered texts and scores ------------------------------------------------------------------------------------------


def altered_html(look: ReagentLook, one: Altered) -> str:
    """An altered text with what is other underlined."""
    parts = []
    for i, token in enumerate(one.tokens):
        shown = as_html(look.token_bytes.get(token, b"").decode("utf-8", "replace"))
        parts.append(shown if i < len(look.text) and token == look.text[i] else f"<b>{shown or '∅'}</b>")
    return "".join(parts)


def swaps_html(look: ReagentLook, one: Altered) -> str:
    """What is other in an altered text, each token with what stood there."""
    pairs = [(before, now) for before, now in zip(look.text, one.tokens, strict=False) if before != now]
    said = [f"{as_html(name(before, look.token_bytes))} → <b>{as_html(name(now, look.token_bytes))}</b>" for before, now in pairs]
    return ", ".join(said) or "nothing is other"


def outcome(look: ReagentLook, one: Altered) -> str:
    """What was said behind it; plain text."""
    token = quoted(look.token, look.token_bytes)
    words = f"{token} p {number(one.p)}"
    words += "" if one.q is None else f", q {number(one.q)}"
    if look.rival is None or one.rival is None:
        return words
    return f"{words}, {quoted(look.rival, look.token_bytes)} p {number(one.rival)}"


def log_html(look: ReagentLook) -> str:
    """The last altered texts, the latest first."""
    if not look.log:
        return ""
    rows = "".join(
        f"<li><span>{swaps_html(look, one)}</span><i>{as_html(outcome(look, one))}</i></li>" for one in reversed(look.log)
    )
    as_it_stands = outcome(look, Altered(look.text, look.p, look.q, look.rival_p, 0))
    return f'<div class="ds-log"><h4>The last swaps, and what they did to {as_html(as_it_stands)}</h4><ol>{rows}</ol></div>'


def kept_html(look: ReagentLook) -> str:
    """The text of which all but the most important tokens are others, and whether the token is still on top."""
    if look.kept is None:
        return ""
    rank = look.kept.rank
    still = "still among the first 3" if rank <= 3 else "no more among the first 3"
    said = f"Only the {len(look.left):,} strongest are kept: {quoted(look.token, look.token_bytes)} has rank {rank:,}, {still}"
    row = f"<li><span>{altered_html(look, look.kept)}</span><i>{as_html(outcome(look, look.kept))}</i></li>"
    return f'<div class="ds-log"><h4>{as_html(said)}</h4><ol>{row}</ol></div>'


def held_html(look: ReagentLook) -> str:
    """Sufficiency and comprehensiveness beside chance."""
    if not look.held:
        return ""
    forms = {"soft": "as often as it is important", "hard": "the top fifth"}
    rows = [(f"sufficiency, {forms[one.form]}", one.sufficiency, one.random_sufficiency) for one in look.held]
    rows += [(f"comprehensiveness, {forms[one.form]}", one.comprehensiveness, one.random_comprehensiveness) for one in look.held]
    said = [(words, f"{own:.2f}", f"{chance:.2f}") for words, own, chance in rows]
    caption = "What is left if the reasons alone are kept, and what is lost if they alone are others"
    return small_table(("", "by the map", "at random"), said, caption)


# -- the reasons as bars -----------------------------------------------------------------------------------------------


def figure(look: ReagentLook, dark: bool) -> go.Figure | None:
    """The strongest tokens of what the look is about, in the order of the text, one bar for each number, with the spread over
    draws."""
    places = strongest(look)
    if not places:
        return None
    made = go.Figure(layout=layout(80 + 40 * len(places), dark, barmode="group", bargap=0.3))
    colours = {
        "contrast": (LOOKS["correction"].color, LOOKS["correction"].line, "."),
        "target": (SERIES["p"], SERIES_LINE["p"], SERIES_PATTERN["p"]),
        "draft": (SERIES["q"], SERIES_LINE["q"], SERIES_PATTERN["q"]),
    }
    names = {"contrast": "written, not the guess", "target": "the guess, target" if look.rival is not None else "target"}
    names["draft"] = "the guess, draft model" if look.rival is not None else "draft model"
    at = [str(i) for i in range(len(places))]
    for cause in reversed(ordered(look)):
        color, line, shape = colours[cause.kind]
        made.add_bar(
            y=at, x=[value(cause.effects, i) for i in places], name=names[cause.kind], orientation="h",
            error_x={"type": "data", "array": [value(cause.spread, i) for i in places], "thickness": 1, "width": 2,
                     "color": muted(dark)},
            marker={"color": color, "line": {"color": line, "width": 1},
                    "pattern": {"shape": shape, "solidity": 0.3, "fgcolor": line, "bgcolor": color}},
            hovertemplate="%{x:.3f}<extra></extra>",
        )  # fmt: skip
    labels = [as_plotly(name(look.text[i], look.token_bytes)) for i in places]
    made.update_yaxes(tickvals=at, ticktext=labels, autorange="reversed", tickfont={"family": MONO, "size": 13}, fixedrange=True)
    unit = "score per step" if look.way == "ReAGent" else "nats that are lost when it is another"
    made.update_xaxes(title=unit, gridcolor=GRID, zerolinecolor=muted(dark), fixedrange=True)
    made.update_layout(legend_traceorder="reversed")
    return made


def strongest(look: ReagentLook) -> list[int]:
    """Places of the text with the largest effects either way, in its order."""
    lead = lead_of(look)
    if lead is None:
        return []
    count = min(len(look.text), len(lead.effects))
    return sorted(sorted(range(count), key=lambda i: (-abs(lead.effects[i]), i))[:BARS])


def value(row: Sequence[float], i: int) -> float:
    return row[i] if i < len(row) else 0.0


def alt(look: ReagentLook) -> str:
    """The bars in words."""
    lead = lead_of(look)
    if lead is None:
        return "Nothing was swapped yet."
    said = [f"{quoted(look.text[i], look.token_bytes)} {lead.effects[i]:+.2f}" for i in reasons(look, lead)[:5]]
    return f"{title(look, lead)}: {', '.join(said)}." if said else f"{title(look, lead)}: no token speaks for it."


def table(look: ReagentLook) -> pd.DataFrame:
    """One row per token of the text."""
    columns: dict[str, list] = {
        "token": [full_name(token, look.token_bytes) for token in look.text],
        "id": list(look.text),
        "swapped": [i < len(look.swapped) and look.swapped[i] for i in range(len(look.text))],
    }
    for cause in look.causes:
        for said, row in (("effect", cause.effects), ("spread", cause.spread), ("importance", cause.importance)):
            columns[f"{cause.kind}: {said}"] = [value(row, i) for i in range(len(look.text))]
    return pd.DataFrame(columns)
