"""`pages/parts/shared/heard.py`: callbacks of a page that is being left end nowhere."""

from streamlit.testing.v1 import AppTest


def page() -> None:
    from types import SimpleNamespace

    import streamlit as st

    from pages.parts.shared.heard import heard

    st.session_state["there"] = SimpleNamespace(at=3)
    st.text(repr([heard("there", "at"), heard("there", "ask"), heard("gone", "at")]))


def test_what_has_no_state_has_said_nothing():
    """It was a KeyError, and an error page without links in place of the page that was being opened."""
    at = AppTest.from_function(page).run()
    assert not at.exception and at.text[0].value == "[3, None, None]"
