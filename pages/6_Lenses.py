"""Lenses: other ways of looking at a run than step by step."""

import streamlit as st

from pages.parts.shared.setup import setup

setup("Lenses")

from pages.parts.shared.loading import wait_for_models  # noqa: E402  after setup: the page has its title already

wait_for_models("Lenses")

from pages.parts.lenses.desk import desk  # noqa: E402  after torch, which lenses are made with
from pages.parts.lenses.lens_view import lens_view  # noqa: E402
from pages.parts.lenses.link import open_lens_link  # noqa: E402

st.html('<h1 class="ds-title">Lenses <span class="ds-badge">questions to one place of a run, or to its text</span></h1>')
here = desk()
open_lens_link(here)
lens_view(here)
