"""Jacobi decoding on the Step page: the window of guesses call after call, and how it settles."""

import streamlit as st

from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.jacobi import cut_words, pace_words, window_alt, window_figure, window_table
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it up to the step that is shown."""
    trace, cursor = session.trace, session.cursor
    st.markdown("**The window, call by call**")
    st.plotly_chart(window_figure(trace, cursor, dark()), key="jacobi_window", config=PLOT_CONFIG, alt=window_alt(trace, cursor))
    st.caption(
        "A row is a target call, a column a place of the text. Every call answers all guesses at once; what is not settled is "
        f"guessed again from its answers, = as before or ≠ anew, and the text settles from left to right. "
        f"{as_markdown(pace_words(trace, cursor))}{as_markdown(cut_words(trace, cursor))}"
    )
    with st.expander("The window as a table"):
        st.dataframe(window_table(trace, cursor), hide_index=True, key="jacobi_window_table")
