"""The view of Token Recycling: the rows of its table that the call walked."""

import streamlit as st

from pages.parts.shared.session import Session
from viz.methods import silence
from viz.methods.token_recycling import table_frame, table_html
from viz.tokens import as_markdown


def view(session: Session) -> None:
    trace, cursor = session.trace, session.cursor
    st.markdown("**Its table, as far as this call walked it**")
    drawn = table_html(trace, cursor)
    if not drawn:
        why = silence(trace, cursor)
        st.markdown(as_markdown(f"Nothing was guessed: {why}." if why else "The ranks of the guesses were not recorded."))
        return
    st.html(drawn)
    st.caption("A row holds what the target last found likeliest behind a token, wherever that stood; a dot: not tried here.")
    with st.expander("All rows as a table", key="token_recycling_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(table_frame(trace, cursor), hide_index=True, key="token_recycling_table")
