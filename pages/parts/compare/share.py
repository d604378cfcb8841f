"""What stands below a comparison: keep its runs, and a link to its settings; and opening such a link."""

import sqlite3

import streamlit as st

from decoding.limits import limits
from decoding.runs.failures import told
from decoding.runs.store import MAX_NAME, Store
from pages.parts.compare import address as compare_address
from pages.parts.compare.race import Column, Race, names
from pages.parts.compare.sidebar import say_columns, set_value, wanted
from pages.parts.shared import address, keep
from pages.parts.shared.controls import begin, read, say
from pages.parts.shared.session import Session
from pages.parts.shared.settings import Settings
from viz.tokens import as_markdown

VIEW = "compare_view"


def share(session: Session, race: Race) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="compare_share"):
        if any(column.count for column in race.columns) and st.button(
            "Keep these runs",
            key="compare_keep",
            icon=":material/bookmark_add:",
            disabled=race.moving,
            help="Stores every run as far as it went; find them under Saved runs and on the page Traces.",
        ):
            st.caption(as_markdown(kept(race)))
        make = lambda: compare_address.column_parameters(wanted(session, race), race.mode)  # noqa: E731
        link_button(make, race, "compare_link", read(session))


def kept(race: Race) -> str:
    """Store the runs, or what has come since they were; says what was done."""
    runs = [(name, e) for name, e in zip(names([e.settings for e in race.columns]), race.columns, strict=True) if e.count]
    done, new = 0, False
    try:
        store = keep.store()
        for name, column in runs:
            new |= keep_column(store, column, f"Compare: {name}"[:MAX_NAME])
            done += 1
    except (ValueError, sqlite3.Error) as error:
        return f"Kept {done} of {len(runs)} runs, from the left, and no others: {told(error)}"
    where = "for this browser" if limits().public else f"in {store.folder}"
    return f"Kept {len(runs)} runs {where}." if new else f"These {len(runs)} runs are kept already, {where}."


def keep_column(store: Store, column: Column, name: str) -> bool:
    """Store a run unless it is there as it is; whether it was stored."""
    known = column.kept if column.kept is not None and column.kept.folder == store.folder and keep.is_there(column.kept) else None
    if known is not None and known.steps == column.count:
        return False
    number = keep.added(store, known, column.trace, name, "")
    column.kept = keep.Kept(0, store.folder, number, column.count, name, "")
    return True


def link_button(make, race: Race, key: str, settings: Settings) -> None:
    """A button that writes the link into the address bar and shows it for copying; `settings` name the models."""
    if not st.button("Link to these settings", key=key, icon=":material/link:", help="Whoever opens it finds the same settings."):
        return
    try:
        params = make()
    except ValueError as error:
        st.caption(as_markdown(told(error)))
        return
    race.opened = repr(sorted(params.items()))
    st.query_params.from_dict(params)
    st.code(address.address(st.context.url or "", params), language=None, wrap_lines=True)
    if lacking := address.left_out(settings):
        st.caption(as_markdown(lacking))


def open_compare_link(session: Session, race: Race) -> None:
    """Let the controls say what the address bar asks for, once; before they are drawn. Nothing is run."""
    query = st.query_params.to_dict()
    fingerprint = repr(sorted(query.items()))
    if not query or fingerprint == race.opened:
        return
    race.opened = fingerprint
    place = compare_address.parse(query)
    if place is None:
        return
    race.notes = place.complaints
    begin(session)
    say(session, place.settings)
    race.turn_to(place.mode)
    st.session_state[VIEW] = race.values[VIEW] = place.view
    if place.columns:
        say_columns(race, place.columns)
    if place.view == "sweep":
        set_value(race, "sweep.method", place.settings.method)
        for name, value in place.settings.full_params.items():
            set_value(race, f"param.sweep.{place.settings.method}.{name}", value)
        race.values |= {"sweep.asked": place.parameter, "sweep.swept": dict(place.swept)}
