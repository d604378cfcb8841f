"""SpecTr on the Step page: the bundle of sequences; at the selected position rho, p against rho q, and what other rules do."""

import streamlit as st

from decoding.runs.failures import told
from decoding.trace import Row
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.spectr import Position, bundle_alt, bundle_figure, bundle_table, cost_words, position_of, trials_table
from viz.methods.spectr_position import chances, chances_figure, chances_words, g_figure, g_table, overlap_figure, overlap_table
from viz.methods.spectr_transport import transport
from viz.step.boxes import ROOT, final_index
from viz.tokens import as_markdown, name
from viz.words import number


def view(session: Session) -> None:
    """Draw it for the step and the node that are shown."""
    step, token_bytes = session.step, session.trace.token_bytes
    if not step.nodes:
        st.caption("Nothing was drafted in this step, so there are no sequences to show.")
        return
    st.markdown("**The sequences as a bundle**")
    st.plotly_chart(
        bundle_figure(step, token_bytes, session.selected, dark()), key="spectr_bundle", config=PLOT_CONFIG, alt=bundle_alt(step)
    )
    st.caption(
        f"A strand is a draft sequence; strands run side by side where they agree (×3: three of them), which costs the target one "
        f"row. {as_markdown(cost_words(step))}"
    )
    with st.expander("The bundle as a table"):
        st.dataframe(bundle_table(step, token_bytes), hide_index=True, key="spectr_bundle_table")
    if session.trace.header.sampling.temperature == 0:
        st.caption(
            "At temperature 0 all sequences would be the draft model's best chain, so one is drafted and judged greedily: there is "
            "nothing to choose from. Choose a temperature above 0, or a method with a tree of top tokens."
        )
        return
    row = selected_row(session)
    position = position_of(step, row)
    if position is None:
        st.caption("At the selected position nothing was drafted. Select a node with a guess to see how it was judged.")
        return
    at_position(session, position)


def selected_row(session: Session) -> int:
    """The row of the position that is looked at: where the selected node was tried."""
    step, selected = session.step, session.selected
    if selected == ROOT:
        return 0
    return step.end_row if selected == final_index(step) else step.nodes[selected].parent + 1


def at_position(session: Session, position: Position) -> None:
    """Everything about one position."""
    step, token_bytes = session.step, session.trace.token_bytes
    row, k = step.rows[position.row], position.guesses
    where = "at the root" if position.row == 0 else f"behind {as_markdown(name(step.nodes[position.row - 1].token, token_bytes))}"
    guesses = "one guess" if k == 1 else f"{k} guesses"
    st.markdown(f"**The position of the selected node, {where}: {as_markdown(guesses)}**")
    st.dataframe(trials_table(step, position, token_bytes), hide_index=True, key="spectr_trials")
    st.caption(
        "In the order of trial; every copy of a repeated token has its own u, and a token is accepted if u × q < p/ρ. The tree and "
        "the inspector call p/ρ the p of a node."
    )
    if k == 1:
        st.caption("With one guess ρ is 1: this is ordinary speculative sampling, and no rule does better.")
    else:
        rho(row, position)
    overlap(row, position, token_bytes)
    if k > 1:
        rules(session, row, position)


def rho(row: Row, position: Position) -> None:
    """The search for rho."""
    words = f"g falls from ρ = 1 to ρ = {position.guesses} and is 0 at {number(position.rho, 4)}."
    st.plotly_chart(g_figure(row, position, dark()), key="spectr_g", config=PLOT_CONFIG, alt=words)
    st.caption(
        f"g(ρ) = 1 − (1 − β)^k − ρβ with β(ρ) = Σ min(q, p/ρ). Its root is the smallest ρ that keeps the target's law: "
        f"ρ* = {number(position.rho, 4)}, β = {number(position.beta, 4)}. To the left of it the residual would turn negative, to "
        f"the right fewer guesses are accepted. ρ* was found over the whole vocabulary; the curve is exact at 1, ρ* and "
        f"k = {position.guesses:,}, and between them the tokens that the trace did not keep are interpolated."
    )
    with st.expander("g(ρ) as a table"):
        st.dataframe(g_table(row, position), hide_index=True, key="spectr_g_table")


def overlap(row: Row, position: Position, token_bytes: dict[int, bytes]) -> None:
    """p against rho q."""
    shared = f"p and ρq share {number(position.accepted, 4)}"
    st.plotly_chart(overlap_figure(row, position, token_bytes, dark()), key="spectr_overlap", config=PLOT_CONFIG, alt=shared)
    st.caption(
        f"{as_markdown(shared)}: the chance that a guess is accepted here. What p has over ρq is the residual, "
        f"{number(max(0.0, 1 - position.accepted), 4)}, from which the correction is drawn; a refused token has none of it."
    )
    with st.expander("p against ρq as a table"):
        st.dataframe(overlap_table(row, position, token_bytes), hide_index=True, key="spectr_overlap_table")


def rules(session: Session, row: Row, position: Position) -> None:
    """What other rules would accept, and the transport problem on demand."""
    st.plotly_chart(chances_figure(position, dark()), key="spectr_chances", config=PLOT_CONFIG, alt=chances_words(position))
    st.caption(
        "The chance of acceptance at this position, for the same p, q and number of guesses, over the whole vocabulary. The "
        "optimum is read from the tokens in the order of q/p; K-SEQ reaches at least 1 − 1/e of it."
    )
    with st.expander("The chances as a table"):
        st.dataframe(chances(position), hide_index=True, key="spectr_chances_table")
    if st.button("Solve the transport problem", key=f"spectr_lp_{session.runs}_{session.cursor}_{position.row}"):
        solved(row, position)


def solved(row: Row, position: Position) -> None:
    """The transport problem over the tokens the trace kept, as a flow."""
    try:
        found = transport(row, position.guesses)
    except ValueError as error:
        st.warning(as_markdown(told(error)))
        return
    st.markdown(
        f"The largest flow over the {found.tokens:,} likeliest recorded tokens and all others taken as one "
        f"({found.sets:,} sets of {position.guesses:,} guesses) accepts **{number(found.solved, 5)}**; the sorted tokens give "
        f"{number(found.read, 5)} for the same problem. Over the whole vocabulary the optimum is {number(position.optimum, 5)}: it "
        f"cannot be larger, because taking tokens together makes every guess among them count as a hit."
    )
