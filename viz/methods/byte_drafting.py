"""What is particular to byte drafting: the drafted bytes between two rulings, the drafter's tokens and those the target wrote; what
each byte was judged with; and how far the bytes carried over the run.

The bytes stand in a grid of the step, where the drafter begins its own tokens in another, q, p and u of each in its facts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from decoding.score_names import (
    BYTES_ACCEPTED,
    BYTES_DRAFTED,
    DRAFTED_BYTES,
    DRAFTER_TOKENS,
    P_OF_BYTE,
    Q_OF_BYTE,
    U_OF_BYTE,
)
from decoding.trace import Step, Trace, number_in
from viz.style import GRID, LOOKS, MONO, layout, series_marker
from viz.tokens import Say, as_html, as_plotly, full, label, quoted
from viz.words import number

MOST = 64  # symbols of a draft that are drawn
CSS = """<style>
.ds-bytes { overflow-x: auto; }
.ds-bytes table { border-collapse: separate; border-spacing: 2px 3px; font-family: 'Source Code Pro', ui-monospace, monospace; }
.ds-bytes th { font: 400 0.8rem 'Source Sans', sans-serif; text-align: left; padding-right: 0.7rem; white-space: nowrap; }
.ds-bytes td { text-align: center; padding: 0.1rem 0.3rem; border-radius: 4px; white-space: pre; min-width: 1.2em; }
.ds-bytes .ds-token { border: 1px solid #8888; }
.ds-bytes .ds-beyond { background: repeating-linear-gradient(135deg,#00000000 0 4px,#8885 4px 6px); }
.ds-bytes sup { font-size: 0.65rem; }
</style>"""


@dataclass(frozen=True)
class Byte:
    """A drafted byte, or the end of the text."""

    value: bytes  # b"" for the end
    q: float
    p: float
    u: float
    verdict: str
    begins: bool  # a token of the drafter


def drafted(step: Step) -> list[Byte]:
    """The draft of a step, byte by byte; [] where there is none, or a trace lacks its numbers."""
    text, begun = step.grids.get(DRAFTED_BYTES, b""), step.grids.get(DRAFTER_TOKENS, b"")
    count, kept = (number_in(step.facts, name, 0) for name in (BYTES_DRAFTED, BYTES_ACCEPTED))
    if not 0 < count <= MOST or count not in (len(text), len(text) + 1) or not 0 <= kept <= count or len(begun) != len(text):
        return []
    found = []
    for i in range(count):
        q, p, u = (number_in(step.facts, name.format(i + 1), -1.0) for name in (Q_OF_BYTE, P_OF_BYTE, U_OF_BYTE))
        if not all(-1e-6 <= value <= 1.01 for value in (q, p, u)):
            return []
        verdict = "accepted" if i < kept else "rejected" if i == kept else "not judged"
        found.append(Byte(text[i : i + 1], q, p, u, verdict, i >= len(text) or bool(begun[i])))
    return found


def shown(one: Byte) -> str:
    """A byte as it is shown; plain text."""
    return label(one.value, 6) if one.value else "end"


def sentence(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """What was judged and what was written; plain text."""
    found = drafted(step)
    if not found:
        return "No bytes were drafted in this step."
    kept = sum(one.verdict == "accepted" for one in found)
    written = b"".join(token_bytes.get(token, b"") for token in step.tokens)
    tokens = f"{len(step.tokens)} {'token' if len(step.tokens) == 1 else 'tokens'} of {len(written)} bytes"
    thought = sum(one.begins for one in found)
    begun = f"The drafter thought in tokens of its own, of which {thought} begin in these {len(found)} bytes. "
    judged = f"{kept} of {len(found)} bytes were accepted; "
    if kept < len(found):
        one = found[kept]
        judged += f"{shown(one)} was refused ({number(one.u)} × {number(one.q)} is not below {number(one.p)}); "
    reach = len(written) - kept
    beyond = f", {reach} of them beyond the last accepted one" if reach > 0 else ""
    return f"{begun}{judged}the target wrote {tokens}{beyond}."


def html(step: Step, token_bytes: Mapping[int, bytes]) -> str:
    """Three rows over one ruler of bytes: the drafter's tokens, the verdicts, the tokens that were written."""
    found = drafted(step)
    if not found:
        return ""
    kept = sum(one.verdict == "accepted" for one in found)
    rows = (("drafter's tokens", ruled(found)), ("bytes, judged", verdicts(found)), ("written", written(step, token_bytes, kept)))
    told = "".join(f'<tr><th scope="row">{as_html(name)}</th>{cells}</tr>' for name, cells in rows)
    return f'{CSS}<div class="ds-bytes" role="img" aria-label="{as_html(alt(step))}"><table>{told}</table></div>'


def ruled(found: Sequence[Byte]) -> str:
    """The drafter's own tokens over the bytes; the first may have begun before."""
    groups: list[list[Byte]] = []
    for one in found:
        if one.begins or not groups:
            groups.append([])
        groups[-1].append(one)
    texts = (full(b"".join(one.value for one in group)) if any(one.value for one in group) else "end" for group in groups)
    return "".join(
        f'<td class="ds-token" colspan="{len(group)}">{as_html(text)}</td>' for group, text in zip(groups, texts, strict=True)
    )


def verdicts(found: Sequence[Byte]) -> str:
    """A cell per byte, coloured and marked by its verdict."""
    cells = []
    for one in found:
        look = LOOKS[one.verdict]
        style = f"background:{look.color};color:{look.ink}" if look.filled else f"border:1px {css_line(look.dash)} {look.line}"
        title = f"{shown(one)}, {one.verdict}: q {number(one.q)}, p {number(one.p)}, u {number(one.u)}"
        cells.append(f'<td style="{style}" title="{as_html(title)}">{as_html(shown(one))}<sup>{as_html(look.mark)}</sup></td>')
    return "".join(cells)


def css_line(dash: str) -> str:
    """A dash of Plotly as CSS has it.

    >>> css_line("dash"), css_line("dot"), css_line("solid")
    ('dashed', 'dotted', 'solid')
    """
    return {"dash": "dashed", "dot": "dotted"}.get(dash, "solid")


def written(step: Step, token_bytes: Mapping[int, bytes], kept: int) -> str:
    """The tokens of the step, each as wide as its bytes; hatched from the last accepted byte on."""
    cells, at = [], 0
    for token, origin in zip(step.tokens, step.origins, strict=True):
        piece = token_bytes.get(token, b"")
        width = max(1, len(piece))
        beyond = " ds-beyond" if at + width > kept else ""
        title = f"{full(piece)}, {origin}"
        cells.append(
            f'<td class="ds-token{beyond}" colspan="{width}" title="{as_html(title)}">{as_html(label(piece, 3 + 2 * width))}</td>'
        )
        at += width
    return "".join(cells)


# -- q and p of every byte ---------------------------------------------------------------------------------------------


def figure(step: Step, dark: bool = False) -> go.Figure:
    """Two bars per byte: what the drafter gave it, and the target; a byte that was judged stays if u x q is below p."""
    found = drafted(step)
    made = go.Figure(layout=layout(280, dark, barmode="group", bargap=0.3))
    places = list(range(1, len(found) + 1))
    for key, words, values in (("q", "q, drafter", [one.q for one in found]), ("p", "p, target", [one.p for one in found])):
        told = [f"{shown(one)}: {key} {number(value)}, {one.verdict}" for one, value in zip(found, values, strict=True)]
        hover = {"hovertext": [as_plotly(text) for text in told], "hoverinfo": "text"}
        made.add_bar(name=words, x=places, y=values, marker=series_marker(key), **hover)
    dice = [one.u * one.q for one in found]
    made.add_scatter(
        name="u × q", x=places, y=dice, mode="markers",
        marker={"symbol": "diamond-open", "size": 9, "color": LOOKS["rejected"].line},
        hovertext=[as_plotly(f"{shown(one)}: u × q = {number(one.u * one.q)}") for one in found], hoverinfo="text",
    )  # fmt: skip
    ticks = [as_plotly(f"{shown(one)}{LOOKS[one.verdict].mark}") for one in found]
    made.update_xaxes(tickvals=places, ticktext=ticks, tickfont={"family": MONO, "size": 14}, fixedrange=True, tickangle=0)
    made.update_yaxes(range=[0, 1.06], gridcolor=GRID, fixedrange=True)
    return made


def alt(step: Step) -> str:
    """The bytes in words; plain text."""
    told = [f"{shown(one)} {one.verdict}, q {number(one.q)}, p {number(one.p)}" for one in drafted(step)]
    return f"Drafted bytes: {'; '.join(told)}." if told else "No bytes were drafted."


def table(step: Step) -> pd.DataFrame:
    """One row per drafted byte."""
    rows = [
        (shown(one), one.value[0] if one.value else None, one.q, one.p, one.u, one.u * one.q, one.verdict, one.begins)
        for one in drafted(step)
    ]
    return pd.DataFrame(rows, columns=["shown", "byte", "q", "p", "u", "u × q", "verdict", "begins a token of the drafter"]).astype(
        {"byte": "Int64"}
    )


# -- over the run ------------------------------------------------------------------------------------------------------


def run_words(steps: Sequence[Step], token_bytes: Mapping[int, bytes]) -> str:
    """How far the bytes carried so far; plain text."""
    drafts = [found for step in steps if (found := drafted(step))]
    judged = sum(one.verdict != "not judged" for found in drafts for one in found)
    if not judged:
        return "No bytes were judged yet."
    kept = sum(one.verdict == "accepted" for found in drafts for one in found)
    tokens = sum(len(step.tokens) for step in steps)
    size = sum(len(token_bytes.get(token, b"")) for step in steps for token in step.tokens)
    calls = sum(step.draft_calls for step in steps)
    return (
        f"So far {kept:,} of {judged:,} judged bytes were accepted ({number(kept / judged)}), {number(kept / len(drafts))} a step. "
        f"The target wrote {tokens:,} tokens of {size:,} bytes in {len(steps):,} calls: {number(tokens / len(steps))} tokens and "
        f"{number(size / len(steps))} bytes a call, with {number(calls / len(steps))} calls of the drafter."
    )


def silence(trace: Trace, cursor: int, say: Say = quoted) -> str:
    """Why nothing was drafted at a step; plain text."""
    return "the text cannot be told in the drafter's tokens here, or none of its bytes fits them"
