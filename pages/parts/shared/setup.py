"""The first line of every page: its title, its width, the style sheet, the links, what is being loaded; what the browser looks
like, and what it has to know of the order in which things were sent to it."""

from time import time_ns
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from decoding.limits import limits
from pages.parts.shared import visitor
from pages.parts.shared.loading import loading_line
from pages.parts.shared.runs import cleanup, found_again
from pages.parts.shared.visitor import remember_visitor
from viz.tokens import as_markdown

PAGES = {
    "app.py": "Home",
    "pages/0_Learn.py": "Learn",
    "pages/1_Step.py": "Step",
    "pages/2_Compare.py": "Compare",
    "pages/3_Drafter.py": "Drafter",
    "pages/4_Methods.py": "Methods",
    "pages/5_Traces.py": "Traces",
    "pages/6_Lenses.py": "Lenses",
}

WITH_CONTROLS = ("Compare", "Drafter", "Traces")  # in the sidebar; elsewhere it only leads to the other pages
NARROW = """
<style>
@media (min-width: 769px) {
  [data-testid="stSidebar"][data-collapsed="false"] { width: 210px !important; min-width: 0 !important; }
  .stSidebar .st-key-pages { grid-template-columns: 1fr; }
}
</style>
"""

PLOT_CONFIG = {"displayModeBar": False, "scrollZoom": False}  # of every figure: the wheel scrolls the page

NOT_APART = (
    "This server is set to be public, and was started in a way that keeps no visitor apart from another who learns the name of "
    "their session. Start it with “streamlit run deploy/serve.py”, or without DRAFTSCOPE_MODE=public."
)
ON_LEAVING = "draftscope_leaving"  # (title of a page, what is to be done when another one is opened)

CSS = """
<style>
.stAppHeader { height: 2.4rem; min-height: 0; background: transparent; pointer-events: none; }
.stAppHeader button, .stAppHeader a { pointer-events: auto; }
html:not(.ds-looked) .st-key-visitor_offer button { visibility: hidden; } /* out of reach of the pointer and of the keys */
.stMainBlockContainer { position: relative; padding: 2.2rem 2.2rem 3rem 2.2rem; max-width: 1560px; }
.stSidebar [data-testid="stSidebarUserContent"] { padding-top: 0; padding-bottom: 2rem; }
.stSidebar [data-testid="stSidebarHeader"] { height: 2.2rem; min-height: 0; }
.stSidebar .st-key-pages { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.4rem 0.25rem; }
@media (max-width: 480px) { [data-testid="stButtonGroup"] button { padding-left: 0.55rem; padding-right: 0.55rem; } }
.ds-title { font-size: 1.5rem; padding: 0; margin: 0; }
.st-key-poll_timer { min-height: 1.7rem; }
.ds-wait { margin: 0; font-size: 0.9rem; padding: 0.1rem 0.6rem; border-left: 3px solid #0072B2; }
[data-testid="stLayoutWrapper"]:has(> .st-key-loading) { position: absolute; top: 0.4rem; left: 2.2rem; width: auto; }
@media (max-width: 640px) { [data-testid="stLayoutWrapper"]:has(> .st-key-loading) { left: 3.2rem; } }
.ds-badge { font-size: 0.86rem; font-weight: 400; opacity: 0.8; margin: 0; }
.ds-title .ds-badge { margin-left: 0.6rem; }
.st-key-settings_bar .ds-title { line-height: 2.4rem; padding-right: 0.6rem; white-space: nowrap; }
.st-key-above { min-height: 2.2rem; }
.ds-say { font-size: 1.05rem; margin: 0; min-height: 1.6em; line-height: 1.5; overflow-wrap: anywhere; }
.ds-verdict { font-size: 1.02rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.ds-dim { opacity: 0.75; font-size: 0.86rem; margin: 0; overflow-wrap: anywhere; }
dl.ds-facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 0.8rem; font-size: 0.9rem; margin: 0; padding: 0; }
.ds-facts dt { opacity: 0.75; } .ds-facts dd { margin: 0; overflow-wrap: anywhere; }
.ds-keys { display: flex; flex-wrap: wrap; gap: 0 0.9rem; font-size: 0.82rem; margin-bottom: 0.3rem; }
.ds-keys i { display: inline-block; width: 0.8em; height: 0.8em; border: 1px solid; vertical-align: -0.05em; }
.ds-bars { display: grid; grid-template-columns: max-content 1fr; gap: 0.28rem 0.6rem; align-items: center; font-size: 0.78rem; }
.ds-bars-name { text-align: right; font-family: 'Source Code Pro', ui-monospace, monospace; font-size: 0.84rem; line-height: 1.15; }
.ds-bars-name small { display: block; font-size: 0.7rem; opacity: 0.8; }
.ds-bars-now { font-weight: 700; outline: 1.5px solid; outline-offset: 2px; border-radius: 2px; }
.ds-bars-group { border-left: 1px solid #8886; }
.ds-bars-group div { display: flex; align-items: center; height: 0.86rem; padding-right: 2.6rem; }
.ds-bars-group i { flex: none; width: var(--w); height: 0.72rem; border: 1px solid; border-left: none; }
.ds-bars-group span { margin-left: 0.3rem; white-space: nowrap; width: 0; line-height: 1; }
.ds-dice { font-size: 0.82rem; }
.ds-dice > div:last-child { display: flex; justify-content: space-between; opacity: 0.85; }
.ds-dice-rule { position: relative; display: flex; height: 1.9rem; }
.ds-dice-rule i { box-sizing: border-box; }
.ds-dice-rule b { position: absolute; top: -0.1rem; bottom: -0.1rem; width: 4px; margin-left: -2px; outline: 1px solid; }
.ds-dice-rule span { position: absolute; top: 0.35rem; padding: 0 0.5rem; font-weight: 600; white-space: nowrap; }
[data-testid="stMetricValue"] { font-size: 1.55rem; }
/* Streamlit's own text that steps back, or stands on the theme's colour, has less than 4.5 to 1. */
[data-testid="stCaptionContainer"] { opacity: 0.8; }
button kbd { opacity: 1 !important; }
[data-testid="stBaseButton-primary"]:not(:disabled), [data-testid="stBaseButton-primary"]:not(:disabled) * {
  color: light-dark(#FFFFFF, #0B1117) !important; }
[data-testid="stButtonGroup"] button[aria-checked="true"], [data-testid="stButtonGroup"] button[aria-checked="true"] * {
  color: light-dark(#00558A, #8CCBF0) !important; }
.stPlotlyChart :is(.xtick, .ytick) text, .stPlotlyChart :is(.xtitle, .ytitle) { fill: light-dark(#5F6670, #A9AFBB) !important; }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
</style>
"""


def setup(title: str) -> None:
    """Call first on every page, however the visitor came to it."""
    st.set_page_config(page_title=f"{title} · Draftscope", page_icon="🌿", layout="wide", initial_sidebar_state="auto")
    st.html(CSS if title in WITH_CONTROLS else CSS + NARROW)
    try:
        rules = limits()
    except ValueError as error:
        st.error(as_markdown(str(error)), icon=":material/error:")
        st.stop()
    if rules.public and not visitor.is_apart():
        st.error(as_markdown(NOT_APART), icon=":material/error:")
        st.stop()
    if rules.public:
        st.set_option("client.showErrorDetails", "none")  # a traceback names the server's folders
    with st.sidebar, st.container(horizontal=True, gap="small", key="pages"):
        for path, label in PAGES.items():
            try:
                st.page_link(path, label=label)
            except StreamlitAPIException:  # a page that was started by itself, without app.py, knows no other
                break
    loading_line()
    page, leave = st.session_state.get(ON_LEAVING, ("", None))
    if leave is not None and page != title:
        del st.session_state[ON_LEAVING]
        leave()
    tab = cleanup()
    if rules.public:
        remember_visitor(tab.key, found_again)
        with st.sidebar:
            st.caption(as_markdown(rules.words))


def dark() -> bool:
    """Whether the browser shows the dark theme; False where it did not say."""
    try:
        return st.context.theme.type == "dark"
    except (AttributeError, KeyError):
        return False


def numbered(key: str, data: dict[str, Any]) -> dict[str, Any]:
    """The data of a component with a `number` that is higher than all before it whenever the data is new.

    A browser that is still loading a component's code keeps the calls that wait for it, one for each data that has come, and makes
    them in any order: without a number the text of an older step could have the last word. The number is the time, so that it
    also grows when a restarted server goes on with a page that is open.
    """
    before, number = st.session_state.get(f"{key}.sent", (None, 0))
    if data != before:
        number = max(number + 1, time_ns() // 1000)
        st.session_state[f"{key}.sent"] = (data, number)
    return data | {"number": number}


def first_told(key: str, told: object) -> str | None:
    """What a component says was pressed, if this press was not told before; else None.

    A component's event waits in the browser for a moment before it is sent, and a timer of the page that runs out in this moment
    sends it too: Streamlit then calls back twice for one press. So components say `{"key": ..., "at": ...}` with the time of the
    press, which is never earlier than that of the press before.
    """
    if not isinstance(told, dict) or not isinstance(told.get("key"), str) or not isinstance(told.get("at"), (int, float)):
        return None
    if told["at"] <= st.session_state.get(f"{key}.told", 0):
        return None
    st.session_state[f"{key}.told"] = told["at"]
    return told["key"]
