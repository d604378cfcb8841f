"""What the key-space lens saw: the map around what the target wrote, the ranked list by clusters, two-part logits, and how near the
refusals of the whole run came."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from decoding.looks.navigation import NEAR, Miss, NavigationLook, Ranked
from viz.style import COLOR, GRID, LOOKS, MONO, ink, layout, muted, tint
from viz.tokens import as_html, as_plotly, full_name, name, plain, quoted
from viz.verdicts import percent
from viz.words import number

CLUSTERS = (  # a letter and a colour for each cluster of the winners, in the order in which they come up
    "#4477AA", "#228833", "#AA3377", "#EE8866", "#44BB99", "#BBCC33", "#9970AB", "#997700", "#66CCEE", "#EE99AA",
)  # fmt: skip
OTHER = "#8A8F98"
BARS = 16  # rows of the two-part figure
LABELLED = 9  # neighbours whose names stand in the map
CSS = """<style>
.ds-keyed { line-height: 2.15; overflow-wrap: anywhere; }
.ds-keyed span { border-radius: 4px; padding: 0.12rem 0.3rem; margin-right: 0.25rem; white-space: nowrap; }
.ds-keyed span { font-family: monospace; font-size: 0.9rem; }
.ds-keyed sup { font-size: 0.66rem; opacity: 0.85; margin-left: 0.12rem; }
.ds-keyed b { font-weight: 600; margin: 0 0.35rem; }
</style>"""


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(look: NavigationLook) -> str:
    """The verdict on the guess, the list in figures, and the refusals of the run."""
    words = []
    if look.guess is not None:
        words.append(verdict(look.guess, look))
    if look.misses:
        words.append(of_run(look))
    if look.ranked and len(look.ranked) > look.top:
        words.append(of_list(look))
    if look.rounds:
        words.append(of_rounds(look))
    return " ".join(words) or "The run has no refused guess, and the list was not read yet."


def verdict(miss: Miss, look: NavigationLook) -> str:
    """Near miss or different idea, with the rank among the neighbours."""
    guess, pick = quoted(miss.token, look.token_bytes), quoted(miss.pick, look.token_bytes)
    kind = "A near miss" if miss.near else "A different idea"
    same = "the same cluster" if miss.same else "another cluster"
    return f"{kind}: {guess} is neighbour {miss.rank:,} of {pick} (cosine {miss.cosine:.2f}, {same})."


def of_run(look: NavigationLook) -> str:
    near = sum(miss.near for miss in look.misses)
    chance = sum(miss.chance for miss in look.misses) / len(look.misses)
    one = "refusal was a near miss" if len(look.misses) == 1 else "refusals of the run were near misses"
    return f"{near:,} of {len(look.misses):,} {one}; tokens taken blindly would be in {percent(chance)} of the cases."


def middle(look: NavigationLook) -> Sequence[Ranked]:
    """The list behind the winners."""
    return look.ranked[look.top :]


def lift(look: NavigationLook) -> float | None:
    """How many times more often than by chance the middle comes from the winners' clusters; None where chance gives none."""
    return look.share / look.base if look.base > 0 else None


def of_list(look: NavigationLook) -> str:
    rows = middle(look)
    inside = round(look.share * len(rows))
    times = lift(look)
    more = "" if times is None else f", {times:.1f} times what chance gives"
    return (
        f"At this place {inside:,} of the {len(rows):,} tokens behind the first {look.top:,} come from the winners' "
        f"clusters{more}, and {percent(look.key_driven)} of all {len(rows):,} are there by the winner's key alone."
    )


def of_rounds(look: NavigationLook) -> str:
    first, last = look.rounds[0], look.rounds[-1]
    move = "fell" if last.entropy < first.entropy else "rose"
    found = len({answer for row in look.rounds for answer in row.answers})
    return (
        f"ICN found {found:,} different answers, reading down the first row {len(set(look.plain)):,}; the entropy of the first "
        f"token {move} from {first.entropy:.1f} to {last.entropy:.1f} nats."
    )


# -- the ranked list ---------------------------------------------------------------------------------------------------


def letters(look: NavigationLook) -> dict[int, tuple[str, str]]:
    """Cluster of a winner -> its letter and colour."""
    found = dict.fromkeys(row.cluster for row in look.ranked[: look.top])
    return {cluster: (chr(65 + i % 26), CLUSTERS[i % len(CLUSTERS)]) for i, cluster in enumerate(found)}


def html(look: NavigationLook, dark: bool) -> str:
    """The ranked tokens as chips with the letter of their cluster; grey ones are in no cluster of a winner. Then the siblings."""
    known = letters(look)
    parts = [chip(row, rank, known, look) for rank, row in enumerate(look.ranked, 1)]
    if not parts:
        return ""
    head = f"<b>the {look.top:,} winners</b>" if look.top else ""
    body = f"{head}{''.join(parts[: look.top])}<b>behind them</b>{''.join(parts[look.top :])}"
    return f'{CSS}<div class="ds-keyed">{body}</div>{siblings_html(look)}'


def chip(row: Ranked, rank: int, known: dict[int, tuple[str, str]], look: NavigationLook) -> str:
    letter, color = known.get(row.cluster, ("", OTHER))
    told = f"rank {rank}, p {number(row.p)}, cluster {row.cluster}, inherited {row.inherited:.1f}, own {row.own:.1f}"
    mark = f"<sup>{letter}</sup>" if letter else ""
    style = f"background:{tint(color, 0.3 if letter else 0.1)};border-bottom:2px solid {color if letter else 'transparent'}"
    return f'<span style="{style}" title="{as_html(told)}">{as_html(name(row.token, look.token_bytes))}{mark}</span>'


def siblings_html(look: NavigationLook) -> str:
    """The guesses at this place of the tree, and how many ideas they were."""
    if len(look.siblings) < 2:
        return ""
    ideas = len({one.cluster for one in look.siblings})
    said = ", ".join(as_html(quoted(one.token, look.token_bytes)) for one in look.siblings)
    wasted = " The whole width went into one idea." if ideas == 1 else ""
    word = "cluster" if ideas == 1 else "clusters"
    return f"<p>{len(look.siblings):,} guesses stood here, from {ideas:,} {word}: {said}.{wasted}</p>"


# -- the map -----------------------------------------------------------------------------------------------------------


def figure(look: NavigationLook, dark: bool) -> go.Figure | None:
    """The keys around the pick: the nearest ones by name, the refused guess as a cross."""
    if not look.spots:
        return None
    middle_, others = look.spots[0], look.spots[1:]
    guess = look.guess.token if look.guess else None
    near = [spot for spot in others if spot.token != guess]
    made = go.Figure(layout=layout(430, dark, hovermode="closest"))
    cluster = [spot.cluster == middle_.cluster for spot in near]
    made.add_scatter(
        x=[s.x for s in near], y=[s.y for s in near], mode="markers+text", name="nearest keys (filled: same cluster)",
        marker={"size": 10, "color": COLOR["bonus"], "symbol": ["circle" if c else "circle-open" for c in cluster],
                "line": {"width": 1.5, "color": LOOKS["bonus"].line}},
        text=[as_plotly(name(s.token, look.token_bytes)) if i < LABELLED else "" for i, s in enumerate(near)],
        textposition="top center", textfont={"family": MONO, "size": 12, "color": muted(dark)}, **hovered(near, look),
    )  # fmt: skip
    pick_name = as_plotly(name(middle_.token, look.token_bytes))
    square = {"color": COLOR["correction"], "line": {"width": 2, "color": LOOKS["correction"].line}}
    made.add_scatter(
        x=[middle_.x], y=[middle_.y], mode="markers+text", marker={"size": 16, "symbol": "square", **square},
        name="what the target wrote" if look.guess else "the most probable token",
        text=[f"<b>{pick_name}</b>"], textposition="bottom center", textfont={"family": MONO, "size": 14, "color": ink(dark)},
        **hovered([middle_], look),
    )  # fmt: skip
    for spot in [spot for spot in others if spot.token == guess]:
        made.add_scatter(
            x=[spot.x], y=[spot.y], mode="markers+text", name="the refused guess",
            marker={"size": 15, "symbol": "x", "color": COLOR["rejected"]},
            text=[f"<b>{as_plotly(name(spot.token, look.token_bytes))}</b>"], textposition="bottom center",
            textfont={"family": MONO, "size": 14, "color": ink(dark)}, **hovered([spot], look),
        )  # fmt: skip
    made.update_xaxes(showticklabels=False, zeroline=False, gridcolor=GRID, fixedrange=True)
    made.update_yaxes(showticklabels=False, zeroline=False, gridcolor=GRID, fixedrange=True)
    return made


def hovered(spots: Sequence, look: NavigationLook) -> dict:
    texts = [as_plotly(f"{full_name(s.token, look.token_bytes)}: cosine {s.cosine:.2f}, cluster {s.cluster}") for s in spots]
    return {"hovertext": texts, "hoverinfo": "text"}


def alt(look: NavigationLook) -> str:
    """The map in words."""
    if not look.spots:
        return "The keys were not looked at yet."
    near = [s for s in look.spots[1:] if look.guess is None or s.token != look.guess.token][:5]
    said = ", ".join(f"{quoted(s.token, look.token_bytes)} {s.cosine:.2f}" for s in near)
    words = f"The nearest keys of {quoted(look.pick, look.token_bytes)}, by cosine: {said}."
    return f"{words} {verdict(look.guess, look)}" if look.guess else words


# -- the rest ----------------------------------------------------------------------------------------------------------


def more(look: NavigationLook, dark: bool) -> list[tuple[str, go.Figure, str]]:
    """Two-part logits, the refusals of the run, and the rounds of ICN: title, figure, in words."""
    found = []
    if len(look.ranked) > 1:
        found.append(parts_figure(look, dark))
    if len(look.misses) > 1:
        found.append(misses_figure(look, dark))
    if look.rounds:
        found.append(rounds_figure(look, dark))
    return found


def parts_figure(look: NavigationLook, dark: bool) -> tuple[str, go.Figure, str]:
    """What of each logit came with the winner's key."""
    rows = look.ranked[:BARS]
    at = [str(i) for i in range(len(rows))]
    made = go.Figure(layout=layout(70 + 27 * len(rows), dark, barmode="relative", bargap=0.35))
    kinds = (
        ("inherited from the winner's key", COLOR["bonus"], "/", lambda row: row.inherited),
        ("own", "#009E73", "", lambda row: row.own),
    )
    for said, color, shape, value in kinds:
        made.add_bar(
            y=at, x=[value(row) for row in rows], name=said, orientation="h",
            marker={"color": color, "pattern": {"shape": shape, "solidity": 0.25}}, hovertemplate="%{x:.2f}<extra></extra>",
        )  # fmt: skip
    names = [as_plotly(name(row.token, look.token_bytes)) for row in rows]
    made.update_yaxes(tickvals=at, ticktext=names, autorange="reversed", tickfont={"family": MONO, "size": 13}, fixedrange=True)
    made.update_xaxes(title="logit, less the mean key's", gridcolor=GRID, zerolinecolor=muted(dark), fixedrange=True)
    driven = sum(row.inherited > row.own for row in rows[1:])
    words = (
        f"Of the {len(rows) - 1} tokens behind the winner {driven} owe more of their logit to the winner's key than to their own."
    )
    return "Whose logit is it? The winner's key, and the rest", made, words


def misses_figure(look: NavigationLook, dark: bool) -> tuple[str, go.Figure, str]:
    """Every refusal by its rank among the neighbours of what was written, and by cosine."""
    made = go.Figure(layout=layout(330, dark, hovermode="closest"))
    for near, said, symbol, color in (
        (True, "near misses", "circle", COLOR["bonus"]),
        (False, "different ideas", "x", COLOR["rejected"]),
    ):
        rows = [miss for miss in look.misses if miss.near == near]
        told = [
            as_plotly(
                f"{full_name(m.token, look.token_bytes)} for {full_name(m.pick, look.token_bytes)}, step {m.step + 1:,}: neighbour "
                f"{m.rank:,}"
            )
            for m in rows
        ]
        made.add_scatter(
            x=[max(1, m.rank) for m in rows], y=[m.cosine for m in rows], mode="markers", name=f"{said} ({len(rows):,})",
            marker={"size": 10, "symbol": symbol, "color": color, "opacity": 0.8}, hovertext=told, hoverinfo="text",
        )  # fmt: skip
    made.add_vline(x=NEAR + 0.5, line={"dash": "dash", "width": 1.5, "color": muted(dark)})
    made.update_xaxes(
        title="rank among the neighbours of what the target wrote", type="log", dtick=1, gridcolor=GRID, fixedrange=True
    )
    made.update_yaxes(title="cosine", gridcolor=GRID, fixedrange=True)
    return "Every refusal of the run", made, of_run(look)


def rounds_figure(look: NavigationLook, dark: bool) -> tuple[str, go.Figure, str]:
    """The first token's entropy, round by round, with the answers by name."""
    made = go.Figure(layout=layout(300, dark, showlegend=False))
    rows = look.rounds
    made.add_scatter(
        x=[row.found for row in rows], y=[row.entropy for row in rows], mode="lines+markers+text", line={"color": COLOR["bonus"]},
        text=[as_plotly("<br>".join(plain(a, 14) for a in row.answers)).replace("&lt;br&gt;", "<br>") for row in rows],
        textposition="top center", cliponaxis=False, textfont={"size": 11}, hoverinfo="y",
    )  # fmt: skip
    made.update_xaxes(title="answers in the prompt", gridcolor=GRID, fixedrange=True)
    high = max((row.entropy for row in rows), default=1.0)
    made.update_yaxes(title="entropy of the first token, nats", range=[0, 1.45 * high + 0.1], gridcolor=GRID, fixedrange=True)
    asked = "; ".join(plain(answer, 20) for row in rows for answer in row.answers)
    straight = "; ".join(plain(answer, 20) for answer in look.plain)
    words = f"ICN asked for {plain(look.things, 30)}. Found so: {asked}. Down the first row alone: {straight}."
    return "In-context navigation", made, words


def table(look: NavigationLook) -> pd.DataFrame:
    """The ranked list; without one the refusals of the run."""
    if look.ranked:
        known = letters(look)
        return pd.DataFrame(
            [
                (
                    i,
                    full_name(r.token, look.token_bytes),
                    r.token,
                    r.p,
                    r.cluster,
                    r.cluster in known,
                    r.inherited,
                    r.own,
                    r.own_rank,
                )
                for i, r in enumerate(look.ranked, 1)
            ],
            columns=["rank", "token", "id", "p", "cluster", "a winner's", "inherited", "own", "rank by own"],
        )
    return pd.DataFrame(
        [
            (
                m.step + 1,
                full_name(m.token, look.token_bytes),
                full_name(m.pick, look.token_bytes),
                m.cosine,
                m.rank,
                m.same,
                m.near,
            )
            for m in look.misses
        ],
        columns=["step", "guess", "written", "cosine", "rank", "same cluster", "near miss"],
    )
