"""Compare: several methods on one prompt, one parameter swept, or saved runs."""

import streamlit as st

from pages.parts.shared.setup import setup

setup("Compare")

from pages.parts.compare.columns import columns  # noqa: E402  after setup: the page has its title already
from pages.parts.compare.race import race  # noqa: E402
from pages.parts.compare.recording import open_recording  # noqa: E402
from pages.parts.compare.saved import saved  # noqa: E402
from pages.parts.compare.share import VIEW, open_compare_link  # noqa: E402
from pages.parts.compare.sweep_view import sweep  # noqa: E402
from pages.parts.shared.loading import wait_for_models  # noqa: E402
from pages.parts.shared.session import session  # noqa: E402

VIEWS = {"columns": ("Side by side", columns), "sweep": ("One parameter swept", sweep), "saved": ("Saved runs", saved)}

wait_for_models("Compare")
here, runs = session(), race()
open_compare_link(here, runs)
open_recording(here, runs)
st.session_state.setdefault(VIEW, runs.values.get(VIEW, "columns"))
with st.container(horizontal=True, vertical_alignment="center", key="compare_head"):
    st.html('<h1 class="ds-title">Compare</h1>', width="content")
    runs.values[VIEW] = st.segmented_control(
        "View",
        list(VIEWS),
        key=VIEW,
        required=True,
        format_func=lambda key: VIEWS[key][0],
        label_visibility="collapsed",
    )
VIEWS[runs.values[VIEW]][1](here, runs)
