"""SpecDec++ on the Step page: what the head predicted for each token, where drafting stopped, and whether it was right so far."""

import streamlit as st

from decoding.trace import number_in
from pages.parts.shared.panel import folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.specdec_pp import (
    acceptance_alt,
    acceptance_figure,
    acceptance_table,
    reliability_figure,
    reliability_table,
    reliability_words,
    stop_words,
    waste_words,
)
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step, trace = session.step, session.trace
    usual = (("threshold", 0.7), ("shortest", 2), ("length", 20))
    threshold, shortest, longest = (number_in(trace.header.params, key, default) for key, default in usual)
    steps = trace.steps[: session.cursor + 1]
    st.markdown("**Predicted against actual acceptance**")
    if step.nodes:
        figure = acceptance_figure(step, trace.token_bytes, threshold, dark())
        st.plotly_chart(figure, key="specdec", config=PLOT_CONFIG, alt=acceptance_alt(step, trace.token_bytes))
        st.caption(
            f"{as_markdown(stop_words(step, threshold, int(shortest), int(longest)))} The last token has no prediction: "
            "it came with the last call of the draft model and is submitted without having been fed to it. Tokens behind a "
            "rejection were not "
            "judged, but their chances are known."
        )
        with st.expander("The predictions as a table"):
            st.dataframe(acceptance_table(step, trace.token_bytes), hide_index=True, key="specdec_table")
    else:
        st.caption("Nothing was drafted in this step.")
    folded("Was the head right? The run so far", "specdec_box", reliable, steps)
    st.caption(as_markdown(waste_words(steps)))


def reliable(steps) -> None:
    """The reliability diagram with its words and its table."""
    words = reliability_words(steps)
    st.plotly_chart(reliability_figure(steps, dark()), key="specdec_reliability", config=PLOT_CONFIG, alt=words)
    st.caption(
        f"{as_markdown(words)} The head was trained with refusals counting six times, so its predictions are pessimistic on "
        "purpose: for a true chance P it predicts P / (P + 6 (1 − P)). With the weight taken out they should lie on the "
        "diagonal. Larger dots hold "
        "more tokens."
    )
    st.dataframe(reliability_table(steps), hide_index=True, key="specdec_reliability_table")
