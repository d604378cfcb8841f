"""PPD on the Step page: the prompt tokens below the guesses and the state they lead to, the states over the run, the rows of a
pass."""

import streamlit as st

from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.ppd import (
    budget_of,
    curve_alt,
    curve_figure,
    curve_of,
    guesses_table,
    prompt_tokens_alt,
    prompt_tokens_figure,
    prompt_tokens_of,
    rows_words,
    states_alt,
    states_figure,
    states_table,
)
from viz.tokens import as_markdown


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step, trace = session.step, session.trace
    lossy = trace.header.params.get("rule") == "typical" and trace.header.sampling.temperature > 0
    st.markdown("**Guesses, and the prompt tokens below them**" + " :orange-badge[not lossless]" * lossy)
    lacking = "This trace does not carry what the prompt tokens did."
    empty = "Nothing was guessed in this step; the prompt tokens below the root were read with it, and speak in the next one."
    if drawable(step, prompt_tokens_of(step) is not None, lacking, empty):
        tree(session)
    folded("States and rows: the run so far", "ppd_box", record, session)


def tree(session: Session) -> None:
    """The tree with its prompt tokens, and the guesses as a table."""
    step, token_bytes = session.step, session.trace.token_bytes
    st.plotly_chart(prompt_tokens_figure(step, token_bytes, dark()), key="ppd", config=PLOT_CONFIG, alt=prompt_tokens_alt(step))
    st.caption(
        f"{as_markdown(prompt_tokens_alt(step))} {as_markdown(rows_words(step))} Diamonds are prompt tokens, trained vectors in "
        "place of a token; no guess sees them. The filled ones hang where acceptance ended: what they say fills the next tree, "
        "one level each."
    )
    with st.expander("The guesses as a table"):
        st.dataframe(guesses_table(step, token_bytes), hide_index=True, key="ppd_table")
        st.caption(
            "The worth of a path is the product of how often its ranks were right on held-out text. Nodes where acceptance often "
            "ends keep more prompt tokens, because a deeper tree there pays more often."
        )


def record(session: Session) -> None:
    """The states that were met, and the times from which the number of rows was chosen."""
    steps = session.trace.steps[: session.cursor + 1]
    st.plotly_chart(states_figure(steps, dark()), key="ppd_states", config=PLOT_CONFIG, alt=states_alt(steps))
    st.dataframe(states_table(steps), hide_index=True, key="ppd_states_table")
    st.caption(
        "The state of a tree is its greatest depth: the number of prompt tokens below the node where the step before ended. A step "
        "that ends at the root leads to the deepest one."
    )
    if not curve_of(steps):
        st.caption(f"The rows of a pass were given: {as_markdown(str(budget_of(steps) or 'not known'))}. Nothing was measured.")
        return
    st.plotly_chart(curve_figure(steps, dark()), key="ppd_curve", config=PLOT_CONFIG, alt=curve_alt(steps))
    st.caption(
        "More rows hold more guesses and prompt tokens, and take longer. Passes were timed on this machine before the run; tokens "
        "per step are what the accuracies on held-out text promise, in all states taken together. The filled bar was chosen."
    )
