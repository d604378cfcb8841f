"""Traces: kept runs: find, open and replay, export, import, delete."""

import streamlit as st

from pages.parts.shared.setup import setup

setup("Traces")

from pages.parts.shared.session import session  # noqa: E402  after setup: the page has its title already
from pages.parts.traces.trace_list import traces  # noqa: E402

st.html('<h1 class="ds-title">Traces <span class="ds-badge">kept runs, replayed without a model</span></h1>')
traces(session())
