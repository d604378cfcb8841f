"""The merge slider over the text: boxes fuse while it moves. Nothing is computed by a model: it stops where the text was read."""

import html
from collections.abc import Sequence
from typing import Any

import streamlit as st

from decoding.looks.dynamic_tokenization import DynamicTokenizationLook
from viz.lenses.dynamic_tokenization import behind_html, boxes_html, merges, sentence_at, words_html

KEY = "dynamic_tokenization_merges"


def view(here: Any, look: DynamicTokenizationLook) -> None:
    stops = merges(look)
    place = st.empty()  # for the slider, so that nothing below it changes places when it comes
    if stops:
        chosen = slider(place, stops) if look.done and len(stops) > 1 else stops[-1]
        st.html(f"{boxes_html(look, chosen)}<p>{html.escape(sentence_at(look, chosen))}</p>{behind_html(look, chosen)}")
    if made := words_html(look):
        st.html(made)


def slider(place: Any, stops: Sequence[int]) -> int:
    """The number of merges; one of those at which the text was read, all of them at first."""
    if st.session_state.get(KEY) not in stops:
        st.session_state[KEY] = stops[-1]
    return place.select_slider("Merges", stops, key=KEY, help="The text was read at these numbers of merges.")
