"""Falcon on the Step page: the blocks of this step, what their tokens could and could not see, and acceptance by place."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.falcon import (
    asked,
    blind_words,
    block_size,
    blocks_html,
    blocks_table,
    calls_words,
    has_blocks,
    mask_alt,
    mask_figure,
    mask_words,
    run_words,
    saw_alt,
    saw_figure,
    saw_table,
)
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    st.markdown("**Blocks, not tokens**")
    if drawable(step, has_blocks(step), "This trace does not say which block a token comes from."):
        blocks(session)
    folded("Is the last place of a block worse? The run so far", "falcon_box", saw, session)


def blocks(session: Session) -> None:
    """A frame per pass, and the tree as a table."""
    step, token_bytes = session.step, session.trace.token_bytes
    st.html(blocks_html(step, token_bytes))
    st.caption(
        f"A frame holds what one pass of the head guessed. {as_markdown(calls_words(step))} Inside a frame the candidates of a "
        "place are the same behind every candidate of the place before: the head does not know which one was picked until the "
        "next pass. "
        f"{as_markdown(blind_words(step, token_bytes))}"
    )
    with st.expander("All nodes as a table"):
        st.dataframe(blocks_table(step, token_bytes), hide_index=True, key="falcon_table")
        st.caption("Beside the head's probability what the target gives the token behind its parent (at temperature 1 if greedy).")
    folded("What a block sees", "falcon_mask_box", mask, session)


def mask(session: Session) -> None:
    """The staircase of the blocks that were asked along the path, beside the triangle."""
    trace, step = session.trace, session.step
    block, slots = block_size([step]), asked(step, trace.tokens_before(session.cursor), trace.token_bytes)
    if not slots:
        st.caption("This step does not say which slots were asked.")
        return
    figure = mask_figure(block, slots, dark())
    st.plotly_chart(figure, key="falcon_mask", config=PLOT_CONFIG, alt=mask_alt(block, slots))
    st.caption(as_markdown(mask_words(block, slots)))


def saw(session: Session) -> None:
    """Acceptance by place, with its table."""
    steps = session.trace.steps[: session.cursor + 1]
    st.plotly_chart(saw_figure(steps, dark()), key="falcon_saw", config=PLOT_CONFIG, alt=saw_alt(steps))
    st.caption(
        f"Of the steps in which every token before was accepted. {as_markdown(run_words(steps))} Where the picture is a saw, "
        "it is the mark of the method: the first place of a block has seen the picks above it, the last has not."
    )
    st.dataframe(saw_table(steps), hide_index=True, key="falcon_saw_table")
