"""Future Token Prediction on the Step page: what the tokens read of the one state, how much it carries, and acceptance by level."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.ftp import (
    decay_alt,
    decay_figure,
    decay_table,
    fan_html,
    has_slots,
    meter_html,
    meter_run_words,
    meter_words,
    slots_table,
)
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    if drawable(step, has_slots(step), "This trace does not carry what the decoder looked at."):
        fan(session)
        bottleneck(session)
    folded("How far does one vector reach? The run so far", "ftp_box", decay, session)


def fan(session: Session) -> None:
    """What every token of the path reads of the state."""
    step, token_bytes = session.step, session.trace.token_bytes
    st.markdown("**One vector, many tokens**")
    st.html(fan_html(step, token_bytes))
    st.caption(
        "All that the decoder sees of the past is the target's state before the root, h, unfolded into a few vectors; beside them "
        "only a start vector, the root and its own path. A row shows where a token's prediction looked, averaged over heads and "
        "blocks. The path is the accepted one, continued by the most probable children."
    )
    with st.expander("All nodes as a table"):
        st.dataframe(slots_table(step, token_bytes), hide_index=True, key="ftp_table")


def bottleneck(session: Session) -> None:
    """How well the known root is predicted again."""
    trace, cursor = session.trace, session.cursor
    st.markdown("**Does the state carry enough?**")
    st.html(meter_html(trace, cursor))
    st.caption(
        as_markdown(meter_words(trace, cursor))
        + " Where this fails, the vector did not yield what the target knew; whether the draft suffers from it is counted here. "
        + as_markdown(meter_run_words(trace.steps[: cursor + 1]))
    )


def decay(session: Session) -> None:
    """Acceptance by level beside the weights of the training."""
    steps = session.trace.steps[: session.cursor + 1]
    st.plotly_chart(decay_figure(steps, dark()), key="ftp_decay", config=PLOT_CONFIG, alt=decay_alt(steps))
    st.caption(
        "The nearer a token, the more its error counted in the training. The paper publishes no speed-up: the bars are our own "
        "measurement, with a target that was not trained to plan ahead."
    )
    st.dataframe(decay_table(steps), hide_index=True, key="ftp_decay_table")
