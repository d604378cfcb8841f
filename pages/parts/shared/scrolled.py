"""A picture that is wider than its place: it is scrolled from side to side."""

from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st


@contextmanager
def scrolled(key: str, width: int) -> Iterator[None]:
    """What is drawn inside gets at least `width` px. By a style sheet, because Streamlit cuts every width to that of the place."""
    st.html(f"<style>.st-key-{key} {{ overflow-x: auto; }} .st-key-{key} > div {{ min-width: {width}px; }}</style>")
    with st.container(key=key):
        yield
