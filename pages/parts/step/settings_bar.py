"""The settings in one bar above the run: the prompt, the method, and a popover for the rest. They say; nothing is computed here."""

import streamlit as st

from decoding.methods import GROUPS, METHODS
from pages.parts.shared.controls import (
    begin,
    keep_values,
    lacking_methods,
    method_box,
    method_params,
    model_controls,
    prompt_controls,
    prompt_of,
    read,
    sampling_controls,
    say_values,
)
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.session import Session
from viz.tokens import as_markdown, plain

HELP = "How the draft is made and judged. The page Methods explains each."


def settings_bar(session: Session) -> None:
    """Draw it."""
    begin(session)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="settings_bar"):
        st.html('<h1 class="ds-title">Step by step</h1>', width="content")
        with st.popover(f"Prompt: {as_markdown(plain(prompt_of(session), 36))}", icon=":material/edit_note:", key="prompt_box"):
            prompt_controls(session)
        known = not still_loading()
        if known:
            key, lacking = method_controls(session)
        else:
            method_to_come(session)
    if not known:
        st.caption(f"{WHY}Another method and its parameters can be chosen in a moment.")
    else:
        about(key, lacking)
    keep_values(session)


def method_to_come(session: Session) -> None:
    """The method of the run that is shown; the choice comes with the methods."""
    keys, now = list(METHODS), session.values["method"]
    st.selectbox(
        "Method", keys, keys.index(now), key="method_to_come", format_func=METHODS.title, disabled=True, help=WHY, width=280,
    )  # fmt: skip
    more_settings(session)


def method_controls(session: Session) -> tuple[str, dict[str, str]]:
    """The menu of methods, the same idea by idea with a line each, and the rest of the settings."""
    now = read(session)
    lacking = lacking_methods(now.target, now.draft)
    with st.container(width=280):
        key = method_box(session, "method", "speculative_sampling", "Method", HELP, list(METHODS))
    with st.popover("By idea", icon=":material/category:", key="ideas_box", help="All methods, by who guesses, one line each."):
        ideas(session, key, lacking)
    more_settings(session, key)
    return key, lacking


def about(key: str, lacking: dict[str, str]) -> None:
    """Why the chosen method cannot run with these models, if it cannot."""
    if key in lacking:
        st.warning(as_markdown(lacking[key]), icon=":material/block:")


def ideas(session: Session, now: str, lacking: dict[str, str]) -> None:
    """The methods under their ideas; a press chooses one."""
    if 0 < len(lacking) < len(METHODS):
        st.caption(f"Not with these models: {as_markdown(', '.join(METHODS[k].title for k in lacking))}.")
    for group, keys in METHODS.grouped().items():
        st.markdown(f"**{as_markdown(GROUPS[group].title)}.** {as_markdown(GROUPS[group].line)}")
        for key in keys:
            st.button(
                f"{METHODS[key].title}: {as_markdown(METHODS.line(key))}",
                key=f"idea_{key}", type="tertiary", disabled=key == now or key in lacking,
                help=as_markdown(lacking[key]) if key in lacking else None,
                on_click=say_values, args=(session, {"method": key}),
            )  # fmt: skip


def more_settings(session: Session, method: str = "") -> None:
    """A popover with the parameters of the method, sampling and length, and the models."""
    with st.popover("Settings", icon=":material/tune:", key="more_box", help="Parameters of the method, sampling, length, models."):
        if method:
            st.markdown(f"**{METHODS[method].title}**")
            st.caption(METHODS[method].idea)
            method_params(session, method)
        with st.expander("Sampling and length", expanded=False, key="sampling_box"):
            sampling_controls(session)
        with st.expander("Model", expanded=False, key="model_box"):
            model_controls(session)
