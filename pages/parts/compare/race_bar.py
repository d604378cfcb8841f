"""The bar of a comparison: what the columns share, one set of buttons for all of them, and how far it is."""

from collections.abc import Callable, Sequence

import streamlit as st

from pages.parts.compare.race import Race
from pages.parts.shared.letter_keys import letters
from pages.parts.shared.settings import Settings
from viz.tokens import as_markdown

MODES = {
    "lock-step": "Lock-step: the same number of target calls",
    "race": "Race: the same time",
    "end": "Each to its end",
}
EXPLAINED = {
    "lock-step": "Every column has made the same number of target calls, or as many as its text took. The columns take turns on "
    "one worker, step by step.",
    "race": "Every column has had the same time. The runs are recorded one after the other on one worker, never two "
    "at once; then their measured milliseconds are replayed on one clock. Reading the prompt is not counted.",
    "end": "Every run goes to its end; the columns take turns on one worker, step by step, and show the newest step.",
}


def buttons(race: Race, wanted: Callable[[], Sequence[Settings]]) -> None:
    """One set for all columns. J and K do the same as the left and right arrow.

    Args:
        wanted: what the controls say, asked again when a button is pressed.
    """
    step, play = (lambda: race.step(wanted())), (lambda: race.play(wanted()))
    over = race.at_end and race.matches(wanted())
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="compare_transport"):
        mode(race)
        st.button(
            "Back",
            key="compare_back",
            icon=":material/arrow_back:",
            shortcut="Left",
            on_click=race.back,
            disabled=race.at_start,
            help="To the moment before, in all columns (also J). Nothing is computed.",
        )
        st.button(
            "Step",
            key="compare_step",
            icon=":material/skip_next:",
            type="primary",
            shortcut="Right",
            on_click=step,
            disabled=over or race.goal is not None or race.under_measurement,
            help="In lock-step one target call more in every column; in a race to the "
            "next moment at which a column finishes a step (also K).",
        )
        st.button(
            "Play",
            key="compare_play",
            icon=":material/play_arrow:",
            shortcut="P",
            on_click=play,
            disabled=race.moving or (over and race.mode == "end"),
            help="Goes on by itself until Stop or the end.",
        )
        st.button(
            "Stop",
            key="compare_stop",
            icon=":material/stop:",
            shortcut="Esc",
            on_click=race.stop,
            disabled=not race.moving,
            help="The step under way is the last.",
        )
        st.button(
            "Measure",
            key="compare_measure",
            icon=":material/timer:",
            on_click=lambda: race.measure(wanted()),
            disabled=race.moving,
            help="Runs all columns three times to their ends, in turn, behind a warm-up that is not counted: median and spread of "
            "the times. Loading models is never counted.",
        )
        st.button("Reset", key="compare_reset", icon=":material/restart_alt:", on_click=race.reset, help="Back to the prompt.")
        pace(race)
    st.caption(EXPLAINED[race.mode])
    letters("compare_letters", {"j": race.back, "k": step})


def mode(race: Race) -> None:
    st.session_state["compare_mode"] = race.mode
    st.segmented_control(
        "What the columns share",
        list(MODES),
        default=race.mode,
        key="compare_mode",
        format_func=lambda key: MODES[key].split(":")[0],
        required=True,
        on_change=lambda: race.turn_to(st.session_state["compare_mode"]),
        help=as_markdown(". ".join(MODES.values())) + ".",
    )


def pace(race: Race) -> None:
    """How fast Play goes."""
    if race.mode == "race":
        st.session_state.setdefault("compare_slow", race.slow)
        st.select_slider(
            "Slowed down",
            [0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
            value=race.slow,
            key="compare_slow",
            width=170,
            format_func=lambda x: f"{x:g} ×",
            on_change=lambda: setattr(race, "slow", float(st.session_state["compare_slow"])),
            help="1 × is the measured speed.",
        )
    elif race.mode == "lock-step":
        st.session_state.setdefault("compare_pace", race.pace)
        st.select_slider(
            "Seconds per step",
            [0.25, 0.5, 1.0, 2.0, 3.0],
            value=race.pace,
            key="compare_pace",
            width=170,
            help="The pace of Play.",
            on_change=lambda: setattr(race, "pace", float(st.session_state["compare_pace"])),
        )


def progress(race: Race) -> None:
    """How far it is: of the tokens while runs go on, of the time while a race is replayed."""
    if race.timing is not None:
        found = race.measuring
        if found is None or race.held or not found.count:
            st.info(as_markdown(race.in_line() or race.loading()), icon=":material/hourglass_top:")
        else:
            st.progress(min(1.0, found.done / found.turns), text=f"Measuring: run {found.done + 1:,} of {found.turns:,}, in turn")
    elif race.mode == "race" and race.playing:
        st.progress(
            min(1.0, race.clock / (race.longest or 1)),
            text=f"{race.clock / 1000:.2f} of {race.longest / 1000:.2f} seconds",
        )
    elif race.goal is not None or race.busy:
        limit = sum(column.settings.max_tokens for column in race.columns if not column.problem) or 1
        tokens = sum(len(step.tokens) for e in race.columns if e.trace for step in e.trace.steps)
        if race.held or not tokens:
            st.info(as_markdown(race.in_line() or race.loading()), icon=":material/hourglass_top:")
        elif race.mode != "lock-step":
            done = sum(column.done for column in race.columns)
            st.progress(
                min(1.0, tokens / limit),
                text=f"{tokens:,} of at most {limit:,} tokens; {done:,} of {len(race.columns)} runs finished",
            )
