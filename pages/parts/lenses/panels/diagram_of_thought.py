"""Acceptance by role: the worker has the thoughts written again by the method of the run, and what was kept is counted."""

from typing import Any

import streamlit as st

from decoding.looks.diagram_of_thought import DiagramOfThoughtLook
from decoding.methods import METHODS
from pages.parts.shared.settings import Settings
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.shared.side_job import Question, offer
from viz.drafter.acceptance import INTERVAL
from viz.lenses.diagram_of_thought import by_role, role_figure, role_words
from viz.tokens import as_markdown

PANEL = "diagram_of_thought"


def view(here: Any, look: DiagramOfThoughtLook) -> None:
    settings = here.session.settings
    if not look.done or not look.tokens or settings is None or settings.method not in METHODS or here.refusal():
        return
    question = question_of(settings, look)
    st.markdown("**Acceptance by role**")
    st.caption(
        as_markdown(
            f"The same thoughts, written again with {METHODS.title(settings.method)}, the method of this run, greedily. "
            "What a marker forces is neither drafted nor counted."
        )
    )
    offer(here, question, "Count by role", "lens_by_role")
    if (sections := here.answer(PANEL, question.about)) is None:
        return
    st.markdown(as_markdown(role_words(sections)))
    st.plotly_chart(role_figure(sections, dark()), key="lens_by_role_chart", config=PLOT_CONFIG, alt=role_words(sections))
    st.caption(as_markdown(INTERVAL))
    with st.expander("As a table"):
        st.dataframe(by_role(sections), hide_index=True, key="lens_by_role_table")


def question_of(settings: Settings, look: DiagramOfThoughtLook) -> Question:
    """What the worker is asked: a call of the target per turn."""
    method, params = settings.method, dict(settings.params)

    def make():
        from decoding.models.family_cache import family
        from decoding.runs.role_drafts import RoleDrafts

        return RoleDrafts(family(*settings.models), look, method, params)

    about = (look.family, look.tokens, method, tuple(sorted(params.items())))
    return Question(
        PANEL, about, settings.device, make, "Acceptance by role", "Writing the thoughts again … {count} calls",
        read=lambda job: tuple(job.sections),
    )  # fmt: skip
