"""What the horizon lens saw: how much was still to come, in bars at the cursor and as lines along the text; the end's probability;
and the drafts under a cap."""

from collections.abc import Sequence
from statistics import fmean

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.horizon import At, Call, HorizonLook
from viz.small_table import small_table
from viz.style import COLOR, GRID, LOOKS, SERIES, layout, limit_line, muted, tint
from viz.tokens import as_html, as_plotly, full_name, name, quoted
from viz.words import number

COUNTING = "position"
SAYS = {  # reader -> how it is called
    COUNTING: "counting tokens",
    "state": "the state",
    "state and position": "the state, with counting",
    "head": "the trained head",
}
FIELDS = {COUNTING: "position", "state": "state", "state and position": "both", "head": "head"}
READ = COLOR["accepted"]  # the line of the reader that is spoken of
CSS = """<style>
.ds-left { display: grid; grid-template-columns: max-content minmax(4rem, 1fr) max-content; gap: 0.35rem 0.8rem;
  align-items: center; max-width: 44rem; margin: 0.4rem 0 0.8rem; }
.ds-left > i { height: 0.9rem; border-radius: 4px; border: 1px solid #8A8F98; overflow: hidden; display: block; }
.ds-left > i > b { display: block; height: 100%; }
</style>"""


def reader(look: HorizonLook) -> str:
    """The reader that is spoken of; counting if the look names none that is known."""
    return look.by if look.by in SAYS else COUNTING


def share(row: At, which: str) -> float:
    """What a reader says is still to come."""
    return min(1.0, getattr(row, FIELDS[which]))


def true_share(row: At) -> float | None:
    """What was."""
    return None if row.left is None or row.t + row.left == 0 else row.left / (row.t + row.left)


def tokens_left(row: At, which: str) -> float:
    """The tokens still to come that follow from what a reader says."""
    said = share(row, which)
    return min(999.0, row.t * said / (1 - said)) if said < 1 else 999.0


def here(look: HorizonLook) -> At | None:
    """The token in front of the cursor."""
    return look.text[look.at] if 0 <= look.at < len(look.text) else None


def off(look: HorizonLook, which: str) -> float | None:
    """The mean error of a reader over the tokens whose end came."""
    errors = [abs(share(row, which) - true) for row in look.text if (true := true_share(row)) is not None]
    return fmean(errors) if errors else None


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(look: HorizonLook) -> str:
    """The cursor, the whole text, and the cap."""
    words = [cursor_words(look), text_words(look), cap_words(look)]
    return " ".join(filter(None, words)) or "Nothing was read yet."


def cursor_words(look: HorizonLook) -> str:
    row, which = here(look), reader(look)
    if row is None:
        return ""
    also = "" if which == COUNTING else f", counting {about(tokens_left(row, COUNTING))}"
    came = "its end never came" if row.left is None else f"{row.left:,} came"
    unit = look.unit or "unit"
    return (
        f"Behind {quoted(row.token, look.token_bytes)}, token {row.t:,} of its {unit}, {SAYS[which]} expects "
        f"{about(tokens_left(row, which))} more{also}; {came}."
    )


def about(tokens: float) -> str:
    """
    >>> about(0.2), about(12.4), about(999.0)
    ('0', '12', 'hundreds')
    """
    return "hundreds" if tokens >= 999 else f"{round(tokens):,}"


def text_words(look: HorizonLook) -> str:
    which = reader(look)
    mine, counted = off(look, which), off(look, COUNTING)
    if mine is None or counted is None:
        return ""
    known = sum(true_share(row) is not None for row in look.text)
    unit = f"of a {look.unit}" if look.unit == "sentence" else "of it"
    told = f"Over {known:,} token{'' if known == 1 else 's'} {SAYS[which]} is off by {number(mine, 2)} {unit} in the mean"
    if which == COUNTING:
        return f"{told}."
    better = "counting is the better guess" if counted <= mine else "the state adds to what counting knows"
    return f"{told}, counting tokens by {number(counted, 2)}: {better}."


def cap_words(look: HorizonLook) -> str:
    drafted, spared, lost, past = totals(look.calls)
    if not drafted:
        return ""
    if not spared and not lost:
        return "A cap there would have changed no draft."
    kept = f"at the price of {lost:,} that were kept" if lost else "at no price"
    behind = "" if look.unit == "sentence" else f"; {past:,} stood behind the end"
    return f"A cap there would have spared {spared:,} of {drafted:,} drafted tokens {kept}{behind}."


def totals(calls: Sequence[Call]) -> tuple[int, int, int, int]:
    """Drafted, spared, lost, behind the end."""
    return (
        sum(call.drafted for call in calls),
        sum(call.spared for call in calls),
        sum(call.lost for call in calls),
        sum(call.past for call in calls),
    )


# -- bars and figures of held-out text ---------------------------------------------------------------------------------


def html(look: HorizonLook, dark: bool) -> str:
    """What is still to come at the cursor, a bar per reader, and how good the readers are on text that they never saw."""
    bars, table = bars_html(look, dark), held_html(look)
    return f"{CSS}{bars}{table}" if bars or table else ""


def bars_html(look: HorizonLook, dark: bool) -> str:
    """Filled is what is written of the sentence, empty what is still to come."""
    row = here(look)
    if row is None:
        return ""
    which = reader(look)
    lines = [(SAYS[one], share(row, one), about(tokens_left(row, one)), one == which) for one in dict.fromkeys((COUNTING, which))]
    made = "".join(bar(says, left, f"{count} more", READ if mine else muted(dark)) for says, left, count, mine in lines)
    true = true_share(row)
    if true is not None:
        made += bar("what came", true, f"{row.left:,} more", LOOKS["prompt"].line)
    return f'<div class="ds-left">{made}</div>'


def bar(says: str, left: float, count: str, colour: str) -> str:
    done = 100 * (1 - min(1.0, max(0.0, left)))
    fill = f'<i><b style="width:{done:.1f}%;background:{colour}"></b></i>'
    return f"<span>{as_html(says)}</span>{fill}<span>{done:.0f} % written, {as_html(count)}</span>"


def held_html(look: HorizonLook) -> str:
    if not look.held:
        return ""
    rows = [(SAYS.get(one.reader, one.reader), f"{one.off:.3f}", f"{one.beyond:.2f}", f"{one.next:.2f}") for one in look.held]
    head = ("", "off by, mean", "beyond counting", "“the end is next”, AUC")
    return small_table(head, rows, f"Held out, {look.said or 'texts'}")


# -- along the text ----------------------------------------------------------------------------------------------------


def figure(look: HorizonLook, dark: bool) -> go.Figure | None:
    """The share still to come, behind every token: as it was, by counting, and by the chosen reader."""
    if not look.text:
        return None
    made, which = go.Figure(layout=layout(330, dark, hovermode="x unified")), reader(look)
    read = [COUNTING, which if which != COUNTING else "state"]
    lines = [("what came", [true_share(row) for row in look.text], {"color": LOOKS["prompt"].line, "width": 6}, 0.55)]
    styles = ({"color": muted(dark), "width": 1.5, "dash": "dash"}, {"color": READ, "width": 2.5})
    lines += [(SAYS[one], [share(row, one) for row in look.text], style, 1.0) for one, style in zip(read, styles, strict=True)]
    x = list(range(1, len(look.text) + 1))
    for says, values, line, opacity in lines:
        y, at = parted(values, look.text), parted(x, look.text)
        made.add_scatter(
            x=at, y=y, mode="lines", name=says, line=line, opacity=opacity, connectgaps=False, hovertemplate="%{y:.0%}"
        )
    mark_cursor(made, look, dark)
    made.update_xaxes(fixedrange=True, showgrid=False, zeroline=False, **ticks(look))
    made.update_yaxes(
        title=f"of the {look.unit or 'unit'}, still to come", tickformat=".0%", range=[-0.03, 1.03], gridcolor=GRID, zeroline=False,
        fixedrange=True,
    )  # fmt: skip
    return made


def parted(values: Sequence[float | None], text: Sequence[At]) -> list[float | None]:
    """The values with a gap in front of every new unit.

    >>> parted([0.5, 0.0, 0.8], [At(0, t, None, 0, 0, 0, 0, 0) for t in (1, 2, 1)])
    [0.5, 0.0, None, 0.8]
    """
    found: list[float | None] = []
    for i, (value, row) in enumerate(zip(values, text, strict=False)):
        found += [None] if i and row.t <= text[i - 1].t else []
        found.append(value)
    return found


def ticks(look: HorizonLook) -> dict:
    """Words below the line, as many as fit."""
    every = max(1, -(-len(look.text) // 24))
    at = range(0, len(look.text), every)
    return {
        "tickvals": [i + 1 for i in at],
        "ticktext": [as_plotly(name(look.text[i].token, look.token_bytes, 9)) for i in at],
        "tickangle": -60,
    }


def mark_cursor(made: go.Figure, look: HorizonLook, dark: bool) -> None:
    if here(look) is not None:
        made.add_vline(x=look.at + 1, line={"color": muted(dark), "width": 1.5, "dash": "dot"})


def alt(look: HorizonLook) -> str:
    """The lines in words."""
    if not look.text:
        return "Nothing was read yet."
    ends = sum(row.left == 0 for row in look.text)
    words = text_words(look) or "No end came that they could be held against."
    return f"What is still to come, along {len(look.text):,} tokens with {ends:,} ends. {words}"


def more(look: HorizonLook, dark: bool) -> list[tuple[str, go.Figure, str]]:
    """The probability of the end, and the drafts under the cap."""
    found = [end_figure(look, dark)] if look.text else []
    return found + ([cap_figure(look, dark)] if any(call.drafted for call in look.calls) else [])


def end_figure(look: HorizonLook, dark: bool) -> tuple[str, go.Figure, str]:
    """A bar behind every token; crosses where the end came next."""
    behind = 1 if look.unit == "sentence" else 0  # a sentence's last token is one of its own
    x = list(range(1, len(look.text) + 1))
    made = go.Figure(layout=layout(220, dark, bargap=0.1))
    names = [as_plotly(name(row.token, look.token_bytes)) for row in look.text]
    made.add_bar(
        x=x, y=[min(1.0, row.end) for row in look.text], name="the end is next", text=names, textposition="none",
        marker={"color": SERIES["p"]}, hovertemplate="behind %{text}: %{y:.1%}<extra></extra>",
    )  # fmt: skip
    came = [i for i, row in enumerate(look.text) if row.left == behind and row.left is not None]
    made.add_scatter(
        x=[i + 1 for i in came], y=[min(1.0, look.text[i].end) for i in came], mode="markers", name="it came",
        marker={"symbol": "x", "color": LOOKS["rejected"].line, "size": 9}, hoverinfo="skip",
    )  # fmt: skip
    mark_cursor(made, look, dark)
    made.update_xaxes(fixedrange=True, showgrid=False, zeroline=False, **ticks(look))
    made.update_yaxes(title="p of the end", tickformat=".0%", range=[0, 1.05], gridcolor=GRID, zeroline=False, fixedrange=True)
    told = [look.text[i].end for i in came]
    others = [row.end for i, row in enumerate(look.text) if i not in set(came)]
    words = f"{fmean(told):.0%} in the mean where it came next" if told else "It never came"
    words += f", {fmean(others):.0%} elsewhere." if others else "."
    return "How likely the end is", made, words


def cap_figure(look: HorizonLook, dark: bool) -> tuple[str, go.Figure, str]:
    """Per call how deep was drafted, how much of it was kept, and the cap."""
    calls = [call for call in look.calls if call.drafted]
    x = [str(i + 1) for i in range(len(calls))]
    made = go.Figure(layout=layout(240, dark, bargap=0.2, barmode="overlay"))
    made.add_bar(
        x=x, y=[call.deepest for call in calls], name="drafted, deepest", hovertemplate="drafted %{y} deep<extra></extra>",
        marker={"color": tint(muted(dark), 0.25), "line": {"color": muted(dark), "width": 1}},
    )  # fmt: skip
    made.add_bar(
        x=x, y=[call.accepted for call in calls], name="kept", marker={"color": COLOR["accepted"]},
        hovertemplate="kept %{y}<extra></extra>",
    )  # fmt: skip
    top = max(call.deepest for call in calls) + 1
    capped = [None if call.cap is None else min(call.cap, top) for call in calls]
    made.add_scatter(x=x, y=capped, mode="lines+markers", name="the cap", line=limit_line() | {"shape": "hvh"}, hoverinfo="skip")
    made.update_xaxes(title="call that drafted", fixedrange=True, showgrid=False, nticks=20, type="category")
    made.update_yaxes(title="tokens deep", range=[0, top + 0.3], gridcolor=GRID, zeroline=False, fixedrange=True)
    biting = sum(call.cap is not None and call.cap < call.deepest for call in calls)
    return "Drafts under a cap", made, f"{cap_words(look)} It lies below the draft in {biting:,} of {len(calls):,} calls."


def table(look: HorizonLook) -> pd.DataFrame:
    """One row per token."""
    rows = [
        (i + 1, full_name(row.token, look.token_bytes), row.token, row.t, row.left, true_share(row), row.position, row.state,
         row.both, row.head, row.end)
        for i, row in enumerate(look.text)
    ]  # fmt: skip
    columns = ["place", "token", "id", "t", "tokens left", "still to come", *SAYS.values(), "p of the end"]
    return pd.DataFrame(rows, columns=columns)
