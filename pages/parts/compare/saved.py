"""Saved runs compared: any traces of the store, in the same charts as live runs, with no model."""

import sqlite3
from contextlib import nullcontext
from dataclasses import dataclass, field

import streamlit as st

from decoding.methods import METHODS
from decoding.runs.failures import told
from decoding.runs.store import Entry, Query, Store
from decoding.trace import Trace
from pages.parts.compare.comparison import comparison
from pages.parts.compare.race import LEAST, MOST, Race
from pages.parts.shared import keep
from pages.parts.shared.clock import local
from pages.parts.shared.in_turn import searching
from pages.parts.shared.pick import told_apart
from pages.parts.shared.runs import check_replayed, of_tab
from pages.parts.shared.session import Session
from viz.step.text import CSS, legend_html, origins
from viz.tokens import as_markdown


def saved(session: Session, race: Race) -> None:
    """The view."""
    try:
        store = keep.store()
        entries = found(store, race)
    except (ValueError, sqlite3.Error) as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        return
    if not entries:
        if st.session_state.get("saved_words"):
            st.info("No saved run holds all of these words.", icon=":material/search_off:")
        else:
            st.info(
                "No run has been kept yet. Press “Keep these runs” under Side by side, or keep one on the page Traces.",
                icon=":material/inbox:",
            )
        return
    titles = labels(entries)
    picked = st.multiselect(
        "Saved runs",
        list(entries),
        key="saved_runs",
        max_selections=MOST,
        format_func=titles.__getitem__,
        placeholder=f"Choose {LEAST} to {MOST} runs",
        default=[i for i in race.values.get("saved", ()) if i in entries] or None,
    )
    race.values["saved"] = tuple(picked)
    runs = opened(store, [entries[i] for i in picked])
    if len(runs) < LEAST:
        st.caption(f"Choose {LEAST} to {MOST} runs: they are compared from what was recorded, no model is loaded.")
        return
    st.html(CSS + legend_html(origins(*(trace for _, trace in runs))))
    comparison(runs, "saved")


def found(store: Store, race: Race) -> dict[int, Entry]:
    """The newest runs that hold the words, and those that are chosen already."""
    words = st.text_input(
        "Find", key="saved_words", placeholder="words of the name, the note, the prompt or the text", max_chars=200
    )
    with searching() if words else nullcontext():
        entries = {entry.id: entry for entry in store.entries(Query(words=words))}
    chosen = set(st.session_state.get("saved_runs", ())) - entries.keys()
    return entries | ({entry.id: entry for entry in store.entries() if entry.id in chosen} if chosen else {})


def labels(entries: dict[int, Entry]) -> dict[int, str]:
    """What each run is called, by its number; never the same of two."""
    return dict(zip(entries, told_apart([label(entry) for entry in entries.values()], list(entries)), strict=True))


def label(entry: Entry) -> str:
    title = METHODS[entry.method].title if entry.method in METHODS else entry.method
    when = local(entry.created).strftime("%d %b %H:%M")
    return f"{entry.name} · {title} · {entry.tokens} tokens · {when}"


@dataclass
class Opened:
    """The chosen runs, each read once and kept while it is chosen."""

    traces: dict[tuple, Trace] = field(default_factory=dict)

    @property
    def replayed(self) -> tuple[Trace, ...]:
        """What of them lies in memory."""
        return tuple(self.traces.values())

    def let_go(self, problem: str) -> None:
        """They are read again when the page is drawn again."""
        self.traces = {}

    def get(self, store: Store, entry: Entry) -> Trace:
        """ValueError if it is damaged, or more than this visitor's pages may hold."""
        if (key := key_of(entry)) not in self.traces:
            check_replayed(trace := store.open(entry.id))
            self.traces[key] = trace
        return self.traces[key]


def key_of(entry: Entry) -> tuple:
    """Of a run in the state that it is in."""
    return entry.id, entry.created, entry.steps


def opened(store: Store, entries: list[Entry]) -> list[tuple[str, Trace]]:
    """The traces under different names; one that is damaged or too much is named and left out."""
    there, chosen, runs = of_tab("saved_open", Opened), set(map(key_of, entries)), []
    there.traces = {key: trace for key, trace in there.traces.items() if key in chosen}
    for entry in entries:
        try:
            trace = there.get(store, entry)
        except ValueError as error:
            st.warning(as_markdown(f"{entry.name}: {told(error)}"), icon=":material/broken_image:")
            continue
        if trace.steps:
            name = entry.name if entry.name not in dict(runs) else f"{entry.name} #{entry.id}"
            runs.append((name, trace))
    return runs
