"""S2D on the Step page: how deep every token went, what each exit brought, and on demand what the other sub-models would say."""

from math import isnan, nan

import streamlit as st

from decoding.models.names import EMBEDDED_TARGETS
from decoding.runs.worker import Once
from decoding.trace import number_in
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.shared.side_job import Question, offer
from viz.methods.s2d import (
    exits_alt,
    exits_figure,
    exits_seen,
    exits_table,
    guess_of,
    opinions_figure,
    opinions_table,
    opinions_words,
    stack_alt,
    stack_figure,
    stack_table,
    threshold_words,
    work_words,
)
from viz.tokens import as_markdown, name


def view(session: Session) -> None:
    """Draw it for the step and the node that are shown."""
    trace, step = session.trace, session.step
    steps = trace.steps[: session.cursor + 1]
    if not step.nodes:
        st.caption("Nothing was drafted in this step.")
        return
    exits = exits_seen(trace.steps)
    st.markdown("**How deep each token went**")
    figure = stack_figure(step, trace.token_bytes, exits, thresholds(session, exits), session.selected, dark())
    st.plotly_chart(figure, key="s2d_stack", config=PLOT_CONFIG, alt=stack_alt(step))
    st.caption(
        "A bar is a drafted token, as high as the layer it left the draft model at. Read it from below: at every exit stands how "
        "sure the sub-model was; ✗ was not enough and the token went deeper, ✓ is the exit that drafted it. A narrow outlined bar "
        "is work for tokens that had left early and had to be caught up, in layer passes."
    )
    with st.expander("The tokens as a table"):
        st.dataframe(stack_table(step, trace.token_bytes), hide_index=True, key="s2d_stack_table")
    over_the_run(steps)
    others(session)


def thresholds(session: Session, exits: list[int]) -> dict[int, float]:
    """Exit -> threshold, as the run's parameters say."""
    first, middle = (number_in(session.trace.header.params, name, nan) for name in ("first", "middle"))
    found = {level: first if i == 0 else middle for i, level in enumerate(exits[:-1])}
    return {level: value for level, value in found.items() if not isnan(value)}


def over_the_run(steps) -> None:
    """The exits so far."""
    st.markdown("**The exits, up to this step**")
    st.plotly_chart(exits_figure(steps, dark()), key="s2d_exits", config=PLOT_CONFIG, alt=exits_alt(steps))
    st.caption(f"{as_markdown(work_words(steps))} {as_markdown(threshold_words(steps))}")
    with st.expander("The exits as a table"):
        st.dataframe(exits_table(steps), hide_index=True, key="s2d_exits_table")
    st.caption(
        "The same draft model serves other targets: choose the other embedded one under Model and compare the acceptance of the "
        "exits. Thresholds 0 and 0 draft with the first sub-model alone, 1 and 1 with the whole draft model."
    )


def others(session: Session) -> None:
    """What every sub-model says at the selected node; the draft model reads the text again for it, so only on demand."""
    step, selected = session.step, session.selected
    guess = guess_of(selected, step.nodes[selected]) if selected is not None and 0 <= selected < len(step.nodes) else None
    if guess is None:
        st.caption("Select a drafted token to ask what the other sub-models would have said in its place.")
        return
    token, token_bytes = step.nodes[selected].token, session.trace.token_bytes
    st.markdown(f"**What the other sub-models would have said in place of {as_markdown(name(token, token_bytes))}**")
    if session.settings.target not in EMBEDDED_TARGETS and session.live is None:
        st.caption("This run was made with a model that is not loaded, so its sub-models cannot be asked.")
        return
    question = sub_models(session, token)
    offer(session.sides, question, "Ask every sub-model", f"s2d_ask_{session.runs}_{session.cursor}_{selected}")
    if (found := session.sides.answer(question.panel, question.about)) is None:
        st.caption("The draft model reads the text up to this token once more.")
    else:
        opinions_view(session, found, token, guess.exit)


def sub_models(session: Session, token: int) -> Question:
    """What the worker is asked at the selected node; the answer: opinions, and the bytes of their tokens."""
    settings, text = session.settings, text_before(session)

    def answer() -> tuple:
        from decoding.methods.s2d import opinions
        from decoding.models.family_cache import family

        models = family(*settings.models)
        found = opinions(models, text, token)
        return found, models.token_bytes({t for opinion in found for t in opinion.tokens})

    return Question(
        "s2d",
        (session.runs, session.cursor, session.selected),
        settings.device,
        lambda: Once(answer),
        "The sub-models",
        "Asking every sub-model …",
        steps=1,
        read=lambda job: job.steps[0],
    )


def opinions_view(session: Session, answer: tuple, token: int, answered: int) -> None:
    """The answers of all exits; the sub-model of so many layers drafted the token."""
    found, token_bytes = answer[0], answer[1] | session.trace.token_bytes
    words = opinions_words(found, token, answered, token_bytes)
    st.plotly_chart(opinions_figure(found, token, answered, token_bytes, dark()), key="s2d_opinions", config=PLOT_CONFIG, alt=words)
    st.caption(as_markdown(words) + " Bars with a border in the colour of the text belong to the sub-model that drafted the token.")
    with st.expander("The answers as a table"):
        st.dataframe(opinions_table(found, token, answered, token_bytes), hide_index=True, key="s2d_opinions_table")


def text_before(session: Session) -> tuple[int, ...]:
    """Everything the selected token was drafted behind."""
    trace, step = session.trace, session.step
    path, node = [], step.nodes[session.selected].parent
    while node >= 0:
        path.append(step.nodes[node].token)
        node = step.nodes[node].parent
    return (*trace.tokens_before(session.cursor), *reversed(path))
