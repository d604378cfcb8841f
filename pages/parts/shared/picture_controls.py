"""What an image family can be asked for: a menu per word in place of the prompt box."""

import streamlit as st

from decoding.trace import Raster
from pages.parts.shared.remembered import Remembered
from viz.tokens import as_markdown

PICTURE = "picture"  # among the values of the controls: what is asked for, beside the prompt that was typed for a text


def asked_for(prompt: str, raster: Raster) -> str:
    """The prompt, if a picture can be asked for so; else the first one that can, not with the same word twice."""
    words = prompt.split()
    if len(words) == len(raster.asks) and all(word in menu for word, menu in zip(words, raster.asks, strict=True)):
        return " ".join(words)
    said: list[str] = []
    for menu in raster.asks:
        said.append(next((word for word in menu if word not in said), menu[0]))
    return " ".join(said)


def picture_controls(owner: Remembered, raster: Raster, prompt: str) -> None:
    """The menus, of which the prompt is made; a word that there is only one of needs none."""
    words = asked_for(prompt, raster).split()
    for number, (word, menu) in enumerate(zip(words, raster.asks, strict=True)):
        if len(menu) > 1:
            word_menu(owner, words, number, word, menu)
    st.caption(f"{as_markdown(' '.join(words))}: {raster.width:d} × {raster.height:d} pixels, a token each; a run draws all.")


def word_menu(owner: Remembered, words: list[str], number: int, word: str, menu: tuple[str, ...]) -> None:
    key = owner.box(f"word.{number}", word)

    def take() -> None:
        if (chosen := st.session_state.get(key, word)) != word and chosen in menu:
            owner.values[PICTURE] = " ".join([*words[:number], chosen, *words[number + 1 :]])
            owner.box_says(f"word.{number}", chosen)

    label = "Word" if number else "Picture of"
    st.selectbox(as_markdown(label), menu, menu.index(word), key=key, on_change=take, help="What the target was taught to draw.")
