"""Methods: a gallery drawn from the registry, idea by idea; algorithm, paper and parameters on a click."""

import streamlit as st

from pages.parts.shared.setup import setup

setup("Methods")

from pages.parts.gallery import gallery  # noqa: E402
from pages.parts.shared.loading import wait_for_models  # noqa: E402

wait_for_models("Methods")
st.html('<h1 class="ds-title">Methods</h1>')
gallery()
