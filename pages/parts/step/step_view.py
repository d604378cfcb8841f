"""The step view: everything on the Step page that changes with a step, in one fragment. The stepper on top moves by itself; what
stands below follows the call that its reader rests at."""

import html
from collections.abc import Callable

import plotly.io
import streamlit as st

from decoding.methods import METHODS
from decoding.trace import Trace
from pages.parts.shared.chat_controls import full, go_on, goes_on
from pages.parts.shared.controls import prompt_of, read, say, stale
from pages.parts.shared.following import asking, followed
from pages.parts.shared.keep import keep
from pages.parts.shared.loading import still_loading
from pages.parts.shared.session import Session
from pages.parts.shared.setup import dark
from pages.parts.shared.stepper import Selection, stepper
from pages.parts.shared.tallies import tallies
from pages.parts.step.ending import ending
from pages.parts.step.link import link, linked
from pages.parts.step.method_panel import view_of
from pages.parts.step.other_method import other_method
from pages.parts.step.picture import picture
from pages.parts.step.recording import absent, recording
from pages.parts.step.tables import tables
from pages.parts.step.transport import progress, transport
from viz.tokens import as_markdown, plain
from viz.words import stage

plotly.io.templates.default = None  # Streamlit lays its theme over every figure; Plotly's own template only costs time
NUMBERS, OTHER = "Numbers", "Another method at this very step"


def step_view(session: Session) -> None:
    """Draw it; what the worker has done draws it again."""
    followed(session, "step_view", lambda line: draw(session, line), lambda: progress(session))


def draw(session: Session, line: Callable[[], None]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="above"):
        badge(session)
        with st.container(key="poll_timer", width="content"):
            line()
        recording(session)
    notices(session)
    picture(session)
    call_by_call(session)
    transport(session)
    if session.trace is None:
        return
    answered(session, session.trace)
    ending(session)
    below(session)
    look_closer(session)
    link(session)
    keep(session)


def badge(session: Session) -> None:
    """Whose run is shown."""
    kind = METHODS.title(session.settings.method) if session.settings else "No run yet"
    recorded = "recorded run · " if session.recorded else ""
    where = f" · {stage([session.trace.header])}" if session.trace is not None else ""
    st.html(f'<p class="ds-badge">{html.escape(recorded + kind + where)}</p>', width="content")


def call_by_call(session: Session) -> None:
    """The stepper. Another step is asked of the worker when the reader goes on behind the last one."""

    def moved(at: Selection) -> None:
        session.stand(*at)

    off = still_loading()
    new = not off and (session.trace is None or stale(session))
    stepper(
        session.trace,
        cursor=Selection(session.cursor, session.phase, session.node),
        key="stepper",
        run=session.runs,
        more=not off and (new or not session.ended),
        busy=session.waited_for is not None,
        again=new,
        empty="" if session.trace is not None else f"The prompt: {plain(prompt_of(session), 200)}",
        on_move=moved,
        on_ask=asking(session, "step_view", lambda: session.advance(read(session))),
    )


def below(session: Session) -> None:
    """What the method shows of its own, the numbers, and another method at this step: each drawn when its tab is open."""
    if session.step is None:
        return
    own, method = view_of(session.trace.header.method), session.trace.header.method
    views: dict[str, Callable[[], None]] = {}
    if own is not None:
        views[METHODS.title(method)] = lambda: own(session)
    views[NUMBERS] = lambda: numbers(session)
    views[OTHER] = lambda: other_method(session)
    for tab, view in zip(st.tabs(list(views), key=f"views.{method}", on_change="rerun"), views.values(), strict=True):
        if tab.open:
            with tab:
                view()


def look_closer(session: Session) -> None:
    """The way to the Lenses page, which looks at the step and the token that are shown here."""
    if session.step is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="look_closer_box"):
        if st.button("Look closer", key="look_closer", icon=":material/visibility:"):
            st.switch_page("pages/6_Lenses.py")
        st.caption("Lenses at this very token: what its bytes say, what counting would have guessed, and more.")


def numbers(session: Session) -> None:
    """The tally of the run so far, and this call as tables."""
    tallies(session, dark())
    tables(session)


def answered(session: Session, trace: Trace) -> None:
    """Behind the whole answer of a chat: the way on."""
    messages = trace.header.messages
    if not messages or not session.ended or session.coming is not None or (session.recorded and not session.at_end):
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="answered"):
        if goes_on(session, messages, trace.answer):
            st.markdown("**Your turn.** Write the next message under Prompt, then press Start.", width="stretch")
            return
        said = "The answer was cut off by a limit" if "limit" in trace.steps[-1].ending else "The answer is there"
        st.markdown(f"**{as_markdown(said)}.** Ask something else, or change a message under Prompt.", width="stretch")
        if st.button("Answer and go on", key="go_on", icon=":material/reply:", disabled=full(messages)):
            go_on(session, messages, trace.answer)
            st.rerun()  # the boxes stand outside of what a click here draws


def notices(session: Session) -> None:
    """What went wrong, and what is stale; the run that is shown stays."""
    absent(session)
    linked(session)
    for problem in filter(None, (session.problem, session.sides.problem)):
        st.error(as_markdown(problem), icon=":material/error:")
    for note in session.notes:
        st.warning(as_markdown(note), icon=":material/info:")
    for note in loading_notes(session):
        st.caption(as_markdown(note))
    if session.trace is None or session.coming is not None or not stale(session):
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="stale"):
        st.markdown("**The settings have changed** since this run was made. Start makes a new one.", width="stretch")
        st.button("Start again with these settings", key="again", on_click=lambda: session.start_anew(read(session)))
        st.button("Put the settings back", key="put_back", on_click=put_back, args=(session,))


def loading_notes(session: Session) -> tuple[str, ...]:
    """What was done to the models of this run when they were loaded, and to its prompt; nothing of a stored one."""
    run = session.live.run if session.live is not None else None
    return run.notes if run is not None else ()


def put_back(session: Session) -> None:
    say(session, session.settings)
