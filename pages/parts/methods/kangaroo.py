"""Kangaroo on the Step page: how sure the drafter was and why it stopped, which layers read what, what the confidence is worth."""

from collections.abc import Sequence

import streamlit as st

from decoding.trace import Step
from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.kangaroo import (
    confidence_alt,
    confidence_figure,
    cost_words,
    depths_of,
    ladder_html,
    lengths_alt,
    lengths_figure,
    lengths_table,
    reasons_words,
    stop_words,
    tokens_table,
    worth_alt,
    worth_figure,
)
from viz.methods.kangaroo_sweep import (
    NOTHING,
    Knobs,
    depth_figure,
    depth_table,
    depth_words,
    knobs_of,
    ratio,
    reach,
    sweep,
    sweep_alt,
    sweep_figure,
    sweep_table,
    target_of,
)
from viz.tokens import as_markdown
from viz.words import number


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step, trace = session.step, session.trace
    st.markdown("**How sure the first layers were**")
    if drawable(step, depths_of(step) is not None, "This trace does not carry the confidences."):
        drafted(session, knobs_of(trace.header.params).eta)
    folded("Is the confidence worth stopping for? The run so far", "kangaroo_box", record, session)
    label = "Another η, another γ, a deeper target: modelled from the run so far"
    folded(label, "kangaroo_sweep_box", others, session)


def drafted(session: Session, threshold: float) -> None:
    """The confidences against the threshold, and the ladders."""
    step, token_bytes = session.step, session.trace.token_bytes
    figure = confidence_figure(step, token_bytes, threshold, dark())
    st.plotly_chart(figure, key="kangaroo", config=PLOT_CONFIG, alt=confidence_alt(step, token_bytes, threshold))
    st.caption(
        f"{as_markdown(stop_words(step, threshold, token_bytes))} The confidence is the drafter's largest probability, at "
        "temperature 1; the token at which it was too low is judged all the same."
    )
    st.markdown("**Every layer reads every token once**")
    st.html(ladder_html(step, token_bytes))
    st.caption(
        f"{as_markdown(cost_words(step))} The states behind the first layers are handed on, so the call begins where the draft "
        "ended. The adapter has no rung for the last token: nothing was drafted behind it."
    )
    with st.expander("The drafted tokens as a table"):
        st.dataframe(tokens_table(step, token_bytes), hide_index=True, key="kangaroo_table")


def record(session: Session) -> None:
    """Acceptance by confidence, reasons, and lengths over the run."""
    steps = session.trace.steps[: session.cursor + 1]
    st.plotly_chart(worth_figure(steps, dark()), key="kangaroo_worth", config=PLOT_CONFIG, alt=worth_alt(steps))
    st.caption(
        f"{as_markdown(reasons_words(steps))} Stopping pays if what is drafted with little confidence is seldom accepted. Where "
        "a model has few layers, the first ones are a large part of its work: a small model cannot show the gain of a large one."
    )
    st.markdown("**How many tokens a step yields**")
    left, right = st.columns([3, 2])
    left.plotly_chart(lengths_figure(steps, dark()), key="kangaroo_ctar", config=PLOT_CONFIG, alt=lengths_alt(steps))
    right.dataframe(lengths_table(steps), hide_index=True, key="kangaroo_lengths")
    st.caption("The later the curve falls the better. At w = 0 stand all steps: each writes at least the target's own token.")


def others(session: Session) -> None:
    """What the run so far tells about other settings, at the cost of a target of so many layers."""
    steps = session.trace.steps[: session.cursor + 1]
    found, own = target_of(steps), knobs_of(session.trace.header.params, session.trace.steps)
    if found is None:
        st.caption(NOTHING)
        return
    low, high = reach(found)
    key = f"kangaroo_layers_{session.runs}"
    layers = st.slider("Layers of the target, for the modelled cost", low, high, found.layers, key=key)
    c = ratio(found.exit, layers)
    st.caption(
        f"c = ({found.exit:,} + 1/3) / {layers:,} = {number(c)}: what a drafted token costs, in passes of a target of {layers:,} "
        f"layers that is left behind layer {found.exit:,}; this one has {found.layers:,}. The adapter counts as a third of a "
        "layer, the "
        "language-model head is not counted."
    )
    settings(steps, own, c)
    deeper(steps, own, layers)


def settings(steps: Sequence[Step], own: Knobs, c: float) -> None:
    """The sweep of eta and gamma."""
    points = sweep(steps, own)
    st.markdown("**A higher η or a smaller γ, on the drafts of this run (modelled)**")
    st.plotly_chart(sweep_figure(points, own, c, dark()), key="kangaroo_sweep", config=PLOT_CONFIG, alt=sweep_alt(points, own, c))
    st.caption(
        f"No model is run: confidences and verdicts of the {len(steps)} {'step' if len(steps) == 1 else 'steps'} so far tell where "
        "a draft would have stopped, and how much of it was accepted. Only drafts shorter than the recorded ones are known, so η "
        "starts at the run's and γ ends there. The first token is always drafted; the one whose confidence is not above η is kept "
        "and judged. With other settings the text behind each step would differ: these are means per step over the positions of "
        "this run, and over few of them small differences are chance. Tokens that were not judged, as one before them was "
        "rejected, count as drafted and not accepted. The height is (accepted + 1) / (1 + drafted × c); under the dotted line "
        "plain decoding is quicker."
    )
    with st.expander("Every setting as a table", key="kangaroo_sweep_table_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(sweep_table(points, c), hide_index=True, key="kangaroo_sweep_table")


def deeper(steps: Sequence[Step], own: Knobs, layers: int) -> None:
    """The cost model over the depth of the target."""
    words = depth_words(steps, own, layers)
    st.markdown("**A deeper target, left behind the same layer (modelled)**")
    st.plotly_chart(depth_figure(steps, own, layers, dark()), key="kangaroo_depth", config=PLOT_CONFIG, alt=f"Modelled. {words}")
    st.caption(
        f"{as_markdown(words)} Modelled, not measured: E / (1 + γc) with E = (1 − α^(γ+1)) / (1 − α), as if γ tokens were drafted "
        "every time and each was accepted with the same chance α, whatever the depth; the other line has the drafts of this run, "
        "which the "
        "confidence cut short. Reading several tokens at once is taken to cost a layer no more than reading one. Where a model has "
        "few layers, the first ones are a large part of its work: a small model cannot show the method's gain."
    )
    with st.expander("Every depth as a table", key="kangaroo_depth_table_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(depth_table(steps, own), hide_index=True, key="kangaroo_depth_table")
