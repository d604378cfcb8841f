"""Another method at the very step that is shown: one step of it behind the same text, its draft beside the one that was made."""

import streamlit as st

from decoding.methods import METHODS
from decoding.trace import Trace
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.session import OTHER_METHOD, Session
from pages.parts.shared.settings import family_named
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.shared.side_job import Question
from viz.methods import guesses_html, silence
from viz.step.beside import beside_words
from viz.step.tree import tree_alt, tree_figure
from viz.tokens import as_markdown
from viz.words import narrate


def other_method(session: Session) -> None:
    """Choose a method, ask it, look at both."""
    if session.settings is None:
        return
    if still_loading():
        st.caption(f"{WHY}A method can be asked in a moment.")
        return
    lacking = family_named(session.settings.target, session.settings.draft)
    known = [key for key, method in METHODS.items() if key not in ("plain", session.settings.method)]
    menu = [key for key in known if not METHODS[key].missing(lacking)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = st.selectbox("Method to ask", menu, key="another_method", format_func=lambda key: METHODS[key].title, width=260)
        st.button(
            "Ask it", key="another_ask", icon=":material/compare_arrows:", on_click=ask, args=(session, key),
            help="One step with its usual parameters, behind the text in front of this step. The run is left as it is.",
        )  # fmt: skip
    if (answer := session.answer()) is not None:
        beside(session, answer)


def ask(session: Session, method: str) -> None:
    """Have the worker take one step of `method` where the shown step begins."""
    settings = session.settings.instead(method)
    make = settings.maker(session.trace.tokens_before(session.cursor))
    at, waiting = (session.runs, session.cursor), "Asking the other method …"
    session.sides.ask(Question(OTHER_METHOD, at, settings.device, make, "The other method", waiting, steps=1))


def beside(session: Session, answer: Trace) -> None:
    """The other draft, and the bars of both methods where they have heads that guess depth by depth."""
    step, title = answer.steps[0], METHODS[answer.header.method].title
    token_bytes = session.trace.token_bytes | answer.token_bytes
    st.markdown(f"**{as_markdown(title)}**")
    words = beside_words(session.step, step, title, token_bytes, silence(answer, 0))
    st.caption(as_markdown(f"{narrate(step, session.cursor + 1, token_bytes)} {words}"))
    if step.nodes:
        figure = tree_figure(step, token_bytes, None, dark(), root=session.root)
        st.plotly_chart(figure, key="another_tree", config=PLOT_CONFIG, alt=tree_alt(step, token_bytes))
    if bars := guesses_html(answer, 0):
        st.html(bars)
        if mine := guesses_html(session.trace, session.cursor):
            st.markdown(f"**{METHODS[session.trace.header.method].title}, as above**")
            st.html(mine)
    if session.settings.temperature > 0:
        st.caption("The dice are others than in the run, so the target may draw another token at the same place.")
