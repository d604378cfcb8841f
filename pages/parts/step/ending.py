"""The end of a run is not the end of the page: what to do next."""

from dataclasses import replace

import streamlit as st

from decoding.limits import limits
from decoding.methods import METHODS
from decoding.trace import MAX_TOKENS
from pages.parts.shared.controls import lacking_methods, say, stale
from pages.parts.shared.loading import still_loading
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from viz.runs.tally import tally
from viz.tokens import as_markdown

LONGER = 2  # times as many tokens


def ending(session: Session) -> None:
    """A sentence on the whole run and two ways on, once its last step is looked at."""
    if not session.ended or not session.at_end or session.coming is not None or still_loading() or stale(session):
        return
    total, settings = tally(session.trace.steps), session.settings
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="ending"):
        words = f"The run is over: {total.tokens:,} tokens for {total.target_calls:,} target calls, {total.tau:.2f} per call."
        st.markdown(as_markdown(words), width="stretch")
        drawn = session.trace.header.raster is not None  # a picture has as many pixels as it has
        if not drawn and session.trace.steps[-1].ending == "token limit" and (most := longer(settings)) > settings.max_tokens:
            st.button(
                f"A longer one: {most:,} tokens", key="next_longer", icon=":material/expand_content:",
                on_click=begin, args=(session, replace(settings, max_tokens=most)),
            )  # fmt: skip
        if other := another(settings):
            st.button(
                f"The same prompt with {as_markdown(METHODS[other].title)}", key="next_method", icon=":material/swap_horiz:",
                on_click=begin, args=(session, settings.instead(other)),
            )  # fmt: skip
        if st.button("Compare methods on it", key="next_compare", icon=":material/view_column:"):
            st.switch_page("pages/2_Compare.py")


def longer(settings: Settings) -> int:
    """Tokens of a longer run that this server allows."""
    return min(LONGER * settings.max_tokens, limits().tokens or MAX_TOKENS, MAX_TOKENS)


def another(settings: Settings) -> str:
    """A method of another idea that these models can serve; "" if there is none."""
    lacking = lacking_methods(settings.target, settings.draft)
    ideas = [[key for key in keys if key not in lacking and key != "plain"] for keys in METHODS.grouped().values()]
    at = next((i for i, keys in enumerate(ideas) if settings.method in keys), -1)
    others = [keys[0] for keys in (*ideas[at + 1 :], *ideas[: max(at, 0)]) if keys]
    return others[0] if others else ""


def begin(session: Session, settings: Settings) -> None:
    """Make the run, with the controls saying so."""
    say(session, settings)
    session.start(settings)
