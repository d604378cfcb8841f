"""The line under the bar while the shipped recording is shown: whose run it is, and how to go on from it."""

import streamlit as st

from decoding.trace import Step
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.absent import offer, row, ways_on
from pages.parts.shared.controls import read, say
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from viz.tokens import as_markdown, name
from viz.verdicts import in_words

LINE = "A recording of **{}**, made beforehand: every step can be looked at, and no model is loaded."


def recording(session: Session) -> None:
    """What there is to see on the first visit, in one sentence, and the ways on."""
    if session.trace is None or session.trace is not demo.recorded() or session.coming is not None or session.absent is not None:
        return
    paused = session.cursor == demo.pause_at() and not session.playing
    name, line = session.settings.to_fetch, LINE.format(as_markdown(demo.title()))
    with st.container(border=True, key="recording", gap="small"):
        if paused:
            st.markdown(as_markdown(lesson_words(session.step, session.trace.token_bytes)))
        st.caption(f"{line} For runs of your own:" if name else line)
        with row("recording"):
            if paused:
                st.button("Next", key="next", icon=":material/skip_next:", type="primary", on_click=session.forward)
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


def lesson_words(step: Step, token_bytes: dict[int, bytes]) -> str:
    """The rejection the recorded run is paused at."""
    index = next((index for index, node in enumerate(step.nodes) if node.verdict == "rejected"), None)
    if index is None or not step.tokens:
        return "Here the run is paused; every step can be looked at."
    kept = sum(n.verdict == "accepted" for n in step.nodes)
    before = f", after {kept} accepted {'guess' if kept == 1 else 'guesses'}" if kept else ""
    words, put = in_words(step, index, token_bytes), name(step.tokens[-1], token_bytes)
    end = "" if "writes" in words else f" In the end the large model writes {put}."
    return f"Paused where the large model refused a guess{before}. {words}{end}"
