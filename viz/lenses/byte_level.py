"""What the byte-level lens saw: the ways to spell the last word, the next byte three ways, and the error along the text."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.byte_level import ByteLook, Covered
from viz.style import GRID, LOOKS, MONO, SERIES, SERIES_LINE, layout, tint
from viz.tokens import as_html, as_plotly, full, label
from viz.verdicts import percent
from viz.words import number

END = 256  # the symbol behind the bytes
TOP = 5  # bytes that each way may bring into the picture
TELLS = 0.3  # total variation from which the plain way is called wrong
WAYS = {  # name -> colour, border, hatching
    "plain": (LOOKS["rejected"].color, LOOKS["rejected"].line, "/"),
    "token healing": (LOOKS["correction"].color, LOOKS["correction"].line, "."),
    "exact": (SERIES["p"], SERIES_LINE["p"], ""),
}
TWO = {"second model": (SERIES["q"], SERIES_LINE["q"], "/"), "mixture": (LOOKS["bonus"].color, LOOKS["bonus"].line, "x")}
CSS = """<style>
.ds-cover { display: grid; grid-template-columns: minmax(0, 1fr) max-content; gap: 0.3rem 0.8rem; align-items: center;
  font-family: 'Source Code Pro', ui-monospace, monospace; font-size: 0.95rem; overflow-x: auto; }
.ds-cover-row { display: flex; white-space: pre; }
.ds-cover-row span { border: 1px solid #8886; border-radius: 4px; padding: 0.12rem 0.02rem; margin-right: 2px; display: flex; }
.ds-cover-row b, .ds-cover-row i { font-weight: 400; font-style: normal; display: inline-block; min-width: 1.15em; }
.ds-cover-row b, .ds-cover-row i { text-align: center; }
.ds-cover-row i { background: repeating-linear-gradient(135deg,#00000000 0 4px,#8885 4px 6px); }
.ds-cover-ruler b { border-bottom: 2px solid; font-weight: 700; }
.ds-cover-bar { display: flex; align-items: center; gap: 0.4rem; font-family: inherit; font-size: 0.82rem; width: 9.5rem; }
.ds-cover-bar u { display: inline-block; height: 0.7rem; border: 1px solid #007A59; background: #009E73; text-decoration: none; }
@media (max-width: 640px) { .ds-cover-bar { width: 5rem; } .ds-cover { font-size: 0.85rem; } }
</style>"""


def symbol(index: int, limit: int = 12) -> str:
    """A byte as it is shown, or the end of the text."""
    return "end of text" if index == END else label(bytes([index]), limit)


def said(index: int) -> str:
    """The same for a sentence."""
    shown = symbol(index)
    return shown if index == END else f"“{shown}”"


def best(row: Sequence[float]) -> int | None:
    """The likeliest symbol; None of an empty row."""
    return max(range(len(row)), key=lambda i: (row[i], -i)) if row else None


def sentence(look: ByteLook) -> str:
    """What comes next exactly, and what the other two ways make of it."""
    exact, plain, healed = best(look.exact), best(look.plain), best(look.healed)
    if exact is None or plain is None or healed is None:
        return "Nothing was looked at yet."
    text = full(look.text[-24:]) if look.text else "the text"
    found = f"Behind “…{text}” the next byte is {said(exact)} with {number(look.exact[exact])}. "
    if look.plain_error > TELLS:
        found += (
            f"Read as whole tokens the target expects {said(plain)} ({number(look.plain[plain])}): the text ends where it never "
            f"saw one end, and {percent(min(1.0, look.plain_error))} of its probability is misplaced. "
        )
    else:
        misplaced = f"{percent(look.plain_error)} of its probability is misplaced"
        found += f"Read as whole tokens the target says nearly the same: {misplaced}. "
    if look.healed_error > TELLS:
        return found + f"Token healing does not help: it expects {said(healed)} ({number(look.healed[healed])}).{mixed_words(look)}"
    return found + f"Token healing comes within {percent(look.healed_error)}.{mixed_words(look)}"


def mixture(look: ByteLook) -> tuple[float, ...]:
    """(257,) both models together; () where there is no second one."""
    if len(look.second) != len(look.exact) or not look.second:
        return ()
    return tuple((1 - look.share) * a + look.share * b for a, b in zip(look.exact, look.second, strict=True))


def mixed_words(look: ByteLook) -> str:
    """What the second model and the mixture make of it."""
    row = mixture(look)
    second, both = best(look.second), best(row)
    if second is None or both is None:
        return ""
    return (
        f" A second model, with tokens of its own, expects {said(second)} ({number(look.second[second])}); with a share of "
        f"{number(look.share)} of it the two expect {said(both)} ({number(row[both])})."
    )


def ways(look: ByteLook) -> dict[str, tuple[tuple[str, str, str], tuple[float, ...]]]:
    """Name -> look of its bars, and its row, of everything that was asked."""
    found = {name: (WAYS[name], row) for name, row in zip(WAYS, (look.plain, look.healed, look.exact), strict=True)}
    if row := mixture(look):
        found |= {"second model": (TWO["second model"], look.second), "mixture": (TWO["mixture"], row)}
    return found


# -- the cover ---------------------------------------------------------------------------------------------------------


def html(look: ByteLook, dark: bool) -> str:
    """The last word as a ruler of bytes; below it every way to spell it, the part beyond the text hatched, its share as a bar."""
    if not look.covers:
        return ""
    ruler = f'<div class="ds-cover-row ds-cover-ruler">{cells(look.word, 0)}</div><div class="ds-cover-bar">share of P(text)</div>'
    rows = "".join(f'<div class="ds-cover-row">{boxes(one, look)}</div>{bar(one)}' for one in look.covers)
    rest = max(0, look.members - len(look.covers))
    more = f'<p class="ds-dim">and {rest:,} more, {number(remaining(look))} of it together</p>' if rest else ""
    title = f"{look.members:,} {'way' if look.members == 1 else 'ways'} to spell the last word"
    return f'{CSS}<p class="ds-say"><b>{as_html(title)}</b></p><div class="ds-cover">{ruler}{rows}</div>{more}'


def remaining(look: ByteLook) -> float:
    return max(0.0, 1.0 - sum(one.share for one in look.covers))


def cells(piece: bytes, beyond: int) -> str:
    """One cell per byte; the last `beyond` are hatched. A character of several bytes stands in the first of its cells."""
    shown: list[str] = []
    for character in piece.decode("utf-8", "surrogateescape"):
        raw = character.encode("utf-8", "surrogateescape")
        shown += [label(raw, 6), *["·"] * (len(raw) - 1)]
    parts = [as_html(one) for one in shown]
    inside = len(parts) - beyond
    return "".join(f"<b>{one}</b>" if i < inside else f"<i>{one}</i>" for i, one in enumerate(parts))


def boxes(one: Covered, look: ByteLook) -> str:
    """The tokens of a spelling; the bytes of the last one beyond the text are hatched."""
    last = len(one.tokens) - 1
    return "".join(
        f"<span>{cells(look.token_bytes.get(token, b''), len(one.beyond) if i == last else 0)}</span>"
        for i, token in enumerate(one.tokens)
    )


def bar(one: Covered) -> str:
    width = 60 * min(1.0, max(0.0, one.share))
    return f'<div class="ds-cover-bar"><u style="width:{width:.1f}%"></u>{number(one.share)}</div>'


# -- the next byte -----------------------------------------------------------------------------------------------------


def shown_symbols(look: ByteLook) -> list[int]:
    """The likeliest symbols of all three ways, by the exact one."""
    rows = [row for _, row in ways(look).values() if len(row) == END + 1]
    if len(rows) < 3:
        return []
    found = {i for row in rows for i in sorted(range(END + 1), key=lambda i: (-row[i], i))[:TOP] if row[i] > 0.001}
    return sorted(found, key=lambda i: (-look.exact[i], -look.healed[i], i))


def figure(look: ByteLook, dark: bool) -> go.Figure | None:
    """Three bars per byte: plain, token healing, exact; two more where a second model was asked."""
    symbols = shown_symbols(look)
    if not symbols:
        return None
    rows = ways(look)
    made = go.Figure(layout=layout(90 + 17 * len(rows) * len(symbols), dark, barmode="group", bargap=0.28))
    places = [str(i) for i in range(len(symbols))]
    for name, ((color, line, shape), row) in reversed(rows.items()):
        told = [f"{symbol(i)}, {name}: {number(row[i])}{feeds(look, i) if name == 'exact' else ''}" for i in symbols]
        made.add_bar(
            y=places, x=[row[i] for i in symbols], name=name, orientation="h", hoverinfo="text",
            marker={"color": color, "line": {"color": line, "width": 1},
                    "pattern": {"shape": shape, "solidity": 0.3, "fgcolor": line, "bgcolor": color}},
            text=[number(row[i]) for i in symbols], textposition="outside", cliponaxis=False, textfont={"size": 12},
            hovertext=[as_plotly(one) for one in told],
        )  # fmt: skip
    made.update_yaxes(
        tickvals=places, ticktext=[as_plotly(symbol(i)) for i in symbols], autorange="reversed",
        tickfont={"family": MONO, "size": 16}, fixedrange=True, ticklabelstandoff=8,
    )  # fmt: skip
    made.update_xaxes(range=[0, 1.14], tickvals=[0, 0.25, 0.5, 0.75, 1], gridcolor=GRID, fixedrange=True, zeroline=False)
    made.update_layout(legend_traceorder="reversed")
    return made


def feeds(look: ByteLook, index: int) -> str:
    """Which spellings lead to a byte, for a hover."""
    found = [one for one in look.covers if one.beyond[:1] == bytes([index % 256]) and index != END]
    if not found:
        return ""
    words = [" ".join(label(look.token_bytes.get(t, b""), 14) for t in one.tokens) for one in found[:3]]
    return f" (from {', '.join(words)})"


def alt(look: ByteLook) -> str:
    """The bars in words."""
    told = [
        f"{symbol(i)}: {', '.join(f'{name} {number(row[i])}' for name, (_, row) in ways(look).items())}"
        for i in shown_symbols(look)
    ]
    return f"The next byte {'five' if mixture(look) else 'three'} ways. {'; '.join(told)}." if told else "Nothing was looked at."


# -- along the text ----------------------------------------------------------------------------------------------------


def more(look: ByteLook, dark: bool) -> list[tuple[str, go.Figure, str]]:
    """The bias meter."""
    if len(look.meter) < 2:
        return []
    places = list(range(len(look.meter)))
    made = go.Figure(layout=layout(250, dark, barmode="group", bargap=0.25))
    for name, values in (("plain", [r.plain for r in look.meter]), ("token healing", [r.healed for r in look.meter])):
        color, line, shape = WAYS[name]
        told = [f"behind {full(r.text)}: {number(v)}, {r.covers:,} spellings" for r, v in zip(look.meter, values, strict=True)]
        made.add_bar(
            x=places, y=values, name=name, marker={"color": tint(color, 0.9), "line": {"color": line, "width": 1},
            "pattern": {"shape": shape, "solidity": 0.3, "fgcolor": line, "bgcolor": color}},
            hovertext=[as_plotly(one) for one in told],
            hoverinfo="text",
        )  # fmt: skip
    made.update_xaxes(
        tickvals=places, ticktext=[as_plotly(label(r.text, 6)) for r in look.meter], tickfont={"family": MONO, "size": 13},
        fixedrange=True, tickangle=0,
    )  # fmt: skip
    made.update_yaxes(range=[0, 1.05], gridcolor=GRID, fixedrange=True, title="total variation")
    wrong = sum(r.plain > TELLS for r in look.meter)
    mean = sum(r.plain for r in look.meter) / len(look.meter)
    healed = sum(r.healed for r in look.meter) / len(look.meter)
    words = (
        f"Distance to the exact distribution if the text ended behind each of its last {len(look.meter):,} bytes: plain "
        f"{number(mean)} on average, above {TELLS:g} at {wrong:,} of them; token healing {number(healed)}."
    )
    return [("How wrong it would be to end here", made, words)]


def table(look: ByteLook) -> pd.DataFrame:
    """One row per symbol that any way gives a chance of more than one in a thousand."""
    rows = {name: row for name, (_, row) in ways(look).items()}
    known = list(range(min(map(len, rows.values())))) if all(rows.values()) else []
    return pd.DataFrame(
        [(symbol(i), i, *(row[i] for row in rows.values())) for i in known if max(row[i] for row in rows.values()) > 0.001],
        columns=["next", "byte", *rows],
    )  # fmt: skip
