"""The call that is shown as tables: its nodes, and the probabilities at the guess that is looked at."""

import streamlit as st

from decoding.trace import Row, Step
from pages.parts.shared.chart_data import tree_downloads
from pages.parts.shared.session import Session
from viz.step.boxes import ROOT
from viz.step.probabilities import probability_table
from viz.step.tree import node_table
from viz.tokens import as_markdown, name
from viz.words import number


def tables(session: Session) -> None:
    """Two folded boxes; what is in them is made when they are open."""
    step, token_bytes = session.step, session.trace.token_bytes
    with st.expander("The tree as a table", key="tree_table_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(node_table(step, token_bytes), hide_index=True, key="tree_table")
            tree_downloads(step, token_bytes, f"step_{session.cursor + 1}", "tree")
    if not step.rows:
        st.caption("This run was recorded without probabilities.")
        return
    selected = session.selected
    title = f"Probabilities where {as_markdown(where(session))} stands, as a table"
    with st.expander(title, key="bars_table_box", on_change="rerun") as box:
        if box.open and (row := row_of(step, selected)) is not None:
            st.dataframe(probability_table(row, token_bytes), hide_index=True, key="bars_table")
            said = f"Entropy of p {number(row.entropy)} bits"
            if row.overlap is not None:
                said += f", overlap Σ min(p, q) = {number(row.overlap)}, KL(p‖q) = {number(row.kl or 0)} bits"
            st.caption(as_markdown(f"{said}."))


def where(session: Session) -> str:
    """The token that is looked at."""
    step, selected = session.step, session.selected
    if selected == ROOT:
        return "what comes next"
    token = step.tokens[-1] if selected >= len(step.nodes) else step.nodes[selected].token
    return name(token, session.trace.token_bytes)


def row_of(step: Step, selected: int) -> Row | None:
    """The position that the selected node stands at."""
    if selected == ROOT:
        return step.rows[0]
    return step.rows[step.end_row if selected >= len(step.nodes) else step.nodes[selected].parent + 1]
