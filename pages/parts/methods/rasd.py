"""The view of RASD: the fused tree by source, the match behind it, and what either source would have got alone."""

import streamlit as st

from decoding.trace import number_in
from pages.parts.shared import retrieved
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.rasd import gain, gain_figure, gain_table


def view(session: Session) -> None:
    params = session.trace.header.params
    retrieved.tree(session)
    longest, shortest = number_in(params, "longest", 16), number_in(params, "shortest", 2)
    retrieved.match(session, longest, shortest, "the draft model left nothing of it.")
    won(session)
    retrieved.run_so_far(session)


def won(session: Session) -> None:
    """Who found the accepted tokens, up to the step that is shown."""
    total = gain(session.trace.steps[: session.cursor + 1])
    with st.expander("Who found the accepted tokens", key="gain_box", on_change="rerun") as box:
        if box.open:
            alt = f"Bars: {total.kept} tokens accepted by the fused tree, against the draft tree and retrieval alone."
            st.plotly_chart(gain_figure(total, dark()), key="gain", config=PLOT_CONFIG, alt=alt)
            st.caption(
                "Alone, a source would have got as far as the accepted path stays in its own tree. Computed from the same steps, "
                "not from other runs."
            )
            st.dataframe(gain_table(total), hide_index=True, key="gain_table")
