"""Rows of a table of candidates: the token they stand behind, and the candidates from the first rank on, verdicts marked."""

from collections.abc import Mapping, Sequence

from viz.style import COLOR, LOOKS, MARK, MONO, tint
from viz.tokens import as_html, name

FONT = MONO.replace("'", "")
LOOK = {
    "accepted": f"background:{tint(COLOR['accepted'], 0.22)};border-bottom:2px solid {LOOKS['accepted'].line};font-weight:700",
    "rejected": f"background:{tint(COLOR['rejected'], 0.12)};border-bottom:2px dashed {LOOKS['rejected'].line}",
}

Cell = tuple[int, str]  # token and verdict


def table_rows_html(rows: Sequence[tuple[int | None, Sequence[Cell | None]]], token_bytes: Mapping[int, bytes]) -> str:
    """The rows as an HTML table that scrolls sideways where there is no room.

    Args:
        rows: the token (None: there is none) and its candidates; None where a rank was not walked.
    """
    ranks = max((len(cells) for _, cells in rows), default=0)
    head = "".join(f'<th scope="col" style="text-align:left;padding:0.15em 0.5em">{r + 1}</th>' for r in range(ranks))
    body = "".join(row(token, cells, token_bytes) for token, cells in rows)
    style = f"border-collapse:collapse;font-family:{FONT};font-size:0.9rem"
    return f'<div style="overflow-x:auto"><table style="{style}"><tr><th>behind</th>{head}</tr>{body}</table></div>'


def row(token: int | None, cells: Sequence[Cell | None], token_bytes: Mapping[int, bytes]) -> str:
    named = as_html("–" if token is None else name(token, token_bytes))
    head = f'<th scope="row" style="text-align:left;padding:0.15em 0.8em 0.15em 0">{named}</th>'
    return f"<tr>{head}{''.join(cell(one, token_bytes) for one in cells)}</tr>"


def cell(found: Cell | None, token_bytes: Mapping[int, bytes]) -> str:
    if found is None:
        return '<td style="padding:0.15em 0.5em">·</td>'
    token, verdict = found
    mark = f"{MARK[verdict]} " if MARK[verdict] else ""
    look = LOOK.get(verdict, "")
    return f'<td style="padding:0.15em 0.5em;white-space:nowrap;{look}">{mark}{as_html(name(token, token_bytes))}</td>'
