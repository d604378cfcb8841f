"""The one place for colours and marks: what each state of a token looks like, in every figure and in the text.

Knows no trace and no page. A state is never told by its colour alone: it has a mark (in words and boxes), a symbol (in
figures) and a dash (of its border). Filled means: this token is in the text. Hollow means: it is not.
"""

from dataclasses import dataclass
from typing import Any

MONO = "'Source Code Pro', ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
SANS = "'Source Sans', 'Source Sans Pro', system-ui, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Look:
    """How one state is drawn."""

    color: str
    line: str  # of borders and edges: the colour, darkened where it would vanish on a light page
    mark: str  # one character for text; not judged tokens have none
    symbol: str  # Plotly marker symbol
    dash: str  # Plotly dash of borders and edges
    width: float  # of edges, in px
    filled: bool  # the token is in the text
    ink: str = ""  # text on the filled box; a hollow one takes the theme's
    meaning: str = ""


LOOKS: dict[str, Look] = {
    "accepted": Look("#0072B2", "#0072B2", "✓", "circle", "solid", 4, True, "#FFFFFF", "drafted, and kept by the target"),
    "rejected": Look("#D55E00", "#D55E00", "✗", "x", "dash", 1.8, False, "", "drafted, read, and turned down"),
    "not judged": Look("#999999", "#999999", "", "circle-open", "dot", 1.1, False, "", "drafted, but never looked at"),
    "correction": Look("#F0E442", "#A89A00", "↩", "square", "solid", 3, True, "#1F2328", "the target's own, after a rejection"),
    "bonus": Look("#56B4E9", "#3A94C8", "+", "star", "solid", 3, True, "#1F2328", "the target's own, after an accepted path"),
    "plain": Look("#C8C4BA", "#8C887E", "·", "diamond", "solid", 3, True, "#1F2328", "the target's own, with no draft"),
    "prompt": Look("#8A8F98", "#8A8F98", "▸", "triangle-right", "solid", 1.5, False, "", "given, not generated"),
    "template": Look("#8A8F98", "#8A8F98", "‹›", "triangle-right-open", "dot", 1.5, False, "", "put around the messages of a chat"),
}

COLOR = {state: look.color for state, look in LOOKS.items()}
MARK = {state: look.mark for state, look in LOOKS.items()}

# Series that are not states keep clear of the states' hues; a correction is drawn from the residual, hence its colour.
SERIES = {"p": "#009E73", "q": "#CC79A7", "residual": COLOR["correction"]}
SERIES_LINE = {"p": "#007A59", "q": "#A85483", "residual": LOOKS["correction"].line}
SERIES_PATTERN = {"p": "", "q": "/", "residual": "."}
SERIES_STRIPES = {  # the same as CSS backgrounds
    "p": "#009E73",
    "q": "repeating-linear-gradient(135deg,#CC79A7 0 5px,#A85483 5px 7px)",
    "residual": "repeating-linear-gradient(90deg,#F0E442 0 4px,#A89A00 4px 5px)",
}

PHASES = ("propose", "read", "accept", "commit")
PHASE_COLOR = {"propose": "#CC79A7", "read": "#009E73", "accept": "#E69F00", "commit": "#7F7F7F"}
PHASE_PATTERN = {"propose": "/", "read": "", "accept": "x", "commit": "."}

PHASE_STRIPES = {  # the same as CSS backgrounds
    "propose": "repeating-linear-gradient(135deg,#CC79A7 0 5px,#A85483 5px 7px)",
    "read": "#009E73",
    "accept": "repeating-linear-gradient(45deg,#E69F00 0 4px,#A87400 4px 6px)",
    "commit": "repeating-linear-gradient(90deg,#7F7F7F 0 4px,#5A5A5A 4px 6px)",
}

GRID = "rgba(128,128,128,0.28)"  # a mid-tone is seen on white and on black


def ink(dark: bool) -> str:
    """Colour of text on the page."""
    return "#F0F2F6" if dark else "#1F2328"


def muted(dark: bool) -> str:
    """Colour of text that steps back."""
    return "#A9AFBB" if dark else "#5F6670"


def text_color(state: str, dark: bool) -> str:
    """Colour of the text in the state's box."""
    return LOOKS[state].ink or (muted(dark) if state == "not judged" else ink(dark))


def tint(color: str, alpha: float) -> str:
    """'#RRGGBB' -> 'rgba(...)', for fills that let either theme through."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def with_mark(state: str) -> str:
    """'✓ accepted': a state in words, its mark in front of it."""
    return f"{LOOKS[state].mark} {state}".strip()


def ring(state: str) -> str:
    """Outline of the state's symbol: one of its own colour would drown in the filled box it sits on."""
    return LOOKS[state].ink or LOOKS[state].line


def fill(state: str) -> str:
    """Fill of the state's box."""
    if LOOKS[state].filled:
        return COLOR[state]
    return tint(COLOR[state], 0.12) if state == "rejected" else "rgba(0,0,0,0)"


def series_marker(series: str) -> dict[str, Any]:
    """Plotly marker of the bars of a series, told apart by hatching as well as by colour."""
    color, line = SERIES[series], SERIES_LINE[series]
    pattern = {"shape": SERIES_PATTERN[series], "solidity": 0.3, "fgcolor": line, "bgcolor": color}
    return {"color": color, "line": {"color": line, "width": 1}, "pattern": pattern}


def limit_line() -> dict[str, Any]:
    """Plotly line of a threshold."""
    return {"color": LOOKS["rejected"].line, "width": 2, "dash": "dash"}


def layout(height: int, dark: bool, **more: Any) -> dict[str, Any]:
    """What every figure has in common: no background of its own, the theme's text, no surprises on a drag."""
    hover = {"bgcolor": "#2B303B" if dark else "#FFFFFF", "font": {"color": ink(dark), "family": SANS, "size": 13}}
    common = {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": ink(dark), "family": SANS, "size": 13},
        "margin": {"l": 8, "r": 8, "t": 34, "b": 8},
        "hoverlabel": {**hover, "align": "left", "bordercolor": "#8A8F98"},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1,
            "yanchor": "bottom",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "dragmode": "pan",
    }
    return common | more
