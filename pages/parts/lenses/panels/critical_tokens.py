"""The contrast as a slider: how sharply what the draft model likes is pushed down. Nothing is computed by a model."""

import html
from typing import Any

import streamlit as st

from decoding.looks.critical_tokens import CriticalLook
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.lenses.critical_tokens import candidates_figure, contrast_html, contrast_words

KEY = "critical_tokens_beta"


def view(here: Any, look: CriticalLook) -> None:
    if not look.text:
        return
    beta = st.slider("β, how much q is held against a token", 0.0, 2.0, 1.0, 0.25, key=KEY, help="0 is p itself; 1 is the paper's.")
    st.html(contrast_html(look, beta) + f"<p>{html.escape(contrast_words(look, beta))}</p>")
    if (made := candidates_figure(look, beta, dark())) is not None:
        figure, alt = made
        st.plotly_chart(figure, key="critical_tokens_candidates", config=PLOT_CONFIG, alt=alt)
