"""Where in the drafter's list the token stood that the target liked best, by depth: first, a little behind, or not in it.

Knows the table of `viz.drafter.judgements` through `viz.drafter.levels`, a place counting once. A trace keeps the drafter's `KEPT`
likeliest tokens, so a rank beyond is known as that alone. A drafter without a distribution (retrieval, heads whose tokens are
chosen) has its guesses for the place, in order.
"""

import pandas as pd
import plotly.graph_objects as go

from viz.drafter.acceptance import layout_of
from viz.drafter.judgements import KEPT
from viz.drafter.levels import levels
from viz.runs.lines import empty_figure, framed
from viz.style import ink
from viz.tokens import as_plotly

DEEPEST = 12  # depths drawn; the table has all
CLASSES = {"1st": (1, 1), "2nd": (2, 2), "3rd to 4th": (3, 4), f"5th to {KEPT}th": (5, KEPT)}
ABSENT = "not in its list"
COLORS = ("#0B4F7D", "#2F7FD1", "#86B6EA", "#C7CDD6", "#F3F4F6")
INKS = ("#FFFFFF", "#1F2328", "#1F2328", "#1F2328", "#1F2328")
PATTERNS = ("", "/", ".", "-", "x")
NONE = "The distributions of these runs were not kept, so no rank is known."


def ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Places by depth and by where the target's likeliest token stood: one column per class, `places` their sum."""
    places = levels(frame)
    places = places[places["wanted"] != ""]
    rows = []
    for depth, part in places.groupby("depth"):
        place = part["wanted rank"].where(part["overlap"].notna(), part["wanted guess"])
        counts = [int(place.between(low, high).sum()) for low, high in CLASSES.values()]
        rows.append((int(depth), *counts, len(part) - sum(counts), len(part)))
    return pd.DataFrame(rows, columns=["depth", *CLASSES, ABSENT, "places"])


def list_words(frame: pd.DataFrame) -> str:
    """Whose list: the distribution's, or that of the guesses; "" if there is none."""
    places = frame[frame["wanted"] != ""]
    if places.empty:
        return ""
    listed = places["overlap"].notna()
    if listed.all():
        return f"Its list: the {KEPT} tokens its distribution q made likeliest at this place."
    if not listed.any():
        return "Its list: the guesses it made for this place, in order; it recorded no distribution."
    return f"Its list: the {KEPT} likeliest of q, and where no distribution was recorded the guesses for the place, in order."


def rank_words(frame: pd.DataFrame) -> str:
    """The bars in a sentence, over all depths."""
    sums = ranks(frame).sum()
    if not sums["places"]:
        return NONE
    first, near = int(sums["1st"]), int(sums["2nd"] + sums["3rd to 4th"])
    return (
        f"The target's favourite was the drafter's first choice in {first:,} of {int(sums['places']):,} places, its "
        f"second to fourth in {near:,}, and not in its list in {int(sums[ABSENT]):,}."
    )


def rank_figure(frame: pd.DataFrame, dark: bool = False) -> go.Figure:
    """Stacked shares by depth, the darkest at the bottom being the first choice; the number of places stands below."""
    table = ranks(frame).head(DEEPEST)
    if table.empty:
        return empty_figure(NONE, dark)
    figure = go.Figure(layout=layout_of(330, dark, several=True) | {"barmode": "stack"})
    for name, color, text, pattern in zip((*CLASSES, ABSENT), COLORS, INKS, PATTERNS, strict=True):
        shares = table[name] / table["places"]
        figure.add_bar(
            name=name,
            x=table["depth"],
            y=shares,
            text=[f"{share:.0%}" if share >= 0.08 else "" for share in shares],
            textposition="inside",
            textangle=0,
            insidetextanchor="middle",
            textfont={"color": text, "size": 12},
            marker={"color": color, "line": {"color": ink(dark), "width": 0.6}, "pattern": {"shape": pattern, "solidity": 0.1}},
            hovertext=[
                f"depth {depth}, {name}: {count} of {places}"
                for depth, count, places in zip(table["depth"], table[name], table["places"], strict=True)
            ],
            hoverinfo="text",
        )
    ticks = [f"{depth}<br>{places}" for depth, places in zip(table["depth"], table["places"], strict=True)]
    framed(figure, as_plotly("depth in the draft, and places judged there"), "share of the places")
    figure.update_xaxes(tickvals=table["depth"], ticktext=ticks, showgrid=False, zeroline=False)
    return figure.update_yaxes(range=[0, 1.02], dtick=0.25, tickformat=".0%").update_layout(margin={"b": 64, "t": 44})


def rank_alt(frame: pd.DataFrame) -> str:
    """The bars in words; plain text."""
    parts = []
    for row in ranks(frame).to_dict("records"):
        counts = ", ".join(f"{name} {row[name]}" for name in (*CLASSES, ABSENT))
        parts.append(f"depth {row['depth']}: {counts} of {row['places']}")
    return f"Where the target's favourite stood in the drafter's list. {'; '.join(parts) or NONE}."
