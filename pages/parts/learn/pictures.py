"""The pictures of the course that are not the stepper's."""

import streamlit as st

from pages.parts.shared.setup import numbered
from viz.lessons.assets import draws_script, draws_style
from viz.lessons.costs import COST, COSTS, calls_html, lanes_html, texts_html
from viz.lessons.draws import draw, draws_data
from viz.lessons.lesson import Card, Runs
from viz.lessons.lossless import ALONE, GUESSED, bars
from viz.verdicts import percent

BOTH = "draws:both"

component = st.components.v2.component(
    "draftscope_draws", html='<div class="drw-place"></div>', css=draws_style(), js=draws_script()
)


def texts(runs: Runs, open_: bool) -> None:
    """Two greedy texts, the second one once it was asked how they differ."""
    st.html(texts_html(runs[ALONE], None if open_ else runs[GUESSED]))


def draws(runs: Runs, card: Card, open_: bool, seed: int, large: bool) -> None:
    """p and q, and once the question is answered ten thousand draws."""
    found = bars(runs)
    data = draws_data(found, None if open_ else draw(found, seed)) | {"both": card.picture == BOTH, "play": True, "large": large}
    component(key="learn_draws", data=numbered("learn_draws", data))


def cost_slider() -> None:
    st.select_slider("What a call of the small model costs, in calls of the large one (c)", COSTS, COST, key="learn.cost",
                     format_func=percent)  # fmt: skip


def cost(runs: Runs) -> None:
    st.html(lanes_html(runs, float(st.session_state.get("learn.cost", COST))))


def methods(runs: Runs, task: str, open_: bool) -> None:
    """Calls by every kind of guesser; plain decoding alone until the question is answered."""
    st.html(calls_html(runs, task, only_plain=open_))
