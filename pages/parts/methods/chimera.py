"""Chimera on the Step page: what every head guessed, the three tokens its slot read, and the two parts of every logit."""

import streamlit as st

from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.chimera import guesses_html, has_split, split_html, split_table, turned_words
from viz.methods.shared.head_bars import has_numbers, records, records_alt, records_figure, records_table
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    st.markdown("**The heads, and the three tokens that each slot reads**")
    if not step.nodes:
        st.caption("Nothing was drafted in this step.")
    elif not has_numbers(step):
        st.caption("This trace does not carry what the heads said.")
    else:
        heads(session)
    with st.expander("How good is every head? The run so far", key="chimera_box", on_change="rerun") as box:
        if box.open:
            so_far(session)


def heads(session: Session) -> None:
    """The bars down one path, and what h and o gave to the tokens."""
    step, trace = session.step, session.trace
    st.html(guesses_html(trace, session.cursor))
    st.caption(
        "The path that was accepted, then the most probable one; underlined: tokens that are guesses themselves. Pale: a candidate "
        "whose path was not among the most probable ones."
    )
    if not has_split(step):
        return
    st.markdown("**What the target knew, and what the draft added**")
    st.html(split_html(step, trace.token_bytes))
    st.caption(
        "A token's logit is the sum of a part from h, the target's last true state, and a part from o, the imitated next one. The "
        "bars say how much more of each a token gets than the least of those listed. "
        + as_markdown(turned_words(step, trace.token_bytes))
    )
    with st.expander("Both parts of every logit as a table"):
        st.dataframe(split_table(step, trace.token_bytes), hide_index=True, key="chimera_table")


def so_far(session: Session) -> None:
    """The accuracy of the heads, with its table."""
    found = records(session.trace.steps[: session.cursor + 1])
    st.plotly_chart(
        records_figure(found, dark(), ("top", "any")), key="chimera_records", config=PLOT_CONFIG, alt=records_alt(found)
    )
    st.caption(
        "A head is asked where the tree holds everything that the text says before it. Right means: it is what the text says at "
        "that place in the end."
    )
    st.dataframe(records_table(found), hide_index=True, key="chimera_records_table")
