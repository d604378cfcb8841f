"""Methods: a gallery drawn from the registry: idea, algorithm, paper, parameters, losslessness."""

import streamlit as st

from pages.parts.shared.setup import setup

setup("Methods")

from decoding.methods import METHODS  # noqa: E402
from pages.parts.gallery import card, overview  # noqa: E402
from pages.parts.shared.loading import wait_for_models  # noqa: E402

wait_for_models("Methods")
st.html('<h1 class="ds-title">Methods</h1>')
overview()
for method in METHODS.values():
    card(method)
