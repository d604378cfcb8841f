"""Chimera on the Step page: what every head guessed, the three tokens its slot read, and the two parts of every logit."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded, heads_so_far
from pages.parts.shared.session import Session
from viz.methods.chimera import guesses_html, has_split, split_html, split_table, turned_words
from viz.methods.shared.head_bars import has_numbers
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    st.markdown("**The heads, and the three tokens that each slot reads**")
    if drawable(step, has_numbers(step), "This trace does not carry what the heads said."):
        heads(session)
    folded("How good is every head? The run so far", "chimera_box", heads_so_far, session)


def heads(session: Session) -> None:
    """The bars down one path, and what h and o gave to the tokens."""
    step, trace = session.step, session.trace
    st.html(guesses_html(trace, session.cursor))
    st.caption(
        "The path that was accepted, then the most probable one; underlined: tokens that are guesses themselves. Pale: a candidate "
        "whose path was not among the most probable ones."
    )
    if not has_split(step):
        return
    st.markdown("**What the target knew, and what the draft added**")
    st.html(split_html(step, trace.token_bytes))
    st.caption(
        "A token's logit is the sum of a part from h, the target's last true state, and a part from o, the imitated next one. The "
        "bars say how much more of each a token gets than the least of those listed. "
        + as_markdown(turned_words(step, trace.token_bytes))
    )
    with st.expander("Both parts of every logit as a table"):
        st.dataframe(split_table(step, trace.token_bytes), hide_index=True, key="chimera_table")
