"""Kangaroo on the Step page: how sure the drafter was and why it stopped, which layers read what, what the confidence is worth."""

import streamlit as st

from pages.parts.session import Session
from pages.parts.setup import dark
from viz.kangaroo import (
    confidence_alt,
    confidence_figure,
    cost_words,
    depths_of,
    ladder_html,
    lengths_table,
    reasons_words,
    stop_words,
    tokens_table,
    worth_alt,
    worth_figure,
)
from viz.tokens import as_markdown

CONFIG = {"displayModeBar": False}


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step, trace = session.step, session.trace
    st.markdown("**How sure the first layers were**")
    if not step.nodes:
        st.caption("Nothing was drafted in this step.")
    elif depths_of(step) is None:
        st.caption("This trace does not carry the confidences.")
    else:
        drafted(session, float(trace.header.params.get("threshold", 0.6)))
    with st.expander("Is the confidence worth stopping for? The run so far", key="kangaroo_box", on_change="rerun") as box:
        if box.open:
            record(session)


def drafted(session: Session, threshold: float) -> None:
    """The confidences against the threshold, and the ladders."""
    step, pieces = session.step, session.trace.pieces
    figure = confidence_figure(step, pieces, threshold, dark())
    st.plotly_chart(figure, key="kangaroo", config=CONFIG, alt=confidence_alt(step, pieces, threshold))
    st.caption(
        f"{as_markdown(stop_words(step, threshold, pieces))} The confidence is the drafter's largest probability, at temperature "
        "1; the token at which it was too low is judged all the same."
    )
    st.markdown("**Every layer reads every token once**")
    st.html(ladder_html(step, pieces))
    st.caption(
        f"{cost_words(step)} The states behind the first layers are handed on, so the call begins where the draft ended. The "
        "adapter has no rung for the last token: nothing was drafted behind it."
    )
    with st.expander("The drafted tokens as a table"):
        st.dataframe(tokens_table(step, pieces), hide_index=True, key="kangaroo_table")


def record(session: Session) -> None:
    """Acceptance by confidence, reasons, and lengths over the run."""
    steps = session.trace.steps[: session.cursor + 1]
    st.plotly_chart(worth_figure(steps, dark()), key="kangaroo_worth", config=CONFIG, alt=worth_alt(steps))
    st.caption(
        f"{reasons_words(steps)} Stopping pays if what is drafted with little confidence is seldom accepted. Where a model has few "
        "layers, the first ones are a large part of its work: a small model cannot show the gain of a large one."
    )
    st.dataframe(lengths_table(steps), hide_index=True, key="kangaroo_lengths")
