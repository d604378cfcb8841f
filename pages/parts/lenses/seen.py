"""What a lens saw, drawn: a sentence, pictures with their table, downloads, and what it took."""

import html
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec
import streamlit as st

from decoding.looks import Look, encode_look
from pages.parts.shared.chart_data import data_box
from pages.parts.shared.files import on_demand
from pages.parts.shared.setup import PLOT_CONFIG
from viz.lenses import pictures_of
from viz.tokens import as_markdown


@cache
def panel_of(lens: str) -> Callable[[Any, Look], None] | None:
    """The lens's own panel; None if sentence, figures and table say all."""
    name = f"pages.parts.lenses.panels.{lens}"
    return import_module(name).view if find_spec(name) else None


def seen(here: Any, look: Look, dark: bool) -> None:
    """Draw it. `here` is the desk, for the panel of the lens."""
    pictures = pictures_of(look.key)
    st.html(f'<p class="ds-verdict" role="status">{html.escape(pictures.sentence(look))}</p>')
    with st.container(key="lens_words"):  # a place of their own: more of them come while it looks, and move no figure
        for note in look.notes:
            st.caption(as_markdown(note))
        if (drawn := getattr(pictures, "html", None)) is not None and (made := drawn(look, dark)):
            st.html(made)
    if (figure := pictures.figure(look, dark)) is not None:
        st.plotly_chart(figure, key=f"lens_{look.key}", config=PLOT_CONFIG, alt=pictures.alt(look))
    if (own := panel_of(look.key)) is not None:
        own(here, look)
    for number_of, (title, figure, alt) in enumerate(getattr(pictures, "more", lambda look, dark: [])(look, dark)):
        st.markdown(f"**{as_markdown(title)}**")
        st.plotly_chart(figure, key=f"lens_{look.key}_{number_of}", config=PLOT_CONFIG, alt=alt)
        st.caption(as_markdown(alt))
    took(look)
    downloads(look)


def took(look: Look) -> None:
    """What the look took, in one line."""
    so_far = "" if look.done else " so far"
    st.html(f'<p class="ds-dim">{look.rows_read:,} rows read by the target{so_far}, {look.ms:,.0f} ms.</p>')


def downloads(look: Look) -> None:
    """The table behind a button, and the look itself as JSON."""
    with st.container(horizontal=True, key="lens_files"):
        data_box(lambda: pictures_of(look.key).table(look), f"lens_{look.key}", "As a table")
        st.download_button(
            "The look as JSON", on_demand(lambda: as_json(look)), f"{look.key}.json", "application/json", key="lens_json",
            on_click="ignore", icon=":material/download:", type="tertiary",
        )  # fmt: skip
        st.download_button(
            "MessagePack", on_demand(lambda: encode_look(look)), f"{look.key}.look", "application/octet-stream",
            key="lens_look_file", on_click="ignore", icon=":material/download:", type="tertiary",
            help="Reads back with decode_look of decoding.looks.",
        )  # fmt: skip


def as_json(look: Look) -> bytes:
    """Bytes of tokens as base64, as msgspec writes them."""
    return msgspec.json.format(msgspec.json.encode(look), indent=1)
