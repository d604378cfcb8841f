"""What the lens of dynamic tokenization saw: the text with its words fused, the difference merge by merge, and each word alone."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.dynamic_tokenization import MEAN, NETWORK, RENUMBERED, Alone, DynamicTokenizationLook, Read, Row, groups
from viz.style import GRID, LOOKS, SERIES, layout, tint
from viz.tokens import as_html, full, full_name, label, plain, quoted
from viz.verdicts import percent
from viz.words import number

WAYS = {NETWORK: "trained network", MEAN: "mean of the pieces"}
COLOURS = {NETWORK: LOOKS["accepted"].color, MEAN: LOOKS["rejected"].color}
FUSED = tint(LOOKS["accepted"].color, 0.16)
CSS = """<style>
.ds-fused { overflow-wrap: anywhere; font-size: 1rem; }
.ds-fused span { display: inline-block; max-width: 100%; line-height: 1.35; border-radius: 4px; padding: 0 0.18rem; }
.ds-fused span { border: 1px solid rgba(128,128,128,0.4); margin: 0 2px 4px 0; }
.ds-fused .ds-word { border: 1.5px solid; font-weight: 600; }
.ds-fused .ds-word i { font-style: normal; font-weight: 400; opacity: 0.55; padding: 0 1px; }
.ds-behind { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 11rem), 1fr)); gap: 1rem; margin-top: 0.7rem; }
.ds-behind h4, .ds-alone h4 { margin: 0 0 0.2rem; padding: 0; font-size: 1rem; }
.ds-behind ol { margin: 0; padding: 0; list-style: none; font-size: 0.95rem; }
.ds-behind li { display: grid; grid-template-columns: 6.5rem 1fr 3rem; gap: 0.4rem; align-items: center; margin: 0.1rem 0; }
.ds-behind li b { font-weight: 500; font-family: monospace; overflow: hidden; white-space: nowrap; }
.ds-behind li i { height: 0.7rem; border-radius: 2px; display: block; }
.ds-behind small { font-size: 0.85rem; font-variant-numeric: tabular-nums; text-align: right; }
.ds-alone { margin-top: 0.9rem; }
.ds-alone table { border-collapse: collapse; font-size: 0.95rem; width: 100%; }
.ds-alone td, .ds-alone th { padding: 0.15rem 0.7rem 0.15rem 0; text-align: left; border: none; font-weight: normal; }
.ds-alone td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.ds-alone b { font-weight: 600; }
</style>"""


# -- what is there -----------------------------------------------------------------------------------------------------


def merges(look: DynamicTokenizationLook) -> list[int]:
    """At which numbers of merges the text was read so far."""
    return sorted({read.merges for read in look.reads if read.merges <= last(look)})


def last(look: DynamicTokenizationLook) -> int:
    return max(look.fused, default=0) if fits(look) else 0


def fits(look: DynamicTokenizationLook) -> bool:
    """Whether the borders are those of the tokens; of an upload they need not be."""
    return bool(look.tokens) and len(look.fused) == len(look.tokens) - 1


def at(look: DynamicTokenizationLook, number_of: int) -> list[Read]:
    """What was read with so many merges and the chosen positions, the network first."""
    found = [read for read in look.reads if read.merges == number_of and read.positions == look.positions]
    return sorted(found, key=lambda read: read.way != NETWORK)


def spans(look: DynamicTokenizationLook, number_of: int) -> list[tuple[int, int]]:
    return groups(look.fused, number_of) if fits(look) else []


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(look: DynamicTokenizationLook) -> str:
    """What all merges save and cost."""
    if not look.tokens:
        return "The text was not read yet."
    if not last(look):
        return "No two tokens of this text can be merged: none of its words, but for its first and last token, has two pieces."
    read = merges(look)
    return sentence_at(look, read[-1]) if read else "The text is being read as it is."


def sentence_at(look: DynamicTokenizationLook, number_of: int) -> str:
    """The same at a number of merges."""
    before, after = len(look.tokens), len(spans(look, number_of))
    share = f" ({percent(1 - after / before)} fewer)" if before else ""
    words = [f"{number_of:,} of {last(look):,} merges make {after:,} rows of {before:,}{share}."]
    read = at(look, number_of)
    if read:
        said = [f"{number(one.kl)} nats {'with the ' + WAYS[one.way] if one.way in WAYS else ''}".strip() for one in read]
        words.append(f"The next token's distribution moves by {' and '.join(said)}.")
        words.append(favourite(look, read[0]))
    return " ".join(word for word in words if word)


def favourite(look: DynamicTokenizationLook, read: Read) -> str:
    """What becomes of the most probable next token."""
    if not look.top or not read.top:
        return ""
    first, now = (quoted(rows[0].token, look.token_bytes) for rows in (look.top, read.top))
    return f"The most probable token stays {first}." if read.same else f"The most probable token was {first} and is {now}."


# -- the text ----------------------------------------------------------------------------------------------------------


def boxes_html(look: DynamicTokenizationLook, number_of: int) -> str:
    """The text after so many merges, a box per row that is read; in merged words a faint mark between the pieces."""
    parts = []
    for start, end in spans(look, number_of):
        pieces = [as_html(full_name(token, look.token_bytes)) for token in look.tokens[start:end]]
        if len(pieces) == 1:
            parts.append(f"<span>{pieces[0]}</span>")
        else:
            style = f"background:{FUSED};border-color:{LOOKS['accepted'].color}"
            parts.append(f'<span class="ds-word" style="{style}" title="{len(pieces)} pieces">{"<i>·</i>".join(pieces)}</span>')
    return f'{CSS}<div class="ds-fused" role="img" aria-label="{as_html(boxes_alt(look, number_of))}">{"".join(parts)}</div>'


def boxes_alt(look: DynamicTokenizationLook, number_of: int) -> str:
    found = spans(look, number_of)
    words = sum(end - start > 1 for start, end in found)
    return f"The text after {number_of:,} merges: {len(found):,} boxes, {words:,} of them words of several pieces."


def behind_html(look: DynamicTokenizationLook, number_of: int) -> str:
    """The most probable next tokens of the text as it is and with so many merges, side by side."""
    if not look.top:
        return ""
    parts = [rows_html(look, "the text as it is", look.top, SERIES["p"])]
    for read in at(look, number_of):
        title, colour = f"merged, {WAYS.get(read.way, plain(read.way))}", COLOURS.get(read.way, SERIES["q"])
        parts.append(rows_html(look, title, read.top, colour))
    return f'{CSS}<div class="ds-behind">{"".join(parts)}</div>'


def rows_html(look: DynamicTokenizationLook, title: str, rows: Sequence[Row], colour: str) -> str:
    items = "".join(
        f"<li><b>{as_html(label(look.token_bytes.get(row.token, b''), 12))}</b>"
        f'<i style="width:{100 * min(1.0, row.p):.1f}%;background:{colour}"></i><small>{row.p:.3f}</small></li>'
        for row in rows
    )
    return f"<section><h4>{as_html(title)}</h4><ol>{items}</ol></section>"


# -- each word alone ---------------------------------------------------------------------------------------------------


def pairs(look: DynamicTokenizationLook) -> dict[tuple[int, ...], dict[str, Alone]]:
    """Word -> how it was read -> what that did, in the order in which they were read."""
    found: dict[tuple[int, ...], dict[str, Alone]] = {}
    for one in look.words:
        found.setdefault(one.tokens, {})[one.way] = one
    return found


def said(look: DynamicTokenizationLook, tokens: Sequence[int]) -> str:
    """A word with marks between its pieces; plain text."""
    return "·".join(full_name(token, look.token_bytes) for token in tokens)


def words_html(look: DynamicTokenizationLook) -> str:
    """A table: what each word moves when it alone is merged, the one that hurts most first."""
    found = pairs(look)
    if not found:
        return ""
    ways = [way for way in WAYS if any(way in by for by in found.values())]
    most = max((one.kl for by in found.values() for one in by.values()), default=0.0) or 1.0
    head = "".join(f"<th>{words}</th>" for words in ("word", "times", *(f"{WAYS[way]}, nats" for way in ways)))
    rows = sorted(found.items(), key=lambda entry: -max(one.kl for one in entry[1].values()))
    body = "".join(
        f"<tr><td><b>{as_html(said(look, tokens))}</b></td><td>{next(iter(by.values())).times:,}</td>"
        f"{''.join(cell(by.get(way), most) for way in ways)}</tr>"
        for tokens, by in rows
    )
    how = "numbered anew" if look.positions == RENUMBERED else "of the last pieces"
    return f'{CSS}<div class="ds-alone"><h4>This word alone, positions {how}</h4><table><tr>{head}</tr>{body}</table></div>'


def cell(one: Alone | None, most: float) -> str:
    if one is None:
        return "<td></td>"
    shade = tint(COLOURS.get(one.way, SERIES["q"]), 0.04 + 0.3 * max(0.0, min(1.0, one.kl / most)))
    return f'<td style="background:{shade}">{number(one.kl)}</td>'


# -- the line ----------------------------------------------------------------------------------------------------------


def lines(look: DynamicTokenizationLook) -> dict[tuple[str, str], list[Read]]:
    """(way, positions) -> what was read so, by merges; the network first."""
    found: dict[tuple[str, str], list[Read]] = {}
    for read in sorted(look.reads, key=lambda read: (read.way != NETWORK, read.positions != RENUMBERED, read.merges)):
        found.setdefault((read.way, read.positions), []).append(read)
    return found


def figure(look: DynamicTokenizationLook, dark: bool) -> go.Figure | None:
    """KL over the merges: a colour for each way to make the embeddings, full lines for positions that are numbered anew."""
    if not last(look) or not look.reads:
        return None
    drawn = go.Figure(layout=layout(320, dark))
    for (way, positions), reads in lines(look).items():
        anew, colour = positions == RENUMBERED, COLOURS.get(way, SERIES["q"])
        drawn.add_scatter(
            x=[read.merges for read in reads], y=[read.kl for read in reads], mode="lines+markers",
            name=f"{WAYS.get(way, plain(way))}, {'numbered anew' if anew else 'original positions'}",
            line={"color": colour, "width": 2.5, "dash": "solid" if anew else "dot"},
            marker={"symbol": "circle" if anew else "diamond-open", "size": 7, "color": colour},
            customdata=[len(spans(look, read.merges)) for read in reads],
            hovertemplate="%{x} merges, %{customdata} rows: %{y:.3f} nats<extra></extra>",
        )  # fmt: skip
    drawn.update_xaxes(title="merges", gridcolor=GRID, zeroline=False, fixedrange=True)
    drawn.update_yaxes(title="KL(p || p of the merged text), nats", rangemode="tozero", gridcolor=GRID, fixedrange=True)
    return drawn


def alt(look: DynamicTokenizationLook) -> str:
    """The lines in words."""
    said_of = [
        f"{WAYS.get(way, plain(way))}, {'positions numbered anew' if positions == RENUMBERED else 'original positions'}: "
        f"{number(reads[-1].kl)} nats at {reads[-1].merges:,} merges"
        for (way, positions), reads in lines(look).items()
    ]
    return f"What the row behind the text moves, by merges. {'; '.join(said_of)}." if said_of else sentence(look)


def table(look: DynamicTokenizationLook) -> pd.DataFrame:
    """One row per reading of the merged text, and one per word alone."""
    rows = [
        ("the text", read.merges, len(spans(look, read.merges)), WAYS.get(read.way, read.way), read.positions, read.kl,
         full(look.token_bytes.get(read.top[0].token, b"")) if read.top else "")
        for read in look.reads
    ]  # fmt: skip
    rows += [
        (said(look, one.tokens), one.times, None, WAYS.get(one.way, one.way), look.positions, one.kl, "") for one in look.words
    ]
    columns = ["merged", "merges or times", "rows", "embeddings", "positions", "KL, nats", "most probable token"]
    return pd.DataFrame(rows, columns=columns)
