"""The comparison that Compare opens with: a recording of several methods on one question, and the ways on from it."""

from dataclasses import replace

import streamlit as st

from pages.parts.compare.race import Column, Race
from pages.parts.compare.sidebar import say_columns, wanted
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.absent import offer, row, ways_on
from pages.parts.shared.controls import begin, read, say
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings, settings_of
from pages.parts.shared.setup import ON_LEAVING
from viz.tokens import as_markdown

LINE = (
    "A recording of **{}**: one question at temperature 0, {} methods, {} rounds in turn behind a warm-up, on one machine, whose "
    "milliseconds these are ({} cores, which {:g} processes wanted; {}). Play shows it again."
)
SHARED = ("prompt", "messages", "template", "target", "draft")  # taken over from the settings that are to be run


def open_recording(session: Session, race: Race) -> None:
    """On the first visit, if the controls still say what they begin with and no link says anything else; before they are drawn.

    The comparison is greedy and of another question than the run that Step opens with, and they share their controls: while the
    recording is shown here, the controls say its settings, and get back what they said as soon as another page is opened.
    """
    first, race.visited = not race.visited, True
    begin(session)
    found = race.columns if is_recording(race) else recorded() if first and not (race.columns or race.opened) else ()
    step, before = demo.recorded(), read(session)
    if not found or step is None or not shared(before).same_run(shared(settings_of(step.header))):
        return
    own = found[0].settings
    if first:
        race.columns, race.calls = found, max(column.count for column in found)
        race.clock = race.longest
        say_columns(race, [column.settings for column in found])
    say(session, replace(own, method=before.method, params=before.params))

    def back() -> None:
        if shared(read(session)).same_run(shared(own)):
            say(session, before)

    st.session_state[ON_LEAVING] = ("Compare", back)


def recorded() -> tuple[Column, ...]:
    """The columns that ship; () if one is missing."""
    times, traces = demo.comparison_times(), demo.comparison()
    if times is None or not all(trace.header.method in times.ms for trace in traces):
        return ()
    return tuple(Column(settings_of(trace.header), trace=trace, rounds=times.ms[trace.header.method]) for trace in traces)


def shared(settings: Settings) -> Settings:
    """What is not a column's own."""
    return replace(settings, method="plain", params={})


def is_recording(race: Race) -> bool:
    """Whether the columns are those that were shipped."""
    return (
        bool(race.columns)
        and all(column.live is None for column in race.columns)
        and any(column.trace is trace for column in race.columns for trace in demo.comparison())
    )


def recording(session: Session, race: Race) -> None:
    """Whose runs these are, and the ways on; or that the runs asked for have no model here."""
    start = lambda settings: run(session, race, settings)  # noqa: E731
    if race.absent is not None:
        offer("compare", race.absent, start)
    elif is_recording(race):
        base = race.columns[0].settings
        with st.container(border=True, key="compare_recording", gap="small"):
            times = demo.comparison_times()
            name, line = base.to_fetch, ""
            if times is not None:
                made = len(race.columns[0].rounds), times.cores, times.load, as_markdown(times.made)
                line = LINE.format(as_markdown(demo.title()), len(race.columns), *made)
            st.caption(f"{line} For runs of your own:" if name else line)
            with row("compare"):
                if name:
                    ways_on("compare", name, lambda: start(read(session).on_embedded()))
                else:
                    help = "The same question, methods and seed, on this machine."
                    st.button("Run them live", key="compare_live", icon=":material/bolt:", on_click=start, args=(base,), help=help)


def run(session: Session, race: Race, base: Settings) -> None:
    """The columns of the controls, with this prompt and these models, made anew."""
    race.reset()
    say(session, replace(read(session), **{name: getattr(base, name) for name in SHARED}))
    race.play(wanted(session, race))
