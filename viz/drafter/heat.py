"""How far p and q were apart, token by token, as bars under the text of one run, and the same as a table.

Knows one trace; what could not be told there, because nothing was drafted or there is no q, has no bar.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from decoding.trace import Trace
from viz.drafter.judgements import positions
from viz.style import MONO, tint
from viz.tokens import as_html
from viz.words import number

HEAT = "#C2477F"  # one hue for "p and q disagree"; the height of the bar says the same
MEASURES = {"tv": "total variation", "kl": "KL(p || q) in bits", "entropy": "entropy of p in bits"}
HOW_TO_READ_HEAT = "The taller and darker the bar under a token, the further apart p and q were there."


def heat_strip(trace: Trace, by: str = "tv", limit: int = 400) -> str:
    """The committed text as HTML, under each token a bar for `by` (one of `MEASURES`); the numbers stand in the titles.

    Bars are scaled to 1 for total variation, else to the largest value in the text. `heat_table` is the twin.
    """
    frame = positions([(0, 0, "", trace)]).head(limit)
    if frame.empty:
        return '<p class="ds-none">No token was committed yet.</p>'
    top = 1.0 if by == "tv" else float(frame[by].max()) if frame[by].notna().any() else 1.0
    cells = "".join(heat_cell(row, by, top or 1.0) for row in frame.to_dict("records"))
    scale = f"No bar: nothing was drafted there, or there is no q. Full bar: {number(top)}."
    more = "" if sum(len(step.tokens) for step in trace.steps) <= limit else f" The first {limit} tokens are shown."
    style = f"font-family:{as_html(MONO)};font-size:0.95rem;line-height:2.1;overflow-wrap:anywhere"
    head = f'<div role="list" aria-label="The text, with {MEASURES[by]} under each token" style="{style}">{cells}</div>'
    return head + f'<div style="font-size:0.82rem;opacity:0.8;margin-top:0.4rem">{MEASURES[by]}. {scale}{more}</div>'


def heat_cell(row: Mapping, by: str, top: float) -> str:
    """One token; its title has all the numbers."""
    numbers = [f"{MEASURES[key]} {number(row[key])}" for key in MEASURES if not np.isnan(row[key])]
    title = as_html(f"{row['token']}: {', '.join(numbers) or 'nothing recorded'}; token {row['position'] + 1}")
    value = row[by]
    look = "opacity:0.62"
    if not np.isnan(value):
        part = max(0.0, min(1.0, value / top))
        color, height = tint(HEAT, round(0.25 + 0.6 * part, 2)), round(2 + 34 * part)
        look = f"background:linear-gradient(to top,{color} {height}%,{tint(HEAT, 0.07)} {height}%)"
    style = f"{look};padding:0.15em 0.06em 0.5em;margin-right:1px;border-radius:2px;unicode-bidi:isolate"
    shown = as_html(row["token"]).replace("↵", "↵<br>")  # an indentation stands on the line that it begins
    attributes = f'role="listitem" title="{title}" aria-label="{title}"'
    return f'<wbr><span {attributes} style="{style}">{shown}</span>'


def heat_table(trace: Trace) -> pd.DataFrame:
    """The numbers of `heat_strip`."""
    return positions([(0, 0, "", trace)])[["position", "token", "id", "origin", "tv", "kl", "entropy"]]
