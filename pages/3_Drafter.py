"""Drafter: what a drafter gets wrong, over many prompts."""

import streamlit as st

from pages.parts.shared.setup import setup

setup("Drafter")

from pages.parts.drafter.controller import controller  # noqa: E402
from pages.parts.drafter.sidebar import drafter_sidebar  # noqa: E402
from pages.parts.drafter.study_view import study_view  # noqa: E402
from pages.parts.shared.loading import wait_for_models  # noqa: E402  after setup: the page has its title already
from pages.parts.shared.session import session  # noqa: E402

wait_for_models("Drafter")
st.html('<h1 class="ds-title">Drafter <span class="ds-badge">why its tokens are turned down, over many prompts</span></h1>')
here = controller()
study_view(here, session(), *drafter_sidebar(here))
