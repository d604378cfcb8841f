"""Drafter: what a drafter gets wrong, over many prompts."""

import streamlit as st

from pages.parts.shared.setup import setup

setup("Drafter")

from pages.parts.drafter.controller import desk  # noqa: E402
from pages.parts.drafter.sidebar import study_controls  # noqa: E402
from pages.parts.drafter.study_view import study_stage  # noqa: E402
from pages.parts.shared.session import session  # noqa: E402  after setup: it imports torch, and the page already has its title

st.html('<h1 class="ds-title">Drafter <span class="ds-badge">why its tokens are turned down, over many prompts</span></h1>')
here = desk()
study_stage(here, session(), *study_controls(here))
