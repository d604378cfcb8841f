"""Levels: one place in a text where the drafter had one guess or several, and the target kept one of them or none.

Knows the table of `viz.drafter.judgements`. In a tree a level can be right although most of its guesses were turned down: accepted
over judged counts every refused sibling, a level counts once.
"""

import pandas as pd
import plotly.graph_objects as go

from viz.drafter.acceptance import HOW_TO_READ, Frames, acceptance, bars_figure, named, wilson

LEVEL = ["prompt", "trace", "step", "depth"]
RIGHT = "one guess of the level was right"
FED = 20  # levels at a depth before it is spoken of


def levels(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per judged level: of its first judged guess all columns, `judged` how many were, `accepted` whether one was, `luck`
    whether none was although the draw alone turned one down."""
    ordered = frame.sort_values([*LEVEL, "node"], kind="stable")
    counted = ordered.groupby(LEVEL, sort=False).agg(judged=("accepted", "size"), luck=("luck", "any"))
    first = ordered.drop_duplicates(LEVEL).assign(judged=counted["judged"].to_numpy(), luck=counted["luck"].to_numpy())
    return first.assign(accepted=first["right"], luck=first["luck"].astype(bool) & ~first["right"])


def by_depth(frame: pd.DataFrame) -> pd.DataFrame:
    """Per depth: levels judged, levels with a right guess, their share and its 95 % interval, under the names of `acceptance`."""
    rows = []
    for depth, part in levels(frame).groupby("depth"):
        judged, right = len(part), int(part["accepted"].sum())
        rows.append((str(depth), judged, right, right / judged, *wilson(right, judged)))
    return pd.DataFrame(rows, columns=["depth", "judged", "accepted", "alpha", "low", "high"])


def depth_table(frames: Frames) -> pd.DataFrame:
    """The levels by depth, and beside them the guesses; a first column names the drafter if there are several."""
    parts = []
    for label, frame in named(frames).items():
        guesses = acceptance(frame, "depth")[["depth", "judged", "accepted", "alpha"]]
        guesses.columns = ["depth", "guesses judged", "guesses accepted", "accepted / judged"]
        names = {"judged": "levels", "accepted": "one right", "alpha": "share"}
        table = by_depth(frame).rename(columns=names).merge(guesses, on="depth")
        parts.append(table.assign(drafter=label)[["drafter", *table.columns]] if label else table)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def depth_figure(frames: Frames, dark: bool = False) -> go.Figure:
    """Levels with a right guess by depth; of one drafter that offers several guesses at once, accepted over judged beside them."""
    tables = {label: by_depth(frame) for label, frame in named(frames).items()}
    if isinstance(frames, pd.DataFrame) and branches(frames):
        tables = {RIGHT: tables[""], "accepted / judged": acceptance(frames, "depth")}
    order = sorted({depth for table in tables.values() for depth in table["depth"]}, key=int)
    return bars_figure(tables, "depth", order, dark, "share of the levels")


def depth_alt(frames: Frames) -> str:
    """The bars in words; plain text."""
    parts = []
    for label, frame in named(frames).items():
        words = ", ".join(
            f"depth {row['depth']}: {row['accepted']} of {row['judged']}" for row in by_depth(frame).to_dict("records")
        )
        parts.append(f"{label}{': ' if label else ''}{words or 'nothing judged'}")
    return f"Levels of the draft with a right guess, of those that were judged. {'; '.join(parts)}."


def branches(frame: pd.DataFrame) -> bool:
    """Whether some level had more than one guess judged."""
    return bool(len(frame)) and bool(frame.duplicated(LEVEL).any())


def depth_words(frame: pd.DataFrame) -> str:
    """What the bars by depth show, over the depths that `FED` levels reached: from the highest to the lowest share, in the order of
    their depths, and what comes after; shares whose 95 % intervals overlap are not told apart."""
    fed = [row for row in by_depth(frame).to_dict("records") if row["judged"] >= FED]
    if len(fed) < 2:
        return f"Too few levels to say how it goes with depth: {FED} at each of two depths are needed."
    start, end = sorted((min(fed, key=lambda row: row["alpha"]), max(fed, key=lambda row: row["alpha"])), key=fed.index)
    if not apart(start, end):
        said = f"No clear change with depth: {shown(fed[0])}, {shown(fed[-1])}; the intervals of all overlap."
    else:
        falls = end["alpha"] < start["alpha"]
        said = f"It {'falls' if falls else 'rises'} with depth: {shown(start)}, {shown(end)}"
        if apart(end, fed[-1]):
            said += f", then {'rises' if falls else 'falls'} again: {shown(fed[-1])}"
        said += ". A level is judged only where all before it was right."
    return f"{said} {HOW_TO_READ['depth']}" if branches(frame) else said


def apart(one: dict, other: dict) -> bool:
    return one["high"] < other["low"] or other["high"] < one["low"]


def shown(row: dict) -> str:
    return f"{row['accepted']:,} of {row['judged']:,} levels at depth {row['depth']} ({row['alpha']:.0%})"
