"""The picture of an image family on the Step page: the frame of the call in sight, plain decoding beside it, and all calls."""

import html

import streamlit as st

from decoding.trace import Trace
from pages.parts.shared.session import Session
from viz.step.picture import (
    CSS,
    beside_html,
    guidance_html,
    legend_html,
    pace_words,
    picture_alt,
    picture_html,
    picture_table,
    picture_text,
    trajectory_html,
)

MEANS = "solid what the call wrote, pale what it left open."


def picture(session: Session) -> None:
    """Draw it, in a place that is there for families of text too."""
    with st.container(key="picture"):
        trace, cursor = session.trace, session.cursor
        if trace is None or trace.header.raster is None:
            return
        st.html(f"{CSS}{guidance_html(trace)}{frames(trace, cursor)}{legend_html(trace, cursor)}")
        with st.expander("The picture in words and letters", key="picture_text_box", on_change="rerun") as box:
            if box.open:
                st.html(f'<p class="ds-dim">{html.escape(picture_alt(trace, cursor))}</p>')
                st.code(picture_text(trace, cursor), language=None)
                st.dataframe(picture_table(trace, cursor), hide_index=True, key="picture_table")


def frames(trace: Trace, cursor: int) -> str:
    """Side by side, one below the other where it is narrow."""
    calls = f"{cursor + 1} call{'s' * (cursor != 0)}"
    shown = [
        f"<figure>{picture_html(trace, cursor)}</figure>",
        f"<figure>{beside_html(trace, cursor)}<figcaption>Plain decoding after {calls}: a pixel each</figcaption></figure>",
    ]
    if cursor >= 0:
        words = f"A row is a call, a column a pixel from the first to the last: {MEANS} {html.escape(pace_words(trace, cursor))}"
        shown.append(f'<figure class="calls">{trajectory_html(trace, cursor)}<figcaption>{words}</figcaption></figure>')
    return f'<div class="ds-pictures"><div>{"".join(shown)}</div></div>'
