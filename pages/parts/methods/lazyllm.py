"""LazyLLM on the Step page: how far up every token came, the prompt in these colours, the calls one below the other, what they cost
and what the pruning did to the text."""

import streamlit as st

from pages.parts.shared.panel import folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from viz.methods.lazyllm import (
    cost_words,
    counters_table,
    damage_alt,
    damage_figure,
    damage_table,
    damage_words,
    film_alt,
    film_figure,
    film_table,
    never_words,
    prompt_html,
    prunes,
    reaches,
    survival_alt,
    survival_figure,
    survival_table,
)
from viz.tokens import as_markdown

NOW, EVER = "in this call", "so far"


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    trace, cursor = session.trace, session.cursor
    st.markdown("**What of the text the layers read**" + " :orange-badge[another text]" * prunes(trace.header.params))
    if reaches(trace, cursor) is None:
        st.caption("This trace does not carry how far the tokens came.")
        return
    st.markdown(as_markdown(f"{never_words(trace, cursor)} {cost_words(trace, cursor)}"))
    figure = survival_figure(trace, cursor, dark())
    st.plotly_chart(figure, key="lazyllm_survival", config=PLOT_CONFIG, alt=survival_alt(trace, cursor))
    st.caption(
        f"{as_markdown(survival_alt(trace, cursor))} Layers from top to bottom, tokens from left to right; empty is not read. The "
        "brighter a cell, the more of its attention the last token paid there; the first token draws most of it whatever it says."
    )
    prompt(session)
    folded("Every token as a table", "lazyllm_table_box", table, session)
    folded("Call by call: who came back", "lazyllm_film_box", film, session)
    folded("Layer by layer, beside the full model", "lazyllm_counters_box", counters, session)
    folded("What it did to the text", "lazyllm_damage_box", damage, session)


def prompt(session: Session) -> None:
    """The prompt in the colours of the layers."""
    chosen = st.segmented_control(
        "The prompt, by the deepest layer every token reached", (NOW, EVER), default=NOW, required=True, key="lazyllm_when"
    )
    st.html(prompt_html(session.trace, session.cursor, ever=chosen == EVER))


def table(session: Session) -> None:
    """How far each token came."""
    st.dataframe(survival_table(session.trace, session.cursor), hide_index=True, key="lazyllm_table")


def film(session: Session) -> None:
    """The calls one below the other."""
    trace, cursor = session.trace, session.cursor
    st.plotly_chart(film_figure(trace, cursor, dark()), key="lazyllm_film", config=PLOT_CONFIG, alt=film_alt(trace, cursor))
    st.caption(
        "A row per call, the last 32; the brighter, the farther up. A token that comes back from the aux cache goes on from where "
        "it stopped, so no layer reads it twice; where it was read before, it is only seen again."
    )
    st.dataframe(film_table(trace, cursor), hide_index=True, key="lazyllm_film_table")


def counters(session: Session) -> None:
    """What every stretch of layers read."""
    st.dataframe(counters_table(session.trace, session.cursor), hide_index=True, key="lazyllm_counters")
    st.caption(
        "Each token is read once at most by a layer, so the work never exceeds the full model's; but what comes back is work that "
        "was only put off. On small models, which attend widely, much of the saving of the first call is gone after some tokens."
    )


def damage(session: Session) -> None:
    """The pruned target against the full one."""
    trace = session.trace
    steps = trace.steps[: session.cursor + 1]
    st.markdown(as_markdown(damage_words(steps, greedy=trace.header.sampling.temperature == 0)))
    st.plotly_chart(damage_figure(steps, dark()), key="lazyllm_damage", config=PLOT_CONFIG, alt=damage_alt(steps))
    st.dataframe(damage_table(steps), hide_index=True, key="lazyllm_damage_table")
    st.caption(
        "Both read the same text. To compare, run random dropping and static pruning with the same shares (the parameter “Who "
        "stays”), side by side on Compare."
    )
