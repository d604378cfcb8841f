"""What the lens Diagram of Thought saw: the graph as it grows, the thoughts with their verdicts, and whether the verdicts mean
anything."""

from collections import Counter
from collections.abc import Sequence

import networkx
import pandas as pd
import plotly.graph_objects as go

from decoding.looks.diagram_of_thought import (
    CRITIC,
    PROPOSER,
    SUMMARIZER,
    VALID,
    Checked,
    DiagramOfThoughtLook,
    Thought,
    judged,
    propositions,
    verified,
    violations,
)
from decoding.trace import Trace
from viz.drafter.acceptance import bars_figure, wilson
from viz.runs.tally import tally
from viz.style import COLOR, GRID, LOOKS, layout, muted, tint
from viz.tokens import as_html, as_plotly, plain
from viz.words import number

Section = tuple[str, Trace]  # a role, and the run that wrote one of its thoughts

TRUSTED = 0.7  # area from which a verdict says something
SHOWN = 90  # characters of a thought on hover
LONG = 1200  # of one in the list
LETTERS = {PROPOSER: "P", CRITIC: "C", SUMMARIZER: "S"}
STATES = {"verified": "accepted", "refuted": "rejected", "open": "not judged", "critique": "correction", "summary": "bonus"}
CSS = """<style>
.ds-thoughts { list-style: none; padding: 0; margin: 0.4rem 0 0.8rem; }
.ds-thoughts li { padding: 0.35rem 0.6rem; margin: 0.3rem 0; border-left: 4px solid; overflow-wrap: anywhere; }
.ds-thoughts small { opacity: 0.8; }
.ds-thoughts .ds-refuted { text-decoration: line-through; }
</style>"""


def names(thoughts: Sequence[Thought]) -> list[str]:
    """P1, C1, P2, ... by role and order."""
    counts: dict[str, int] = {}
    found = []
    for one in thoughts:
        letter = LETTERS.get(one.role, "?")
        counts[letter] = counts.get(letter, 0) + 1
        found.append(f"{letter}{counts[letter]}")
    return found


def state(thoughts: Sequence[Thought], which: int) -> str:
    """A key of STATES."""
    role = thoughts[which].role
    if role == PROPOSER:
        return {VALID: "verified", "": "open"}.get(judged(thoughts, which), "refuted")
    return "critique" if role == CRITIC else "summary"


def edges(thoughts: Sequence[Thought]) -> list[tuple[int, int]]:
    """(earlier, later); whatever else a look claims is left out, so that there is no cycle."""
    return [(parent, i) for i, one in enumerate(thoughts) for parent in dict.fromkeys(one.parents) if 0 <= parent < i]


def area(checks: Sequence[Checked]) -> float | None:
    """How often a true statement has the higher share of valid: the area under the curve; None without both kinds."""
    yes, no = ([one.share for one in checks if one.true is kind] for kind in (True, False))
    if not yes or not no:
        return None
    return sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))


# -- in words ----------------------------------------------------------------------------------------------------------


def sentence(look: DiagramOfThoughtLook) -> str:
    thoughts = look.thoughts
    if not thoughts:
        return "Nothing was thought yet."
    claims, known = propositions(thoughts), verified(thoughts)
    refuted = sum(state(thoughts, i) == "refuted" for i in claims)
    words = [f"Of {plural(len(claims), 'proposition')} {len(known):,} were verified and {refuted:,} refuted."]
    if bad := violations(thoughts):
        names_of = names(thoughts)
        words.append(f"The summary names {', '.join(names_of[i] for i in bad)}, which nothing verified.")
    return " ".join([*words, judge_words(look)]).strip()


def judge_words(look: DiagramOfThoughtLook) -> str:
    """What the self-test says of the verdicts."""
    found = area(look.checks)
    if found is None or len(look.checks) < 4:
        return ""
    told = "it tells right from wrong" if found >= TRUSTED else "it cannot judge, and the graph is the grammar's, not its own"
    return f"On {len(look.checks):,} plain statements its verdicts have an AUC of {found:.2f}: {told}."


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


# -- the graph ---------------------------------------------------------------------------------------------------------


def places(thoughts: Sequence[Thought]) -> list[tuple[float, float]]:
    """Where every thought is drawn: columns by how many lie in front of it."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(thoughts)))
    graph.add_edges_from(edges(thoughts))
    layers = list(networkx.topological_generations(graph))
    for column, layer in enumerate(layers):
        for node in layer:
            alone = thoughts[node].role == SUMMARIZER and not graph.in_degree(node)  # nothing was verified
            graph.nodes[node]["column"] = len(layers) if alone else column
    found = networkx.multipartite_layout(graph, subset_key="column") if len(thoughts) else {}
    rows = {i: round(float(found[i][1]), 4) for i in found}
    return [(float(graph.nodes[i]["column"]), rows[i]) for i in range(len(thoughts))]


def figure(look: DiagramOfThoughtLook, dark: bool) -> go.Figure | None:
    """One marker trace per state, edges below."""
    thoughts = look.thoughts
    if not thoughts:
        return None
    at = places(thoughts)
    beside = max(Counter(x for x, _ in at).values())  # thoughts in the fullest column
    made = go.Figure(layout=layout(130 + 70 * min(beside, 6), dark))
    lines = [(x, y) for a, b in edges(thoughts) for x, y in (at[a], at[b], (None, None))]
    made.add_scatter(
        x=[x for x, _ in lines], y=[y for _, y in lines], mode="lines", line={"color": muted(dark), "width": 1.5}, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    called = names(thoughts)
    for kind, like in STATES.items():
        mine = [i for i in range(len(thoughts)) if state(thoughts, i) == kind]
        if mine:
            look_of = LOOKS[like]
            symbol = "square" if kind == "critique" else "star" if kind == "summary" else look_of.symbol
            made.add_scatter(
                x=[at[i][0] for i in mine], y=[at[i][1] for i in mine], mode="markers+text", name=f"{kind}",
                text=[called[i] for i in mine], textposition="top center",
                marker={"symbol": symbol, "color": look_of.color, "size": 20, "line": {"color": look_of.line, "width": 2}},
                customdata=[hover(thoughts[i]) for i in mine], hovertemplate="%{customdata}<extra></extra>",
            )  # fmt: skip
    columns = max(x for x, _ in at)
    made.update_xaxes(visible=False, range=[-0.5, columns + 0.5], fixedrange=True)
    made.update_yaxes(visible=False, range=[min(y for _, y in at) - 0.4, max(y for _, y in at) + 0.6], fixedrange=True)
    return made


def hover(one: Thought) -> str:
    said = as_plotly(plain(one.text, SHOWN))
    judged_as = f"<br>{as_plotly(plain(one.verdict, 20))}: p of valid {number(one.share)}, both words {number(one.mass)}"
    return f"{said}{judged_as if one.verdict else ''}<br>{one.free:,} tokens written, {one.forced:,} forced"


def alt(look: DiagramOfThoughtLook) -> str:
    called = names(look.thoughts)
    told = ", ".join(f"{called[a]} to {called[b]}" for a, b in edges(look.thoughts))
    return (
        f"A graph of {plural(len(called), 'thought')}. Edges: {told}." if told else f"A graph of {plural(len(called), 'thought')}."
    )


# -- the thoughts ------------------------------------------------------------------------------------------------------


def html(look: DiagramOfThoughtLook, dark: bool) -> str:
    """Every thought with its verdict, in the order in which it was written."""
    if not look.thoughts:
        return ""
    called = names(look.thoughts)
    rows = "".join(item(look.thoughts, i, called) for i in range(len(look.thoughts)))
    question = as_html(plain(look.question, 200))
    return f'{CSS}<p class="ds-dim">Asked: {question}</p><ul class="ds-thoughts">{rows}</ul>'


def item(thoughts: Sequence[Thought], which: int, called: Sequence[str]) -> str:
    one, kind = thoughts[which], state(thoughts, which)
    like = LOOKS[STATES[kind]]
    behind = ", ".join(called[a] for a, b in edges(thoughts) if b == which)
    told = [f"{like.mark} {kind}".strip(), f"behind {behind}" if behind else ""]
    if one.verdict:
        told.append(f"{one.verdict}: p of valid {number(one.share)} of both words, which have {number(one.mass)}")
    told.append(f"{plural(one.free, 'token')}, mean log p {number(-one.surprise)}")
    struck = ' class="ds-refuted"' if kind == "refuted" else ""
    said = as_html(plain(one.text, LONG)) or "–"
    return (
        f'<li style="border-color:{like.line};background:{tint(like.color, 0.1)}"><b>{called[which]}</b> '
        f"<small>{as_html(' · '.join(filter(None, told)))}</small><br><span{struck}>{said}</span></li>"
    )


# -- acceptance by role ------------------------------------------------------------------------------------------------


def by_role(sections: Sequence[Section]) -> pd.DataFrame:
    """One row per role whose thoughts were drafted: judged, accepted, alpha with its interval, and tau. A thought is short and its
    last call is cut where it ends, so that tau is a little less than in a long text."""
    rows = []
    for role in LETTERS:
        runs = [trace for of, trace in sections if of == role]
        one = tally([step for trace in runs for step in trace.steps])
        if one.tau is not None:
            ends = wilson(one.accepted, one.judged)
            rows.append((role, one.judged, one.accepted, one.alpha, *ends, len(runs), one.tokens, one.target_calls, one.tau))
    columns = ["role", "judged", "accepted", "alpha", "low", "high", "thoughts", "tokens", "target calls", "tau"]
    return pd.DataFrame(rows, columns=columns)


def role_words(sections: Sequence[Section]) -> str:
    """alpha and tau of every role with their counts, and whether they can be told apart."""
    rows = by_role(sections).to_dict("records")
    if not rows:
        return "No thought was written again."
    told = ", ".join(f"{row['role']} {row['accepted']:,} of {row['judged']:,} (tau {row['tau']:.2f})" for row in rows)
    overlap = max(row["low"] for row in rows) <= min(row["high"] for row in rows)
    apart = "the intervals overlap, so the roles are not told apart" if overlap else "the intervals of two roles lie apart"
    return f"Accepted of the judged, by role: {told}{f'; {apart}' if len(rows) > 1 else ''}."


def role_figure(sections: Sequence[Section], dark: bool) -> go.Figure:
    """Bars with 95 % intervals; the counts stand below."""
    table = by_role(sections).query("judged > 0")
    return bars_figure({"": table}, "role", list(table["role"]), dark)


# -- the self-test -----------------------------------------------------------------------------------------------------


def more(look: DiagramOfThoughtLook, dark: bool) -> list[tuple[str, go.Figure, str]]:
    """The statements, by how valid they were found."""
    if not look.checks:
        return []
    made = go.Figure(layout=layout(220, dark))
    for true, name, like in ((True, "true", "accepted"), (False, "false", "rejected")):
        mine = [one for one in look.checks if one.true is true]
        made.add_scatter(
            x=[min(1.0, one.share) for one in mine], y=[min(1.0, one.mass) for one in mine], mode="markers",
            name=f"{name} statements",
            marker={"symbol": LOOKS[like].symbol, "color": COLOR[like], "size": 11},
            customdata=[as_plotly(plain(one.statement, SHOWN)) for one in mine],
            hovertemplate="%{customdata}<br>p of valid %{x:.2f}, both words %{y:.2f}<extra></extra>",
        )  # fmt: skip
    made.add_vline(x=0.5, line={"color": muted(dark), "dash": "dot", "width": 1.5})
    made.update_xaxes(title="p of valid, of both words", range=[-0.03, 1.03], gridcolor=GRID, zeroline=False, fixedrange=True)
    made.update_yaxes(title="p of both words", range=[-0.05, 1.05], gridcolor=GRID, zeroline=False, fixedrange=True)
    right = sum((one.share > 0.5) == one.true for one in look.checks)
    words = f"{right:,} of {plural(len(look.checks), 'verdict')} are right. {judge_words(look)}".strip()
    return [("Can it judge?", made, words)]


def table(look: DiagramOfThoughtLook) -> pd.DataFrame:
    """One row per thought."""
    called = names(look.thoughts)
    rows = [
        (called[i], one.role, one.text, ", ".join(called[a] for a, b in edges(look.thoughts) if b == i), state(look.thoughts, i),
         one.verdict, one.share, one.mass, -one.surprise, one.free, one.forced)
        for i, one in enumerate(look.thoughts)
    ]  # fmt: skip
    columns = [
        "thought",
        "role",
        "text",
        "behind",
        "state",
        "verdict",
        "p of valid",
        "mass",
        "mean log p",
        "tokens",
        "forced tokens",
    ]
    return pd.DataFrame(rows, columns=columns)
