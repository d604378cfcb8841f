"""The line above the stepper while the shipped recording is shown: whose run it is, and how to go on from it."""

import streamlit as st

from pages.parts.shared import recorded_run as demo
from pages.parts.shared.absent import offer, row, ways_on
from pages.parts.shared.controls import read, say
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from viz.tokens import as_markdown

LINE = "A recording of **{}**: every step can be looked at, and no model is loaded."


def recording(session: Session) -> None:
    """What there is to see on the first visit, in one sentence, and the ways on."""
    if session.trace is None or session.trace is not demo.recorded() or session.coming is not None or session.absent is not None:
        return
    name, line = session.settings.to_fetch, LINE.format(as_markdown(demo.title()))
    with st.container(key="recording", gap="small", horizontal=True, vertical_alignment="center", width="stretch"):
        st.caption(f"{line} For runs of your own:" if name else line, width="content")
        with row("recording"):
            if name:
                ways_on("recording", name, lambda: start(session, read(session).on_embedded()))
            else:
                live(session)


def live(session: Session) -> None:
    """Make the very run here."""
    help = (WHY if still_loading() else "") + "The same question and seed, on this machine, up to the step shown."
    go = lambda: session.start(session.settings, max(session.cursor, 0))  # noqa: E731
    st.button("Run it live", key="live", icon=":material/bolt:", disabled=still_loading(), on_click=go, help=help)


def absent(session: Session) -> None:
    """The run that was asked for has no model here."""
    if session.absent is not None:
        offer("step", session.absent, lambda settings: start(session, settings))


def start(session: Session, settings: Settings) -> None:
    say(session, settings)
    session.start(settings)
