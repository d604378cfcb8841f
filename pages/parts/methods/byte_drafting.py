"""Byte drafting on the Step page: the bytes that were judged, between the drafter's tokens and those that were written."""

import streamlit as st

from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.byte_drafting import alt, drafted, figure, html, run_words, sentence, table
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and in words for the run up to it."""
    step, token_bytes = session.step, session.trace.token_bytes
    st.markdown("**Judged byte by byte**")
    st.caption(as_markdown(sentence(step, token_bytes)))
    if drafted(step):
        st.html(html(step, token_bytes))
        st.caption(
            "Filled with ✓: accepted; dashed with ✗: refused; dotted: not judged. The target writes whole tokens: a hatched one "
            "reaches beyond the last accepted byte. The tree above holds its spellings of the drafted bytes."
        )
        st.plotly_chart(figure(step, dark()), key="byte_drafting", config=PLOT_CONFIG, alt=alt(step))
        with st.expander("The bytes as a table"):
            st.dataframe(table(step), hide_index=True, key="byte_drafting_table")
    st.caption(as_markdown(run_words(session.trace.steps[: session.cursor + 1], token_bytes)))
