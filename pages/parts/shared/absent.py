"""What a page offers where the model that was asked for is not on this machine: to bring it, where that may be, or to take the
embedded family."""

from collections.abc import Callable

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from decoding.limits import limits
from decoding.models.catalogue import MODELS
from pages.parts.shared.fetching import fetch_button
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.settings import Settings
from viz.tokens import as_markdown

INSTEAD = "Run it with the small embedded model instead"
ITS_OWN = "It ships with the app and knows no chat: it goes on from your words as a plain text, or from its own example."


def offer(place: str, wanted: Settings, start: Callable[[Settings], None]) -> None:
    """A sentence, and the ways on; once the model was brought, the way that was meant.

    Args:
        place: where on which page, for the keys.
        start: runs the settings it is given.
    """
    with st.container(border=True, key=f"{place}_absent"):
        if name := wanted.to_fetch:
            title = MODELS[name].title
            said = f"{title} is not on this machine yet" if limits().downloads else f"This demo does not have {title}"
            st.markdown(f"**{as_markdown(said)}**, so nothing was run.")
            with row(place):
                ways_on(place, name, lambda: start(wanted.on_embedded()))
        else:
            st.markdown("**The model is here now.** The run can begin.")
            st.button("Run it", key=f"{place}_run", type="primary", icon=":material/play_arrow:", on_click=start, args=(wanted,))


def ways_on(place: str, name: str, embedded: Callable[[], None]) -> None:
    """Two buttons: bring the model, where models may be fetched, or run the embedded one, which `embedded` does."""
    if limits().downloads:
        fetch_button(place, name)
    help = (WHY if still_loading() else "") + ITS_OWN
    st.button(INSTEAD, key=f"{place}_instead", on_click=embedded, disabled=still_loading(), help=help)


def row(place: str) -> DeltaGenerator:
    """Where buttons stand side by side."""
    return st.container(horizontal=True, vertical_alignment="center", gap="small", width="content", key=f"{place}_ways")
