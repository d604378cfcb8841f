"""DySpec on the Step page: the tree grown again draw by draw, with the draws that waited; and whether the estimates came true."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.scrolled import scrolled
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.drafter.reliability import reliability_alt, reliability_figure, reliability_table
from viz.methods.dyspec import draw_words, draws_table, has_estimates, reached, regrown, sum_words, waiting_bars
from viz.step.boxes import extent_of, wide_enough
from viz.step.tree import tree_alt, tree_figure
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    if not drawable(step, has_estimates(step), "This trace does not carry DySpec's estimates."):
        return
    folded("How the tree grew", "dyspec_box", growing, session)
    folded("Did the estimates come true? The run so far", "dyspec_reached_box", estimates, session)


def growing(session: Session) -> None:
    """The tree after some of its draws, and the draws that waited then."""
    step, token_bytes = session.step, session.trace.token_bytes
    most = len(step.nodes)
    count = st.slider("Draws made", 0, most, min(most, 1), key=f"dyspec_{session.runs}_{session.cursor}")
    st.caption(as_markdown(draw_words(step, count, token_bytes)))
    part, width = regrown(step, count), max(640, wide_enough(step))
    figure = tree_figure(part, token_bytes, None, dark(), root=session.root, width=width, extent=extent_of([step]))
    with scrolled("tree_scroll_dyspec", width):
        st.plotly_chart(figure, key="dyspec_tree", config=PLOT_CONFIG, alt=tree_alt(part, token_bytes))
    st.markdown("**Draws that wait**")
    st.html(waiting_bars(step, count, token_bytes))
    st.caption(
        "A bar is the estimated chance that the verifier reaches the draw: W of its node, less what the node's children took. The "
        "queue always makes the draw with the longest bar; the threshold variant makes all above its line, level by level."
    )
    st.dataframe(draws_table(step, token_bytes), hide_index=True, key="dyspec_table")


def estimates(session: Session) -> None:
    """The reliability diagram of the estimates, with its words and its table."""
    steps = session.trace.steps[: session.cursor + 1]
    frame = reached(steps)
    figure = reliability_figure(frame, dark(), x="estimate before the draw", y="reached / drawn")
    alt = reliability_alt(frame, noun="estimate before the draw, where accepted means reached", short="estimate")
    st.plotly_chart(figure, key="dyspec_reached", config=PLOT_CONFIG, alt=alt)
    st.caption(
        f"{as_markdown(sum_words(steps))} A point on the diagonal: of the draws made with an estimate of x, a share of x was "
        "reached. Below it the drafter is too sure of its branches and the tree grows too deep; above it, too wide."
    )
    st.dataframe(reliability_table(frame), hide_index=True, key="dyspec_reached_table")
