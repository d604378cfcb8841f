"""Clover on the Step page: what every head guessed behind which token, one head behind two tokens, and the budget."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded, heads_so_far
from pages.parts.shared.session import Session
from viz.methods.clover import budget_table, guesses_html, pair_html, shared_words
from viz.methods.shared.head_bars import has_numbers
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    st.markdown("**The heads, each behind the token it was told**")
    if drawable(step, has_numbers(step), "This trace does not carry what the heads said."):
        heads(session)
    folded("How good is every head? The run so far", "clover_box", heads_so_far, session)


def heads(session: Session) -> None:
    """The bars down one path, one head behind two tokens, and what became of the budget."""
    step, token_bytes, params = session.step, session.trace.token_bytes, session.trace.header.params
    st.html(guesses_html(session.trace, session.cursor))
    st.caption(
        "The path that was accepted, then the most probable one. Below the bars the gates of the cell that mixed in the token: the "
        "cosine of query and key, one per attention head. Pale: a candidate that did not come into the tree, and which rule cut it."
    )
    if other := pair_html(step, params, token_bytes):
        st.markdown("**The same head behind two tokens**")
        st.html(other)
    st.caption(as_markdown(shared_words(step, token_bytes)))
    with st.expander("The budget, level by level"):
        st.dataframe(budget_table(step, params), hide_index=True, key="clover_budget")
        st.caption("Of what was cut, the best few behind every parent are kept in the trace; only those are counted.")
