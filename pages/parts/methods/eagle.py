"""EAGLE on the Step page: what was kept and what was left out, the head's confidence beside the target's, what came of it, and how
far the head's states drift."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.drafter.reliability import reliability_alt, reliability_figure, reliability_table
from viz.methods.eagle import (
    confidence,
    cut_alt,
    cut_figure,
    cut_words,
    forecast_words,
    has_confidence,
    is_sampled,
    joints_html,
    joints_table,
    left_out,
)
from viz.methods.eagle_drift import drift_alt, drift_figure, drift_table, drift_words, has_cosines, mix, mix_html
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    st.markdown("**What was worth drafting**")
    if drawable(step, has_confidence(step), "This trace does not carry the head's confidence."):
        worth(session)
    folded("Did the confidence come true? The run so far", "eagle_box", outcome, session)
    folded("How far does the head drift? The run so far", "eagle_drift_box", drifting, session)


def worth(session: Session) -> None:
    """The picture of the cut, the two joints as bars, and the table."""
    step, token_bytes = session.step, session.trace.token_bytes
    both = bool(left_out(step)) and st.toggle("Show what was left out", value=True, key="eagle_left_out")
    figure = cut_figure(step, token_bytes, both, dark())
    st.plotly_chart(figure, key="eagle_cut", config=PLOT_CONFIG, alt=cut_alt(step, token_bytes))
    st.caption(
        f"{as_markdown(cut_words(step))} A line leads from a token to the one it follows, and never upwards: no path is worth "
        "more than its beginning."
    )
    st.html(joints_html(step, token_bytes))
    st.caption(
        f"q: the product of the head's probabilities down the path{', by which the tree was chosen' * (not is_sampled(step))}. p: "
        "the same product of the target's own, known only after it read the tree (after temperature and cuts; at temperature 1 in "
        "a greedy run)."
    )
    with st.expander("All candidates as a table"):
        st.dataframe(joints_table(step, token_bytes), hide_index=True, key="eagle_table")
    if mix(step):
        st.html(mix_html(step))
        st.caption(
            "The target's layers in the state that the head makes of the root: how long the vector is that each adds to the mix, "
            "in parts of all three. The numbers of layers count up from the embeddings."
        )


def outcome(session: Session) -> None:
    """Confidence in bins against acceptance."""
    steps = session.trace.steps[: session.cursor + 1]
    if any(map(is_sampled, steps)):
        st.caption(as_markdown(forecast_words(steps)))
        return
    frames = confidence(steps)
    figure = reliability_figure(frames, dark(), x="the head's confidence", y="accepted", short="confidence",
                                empty="Nothing was drafted so far.")  # fmt: skip
    alt = reliability_alt(frames, noun="the head's confidence", short="confidence", none="nothing was drafted")
    st.plotly_chart(figure, key="eagle_confidence", config=PLOT_CONFIG, alt=alt)
    st.caption(
        f"{as_markdown(forecast_words(steps))} On the diagonal the head is as sure as it should be. It does not know the run's "
        "temperature: below 1 more is accepted than it expects, if its first choice is the target's."
    )
    for label, frame in frames.items():
        st.markdown(f"*{as_markdown(label)}*")
        st.dataframe(reliability_table(frame), hide_index=True, key=f"eagle_bins_{label.split()[0]}")


def drifting(session: Session) -> None:
    """Acceptance and cosine by depth, with their table."""
    steps = session.trace.steps[: session.cursor + 1]
    if not has_cosines(steps):
        st.caption(as_markdown(drift_words(steps)))
        return
    true = "the mix of the target's layers that it stands for" if any(map(mix, steps)) else "the target's own"
    st.plotly_chart(drift_figure(steps, dark()), key="eagle_drift", config=PLOT_CONFIG, alt=drift_alt(steps))
    st.caption(
        f"Bars: tokens accepted at a depth, of the steps in which all before was. Line: behind such a token the head went on from "
        f"a state of its own; the cosine between that and {true}, known once the tree was read (1: the same direction). "
        f"{as_markdown(drift_words(steps))} It says nothing about tokens that were turned down."
    )
    st.dataframe(drift_table(steps), hide_index=True, key="eagle_drift_table")
