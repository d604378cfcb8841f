"""What a component or a table of a page says in a callback."""

from typing import Any

import streamlit as st


def heard(key: str, what: str) -> Any:
    """What it has said under a name; None where it has no state: Streamlit calls back also while its page is being left."""
    return getattr(st.session_state.get(key), what, None)
