"""Why a drafter's tokens get rejected: every judged token of many runs in one table, and what that table shows.

Knows runs as (prompt number, trace id, domain, trace) and, from then on, DataFrames: the figures, filters and sentences
work on what `judgements` and `positions` return, so that one filter applies to all of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from zlib import crc32

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from decoding.trace import Row, Step, Trace
from viz.compare import LINES, committed, empty_figure, framed
from viz.style import MONO, ink, layout, muted, tint
from viz.tally import depths, tally
from viz.tokens import as_html, as_plotly, full, plain
from viz.words import number

DrafterRun = tuple[int, int, str, Trace]  # prompt number, trace id, domain, trace
Frames = pd.DataFrame | Mapping[str, pd.DataFrame]  # one drafter, or several by name

CONTEXT = 40  # characters shown before a token
BINS = 10  # of the reliability diagram
HEAT = "#C2477F"  # one hue for "p and q disagree"; the height of the bar says the same
MANY = 20  # judged tokens before a rate of 0 or 1 is called an alarm

CLASSES = {
    "word start": "A letter after a space, a line break, punctuation, or at the start of the text.",
    "inside a word": "A letter right behind a letter or an apostrophe that follows one.",
    "digit": "A digit, unless it belongs to an identifier.",
    "punctuation": "Anything else that is a character.",
    "whitespace": "Spaces, tabs and line breaks only.",
    "identifier": "Part of a name as code has them: the unbroken run of letters, digits and underscores that ends with "
    "this token holds a letter next to an underscore or before a digit, or a capital behind a small letter.",
    "other": "No characters: half of one, or an empty piece.",
}
BY = ("depth", "position", "domain", "class", "entropy", "source")
TITLES = {
    "depth": "depth in the draft",
    "position": "position in the text",
    "domain": "domain",
    "class": "class of the drafted token",
    "entropy": "entropy of the target, bits",
    "source": "where the token came from",
}
HOW_TO_READ = {
    "depth": "Bars that fall with depth are normal; a cliff at one depth is a bug, or a drafter not trained so far.",
    "position": "Bars that fall along the text: the drafter loses the thread, or was trained on shorter texts.",
    "domain": "Low bars are what the drafter has not seen enough of.",
    "class": "Low bars are the kind of token it cannot guess; inside a word should be easiest.",
    "entropy": "Left the target is sure, right it could go on in many ways; low bars on the left are plain mistakes.",
    "source": "Which part of the drafter earns its keep.",
    "reliability": "A point on the diagonal: of tokens drafted with probability q, a share of q was accepted. "
    "Below it the drafter is too sure of itself, above it too modest.",
    "heat": "The taller and darker the bar under a token, the further apart p and q were there.",
    "expensive": "The rejections that cost most: cost is how many more tokens the step might have brought.",
    "disagreements": "Both drafters stood behind the same text; the target kept a token of one and none of the other.",
    "bootstrap": "The interval holds 95 % of the differences that other prompts of the same kind would give; "
    "if it holds 0, the two are not told apart.",
}
INTERVAL = "The whiskers are 95 % Wilson intervals: few tokens, long whiskers."

NUMBERS = ["confidence", "p", "q", "u", "entropy", "overlap", "kl", "tv", "wanted p"]
WHOLE = ["prompt", "trace", "step", "node", "depth", "position", "id", "behind", "cost", "prefix"]
COLUMNS = [
    *("prompt", "trace", "domain", "step", "node", "depth", "position", "id", "token", "class", "source", "accepted"),
    *("confidence", "p", "q", "u", "entropy", "overlap", "kl", "tv", "context", "wanted", "wanted p", "committed"),
    *("behind", "cost", "prefix"),
]


# --- The table --------------------------------------------------------------------------------------------------------


def judgements(runs: Sequence[DrafterRun]) -> pd.DataFrame:
    """One line per judged token, accepted or rejected. Steps, nodes and positions in the text count from 0.

    Tokens judged behind the end of the text (the limit came first) are left out: nothing came to stand there.

    Columns worth a word:
        confidence: what the drafter gave the token at its position: q of the recorded row (in a greedy run, where q
            itself is one-hot, that is its belief at temperature 1), else q of the node; empty if it has none.
        q, u: as judged; empty for a chosen token, or where the target drew a token instead.
        entropy, overlap, kl, tv: of the row it was judged at, in bits; tv = 1 - overlap, the total variation.
        wanted, wanted p: the target's likeliest token there. committed: the token that came to stand there.
        behind: drafted tokens that hang below it. cost: see `costs`.
        prefix: a checksum of all tokens before it, to find the same place in another run.
    """
    rows = [row for run in runs for row in judged_rows(*run)]
    return typed(pd.DataFrame(rows, columns=COLUMNS))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of one type each, also when they are empty, so that they can be written as Parquet."""
    kinds = dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(WHOLE, "int64") | {"accepted": "bool"}
    return frame.astype({name: kind for name, kind in kinds.items() if name in frame})


def judged_rows(prompt: int, trace_id: int, domain: str, trace: Trace) -> list[tuple]:
    """The judged tokens of one run, in the order of `COLUMNS`."""
    rows: list[tuple] = []
    text = list(trace.header.prompt_tokens)
    start, sum_ = len(text), checksum(text)
    for number_, step in enumerate(trace.steps):
        deep, cost, behind = depths(step), costs(step), below(step)
        sums = [sum_]
        for token in step.tokens:
            sums.append(checksum([token], sums[-1]))
        for i, node in enumerate(step.nodes):
            place = deep[i] - 1  # in step.tokens: all that is judged hangs on the accepted path
            if node.verdict == "unread" or place >= len(step.tokens):
                continue
            before = context([*text[-2 * CONTEXT :], *step.tokens[:place]], trace.pieces)
            piece = trace.pieces.get(node.token)
            label = shown(node.token, trace.pieces)
            taken = shown(step.tokens[place], trace.pieces)
            rows.append(
                (prompt, trace_id, domain, number_, i, deep[i], len(text) - start + place, node.token, label)
                + (token_class(piece or b"", before), plain(node.source), node.verdict == "accepted")
                + distributions(step, i, trace.pieces, before)
                + (taken, behind[i], cost[i], sums[place])
            )
        text += step.tokens
        sum_ = sums[-1]
    return rows


def distributions(step: Step, i: int, pieces: Mapping[int, bytes], before: str) -> tuple:
    """From `confidence` to `wanted p`: what both models thought at the place of node i."""
    node = step.nodes[i]
    row = step.rows[node.parent + 1] if step.rows else None
    if row is None:
        return (node.q, node.p, node.q, node.u, None, None, None, None, visible_context(before), "", None)
    tv = None if row.overlap is None else 1 - row.overlap
    spread = (row.entropy, row.overlap, row.kl, tv)
    top = (shown(row.tokens[0], pieces), row.p[0]) if row.tokens else ("", None)
    return (confidence(row, node.token, node.q), node.p, node.q, node.u, *spread, visible_context(before), *top)


def confidence(row: Row, token: int, q: float | None) -> float | None:
    return row.q[row.tokens.index(token)] if row.q is not None and token in row.tokens else q


def below(step: Step) -> list[int]:
    """How many nodes hang below each."""
    counts = [0] * len(step.nodes)
    for i in reversed(range(len(counts))):
        parent = step.nodes[i].parent
        if parent >= 0:
            counts[parent] += counts[i] + 1
    return counts


def costs(step: Step) -> list[int]:
    """What each rejection cost, in tokens: the longest drafted path from the node on, itself included, less what the
    step accepted from that depth on through a sibling; 0 for everything that was not rejected.

    In a chain that is the number of tokens thrown away. It is an upper bound: the tokens behind it were never judged.
    """
    deep = depths(step)
    height = [1] * len(deep)
    for i in reversed(range(len(deep))):
        parent = step.nodes[i].parent
        if parent >= 0:
            height[parent] = max(height[parent], height[i] + 1)
    saved = [len(step.path) - depth + 1 for depth in deep]
    rejected = [node.verdict == "rejected" for node in step.nodes]
    return [max(0, h - max(0, s)) * r for h, s, r in zip(height, saved, rejected, strict=True)]


def checksum(tokens: Sequence[int], before: int = 0) -> int:
    """A running checksum: `checksum(a + b) == checksum(b, checksum(a))`."""
    for token in tokens:
        before = crc32(str(token).encode() + b" ", before)
    return before


def context(tokens: Sequence[int], pieces: Mapping[int, bytes]) -> str:
    """The end of the text as text; more than is shown, because a word may be long."""
    tail = b"".join(pieces.get(token, b"") for token in tokens[-2 * CONTEXT :])
    return tail.decode("utf-8", "replace")[-2 * CONTEXT :]


def visible_context(text: str) -> str:
    """The last characters, every one visible."""
    return full(text[-CONTEXT:].encode()) if text else ""


def shown(token: int, pieces: Mapping[int, bytes]) -> str:
    return full(pieces[token]) if token in pieces else f"#{token}"


def token_class(piece: bytes, before: str = "") -> str:
    """Which of `CLASSES` a token is: by its first character that is not a space, and the word it goes on with.

    >>> [token_class(piece, "The c") for piece in (b"at", b" at", b"4", b".", b" \\n", b"_x", b"")]
    ['inside a word', 'word start', 'identifier', 'punctuation', 'whitespace', 'identifier', 'other']
    """
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "other"
    first = text.strip()[:1]
    if not first:
        return "whitespace" if text else "other"
    run = re.search(r"\w*$", before + text.rstrip())[0]
    camel = any(a.islower() and b.isupper() for a, b in pairwise(run))
    if camel or re.search(r"[^\W\d_]_|_[^\W\d_]|[^\W\d_]\d", run):
        return "identifier"
    if not first.isalpha():
        return "digit" if first.isdigit() else "punctuation"
    goes_on = re.search(r"\w$|\w['’]$", before) and text[0] == first
    return "inside a word" if goes_on else "word start"


def positions(runs: Sequence[DrafterRun]) -> pd.DataFrame:
    """One line per committed token: how far p and q were apart there; empty where nothing was drafted."""
    rows = []
    for prompt, trace_id, domain, trace in runs:
        for at in committed(trace):
            row = at.row
            numbers = (1 - row.overlap, row.kl) if row and row.overlap is not None else (None, None)
            entropy = row.entropy if row else None
            place = (prompt, trace_id, domain, at.step, at.position)
            rows.append((*place, at.token, shown(at.token, trace.pieces), at.origin, *numbers, entropy))
    columns = ["prompt", "trace", "domain", "step", "position", "id", "token", "origin", "tv", "kl", "entropy"]
    return typed(pd.DataFrame(rows, columns=columns))


def per_prompt(runs: Sequence[DrafterRun]) -> pd.DataFrame:
    """One line per run: what it cost and gained."""
    rows = []
    for prompt, trace_id, domain, trace in runs:
        total = tally(trace.steps)
        sums = (
            total.tokens,
            total.target_calls,
            total.tau,
            total.alpha,
            total.drafted,
            total.wasted,
            total.draft_calls,
        )
        rows.append((prompt, trace_id, domain, *sums))
    columns = ["tokens", "target calls", "tau", "alpha", "drafted", "wasted", "drafter calls"]
    frame = pd.DataFrame(rows, columns=["prompt", "trace", "domain", *columns])
    return frame.astype({"tau": "float64", "alpha": "float64"})


def filtered(
    frame: pd.DataFrame,
    *,
    prompts: Sequence[int] | None = None,
    domains: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    accepted: bool | None = None,
    depth: tuple[int, int] | None = None,
    position: tuple[int, int] | None = None,
    entropy: tuple[float, float] | None = None,
    text: str = "",
) -> pd.DataFrame:
    """The lines that pass every filter; None passes all, ranges hold both ends, `text` is sought in context and token.

    A filter on a column the frame does not have (`positions` has no depth) is passed over, so that one set of filters
    serves every frame.
    """
    keep = pd.Series(True, index=frame.index)
    wanted = {"prompt": prompts, "domain": domains, "class": classes, "source": sources}
    for column, values in wanted.items():
        if values is not None and column in frame:
            keep &= frame[column].isin(list(values))
    for column, ends in {"depth": depth, "position": position, "entropy": entropy}.items():
        if ends is not None and column in frame:
            keep &= frame[column].between(*ends)
    if accepted is not None and "accepted" in frame:
        keep &= frame["accepted"] == accepted
    if text and "context" in frame:
        place = frame["context"].astype(str) + frame["token"].astype(str)
        keep &= place.str.contains(full(text.encode("utf-8", "replace")), case=False, regex=False)
    return frame[keep]


# --- Acceptance by ... ------------------------------------------------------------------------------------------------


def wilson(accepted: int, judged: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share; stays inside 0 and 1 and is sane for few tokens.

    >>> [round(end, 3) for end in wilson(5, 10)], [round(end, 3) for end in wilson(0, 10)]
    ([0.237, 0.763], [0.0, 0.278])
    """
    if not judged:
        return 0.0, 1.0
    share, square = accepted / judged, z * z / judged
    middle = (share + square / 2) / (1 + square)
    half = z * sqrt(share * (1 - share) / judged + square / judged / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def groups(frame: pd.DataFrame, by: str) -> pd.Series:
    """The group of every line as an ordered category; numbers with many values are put into buckets."""
    if by == "position":
        size = 16
        top = int(frame["position"].max()) if len(frame) else 0
        labels = [f"{i + 1}–{i + size}" for i in range(0, top + 1, size)]
        return pd.Series(pd.Categorical.from_codes(frame["position"] // size, labels, ordered=True), index=frame.index)
    if by == "entropy":
        ends = [-1, 0.5, 1, 2, 3, 4, 6, np.inf]
        labels = ["0–0.5", "0.5–1", "1–2", "2–3", "3–4", "4–6", "over 6"]
        return pd.cut(frame["entropy"], ends, labels=labels)
    values = frame[by]
    known = [c for c in CLASSES if c in set(values)] if by == "class" else sorted(values.unique())
    return pd.Series(pd.Categorical(values, known, ordered=True), index=frame.index)


def acceptance(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Judged, accepted, alpha and its interval for each group of `by` (one of `BY`) that occurs."""
    counted = frame["accepted"].groupby(groups(frame, by), observed=True).agg(["size", "sum"])
    rows = []
    for group, judged, accepted in counted.itertuples():
        rows.append((plain(str(group)), int(judged), int(accepted), accepted / judged, *wilson(accepted, judged)))
    return pd.DataFrame(rows, columns=[by, "judged", "accepted", "alpha", "low", "high"])


def named(frames: Frames) -> dict[str, pd.DataFrame]:
    return (
        {"": frames} if isinstance(frames, pd.DataFrame) else {plain(key, 32): frame for key, frame in frames.items()}
    )


def acceptance_table(frames: Frames, by: str) -> pd.DataFrame:
    """`acceptance`, with a first column that names the drafter if there are several."""
    tables = {label: acceptance(frame, by) for label, frame in named(frames).items()}
    if list(tables) == [""]:
        return tables[""]
    parts = [table.assign(drafter=label)[["drafter", *table.columns]] for label, table in tables.items()]
    return pd.concat(parts, ignore_index=True)


def acceptance_figure(frames: Frames, by: str, dark: bool = False) -> go.Figure:
    """Share accepted among the judged, by group; whiskers are 95 % intervals, the counts stand below (one drafter)."""
    tables = {label: acceptance(frame, by) for label, frame in named(frames).items()}
    everything = pd.concat(list(named(frames).values()) or [judgements([])], ignore_index=True)
    order = list(acceptance(everything, by)[by])
    if not order:
        return empty_figure("No drafted token was judged here.", dark)
    figure = go.Figure(layout=layout_of(330, dark, several=len(tables) > 1))
    for i, (label, table) in enumerate(tables.items()):
        figure.add_trace(acceptance_bars(label, table, by, order, i, dark))
    alone = next(iter(tables.values())) if len(tables) == 1 else None
    counts = (
        [f"<br>{row.accepted}/{row.judged}" for row in alone.itertuples()] if alone is not None else [""] * len(order)
    )
    ticks = [as_plotly(plain(group, 18)) + count for group, count in zip(order, counts, strict=True)]
    figure.update_xaxes(tickvals=list(range(len(order))), ticktext=ticks, range=[-0.6, max(len(order), 4) - 0.4])
    framed(figure, TITLES.get(by, by), "accepted / judged").update_yaxes(range=[0, 1.02], dtick=0.25)
    return figure.update_xaxes(showgrid=False, zeroline=False).update_layout(margin={"b": 64})


def layout_of(height: int, dark: bool, several: bool) -> dict:
    return layout(height, dark, barmode="group", bargap=0.35, bargroupgap=0.08, showlegend=several)


def acceptance_bars(label: str, table: pd.DataFrame, by: str, order: list[str], i: int, dark: bool) -> go.Bar:
    """One drafter; hatched differently from the other one."""
    color = LINES[i % len(LINES)][0]
    rows = table.to_dict("records")
    return go.Bar(
        name=as_plotly(label),
        x=[order.index(row[by]) for row in rows],
        y=[row["alpha"] for row in rows],
        error_y={
            "type": "data",
            "array": [row["high"] - row["alpha"] for row in rows],
            "arrayminus": [row["alpha"] - row["low"] for row in rows],
            "color": ink(dark),
            "thickness": 1.4,
            "width": 5,
        },
        marker={
            "color": color,
            "line": {"color": color, "width": 1.5},
            "pattern": {
                "shape": ["", "/", ".", "x"][i % 4],
                "fgcolor": color,
                "bgcolor": tint(color, 0.25),
                "solidity": 0.4,
            },
        },
        hovertext=[
            f"{as_plotly(f'{label} {row[by]}'.strip())}<br>{row['accepted']} of {row['judged']} accepted: "
            f"{row['alpha']:.2f}<br>95 % interval {row['low']:.2f} to {row['high']:.2f}"
            for row in rows
        ],
        hoverinfo="text",
    )


def acceptance_alt(frames: Frames, by: str) -> str:
    """The bars in words; plain text."""
    parts = []
    for label, frame in named(frames).items():
        rows = acceptance(frame, by).to_dict("records")
        words = ", ".join(f"{row[by]}: {row['accepted']} of {row['judged']}" for row in rows)
        parts.append(f"{label}{': ' if label else ''}{words or 'nothing judged'}")
    return f"Accepted among the judged, by {TITLES.get(by, by)}. {'; '.join(parts)}."


# --- Calibration ------------------------------------------------------------------------------------------------------


def reliability_table(frame: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Equal bins of the drafted probability: how often their tokens were accepted. Empty bins are left out."""
    known = frame[frame["confidence"].notna()]
    place = np.minimum((known["confidence"].to_numpy() * bins).astype(int), bins - 1)
    rows = []
    for b, part in known.groupby(place):
        judged, accepted = len(part), int(part["accepted"].sum())
        ends = (b / bins, (b + 1) / bins, part["confidence"].mean())
        rows.append((*ends, judged, accepted, accepted / judged, *wilson(accepted, judged)))
    columns = ["from", "to", "mean q", "judged", "accepted", "alpha", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def calibration_error(frame: pd.DataFrame, bins: int = BINS) -> float | None:
    """Expected calibration error: the mean distance of acceptance from drafted probability over the bins, each weighted
    with its tokens: sum over bins of n_bin / n * |accepted / judged - mean q|. None without a drafted probability."""
    table = reliability_table(frame, bins)
    if table.empty:
        return None
    return float((table["judged"] * (table["alpha"] - table["mean q"]).abs()).sum() / table["judged"].sum())


def excluded(frame: pd.DataFrame) -> str:
    """Which tokens the reliability diagram leaves out, and why; "" if none."""
    missing = int(frame["confidence"].isna().sum())
    if not missing:
        return ""
    return (
        f"{missing} of {len(frame)} judged tokens are left out: they were chosen, not drawn (looked up, recycled), "
        "and their drafter has no probability for them."
    )


def reliability_figure(frames: Frames, dark: bool = False) -> go.Figure:
    """Acceptance against drafted probability, with the diagonal of a calibrated drafter; counts at the points."""
    tables = {label: reliability_table(frame) for label, frame in named(frames).items()}
    if all(table.empty for table in tables.values()):
        reasons = filter(None, map(excluded, named(frames).values()))
        return empty_figure(next(reasons, "No drafted token was judged here."), dark)
    figure = go.Figure(layout=layout_of(400, dark, several=True))
    diagonal = {"color": muted(dark), "dash": "dot", "width": 1.5}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=diagonal, name="calibrated", hoverinfo="skip")
    for i, (label, table) in enumerate(tables.items()):
        figure.add_trace(reliability_line(label, table, i, dark))
    framed(figure, "drafted probability q", "accepted / judged")
    figure.update_xaxes(range=[-0.02, 1.02], dtick=0.1, zeroline=False)
    return figure.update_yaxes(range=[-0.02, 1.06], dtick=0.25, zeroline=False)


def reliability_line(label: str, table: pd.DataFrame, i: int, dark: bool) -> go.Scatter:
    """One drafter; the area of a point grows with its count."""
    color, dash, symbol = LINES[i % len(LINES)]
    rows = table.to_dict("records")
    most = max((row["judged"] for row in rows), default=1)
    return go.Scatter(
        name=as_plotly(label) or "drafter",
        x=[row["mean q"] for row in rows],
        y=[row["alpha"] for row in rows],
        mode="lines+markers+text",
        line={"color": color, "dash": dash, "width": 2},
        marker={
            "symbol": symbol,
            "color": color,
            "opacity": 1,
            "size": [7 + 13 * sqrt(row["judged"] / most) for row in rows],
            "line": {"width": 0},
        },
        error_y={
            "type": "data",
            "array": [row["high"] - row["alpha"] for row in rows],
            "arrayminus": [row["alpha"] - row["low"] for row in rows],
            "color": muted(dark),
            "thickness": 1.2,
            "width": 4,
        },
        text=[f"  {row['judged']}" for row in rows],
        textposition="middle right",
        textfont={"size": 11, "color": ink(dark)},
        hovertext=[
            f"{as_plotly(label)}<br>q {row['from']:.1f} to {row['to']:.1f}, mean {row['mean q']:.2f}<br>"
            f"{row['accepted']} of {row['judged']} accepted: {row['alpha']:.2f}"
            for row in rows
        ],
        hoverinfo="text",
        cliponaxis=False,
    )


def reliability_alt(frames: Frames) -> str:
    """The diagram in words; plain text."""
    parts = []
    for label, frame in named(frames).items():
        rows = reliability_table(frame).to_dict("records")
        words = ", ".join(f"q {r['from']:.1f} to {r['to']:.1f}: {r['accepted']} of {r['judged']}" for r in rows)
        error = calibration_error(frame)
        ends = f"; expected calibration error {error:.3f}" if error is not None else ""
        parts.append(f"{label}{': ' if label else ''}{words or 'no drafted probabilities'}{ends}")
    return f"Accepted among the judged, by drafted probability. {'. '.join(parts)}."


# --- p against q over the text ----------------------------------------------------------------------------------------

MEASURES = {"tv": "total variation", "kl": "KL(p || q) in bits", "entropy": "entropy of p in bits"}


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
    breaks = "<br>" * row["token"].count("↵")
    attributes = f'role="listitem" title="{title}" aria-label="{title}"'
    return f'<wbr><span {attributes} style="{style}">{as_html(row["token"])}</span>{breaks}'


def heat_table(trace: Trace) -> pd.DataFrame:
    """The numbers of `heat_strip`."""
    return positions([(0, 0, "", trace)])[["position", "token", "id", "origin", "tv", "kl", "entropy"]]


# --- Rejections, alarms -----------------------------------------------------------------------------------------------


def expensive(frame: pd.DataFrame, n: int = 20) -> pd.DataFrame:
    """The n rejections with the largest `cost`; among equals those with most behind them, then the most confident."""
    rejected = frame[~frame["accepted"].astype(bool)]
    order = rejected.sort_values(["cost", "behind", "confidence"], ascending=False, na_position="last", kind="stable")
    columns = ["cost", "behind", "context", "token", "wanted", "wanted p", "committed", "confidence", "p", "q", "u"]
    return order.head(n)[[*columns, "class", "domain", "prompt", "trace", "step", "node"]]


def alarms(runs: Sequence[DrafterRun]) -> list[str]:
    """What looks broken rather than weak, a sentence each."""
    steps = [step for _, _, _, trace in runs for step in trace.steps]
    total = tally(steps)
    found = []
    if total.judged >= MANY and not total.accepted:
        found.append(
            f"0 % accepted: none of {total.judged} judged tokens was kept. A drafter with another tokenizer, wrong "
            "weights, or positions that are off by one looks like this."
        )
    if total.judged >= MANY and total.accepted == total.judged:
        found.append(
            f"100 % accepted: all of {total.judged} judged tokens were kept. Either the text repeats itself, or the "
            "drafter is the target itself."
        )
    silent = sum(not step.nodes for step in steps)
    if steps and silent * 2 > len(steps):
        share = "never drafted anything" if silent == len(steps) else f"was silent in {silent} of {len(steps)} steps"
        found.append(f"A silent drafter: it {share}, and the target wrote alone.")
    return [*found, *cliff(total.alpha_by_depth)]


def cliff(by_depth: Sequence[tuple[int, int, int]]) -> list[str]:
    """Every depth well fed, and from one on nothing is kept any more: usually a bug, not a weakness."""
    for (_, judged, accepted), (depth, next_, kept) in pairwise(by_depth):
        if next_ >= MANY and not kept and accepted * 2 > judged:
            return [
                f"A cliff at depth {depth}: none of {next_} judged tokens was kept there, but {accepted} of {judged} "
                "one depth before. Look for a wrong position, mask or cache beyond that depth."
            ]
    return []


# --- Two drafters -----------------------------------------------------------------------------------------------------

PLACE = ["prompt", "position", "prefix"]


def places(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per place in a text where something was judged: was one accepted, which one, what was tried."""
    ordered = frame.sort_values([*PLACE, "accepted"], ascending=[True, True, True, False], kind="stable")
    grouped = ordered.groupby(PLACE, sort=False)
    return grouped.agg(
        accepted=("accepted", "any"),
        tried=("token", " | ".join),
        confidence=("confidence", "first"),
        context=("context", "first"),
        wanted=("wanted", "first"),
        wanted_p=("wanted p", "first"),
        committed=("committed", "first"),
        domain=("domain", "first"),
        trace=("trace", "first"),
        step=("step", "first"),
        node=("node", "first"),
    )


def agreement(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """At how many places that both met behind the same text both, one or neither had a token accepted."""
    one, two = met(a, b)
    both = [(True, True), (True, False), (False, True), (False, False)]
    counts = [int(((one["accepted"] == x) & (two["accepted"] == y)).sum()) for x, y in both]
    return dict(zip(("both", "only a", "only b", "neither"), counts, strict=True))


def met(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`places` of both, cut to those that occur in both."""
    one, two = places(a), places(b)
    shared = one.index.intersection(two.index)
    return one.loc[shared], two.loc[shared]


def disagreements(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str] = ("a", "b")) -> pd.DataFrame:
    """Places with the same prompt and the same text before them where one drafter had a token accepted, the other not.

    `tried` names a drafter's judged tokens, the accepted one first; trace, step and node lead to the first of them.
    """
    one, two = met(a, b)
    apart = one["accepted"] != two["accepted"]
    one, two = one[apart], two[apart]
    shared = one[["domain", "context", "wanted", "wanted_p"]].rename(columns={"wanted_p": "wanted p"})
    winner = np.where(one["accepted"], *names) if len(one) else []
    table = shared.assign(**{"accepted by": winner})
    for label, side in zip(names, (one, two), strict=True):
        for column in ("tried", "confidence", "trace", "step", "node"):
            table[f"{column}, {label}"] = side[column]
    return table.reset_index().drop(columns="prefix")


def agreement_sentence(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str] = ("a", "b")) -> str:
    counts = agreement(a, b)
    total = sum(counts.values())
    if not total:
        return "The two drafters were never judged behind the same text, so they cannot be compared token by token."
    return (
        f"At {total} places both were judged behind the same text: both right {counts['both']}, only {names[0]} "
        f"{counts['only a']}, only {names[1]} {counts['only b']}, neither {counts['neither']}."
    )


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and the ends of its 95 % interval; None where there are too few prompts."""

    mean: float | None
    low: float | None
    high: float | None
    prompts: int


def paired_taus(a: Sequence[DrafterRun], b: Sequence[DrafterRun]) -> tuple[list[float], list[float]]:
    """tau of both drafters on the prompts both have finished, in the order of the prompts."""
    one, two = (
        per_prompt(runs).dropna(subset="tau").drop_duplicates("prompt").set_index("prompt")["tau"] for runs in (a, b)
    )
    shared = sorted(set(one.index) & set(two.index))
    return [float(one[prompt]) for prompt in shared], [float(two[prompt]) for prompt in shared]


def paired_bootstrap(
    taus_a: Sequence[float], taus_b: Sequence[float], seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Mean of tau_b - tau_a over prompts, with the 2.5 and 97.5 percentile of its mean over resampled prompts.

    Pairs are resampled, not runs: both drafters met the same prompts, and easy prompts are easy for both.
    """
    if len(taus_a) != len(taus_b):
        raise ValueError(f"The taus come in pairs, one per prompt; there are {len(taus_a)} and {len(taus_b)}.")
    differences = np.subtract(taus_b, taus_a)
    n = len(differences)
    if n < 2:
        return Interval(float(differences[0]) if n else None, None, None, n)
    rng = np.random.default_rng(seed)
    parts = np.diff([*range(0, resamples, 500), resamples])  # 500 at a time: thousands of prompts must fit into memory
    means = np.concatenate([differences[rng.integers(0, n, (part, n))].mean(1) for part in parts])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high), n)


def bootstrap_sentence(found: Interval, names: tuple[str, str] = ("a", "b")) -> str:
    """The difference in words."""
    if found.mean is None:
        return "There is no prompt that both drafters have finished."
    head = f"tau of {names[1]} minus tau of {names[0]}: {found.mean:+.3f} over {found.prompts} prompts"
    if found.low is None:
        return f"{head.removesuffix('s')}; with a single prompt there is no interval."
    ends = f"{head}, 95 % interval {found.low:+.3f} to {found.high:+.3f}"
    if found.low <= 0 <= found.high:
        return f"{ends}: not told apart."
    return f"{ends}: {names[found.mean > 0]} is better."
