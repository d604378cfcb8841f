"""The confidence of a prediction set as a slider: holes open while it moves. Nothing is computed by a model."""

import html
from typing import Any

import streamlit as st

from decoding.looks.pac_sets import PacSetsLook
from viz.lenses.pac_sets import sentence_at, set_html

KEY = "pac_sets_confidence"


def view(here: Any, look: PacSetsLook) -> None:
    promised = round(100 * look.confidence)  # another slider for another promise: it begins where the picture stands
    chosen = st.slider("Confidence, %", 50, 98, promised, key=f"{KEY}.{promised}", help="How often the truth is to be inside.")
    st.html(set_html(look, chosen / 100) + f"<p>{html.escape(sentence_at(look, chosen / 100))}</p>")
