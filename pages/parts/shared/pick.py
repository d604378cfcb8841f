"""A table of which one line is chosen: by a click on the line, or in a box below it that the keyboard reaches as well."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.parts.shared.heard import heard
from viz.tokens import as_markdown


def told_apart(said: Sequence[str], numbers: Sequence[object]) -> list[str]:
    """Words of options, never the same of two: Streamlit knows an option by them.

    >>> told_apart(["a", "b", "a"], [7, 8, 9])
    ['a · no. 7', 'b', 'a · no. 9']
    """
    many = Counter(said)
    return [text if many[text] == 1 else f"{text} · no. {number}" for text, number in zip(said, numbers, strict=True)]


def pick(frame: pd.DataFrame, names: Sequence[Any], key: str, label: str, format_func: Callable[[Any], str], **look: Any) -> Any:
    """Draw the table; returns the name of the chosen line.

    Args:
        frame: at least one line.
        names: what each line is called in the state, so that a choice outlives another order of the lines.
        format_func: what the box says of a name. Never the same of two, and always the same of one: Streamlit knows it by that.
        look: of the table, as `st.dataframe` takes it.
    """
    chosen, marks = f"{key}.chosen", f"{key}.marks"
    lines = st.session_state.setdefault(marks, [0, ()])
    if lines[1] != tuple(names):  # the browser marks a line by its number: other lines are another table
        lines[:] = lines[0] + 1, tuple(names)
    table = f"{key}.table.{lines[0]}"

    def choose() -> None:
        if rows := getattr(heard(table, "selection"), "rows", ()):
            st.session_state[chosen] = names[rows[0]]

    def unmark() -> None:  # another table, or the old line would stay marked
        lines[0] += 1

    st.dataframe(frame, key=table, hide_index=True, on_select=choose, selection_mode="single-row", **look)
    if st.session_state.get(chosen) not in names:
        st.session_state[chosen] = names[0]
    return st.selectbox(as_markdown(label), list(names), key=chosen, on_change=unmark, format_func=format_func)
