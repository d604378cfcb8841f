"""The view of prompt lookup: where it copied from."""

import streamlit as st

from pages.parts.shared.session import Session
from viz.methods.prompt_lookup import copy_html, copy_words
from viz.tokens import as_markdown


def view(session: Session) -> None:
    trace, cursor = session.trace, session.cursor
    st.markdown("**Where it copied from**")
    if said := copy_words(trace, cursor):
        st.markdown(as_markdown(said))
    if drawn := copy_html(trace, cursor):
        st.html(drawn)
        st.caption("In the frame: what both places have in common. Behind it what was copied; solid: kept, dashed: not.")
