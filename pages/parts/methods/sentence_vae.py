"""SentenceVAE on the Step page: its two clocks, and what the vector says for every word; on demand the sentences given back from
their vectors, and the text that the sentence model writes alone."""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from decoding.models.names import EMBEDDED_TARGETS
from pages.parts.shared.panel import drawable, folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.shared.side_job import Question, offer
from viz.methods.sentence_vae import (
    CSS,
    ages_figure,
    ages_table,
    ages_words,
    alone_html,
    alone_table,
    alone_words,
    clocks_html,
    clocks_table,
    clocks_words,
    given_back_html,
    given_back_table,
    given_back_words,
    has_vector,
    vector_html,
    vector_table,
    vector_words,
)
from viz.step.text import CSS as TEXT_CSS
from viz.tokens import as_markdown

GIVE_BACK, ALONE = "sentence_vae", "sentence_vae_alone"  # panels of the side jobs


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    step = session.step
    clocks(session)
    st.markdown("**What the vector says**")
    if drawable(step, has_vector(step), "This trace does not carry what the vector did."):
        vector(session)
    folded("How long does one vector last? The run so far", "sentence_vae_box", lasting, session)
    st.markdown("**A sentence as one vector**")
    st.caption(
        "The encoder makes one vector of a sentence, and the decoder writes it out again. Beside it stands what had been foretold: "
        "the sentence from the vector that was made before its first word."
    )
    asked(session, GIVE_BACK, "Give the last sentences back", given_back)
    st.markdown("**The sentence model alone** :orange-badge[another text]")
    st.caption(
        "As in the paper: the target reads one sentence per call, the vector foretells the next, the decoder writes it, and nobody "
        "checks it."
    )
    asked(session, ALONE, "Let it write as much as the run", alone)


def clocks(session: Session) -> None:
    """The sentences of the run, and what each took."""
    trace, cursor = session.trace, session.cursor
    st.markdown("**Two clocks**")
    st.html(TEXT_CSS + CSS + clocks_html(trace, cursor))
    st.caption(
        as_markdown(clocks_words(trace, cursor)) + " A bead is a call of the target, a tick a small pass. Sentences end with a "
        "mark or a line break, in code too, and with 32 tokens at the latest."
    )
    with st.expander("All sentences as a table"):
        st.dataframe(clocks_table(trace, cursor), hide_index=True, key="sentence_vae_clocks")


def vector(session: Session) -> None:
    """The path's words with the vector and without."""
    step, token_bytes = session.step, session.trace.token_bytes
    st.html(vector_html(step, token_bytes))
    st.caption(
        f"{as_markdown(vector_words(step))} Striped: with the vector of this sentence; hollow: with none, behind the same words. "
        "The path is the accepted one, continued by the most probable children."
    )
    with st.expander("All nodes as a table"):
        st.dataframe(vector_table(step, token_bytes), hide_index=True, key="sentence_vae_table")


def lasting(session: Session) -> None:
    """Acceptance by the age of the vector."""
    steps = session.trace.steps[: session.cursor + 1]
    st.plotly_chart(ages_figure(steps, dark()), key="sentence_vae_ages", config=PLOT_CONFIG, alt=ages_words(steps))
    st.caption(
        as_markdown(ages_words(steps))
        + " Once per sentence is the paper's clock. The parameter Vector makes it anew at every call, "
        "takes that of the sentence before, or none: run them side by side on Compare."
    )
    st.dataframe(ages_table(steps), hide_index=True, key="sentence_vae_ages_table")


# -- what the models answer --------------------------------------------------------------------------------------------


def asked(session: Session, panel: str, label: str, draw: Callable[[Session, Sequence[Any], dict[int, bytes]], None]) -> None:
    """The button of a side job, and its answer so far."""
    if session.settings is None or (session.settings.target not in EMBEDDED_TARGETS and session.live is None):
        st.caption("This run was made with a model that is not loaded, so it cannot be asked.")
        return
    question = question_of(session, panel)
    offer(session.sides, question, label, f"{panel}_ask_{session.runs}")
    if (answer := session.sides.answer(question.panel, question.about)) is not None:
        found, token_bytes = answer
        draw(session, found, token_bytes)


def question_of(session: Session, panel: str) -> Question:
    """What the worker is asked: a sentence per turn."""
    settings, trace = session.settings, session.trace
    text, prompt = trace.tokens_before(session.count), trace.header.prompt_tokens
    written = max(1, len(text) - len(prompt))

    def make():
        from decoding.models.family_cache import family
        from decoding.runs.sentence_text import GiveBack, WriteAlone

        models = family(*settings.models)
        if panel == GIVE_BACK:
            return GiveBack(models, text)
        return WriteAlone(models, prompt, settings.sampling, settings.seed, written)

    waiting = "Giving sentences back … {count}" if panel == GIVE_BACK else "The sentence model writes alone … {count} sentences"
    title = "Giving the sentences back" if panel == GIVE_BACK else "Writing alone"
    return Question(
        panel, (session.runs, len(text)), settings.device, make, title, waiting, read=lambda job: (tuple(job.steps), job.pieces)
    )


def given_back(session: Session, found: Sequence[Any], token_bytes: dict[int, bytes]) -> None:
    """Sentences from their vectors."""
    st.html(CSS + given_back_html(found, token_bytes))
    st.caption(as_markdown(given_back_words(found)) + " A wrong token has ✗ in front of it and a dashed line.")
    with st.expander("The sentences as a table"):
        st.dataframe(given_back_table(found, token_bytes), hide_index=True, key="sentence_vae_given_back")


def alone(session: Session, found: Sequence[Any], token_bytes: dict[int, bytes]) -> None:
    """The other text."""
    st.html(CSS + alone_html(found, token_bytes))
    steps = session.trace.steps
    words = alone_words(found, len(steps), sum(len(step.tokens) for step in steps))
    st.caption(as_markdown(words) + " Those have ✗ in front of them and a dashed line.")
    with st.expander("Its sentences as a table"):
        st.dataframe(alone_table(found, token_bytes), hide_index=True, key="sentence_vae_alone_table")
