"""What stands on the Lenses page: the run with its cursor and the lenses on one side, what the chosen one sees on the other."""

import html
from collections.abc import Callable
from dataclasses import fields

import streamlit as st

from decoding.lenses import LENSES, SCOPES
from decoding.looks import Look
from pages.parts.lenses.desk import Desk, prefix
from pages.parts.lenses.link import lens_link
from pages.parts.lenses.seen import seen
from pages.parts.shared.controls import param_control, param_key
from pages.parts.shared.following import asking, followed
from pages.parts.shared.session import Session
from pages.parts.shared.setup import dark
from pages.parts.shared.side_job import offer, stop_other
from pages.parts.shared.stepper import Selection, stepper
from pages.parts.step.link import linked
from pages.parts.step.recording import absent
from pages.parts.step.transport import waiting
from viz.tokens import as_markdown, quoted
from viz.words import stage

VIEW = "lens_view"  # key of the fragment
CARDS = """<style>
[class*="st-key-card_"] button { height: auto; text-align: left; justify-content: flex-start; }
[class*="st-key-card_"] button > div { width: 100%; justify-content: flex-start; }
[class*="st-key-card_"] button p { white-space: normal; }
</style>"""
RECORDED = "Recorded, like the run: this look was shipped with the app. *Look again* asks the models."
SHOWN = ("text", "tree", "transport")  # of the run


def lens_view(here: Desk) -> None:
    """Draw it, and again whenever the worker has something new."""
    followed(here, VIEW, lambda line: draw(here, line), lambda: progress(here))


def progress(here: Desk) -> None:
    """What the page is waiting for, in one line."""
    live = here.waited_for
    if live is not None:
        waiting(here.in_line() or (here.loading() if live.run is None else here.line()))
    elif here.session.waited_for is not None:
        waiting(here.session.in_line() or here.session.loading())


def draw(here: Desk, line: Callable[[], None]) -> None:
    """What stands here now and then has a place that is always there: what stands below it would else move up, and be seen twice
    until all of it is drawn."""
    session = here.session
    with st.container(key="lens_said"):
        said(here)
    if session.trace is None:
        st.caption("There is no run to look at yet.")
        st.page_link("pages/1_Step.py", label="Make one on the page Step", icon=":material/play_arrow:")
        return
    left, right = st.columns([5, 7], gap="medium")
    with left:
        the_run(here)
        cards(here)
    with right:
        looking(here, line)


def said(here: Desk) -> None:
    """What is in the way of the run or of the link, if anything is."""
    session = here.session
    absent(session)
    linked(session)
    for note in here.notes:
        st.warning(as_markdown(note), icon=":material/link_off:")
    for problem in filter(None, (session.problem, session.sides.problem)):
        st.error(as_markdown(problem), icon=":material/error:")


# -- the run -----------------------------------------------------------------------------------------------------------


def the_run(here: Desk) -> None:
    """Its text and its tree; where the reader stands is where the lens looks."""
    session = here.session
    whose = "recorded run · " if session.recorded else ""
    st.html(f'<p class="ds-badge">{html.escape(whose + stage([session.trace.header]))}</p>')

    def moved(at: Selection) -> None:
        session.stand(*at)
        here.problem = ""

    stepper(
        session.trace, cursor=Selection(session.cursor, session.phase, session.node), key="lens_stepper", run=session.runs,
        mode="small", show=SHOWN, on_move=moved,
    )  # fmt: skip
    st.page_link("pages/1_Step.py", label="Another run, on the page Step", icon=":material/arrow_back:")


# -- the lenses --------------------------------------------------------------------------------------------------------


def cards(here: Desk) -> None:
    """One line per lens: its title and the question that it asks; a press chooses it."""
    st.html(CARDS)
    for scope, keys in LENSES.grouped().items():
        st.html(f'<p class="ds-dim">{html.escape(SCOPES[scope])}</p>')
        for key in keys:
            now = key == here.lens
            st.button(
                f"**{as_markdown(LENSES[key].title)}** {as_markdown(LENSES.card(key).asks)}",
                key=f"card_{key}", width="stretch", type="primary" if now else "secondary", on_click=choose, args=(here, key),
            )  # fmt: skip


def choose(here: Desk, lens: str) -> None:
    here.lens, here.problem, here.notes = lens, "", ()


# -- what it sees ------------------------------------------------------------------------------------------------------


def looking(here: Desk, line: Callable[[], None]) -> None:
    """The chosen lens: question, place, parameters, and what was seen."""
    lens = here.chosen
    st.html(
        f'<p class="ds-verdict" style="font-size:1.35rem">{html.escape(lens.title)}</p>'
        f'<p class="ds-say">{html.escape(lens.asks)}</p><p class="ds-dim">{html.escape(where(here.session))}</p>'
    )
    parameters(here)
    if refused := here.refusal():
        st.warning(as_markdown(refused), icon=":material/block:")
        with st.container(key="poll_timer"):  # the run that is being made is waited for all the same
            line()
        if here.problem:
            st.error(as_markdown(here.problem), icon=":material/error:")
        if (shipped := here.recorded()) is not None:
            st.caption(RECORDED)
            seen(here, shipped, dark())
            about(here, shipped)
        return
    look, answers = here.found()
    if not answers and here.follows() and here.begun(here.question) is None:
        here.look_at()
        look, answers = here.found()
    buttons(here, line, look, answers)
    with st.container(key="lens_told"):
        if here.problem:
            st.error(as_markdown(here.problem), icon=":material/error:")
        if look is None:
            st.caption(as_markdown(f"{lens.idea} {lens.reading}"))
        elif not answers:
            recorded = look is here.recorded()
            st.caption(RECORDED if recorded else "Below is what was seen before the place, the parameters or the run changed.")
    if look is None:
        return
    seen(here, look, dark())
    if answers or look is here.recorded():  # a link says what the controls do
        lens_link(here)
    about(here, look)


def where(session: Session) -> str:
    """Where the reader stands, in words."""
    step, trace, node = session.step, session.trace, session.selected
    if step is None:
        return "At the end of the prompt."
    at = f"Step {session.cursor + 1:,}"
    if node is None or node < 0:
        return f"{at}, at its root: what comes next, where the target wrote {quoted(step.tokens[0], trace.token_bytes)}."
    if node >= len(step.nodes):
        return f"{at}, the last token that it wrote, {quoted(step.tokens[-1], trace.token_bytes)}."
    one = step.nodes[node]
    return f"{at}, the drafted {quoted(one.token, trace.token_bytes)}, which was {one.verdict}."


def parameters(here: Desk) -> None:
    """The lens's own controls; nothing is computed when one moves, the button looks again."""
    specs = fields(here.chosen.params)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="lens_params"):
        for spec in specs:
            with st.container(width=230):
                param_control(here, prefix(here.lens), spec)
    names = [param_key(prefix(here.lens), spec.name) for spec in specs]
    here.values |= {name: st.session_state[name] for name in names if name in st.session_state}


def buttons(here: Desk, line: Callable[[], None], look: Look | None, answers: bool) -> None:
    """Look, Stop, what it takes, and what is waited for."""
    cost, question = here.cost, here.question
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="lens_buttons"):
        live = here.begun(question)
        with st.container(
            width="content", key="lens_button"
        ):  # always there: what stands beside it would be seen twice for a moment
            if live is None and not answers:
                st.button(
                    "Look" if look is None else "Look again", key="lens_look", type="primary", icon=":material/visibility:",
                    on_click=asking(here, VIEW, here.look_here),
                )  # fmt: skip
            else:
                offer(here, question, "Look", "lens_go_on")
            if live is None:
                stop_other(here, question, "lens_other")
        rows = f"The target reads up to {cost.rows:,} rows. {cost.words}" if cost.rows else cost.words
        st.caption(as_markdown(rows.strip()), width="content")
    with st.container(key="poll_timer"):
        line()


def about(here: Desk, look: Look) -> None:
    """What the lens is, and by what it can be checked."""
    lens = here.chosen
    with st.expander("About this lens", key="lens_about", on_change="rerun") as box:
        if not box.open:
            return
        st.markdown(as_markdown(lens.idea))
        st.markdown(f"**How to read it.** {as_markdown(lens.reading)}")
        st.markdown(f"**What it can be held against.** {as_markdown(lens.checks)}")
        if lens.ours:
            st.markdown(f"**What is ours.** {as_markdown(lens.ours)}")
        st.link_button(as_markdown(f"{lens.authors}: the paper"), lens.paper, icon=":material/description:")
