"""The step view: everything on the Step page that changes with a step, in one fragment."""

import html
from collections.abc import Callable

import plotly.io
import streamlit as st

from decoding.methods import METHODS
from decoding.trace import Trace
from pages.parts.shared.chart_data import tree_downloads
from pages.parts.shared.chat_controls import full, go_on, goes_on
from pages.parts.shared.controls import prompt_of, read, say, stale
from pages.parts.shared.following import followed
from pages.parts.shared.keep import keep
from pages.parts.shared.loading import still_loading
from pages.parts.shared.scrolled import scrolled
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.shared.tallies import tallies
from pages.parts.step.inspector import inspector
from pages.parts.step.link import link, linked
from pages.parts.step.method_panel import view_of
from pages.parts.step.other_method import other_method
from pages.parts.step.picture import picture
from pages.parts.step.recording import absent, recording
from pages.parts.step.text_strip import legend, text_strip
from pages.parts.step.transport import progress, transport
from viz.step.boxes import wide_enough
from viz.step.tree import node_table, picked, tree_alt, tree_figure
from viz.tokens import as_markdown
from viz.words import narrate, stage

plotly.io.templates.default = None  # Streamlit lays its theme over every figure; Plotly's own template only costs time
WIDTH = 680  # px of the tree on a usual screen, and the least that it gets: its labels are cut for so many


def step_view(session: Session) -> None:
    """Draw it; a click draws it again, and so does what the worker has done."""
    followed(session, "step_view", lambda line: draw(session, line), lambda: progress(session))


def draw(session: Session, line: Callable[[], None]) -> None:
    with st.container(key="poll_timer"):
        line()
    narration(session)
    transport(session)  # above whatever comes and goes: a bar that moves under the pointer is missed
    notices(session)
    picture(session)
    text_strip(session, lambda key: by_letter(session, key))
    if session.trace is not None:
        legend(session.trace)
        answered(session, session.trace)
    if session.step is None:
        nothing(session)
        return
    left, right = st.columns([0.64, 0.36], gap="medium")
    with left:  # first, and each only once: in the other order Streamlit 1.67 painted this fragment one run late
        tree(session)
        if (own := view_of(session.trace.header.method)) is not None:
            own(session)
        other_method(session)
        tallies(session, dark())
        link(session)
        keep(session)
    with right:
        inspector(session)


def answered(session: Session, trace: Trace) -> None:
    """Behind the whole answer of a chat: the way on."""
    messages = trace.header.messages
    if not messages or not session.ended or session.coming is not None or (session.recorded and not session.at_end):
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="answered"):
        if goes_on(session, messages, trace.answer):
            st.markdown("**Your turn.** Write the next message on the left, then press Step.", width="stretch")
            return
        st.markdown("**The answer is there.** Ask something else, or change a message on the left.", width="stretch")
        if st.button("Answer and go on", key="go_on", icon=":material/reply:", type="primary", disabled=full(messages)):
            go_on(session, messages, trace.answer)
            st.rerun()  # the boxes are on the left, outside of what a click here draws


def by_letter(session: Session, key: str) -> None:
    """J and K: what the buttons Back and Step do."""
    if key == "back":
        session.back()
    elif still_loading():
        session.forward()
    else:
        session.advance(read(session))


def notices(session: Session) -> None:
    """What is recorded, what went wrong, and what is stale; the run that is shown stays."""
    recording(session)
    absent(session)
    linked(session)
    if session.problem:
        st.error(as_markdown(session.problem), icon=":material/error:")
    for note in session.notes:
        st.warning(as_markdown(note), icon=":material/link_off:")
    for note in loading_notes(session):
        st.caption(as_markdown(note))
    if session.trace is None or session.coming is not None or not stale(session):
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="stale"):
        st.markdown("**The settings have changed** since this run was made. Step starts a new one.", width="stretch")
        st.button("Start again with these settings", key="again", type="primary", on_click=lambda: session.start(read(session)))
        st.button("Put the settings back", key="put_back", on_click=put_back, args=(session,))


def loading_notes(session: Session) -> tuple[str, ...]:
    """What was done to the models of this run when they were loaded, and to its prompt; nothing of a stored one."""
    run = session.live.run if session.live is not None else None
    return run.notes if run is not None else ()


def put_back(session: Session) -> None:
    say(session, session.settings)


def narration(session: Session) -> None:
    """One sentence at a fixed place: what the step that is shown did."""
    if session.trace is None:
        sentence = "Write a prompt or choose an example, then press Step."
    elif session.step is None:
        sentence = "The prompt, before the first step. Press Step or Forward."
    else:
        sentence = narrate(session.step, session.cursor + 1, session.trace.token_bytes)
    kind = METHODS.title(session.settings.method) if session.settings else "No run yet"
    badge = "recorded run · " if session.recorded else ""
    where = f" · {stage([session.trace.header])}" if session.trace is not None else ""
    st.html(
        f'<h1 class="ds-title">Step by step <span class="ds-badge">{html.escape(badge + kind + where)}</span></h1>'
        f'<p class="ds-say" role="status" aria-live="polite">{html.escape(sentence)}</p>'
    )


def nothing(session: Session) -> None:
    """Before the first step."""
    if session.trace is None:
        st.html(f'<p class="ds-dim">The prompt: {html.escape(prompt_of(session)[:400])}</p>')


def tree(session: Session) -> None:
    """The draft tree; a click on a box selects it."""
    step, token_bytes = session.step, session.trace.token_bytes

    def pick() -> None:
        if (node := picked(st.session_state["tree"].selection.points)) is not None:
            session.pick(node)

    width = max(WIDTH, wide_enough(step))
    figure = tree_figure(step, token_bytes, session.selected, dark(), root=session.root, width=width, extent=session.extent())
    with scrolled("tree_scroll", width):
        st.plotly_chart(
            figure,
            key="tree",
            on_select=pick,
            selection_mode="points",
            config=PLOT_CONFIG,
            alt=tree_alt(step, token_bytes),
        )
    with st.expander("The tree as a table", key="tree_table_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(node_table(step, token_bytes), hide_index=True, key="tree_table")
            tree_downloads(step, token_bytes, f"step_{session.cursor + 1}", "tree")
