"""What the lens of prediction sets saw: the draft with holes at a confidence, what parts cost, and where the budget comes from."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.pac_sets import PacSetsLook, budget_for, failures, most_failures
from viz.style import COLOR, GRID, LOOKS, MONO, layout, limit_line, muted, tint
from viz.tokens import as_html, as_plotly, full, label
from viz.words import number

HOLE = "??"
SHADE = LOOKS["correction"].color  # of what is dear
CSS = """<style>
.ds-set { font-family: monospace; font-size: 1.06rem; line-height: 2; overflow-wrap: anywhere; white-space: pre-wrap; }
.ds-set .ds-kept { border: 1.5px solid; border-radius: 4px; padding: 0.1rem 0.2rem; }
.ds-set .ds-hole { border: 1.5px dashed; border-radius: 4px; padding: 0.1rem 0.35rem; font-weight: 600; }
.ds-set .ds-given { opacity: 0.6; }
.ds-set small { font-size: 0.78rem; opacity: 0.75; }
</style>"""


# -- the promise -------------------------------------------------------------------------------------------------------


def budgets(look: PacSetsLook) -> list[float]:
    """At which the number of failures of the calibration may change: from all hole to all kept."""
    return sorted({0.0, *look.calibration, *(cut.budget for cut in look.cuts)})


def budget_at(look: PacSetsLook, confidence: float) -> float | None:
    """The largest budget that keeps the promise; None if the calibration is too small for it."""
    return budget_for(look.calibration, 1 - confidence, look.delta)


def kept_at(look: PacSetsLook, budget: float) -> list[bool]:
    """Which nodes are kept; none where nothing can be."""
    fitting = [cut for cut in look.cuts if cut.budget <= budget + 1e-9]
    flags = fitting[-1].kept if fitting else b""
    return [bool(flags[i]) if i < len(flags) else False for i in range(len(look.parts))]


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(look: PacSetsLook) -> str:
    return sentence_at(look, look.confidence)


def sentence_at(look: PacSetsLook, confidence: float) -> str:
    """What may be kept at this confidence, whether the truth is inside, and how the promise does on drafts it never saw."""
    budget = budget_at(look, confidence)
    if budget is None:
        return f"{len(look.calibration):,} drafts are too few to promise {confidence:.0%}: not even no failure at all would do."
    words = []
    if look.parts:
        kept, of = kept_bytes(look, budget)
        inside = "lies inside" if budget <= look.holds + 1e-9 else "lies outside"
        if kept and of:
            words.append(
                f"At {confidence:.0%} {kept:,} of {of:,} drafted bytes are kept; what the target writes by itself {inside}."
            )
        else:
            words.append(
                f"At {confidence:.0%} nothing of this draft can be promised: all of it is a hole, and everything lies inside."
            )
    if look.held_out:
        held = len(look.held_out) - failures(look.held_out, budget)
        words.append(f"On drafts that the calibration never saw the true text is inside in {held:,} of {len(look.held_out):,}.")
    return " ".join(words) or "The draft was not written yet."


def kept_bytes(look: PacSetsLook, budget: float) -> tuple[int, int]:
    """Drafted bytes, blanks apart, that are kept, and all of them."""
    flags = own_flags(look, kept_at(look, budget))
    drafted = [i for i in range(look.given, len(look.source)) if not look.source[i : i + 1].isspace()]
    return sum(flags[i] for i in drafted), len(drafted)


def own_flags(look: PacSetsLook, kept: Sequence[bool]) -> list[bool]:
    """For every byte of the source whether the deepest node over it is kept."""
    flags = [False] * len(look.source)
    for part, keeps in zip(look.parts, kept, strict=True):  # parents before children
        for i in range(min(part.start, len(flags)), min(part.end, len(flags))):
            flags[i] = keeps
    return flags


# -- the text with holes -----------------------------------------------------------------------------------------------


def html(look: PacSetsLook, dark: bool) -> str:
    """The draft with its holes, the same with its costs and where the target parts from it, and what the target writes."""
    made = set_html(look, look.confidence)
    if not made:
        return ""
    truth = as_html(full(look.truth.encode("utf-8", "replace")))
    return (
        f"{made}"
        f'<div class="ds-set"><small>the draft, dearer tokens darker; ✗ where the target parts from it</small><br>'
        f"{draft_html(look)}<br><small>what the target writes by itself</small><br>{truth}</div>"
    )


def set_html(look: PacSetsLook, confidence: float) -> str:
    """The draft with its holes at a confidence; "" where nothing can be promised or drawn."""
    budget = budget_at(look, confidence)
    if budget is None or not look.source or not look.parts:
        return ""
    return f'{CSS}<div class="ds-set"><small>the set at {confidence:.0%}</small><br>{pieces_html(look, budget)}</div>'


def pieces_html(look: PacSetsLook, budget: float) -> str:
    """Kept stretches framed, every hole once."""
    flags, parts, at = own_flags(look, kept_at(look, budget)), [], 0
    source = look.source
    while at < len(source):
        end = at
        while end < len(source) and (flags[end] == flags[at] or (source[end : end + 1].isspace() and end > at)):
            end += 1
        said = source[at:end]
        if flags[at] and said.strip():
            given = " ds-given" if end <= look.given else ""
            parts.append(f'<span class="ds-kept{given}" style="border-color:{COLOR["accepted"]}">{as_html(readable(said))}</span>')
        elif said.strip():
            parts.append(f'<span class="ds-hole" style="border-color:{COLOR["rejected"]}">{HOLE}</span>')
        at = end
    tail = "" if look.ended or not parts or HOLE in parts[-1] else " …"
    return " ".join(parts) + tail


def readable(said: bytes) -> str:
    """Bytes as a line of text."""
    return " ".join(said.decode("utf-8", "replace").split())


def draft_html(look: PacSetsLook) -> str:
    """Every drafted token, the darker the less sure the drafter was, ✗ behind the first that the target would not write."""
    parts, parted = [], False
    for one in look.drafted:
        refused = not one.agrees and not parted
        parted = parted or not one.agrees
        mark = "<b>✗</b>" if refused else ""
        faded = "opacity:0.6" if parted and not refused else ""
        shown = as_html(label(look.token_bytes.get(one.token, b""), 24))
        style = f"background:{tint(SHADE, round(0.75 * (1 - min(1.0, one.q)), 2))};{faded}"
        parts.append(f'<span style="{style}" title="q {number(one.q)}">{shown}{mark}</span>')
    return "".join(parts)


# -- figures -----------------------------------------------------------------------------------------------------------


def figure(look: PacSetsLook, dark: bool) -> go.Figure | None:
    """Failures at each budget, on what the budget was chosen on and on what was never shown; how many may fail; the budget."""
    if not look.calibration:
        return None
    most, budget = most_failures(len(look.calibration), 1 - look.confidence, look.delta), budget_at(look, look.confidence)
    at = budgets(look)
    made = go.Figure(layout=layout(330, dark, hovermode="x unified"))
    for said, holds, color, dash in (
        ("drafts it was chosen on", look.calibration, COLOR["accepted"], "solid"),
        ("drafts it never saw", look.held_out, "#CC79A7", "dot"),
    ):
        if holds:
            made.add_scatter(
                x=at, y=[failures(holds, b) / len(holds) for b in at], mode="lines", name=said,
                line={"color": color, "width": 2.5, "dash": dash, "shape": "hv"}, hovertemplate="%{y:.1%}",
            )  # fmt: skip
    if most is not None and budget is not None:
        made.add_hline(y=most / len(look.calibration), line=limit_line())
        made.add_annotation(
            x=1, y=most / len(look.calibration), xref="paper", xanchor="right", yanchor="bottom", showarrow=False,
            text=f"{most:,} of {len(look.calibration):,} may fail", font={"color": muted(dark)},
        )  # fmt: skip
        made.add_vline(x=budget, line={"color": muted(dark), "width": 1.5, "dash": "dot"})
    made.update_xaxes(
        title="budget: kept cost, nats", range=[0, min(12.0, max(at) if at else 12.0)], gridcolor=GRID, fixedrange=True
    )
    made.update_yaxes(title="failures", tickformat=".0%", rangemode="tozero", gridcolor=GRID, fixedrange=True)
    return made


def alt(look: PacSetsLook) -> str:
    """The curve in words."""
    budget = budget_at(look, look.confidence)
    if budget is None:
        return sentence(look)
    most = most_failures(len(look.calibration), 1 - look.confidence, look.delta)
    return (
        f"Failures by budget, of {look.said or 'drafts'}. At {look.confidence:.0%} {most:,} of {len(look.calibration):,} may fail, "
        f"which allows a budget of {budget:.2f} nats."
    )


def more(look: PacSetsLook, dark: bool) -> list[tuple[str, go.Figure, str]]:
    """Costs of the parts, and promised against measured."""
    found = []
    leaves = [part for i, part in enumerate(look.parts) if not any(other.parent == i for other in look.parts)]
    if leaves:
        found.append(costs_figure(look, dark))
    if look.calibration and look.held_out:
        found.append(promise_figure(look, dark))
    return found


def costs_figure(look: PacSetsLook, dark: bool) -> tuple[str, go.Figure, str]:
    """A bar per node that has words of its own."""
    rows = [part for part in look.parts if part.cost > 0][:24]
    made = go.Figure(layout=layout(80 + 26 * len(rows), dark, showlegend=False, bargap=0.35))
    at = [str(i) for i in range(len(rows))]
    said = [as_plotly(f"{part.kind}  {label(look.source[part.start : part.end].strip(), 22)}") for part in rows]
    made.add_bar(
        y=at, x=[part.cost for part in rows], orientation="h", hovertemplate="%{x:.2f} nats<extra></extra>",
        marker={"color": SHADE, "line": {"color": LOOKS["correction"].line, "width": 1}},
    )  # fmt: skip
    made.update_yaxes(tickvals=at, ticktext=said, autorange="reversed", tickfont={"family": MONO, "size": 12}, fixedrange=True)
    made.update_xaxes(title="cost: −log q of its own tokens, nats", gridcolor=GRID, fixedrange=True)
    total = sum(part.cost for part in look.parts)
    return "What each part costs", made, f"{len(rows):,} parts cost anything, {total:.1f} nats together."


def promise_figure(look: PacSetsLook, dark: bool) -> tuple[str, go.Figure, str]:
    """What is promised against what the drafts that were never shown say."""
    points = [(c / 100, budget_at(look, c / 100)) for c in range(50, 100, 2)]
    known = [(c, 1 - failures(look.held_out, b) / len(look.held_out)) for c, b in points if b is not None]
    made = go.Figure(layout=layout(280, dark))
    made.add_scatter(x=[0.5, 1], y=[0.5, 1], mode="lines", name="promised", line={"color": muted(dark), "dash": "dash"})
    made.add_scatter(
        x=[c for c, _ in known], y=[held for _, held in known], mode="lines+markers", name="measured on drafts it never saw",
        line={"color": COLOR["accepted"], "width": 2}, hovertemplate="promised %{x:.0%}, measured %{y:.1%}<extra></extra>",
    )  # fmt: skip
    made.update_xaxes(title="promised", tickformat=".0%", gridcolor=GRID, fixedrange=True)
    made.update_yaxes(title="measured", tickformat=".0%", gridcolor=GRID, fixedrange=True)
    short = sum(held < c for c, held in known)
    return "Promised and measured", made, f"Of {len(known):,} promises {short:,} are missed on the drafts that were never shown."


def table(look: PacSetsLook) -> pd.DataFrame:
    """One row per part of the draft: what it costs, and up to which confidence it is kept."""
    rows = []
    for i, part in enumerate(look.parts):
        kept = [c for c in range(50, 100) if (b := budget_at(look, c / 100)) is not None and kept_at(look, b)[i]]
        said = full(look.source[part.start : part.end])
        rows.append((said, part.kind, part.parent, part.cost, f"{max(kept)} %" if kept else ""))
    return pd.DataFrame(rows, columns=["part", "kind", "in part", "cost", "kept up to"])
