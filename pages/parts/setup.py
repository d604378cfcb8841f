"""The first line of every page: its title, its width, the style sheet, the links; and what the browser looks like."""

import streamlit as st
from streamlit.errors import StreamlitAPIException

PAGES = {
    "app.py": "Home",
    "pages/1_Step.py": "Step",
    "pages/2_Compare.py": "Compare",
    "pages/3_Drafter.py": "Drafter",
    "pages/4_Methods.py": "Methods",
    "pages/5_Traces.py": "Traces",
}

CSS = """
<style>
.stAppHeader { height: 2.4rem; min-height: 0; background: transparent; pointer-events: none; }
.stAppHeader button, .stAppHeader a { pointer-events: auto; }
.stMainBlockContainer { padding: 2.2rem 2.2rem 3rem 2.2rem; max-width: 1560px; }
.stSidebar [data-testid="stSidebarUserContent"] { padding-top: 0; padding-bottom: 2rem; }
.stSidebar [data-testid="stSidebarHeader"] { height: 2.2rem; min-height: 0; }
.ds-title { font-size: 1.5rem; padding: 0; margin: 0; }
.st-key-pulse { min-height: 1.7rem; margin-top: -0.8rem; }
.ds-wait { margin: 0; font-size: 0.9rem; padding: 0.1rem 0.6rem; border-left: 3px solid #0072B2; }
.ds-badge { font-size: 0.86rem; font-weight: 400; opacity: 0.75; margin-left: 0.6rem; }
.ds-say { font-size: 1.05rem; margin: 0; min-height: 1.6em; line-height: 1.5; overflow-wrap: anywhere; }
.ds-verdict { font-size: 1.02rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.ds-dim { opacity: 0.75; font-size: 0.86rem; margin: 0; overflow-wrap: anywhere; }
.ds-facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 0.8rem; font-size: 0.9rem; margin: 0; }
.ds-facts dt { opacity: 0.75; } .ds-facts dd { margin: 0; overflow-wrap: anywhere; }
[data-testid="stMetricValue"] { font-size: 1.55rem; }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
</style>
"""


def setup(title: str) -> None:
    """Call first on every page, however the visitor came to it."""
    st.set_page_config(page_title=f"{title} · Draftscope", page_icon="🌿", layout="wide", initial_sidebar_state="expanded")
    st.html(CSS)
    with st.sidebar, st.container(horizontal=True, gap="small", key="pages"):
        for path, label in PAGES.items():
            try:
                st.page_link(path, label=label)
            except StreamlitAPIException:  # a page that was started by itself, without app.py, knows no other
                break


def dark() -> bool:
    """Whether the browser shows the dark theme; False where it did not say."""
    try:
        return st.context.theme.type == "dark"
    except (AttributeError, KeyError):
        return False
