"""Keeping runs: which folder they go to, and the button that keeps the one that is shown."""

import hashlib
import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
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
PROBLEM = "keep_problem"  # there: what is to be said of the last press
BOXES = "keep_boxes"  # there: for which run the boxes are, and the number in their keys


@dataclass(frozen=True)
class Kept:
    """What the button last did. It goes with the session, which a tab that is reloaded is given again."""

    runs: int  # of the session: which run it was
    folder: Path
    trace: int  # id in the store
    steps: int
    name: str
    note: str
    mark: str = ""  # of what was kept: a run that was made anew, step for step the same, is known by it


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
    names, notes, kept = boxes(session, known(session, session.trace, session.runs))
    seen = mark(session.trace)  # not the run itself: what a button holds could not be let go of
    with st.container(horizontal=True, vertical_alignment="center", key="keep_row"):
        with st.popover("Keep this run", icon=":material/bookmark_add:", key="keep_box"):
            st.text_input("Name", key=names, max_chars=MAX_NAME)
            st.text_area("Note", key=notes, max_chars=MAX_NOTE, height=80, placeholder="What is worth remembering?")
            words = written(session.trace, names, notes)
            st.button(
                "Keep", key="keep", type="primary", icon=":material/bookmark_add:",
                disabled=kept is not None and (kept.steps, kept.name, kept.note) == (session.count, *words),
                on_click=press, args=(session, seen, names, notes),
            )  # fmt: skip
        outcome(session, kept, words)


def mark(trace: Trace, steps: int = 0) -> str:
    """Tells one run from another: by all that is needed to repeat it, and the tokens of its first steps."""
    said = trace.header, [step.tokens for step in trace.steps[:steps]]
    return hashlib.blake2s(msgspec.msgpack.encode(said), digest_size=8).hexdigest()


def known(session: Session, trace: Trace, runs: int) -> Kept | None:
    """As what a run that the session shows is kept, here and now; None if it is not."""
    kept = session.kept
    if not isinstance(kept, Kept) or kept.folder != folder() or kept.steps > len(trace.steps):
        return None
    same = kept.runs == runs or kept.mark == mark(trace, kept.steps)
    return kept if same and is_there(kept) else None


def boxes(session: Session, kept: Kept | None) -> tuple[str, str, Kept | None]:
    """The keys of name and note, which say something from now on, and as what the run is kept. A run that is made anew goes on with
    what was written; boxes that begin anew say what is stored."""
    run, number = mark(session.trace), session.runs
    if (before := st.session_state.get(BOXES)) is not None and before[0] == run:
        number = before[1]
    st.session_state[BOXES] = run, number
    names, notes = f"keep_name.{number}", f"keep_note.{number}"
    if names not in st.session_state:  # another run, or the page was left: what was said of the last press has been read
        st.session_state.pop(PROBLEM, None)
        if (kept := as_stored(kept)) is not None:
            session.kept = kept
    st.session_state.setdefault(names, suggestion(session.trace) if kept is None else kept.name)
    st.session_state.setdefault(notes, "" if kept is None else kept.note)
    return names, notes, kept


def as_stored(kept: Kept | None) -> Kept | None:
    """With the name and the note that it has in the store now: they may have been written anew on Traces."""
    if kept is None:
        return None
    try:
        found = store().entries_of([kept.trace])
    except (ValueError, sqlite3.Error):
        return kept
    return replace(kept, name=found[0].name, note=found[0].note) if found else kept


def written(trace: Trace, names: str, notes: str) -> tuple[str, str]:
    """Name and note, as they are kept when the button is pressed."""
    return (st.session_state.get(names) or "").strip() or suggestion(trace), st.session_state.get(notes) or ""


def is_there(kept: Kept) -> bool:
    """Whether it was not deleted since; of a store that cannot be read just now that is not said."""
    try:
        return bool(store().entries_of([kept.trace]))
    except (ValueError, sqlite3.Error):
        return True


def outcome(session: Session, kept: Kept | None, words: tuple[str, str]) -> None:
    """One line beside the button."""
    if problem := st.session_state.get(PROBLEM, ""):
        st.error(as_markdown(problem), icon=":material/error:")
    elif kept is None:
        st.caption(as_markdown(f"Name, note, every step: {terms()}"))
    elif kept.steps < session.count:
        st.caption(as_markdown(f"Kept as “{plain(kept.name, 32)}” up to step {kept.steps}; keep again to add the rest."))
    elif words != (kept.name, kept.note):
        st.caption(as_markdown(f"Kept as “{plain(kept.name, 32)}”; keep again to save name and note."))
    else:
        st.caption(as_markdown(f"Kept as “{plain(kept.name, 32)}”, {steps(kept.steps)}; see the page Traces."))


def press(session: Session, seen: str, names: str, notes: str) -> None:
    """Keep the run that the button was drawn for. What the session shows may be another one since: it was let go of, say.

    Args:
        seen: `mark` of that run.
    """
    with session.lock:
        trace, runs = session.trace, session.runs
    if trace is None:
        return
    kept = known(session, trace, runs)
    if mark(trace) != seen:
        boxes(session, kept)
        st.session_state[PROBLEM] = "Nothing was kept: the run that stood here has made way for this one meanwhile."
        return
    if (now := take(trace, runs, kept, *written(trace, names, notes))) is not None:
        session.kept = now


def take(trace: Trace, runs: int, kept: Kept | None, name: str, note: str) -> Kept | None:
    """Into the store; nothing changes on the page but a line. None if nothing was kept."""
    try:
        number = added(own := store(), kept, trace, name, note)
    except (ValueError, sqlite3.Error) as error:
        st.session_state[PROBLEM] = f"The run was not kept: {told(error)}"
        return None
    st.session_state[PROBLEM] = ""
    stored = name, note
    if kept is not None and kept.trace == number and stored != (kept.name, kept.note):
        try:
            own.rename(number, name, note, (kept.name, kept.note))
        except (ValueError, sqlite3.Error) as error:
            now = as_stored(kept) or kept  # the next press replaces what has been seen then
            stored = now.name, now.note
            new = "The new steps are kept, and name" if len(trace.steps) > kept.steps else "Name"
            st.session_state[PROBLEM] = f"{new} and note stay as they are on Traces: {told(error)}"
    return Kept(runs, folder(), number, len(trace.steps), *stored, mark(trace, len(trace.steps)))


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
