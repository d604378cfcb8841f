"""Keeping runs: which folder they go to, and the button that keeps the one that is shown."""

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from decoding.limits import limits
from decoding.runs.failures import told
from decoding.runs.store import MAX_NAME, MAX_NOTE, Gone, Store, default_folder
from decoding.runs.visitors import folder_of
from decoding.trace import Trace
from pages.parts.shared import visitor
from pages.parts.shared.session import Session
from viz.tokens import as_markdown, plain

FOLDER = "store_folder"  # in the session's state: what the Traces page was told


@dataclass(frozen=True)
class Kept:
    """What the button last did. It goes with the session, which a tab that is reloaded is given again."""

    runs: int  # of the session: which run it was
    folder: Path
    trace: int  # id in the store
    steps: int
    name: str
    note: str


def folder() -> Path:
    """Where traces are kept: on a public server the visitor's own, whatever the session's state says."""
    if limits().public:
        return folder_of(visitor.root(), visitor.key())
    return Path(os.path.expanduser(st.session_state.get(FOLDER) or default_folder()))  # also of a user that there is not


def store() -> Store:
    """The store of that folder; ValueError if it cannot be written."""
    return visitor.own_store() if limits().public else Store(folder())


def terms() -> str:
    """What a visitor should know before something is kept."""
    rules = limits()
    if not rules.public:
        return "kept in your folder, to be found on the page Traces."
    if visitor.is_forgotten():
        return "kept, but this browser remembers nothing of this page: without My link, on the page Traces, nobody finds it again."
    return f"kept for this browser alone, for {rules.kept_days:,} days, at most {rules.kept:,} runs; see the page Traces."


def keep(session: Session) -> None:
    """A small form that keeps the shown run, as far as it went; pressed again it adds what has come since."""
    if not session.count:
        return
    kept = session.kept if isinstance(session.kept, Kept) else None
    kept = kept if kept is not None and kept.runs == session.runs and kept.folder == folder() and is_there(kept) else None
    names, notes = f"keep_name.{session.runs}", f"keep_note.{session.runs}"
    st.session_state.setdefault(names, suggestion(session.trace) if kept is None else kept.name)  # gone after another page
    st.session_state.setdefault(notes, "" if kept is None else kept.note)
    with st.container(horizontal=True, vertical_alignment="center", key="keep_row"):
        with st.popover("Keep this run", icon=":material/bookmark_add:", key="keep_box"):
            st.text_input("Name", key=names, max_chars=MAX_NAME)
            st.text_area("Note", key=notes, max_chars=MAX_NOTE, height=80, placeholder="What is worth remembering?")
            st.button(
                "Keep",
                key="keep",
                type="primary",
                icon=":material/bookmark_add:",
                disabled=kept is not None and kept.steps == session.count,
                on_click=lambda: take(session, kept, st.session_state[names], st.session_state.get(notes) or ""),
            )  # fmt: skip
        outcome(session, kept)


def is_there(kept: Kept) -> bool:
    """Whether it was not deleted since; of a store that cannot be read just now that is not said."""
    try:
        return bool(store().entries_of([kept.trace]))
    except (ValueError, sqlite3.Error):
        return True


def outcome(session: Session, kept: Kept | None) -> None:
    """One line beside the button."""
    problem = st.session_state.get("keep_problem", "")
    if problem:
        st.error(as_markdown(problem), icon=":material/error:")
    elif kept is None:
        st.caption(as_markdown(f"Name, note, every step: {terms()}"))
    elif kept.steps == session.count:
        st.caption(as_markdown(f"Kept as “{plain(kept.name, 32)}”, {steps(kept.steps)}; see the page Traces."))
    else:
        st.caption(as_markdown(f"Kept as “{plain(kept.name, 32)}” up to step {kept.steps}; keep again to add the rest."))


def take(session: Session, kept: Kept | None, name: str, note: str) -> None:
    """Into the store; nothing changes on the page but a line."""
    trace, name = session.trace, name.strip() or suggestion(session.trace)
    try:
        number = added(own := store(), kept, trace, name, note)
    except (ValueError, sqlite3.Error) as error:
        st.session_state["keep_problem"] = f"The run was not kept: {told(error)}"
        return
    st.session_state["keep_problem"] = ""
    try:
        if kept is not None and kept.trace == number and (name, note) != (kept.name, kept.note):
            own.rename(number, name, note, (kept.name, kept.note))
    except (ValueError, sqlite3.Error) as error:
        st.session_state["keep_problem"] = f"The new steps are kept, and name and note stay as they are on Traces: {told(error)}"
    session.kept = Kept(session.runs, folder(), number, len(trace.steps), name, note)


def added(store: Store, kept: Kept | None, trace: Trace, name: str, note: str) -> int:
    """The id of the kept trace: the one it was kept as before, with its new steps, unless that was deleted."""
    if kept is not None:
        with suppress(Gone):
            store.append(kept.trace, trace.steps[kept.steps :], trace.token_bytes)
            return kept.trace
    return store.keep(trace, name, note)


def suggestion(trace: Trace) -> str:
    """A name to begin with: the method and how the prompt begins."""
    header = trace.header
    asked = header.messages[-1].content if header.messages else header.prompt
    return f"{header.method.replace('_', ' ')}: {plain(asked.strip(), 48)}"


def steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count:,} steps"
