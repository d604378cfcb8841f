"""The left rail of Compare: prompt, the columns (each a method with its parameters), sampling, models.

Prompt, sampling and models are those of the Step page, so that a prompt goes along from one page to the other.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import streamlit as st

from decoding.methods import METHODS
from pages.parts.compare.race import FIRST, LEAST, MOST, Race, names
from pages.parts.shared.controls import (
    KEYS,
    begin,
    lacking_methods,
    method_menu,
    model_controls,
    param_control,
    param_key,
    prompt_controls,
    read,
    sampling_controls,
    value,
)
from pages.parts.shared.remembered import say_control
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from viz.tokens import as_markdown


def method_key(slot: int) -> str:
    return f"compare.{slot}.method"


def column_param(slot: int, method: str) -> str:
    """What `param_control` takes as the method, so that two columns of one method have parameters of their own."""
    return f"compare.{slot}.{method}"


def default_method(slot: int) -> str:
    return FIRST[slot] if slot < len(FIRST) else "speculative_sampling"


def wanted(session: Session, race: Race) -> list[Settings]:
    """What the controls say right now, a column each."""
    base = read(session)
    return [column_settings(race, slot, base) for slot in race.slots]


def column_settings(race: Race, slot: int, base: Settings) -> Settings:
    method = value(race, method_key(slot), default_method(slot))
    keys = {f.name: (param_key(column_param(slot, method), f.name), f.default) for f in fields(METHODS[method].params)}
    return replace(base, method=method, params={name: value(race, *key) for name, key in keys.items()})


def say_columns(race: Race, columns: Sequence[Settings]) -> None:
    """Let the controls speak of these columns; before they are drawn, or in a callback."""
    first = max(race.slots, default=0) + 1
    race.slots = [first + i for i in range(len(columns))]
    for slot, settings in zip(race.slots, columns, strict=True):
        set_value(race, method_key(slot), settings.method)
        for name, one in settings.full_params.items():
            set_value(race, param_key(column_param(slot, settings.method), name), one)


def set_value(race: Race, key: str, new: Any) -> None:
    race.values[key] = new
    say_control(key, new)


def shared_controls(session: Session, middle) -> None:
    """The rail; `middle` draws what comes between the prompt and the sampling."""
    begin(session)
    with st.sidebar:
        prompt_controls(session)
        middle()
        with st.expander("Sampling and length", expanded=False, key="sampling_box"):
            sampling_controls(session)
        with st.expander("Model", expanded=False, key="model_box"):
            model_controls(session)
    session.values |= {key: st.session_state[key] for key in KEYS if key in st.session_state}


def compare_sidebar(session: Session, race: Race) -> None:
    """Draw the rail with the columns."""
    shared_controls(session, lambda: column_controls(session, race))
    prefixes = ("compare.", "param.compare.")
    race.values |= {key: st.session_state[key] for key in st.session_state if str(key).startswith(prefixes)}


def column_controls(session: Session, race: Race) -> None:
    """A folded box per column that says what it is, and a button for one more."""
    st.markdown("**Columns**", help=f"{LEAST} to {MOST} methods, or one method with different parameters.")
    titles = names(wanted(session, race))
    for number, (slot, title) in enumerate(zip(race.slots, titles, strict=True), 1):
        with st.expander(f"{number:,} · {as_markdown(title)}", key=f"compare_column_{slot}"):
            one_column(session, race, slot, number)
    with st.container(horizontal=True, gap="small", key="compare_columns"):
        st.button(
            "Add a column",
            key="compare_add",
            icon=":material/add:",
            disabled=len(race.slots) >= MOST,
            on_click=add,
            args=(race,),
            help=f"At most {MOST}.",
        )
        if not any(settings.method == "plain" for settings in wanted(session, race)):
            st.button(
                "Add plain decoding",
                key="compare_add_plain",
                disabled=len(race.slots) >= MOST,
                on_click=add,
                args=(race, "plain"),
                help="The baseline: without it there is no measured speed-up.",
            )


def one_column(session: Session, race: Race, slot: int, number: int) -> None:
    models = read(session)
    lacking = lacking_methods(models.target, models.draft)
    method = method_menu(race, method_key(slot), default_method(slot), lacking, f"Method of column {number}")
    for spec in fields(METHODS[method].params):
        param_control(race, column_param(slot, method), spec)
    st.button(
        "Remove this column",
        key=f"compare_remove_{slot}",
        icon=":material/delete:",
        disabled=len(race.slots) <= LEAST,
        on_click=lambda: race.slots.remove(slot),
        help=f"At least {LEAST} stay.",
    )


def add(race: Race, method: str | None = None) -> None:
    """One more column: the given method, or the first that is not there yet."""
    if len(race.slots) >= MOST:
        return
    taken = {value(race, method_key(slot), default_method(slot)) for slot in race.slots}
    slot = max(race.slots) + 1
    race.slots.append(slot)
    set_value(race, method_key(slot), method or next((key for key in METHODS if key not in taken), "speculative_sampling"))
