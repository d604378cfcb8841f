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
from viz.tokens import as_markdown

LINE = (
    "A recording of **{}**: one question, one seed, {} methods, made beforehand one after the other on one machine, whose "
    "milliseconds these are. Play shows it again."
)
SHARED = ("prompt", "messages", "template", "target", "draft")  # taken over from the settings that are to be run


def open_recording(session: Session, race: Race) -> None:
    """On the first visit, if the controls still say what was recorded and no link says anything else; before they are drawn."""
    if race.visited:
        return
    race.visited = True
    begin(session)
    found = tuple(Column(settings_of(trace.header), trace=trace) for trace in demo.comparison())
    if not found or race.columns or race.opened or not shared(found[0].settings).same_run(shared(read(session))):
        return
    race.columns, race.calls = found, max(column.count for column in found)
    say_columns(race, [column.settings for column in found])


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
            name, line = base.to_fetch, LINE.format(as_markdown(demo.title()), len(race.columns))
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
