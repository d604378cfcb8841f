"""The selected node at the right of the tree: its verdict as an inequality, the uniforms, and the probabilities at its position."""

import html

import streamlit as st

from decoding.trace import Node, Step
from pages.parts.shared.session import Session
from viz.step.boxes import ROOT, final_index, has_final
from viz.step.probabilities import probability_bars, probability_table, uniform_rule
from viz.step.tree import score_name
from viz.style import LOOKS
from viz.tokens import full, name, plain
from viz.verdicts import in_words
from viz.words import judgement, number


def inspector(session: Session) -> None:
    """Draw it for the session's selected node, which may also be the root or the token the target added."""
    step, selected = session.step, session.selected
    picker(session, step, selected)
    if selected == ROOT:
        say("The end of the committed text. The bars show what comes next: p of the target and q of the drafter.")
    elif selected == final_index(step):
        final_token(step, session.trace.token_bytes)
    else:
        node_facts(step, selected, session.trace.token_bytes)
    probabilities(step, selected, session.trace.token_bytes)


def picker(session: Session, step: Step, selected: int) -> None:
    """The same choice as a click on the tree, for the keyboard."""
    token_bytes = session.trace.token_bytes
    options = [ROOT, *range(len(step.nodes))] + ([final_index(step)] if has_final(step) else [])

    def label(index: int) -> str:
        if index == ROOT:
            return "root: end of the text"
        if index == len(step.nodes):
            return f"{LOOKS[step.origins[-1]].mark} {name(step.tokens[-1], token_bytes)} ({step.origins[-1]})"
        node = step.nodes[index]
        return f"{index}: {LOOKS[node.verdict].mark} {name(node.token, token_bytes)} ({node.verdict})"

    shown = selected if selected in options else ROOT
    where = (session.runs, session.cursor)
    key = session.box("node", (*where, shown))

    def choose() -> None:
        chosen = st.session_state.get(key, shown)
        if chosen == shown:  # a box that is gone reports what it showed, with the next click
            return
        session.pick(chosen)
        session.box_says("node", (*where, chosen))

    st.selectbox(
        "Selected node", options, options.index(shown), key=key, format_func=label, on_change=choose,
        help="Click a box of the tree, or choose here.",
    )  # fmt: skip


def say(sentence: str, kind: str = "ds-dim") -> None:
    st.html(f'<p class="{kind}">{html.escape(sentence)}</p>')


def node_facts(step: Step, index: int, token_bytes: dict[int, bytes]) -> None:
    """Verdict in words and in numbers, the uniforms, and where the node came from."""
    node = step.nodes[index]
    look = LOOKS[node.verdict]
    say(f"{look.mark} {in_words(step, index, token_bytes)}", "ds-verdict")
    say(f"In numbers: {judgement(node, token_bytes, step)}.")
    if rule := uniform_rule(node):
        say("u × q against p: the die u decides.")
        st.html(rule)
    facts(node, index, token_bytes)


def facts(node: Node, index: int, token_bytes: dict[int, bytes]) -> None:
    rows = {
        "token": f"{full(token_bytes[node.token]) if node.token in token_bytes else '?'} (id {node.token}, node {index})",
        "p": number(node.p),
        "q": "none: chosen, not drawn" if node.q is None else number(node.q),
        "u": "none" if node.u is None else number(node.u),
        "source": plain(node.source),
    }
    rows |= {score_name(key, rows): number(value) for key, value in node.scores.items()}
    items = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in rows.items())
    st.html(f'<dl class="ds-facts">{items}</dl>')


def final_token(step: Step, token_bytes: dict[int, bytes]) -> None:
    """The token the target added."""
    look = LOOKS[step.origins[-1]]
    say(f"{look.mark} {name(step.tokens[-1], token_bytes)}: {step.origins[-1]}, {look.meaning}", "ds-verdict")
    source = {
        "correction": "Drawn from the residual: what the rejected guesses left of p.",
        "bonus": "Every drafted token on the path was kept, so the target's last row gives one more, drawn from p.",
        "plain": "Nothing was drafted: drawn from p.",
    }
    say(source[step.origins[-1]])


def probabilities(step: Step, selected: int, token_bytes: dict[int, bytes]) -> None:
    """p, q and the residual at the position where the node stands."""
    if not step.rows:
        say("This run was recorded without probabilities.")
        return
    if selected == ROOT:
        row, token = step.rows[0], None
    elif selected == final_index(step):
        row, token = step.rows[step.end_row], step.tokens[-1]
    else:
        row, token = step.rows[step.nodes[selected].parent + 1], step.nodes[selected].token
    st.html(probability_bars(row, token_bytes, token, limit=6))
    overlap = "" if row.overlap is None else f", overlap Σ min(p, q) = {number(row.overlap)}, KL(p‖q) = {number(row.kl or 0)} bits"
    say(f"At this position: entropy of p {number(row.entropy)} bits{overlap}. ▶ selected, ⚄ drawn by the target.")
    with st.expander("Probabilities as a table", key="bars_table_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(probability_table(row, token_bytes), hide_index=True, key="bars_table")
