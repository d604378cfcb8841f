"""Pairs of the catalogue on the Hub: a target and what drafts for it, with size and licence. Choosing one fills the fields."""

from collections.abc import Callable

import streamlit as st

from decoding.methods import METHODS
from decoding.models.catalogue import HEADS, PAIRS, Model
from decoding.models.progress import said
from pages.parts.shared.remembered import Remembered
from viz.tokens import as_markdown

Pair = tuple[str, str]  # names of the target and of what drafts for it
BY_NAME: dict[Pair, tuple[Model, str]] = {(model.name, other): (model, other) for model, other in PAIRS}
STORED = 2  # bytes a number, as all of them are stored


def recommended(owner: Remembered, now: tuple[str, str | None], choose: Callable[[str, str], None]) -> None:
    """The menu; what it shows follows the fields.

    Args:
        now: target and draft model, as the fields say.
        choose: lets the fields say a target and a draft model.
    """
    shown = now if now in BY_NAME else None
    key = owner.box("recommended", shown)

    def take() -> None:
        if (chosen := st.session_state.get(key, shown)) != shown and chosen in BY_NAME:
            choose(*chosen)

    st.selectbox(
        "Recommended on the Hub", list(BY_NAME), list(BY_NAME).index(shown) if shown else None, key=key, on_change=take,
        format_func=label, placeholder="choose a pair",
        help="A target and what drafts for it; choosing fills the fields below. Nothing is fetched before the button is pressed.",
    )  # fmt: skip
    if shown in BY_NAME:
        model, _ = BY_NAME[shown]
        st.caption(as_markdown(f"{model.what} {cost(model)}, licence {model.licence}."))


def label(pair: Pair) -> str:
    model, other = BY_NAME[pair]
    what = f"{METHODS.title(HEADS[other])} head" if other in HEADS else other.rpartition("/")[2]
    return f"{model.title} + {what} · {said(STORED * model.parameters)}, {model.licence}"


def cost(model: Model) -> str:
    return f"{model.parameters / 1e9:.1f} B parameters, about {said(STORED * model.parameters)} to download"
