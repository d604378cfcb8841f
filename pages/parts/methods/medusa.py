"""Medusa on the Step page: what every head guessed in this step, and how often each was right so far."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.medusa import (
    guesses_html,
    has_heads,
    heads_table,
    records_alt,
    records_figure,
    records_table,
    torn_words,
    typical_words,
)
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step, trace = session.step, session.trace
    lossy = trace.header.params.get("rule") == "typical" and trace.header.sampling.temperature > 0
    st.markdown("**The heads, side by side**" + " :orange-badge[not lossless]" * lossy)
    if drawable(step, has_heads(step), "This trace does not carry what the heads said."):
        heads(session)
    folded("How good is every head? The run so far", "medusa_box", records, session)


def heads(session: Session) -> None:
    """The bars of every head, and the tree as a table."""
    step, token_bytes = session.step, session.trace.token_bytes
    st.html(guesses_html(session.trace, session.cursor))
    st.caption(
        "Every head reads the same state, the one the root was drawn from; head k does not know what head k − 1 picked. A mark "
        f"says what became of a token: ✓ accepted, ✗ turned down, none: never looked at. "
        f"{as_markdown(torn_words(step, token_bytes))} {as_markdown(typical_words(step))}"
    )
    with st.expander("Heads, ranks and worth as a table"):
        st.dataframe(heads_table(step, token_bytes), hide_index=True, key="medusa_table")
        st.caption(
            "The worth of a path is the product of how often its ranks were right on held-out text, as if heads were independent; "
            "the tree holds the paths that are worth most. Beside it the head's own probability now, and what the target gives the "
            "token behind its parent (at temperature 1 in a greedy run)."
        )


def records(session: Session) -> None:
    """The accuracy of the heads, with its table."""
    steps = session.trace.steps[: session.cursor + 1]
    figure = records_figure(steps, dark())
    st.plotly_chart(figure, key="medusa_records", config=PLOT_CONFIG, alt=records_alt(steps))
    st.caption(
        "Right means: it is what the text says at that place in the end, whichever step wrote it. Right but not accepted: the tree "
        "did not offer the token behind the path that was taken, or a token before it was wrong."
    )
    st.dataframe(records_table(steps), hide_index=True, key="medusa_records_table")
