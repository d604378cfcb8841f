"""The bar that moves through a run: back, step, forward, play, run to end, stop, reset, and a box to go to a step."""

import html
from math import inf

import streamlit as st

from pages.parts.shared.controls import read, stale
from pages.parts.shared.following import asking
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.session import UNSAID, Session
from viz.tokens import as_markdown


def transport(session: Session) -> None:
    """Draw the bar. Keys stand on the buttons; J and K do the same as the left and right arrow."""
    running = session.playing or session.far or session.sides.long
    over = session.ended and session.at_end and not stale(session)
    off, why = still_loading(), WHY if still_loading() else ""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="transport"):
        st.button(
            "Back", key="back", icon=":material/arrow_back:", shortcut="Left", on_click=session.back, disabled=session.cursor < 0,
            help="To the step before (also J). Nothing is computed.",
        )  # fmt: skip
        st.button(
            "Step", key="step", icon=":material/skip_next:", type="primary", shortcut="Right", disabled=over or off,
            on_click=asking(session, "step_view", lambda: session.advance(read(session))),
            help=f"{as_markdown(why)}One step on (also K): one draft, one target call. Steps that were taken already are only "
            "shown "
            "again.",
        )  # fmt: skip
        st.button(
            "Forward", key="forward", icon=":material/arrow_forward:", shortcut="Shift+Right", on_click=session.forward,
            disabled=session.at_end, help="To the next step that was taken already. Nothing is computed.",
        )  # fmt: skip
        st.button(
            "Pause" if session.playing else "Play", key="play", shortcut="P", disabled=off or (over and not session.playing),
            icon=":material/pause:" if session.playing else ":material/play_arrow:",
            on_click=lambda: session.toggle_play(read(session)),
            help=f"{as_markdown(why)}Step after step, at the pace on the right.",
        )  # fmt: skip
        if running and not session.playing:
            st.button(
                "Stop",
                key="stop",
                icon=":material/stop:",
                shortcut="Esc",
                on_click=session.stop,
                help="The step under way is the last.",
            )
        else:
            st.button(
                "Run to end", key="run", icon=":material/last_page:", shortcut="E", disabled=over or off or session.playing,
                on_click=lambda: session.run_to_end(read(session)),
                help=f"{as_markdown(why)}All steps until the text ends or the token limit is reached.",
            )  # fmt: skip
        st.button("Reset", key="reset", icon=":material/restart_alt:", on_click=session.reset, help="Back to the prompt.")
        go_to(session)
        pace(session)


def go_to(session: Session) -> None:
    """A box with the number of the step that is shown; 0 is the prompt."""
    limit = session.trace.header.max_tokens if session.trace else 1  # a range that changes would make another box
    shows = (session.runs, session.trace is None, session.cursor)
    key = session.box("go_to", shows)

    def go() -> None:
        wanted = int(st.session_state.get(key, shows[2] + 1) or 0) - 1
        if wanted == shows[2]:  # a box that is gone reports what it showed, with the next click
            return
        session.playing = False
        session.go(wanted)
        session.box_says("go_to", (*shows[:2], wanted))

    st.number_input(
        f"Step (of {session.count:,})", 0, max(limit, session.count), session.cursor + 1, step=1, key=key, on_change=go, width=128,
        disabled=not session.count, help="Go to a step that was taken; 0 is the prompt.",
    )  # fmt: skip


def pace(session: Session) -> None:
    """Seconds per step while playing."""
    st.session_state.setdefault("pace", session.pace)

    def take() -> None:
        session.pace = float(st.session_state["pace"])

    st.select_slider(
        "Seconds per step",
        [0.25, 0.5, 1.0, 1.5, 2.0, 3.0],
        st.session_state["pace"],
        key="pace",
        on_change=take,
        width=170,
        help="The pace of Play.",
    )


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
    elif session.goal == inf and session.trace is not None:
        limit, done = session.trace.header.max_tokens, session.tokens
        st.progress(min(1.0, done / limit), text=f"{done:,} of at most {limit:,} tokens, {session.count:,} target calls")
    elif seconds > UNSAID and not session.playing:
        waiting(f"Taking the step … {seconds:.0f} s")


def waiting(sentence: str) -> None:
    st.html(f'<p class="ds-wait" role="status">{html.escape(sentence)}</p>')
