"""Below the stepper: run to the end, stop, begin again, go to a call; and the line that says what is waited for."""

import html

import streamlit as st

from pages.parts.shared.controls import read, stale
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.session import UNSAID, Session
from viz.tokens import as_markdown


def transport(session: Session) -> None:
    """Draw the row. Back, Next and Play are the stepper's own."""
    running = session.far or session.sides.long
    over = session.ended and session.at_end and not stale(session)
    off, why = still_loading(), WHY if still_loading() else ""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="transport"):
        if running:
            st.button(
                "Stop", key="stop", icon=":material/stop:", shortcut="Esc", on_click=session.stop,
                help="The step under way is the last.",
            )  # fmt: skip
        else:
            st.button(
                "Run to end", key="run", icon=":material/last_page:", shortcut="E", disabled=over or off,
                on_click=lambda: session.run_to_end(read(session)),
                help=f"{as_markdown(why)}All steps until the text ends or the token limit is reached.",
            )  # fmt: skip
        st.button(
            "Reset", key="reset", icon=":material/restart_alt:", on_click=session.reset,
            help="Back to the recorded run that this page opens with. Your settings stay.",
        )  # fmt: skip
        go_to(session)


def go_to(session: Session) -> None:
    """A box with the number of the step that is shown; 0 is the prompt."""
    limit = session.trace.header.max_tokens if session.trace else 1  # a range that changes would make another box
    shows = (session.runs, session.trace is None, session.cursor)
    key = session.box("go_to", shows)

    def go() -> None:
        wanted = int(st.session_state.get(key, shows[2] + 1) or 0) - 1
        if wanted == shows[2]:  # a box that is gone reports what it showed, with the next click
            return
        session.go(wanted)
        session.box_says("go_to", (*shows[:2], wanted))

    st.number_input(
        f"Step (of {session.count:,})", 0, max(limit, session.count), session.cursor + 1, step=1, key=key, on_change=go, width=128,
        disabled=not session.count, help="Go to a step that was taken; 0 is the prompt.",
    )  # fmt: skip


def progress(session: Session) -> None:
    """What the page is waiting for, in one line; empty while it waits for nothing."""
    live = session.waited_for
    if live is None:
        return
    seconds = session.waited
    if live in session.sides.lives:
        waiting(session.sides.line())
    elif said := session.in_line():
        waiting(said)
    elif live is session.coming:
        waiting(session.loading())
    elif session.long and session.trace is not None:
        limit, done = session.trace.header.max_tokens, session.tokens
        st.progress(min(1.0, done / limit), text=f"{done:,} of at most {limit:,} tokens, {session.count:,} target calls")
    elif seconds > UNSAID:
        waiting(f"Taking the step … {seconds:.0f} s")


def waiting(sentence: str) -> None:
    st.html(f'<p class="ds-wait" role="status">{html.escape(sentence)}</p>')
