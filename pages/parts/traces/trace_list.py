"""The Traces page: the folder, the list with its filters, and one trace in detail: open, rename, export, delete."""

import datetime
import hashlib
import html
import math
import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import streamlit as st

from decoding.limits import limits
from decoding.methods import METHODS
from decoding.runs.failures import told
from decoding.runs.store import LONGEST_SEARCH, MAX_NAME, MAX_NOTE, Changed, Entry, Gone, Query, Store
from decoding.runs.visitors import waits_for_file
from pages.parts.shared import keep, visitor
from pages.parts.shared.clock import local, zone
from pages.parts.shared.in_turn import searching
from pages.parts.shared.pick import pick
from pages.parts.shared.session import Session
from pages.parts.step.open_trace import open_stored
from pages.parts.traces.everything import whose
from pages.parts.traces.exports import exports, picture_box
from pages.parts.traces.importing import importing
from viz.tokens import as_markdown, plain

PAGE = 20  # lines of the list
EVERY = "all"
KINDS = {"kept runs": "", "debug runs too": None}
SHOWN = 600  # characters of prompt and text in the details
ORPHAN = "traces.orphan"  # in the session's state: name and note that were written for a trace that is gone


def traces(session: Session) -> None:
    """All of the page below its title."""
    with st.sidebar:
        if limits().paths:
            folder_box()
        importing(session)
    try:
        store = keep.store()
        if limits().public:
            whose(store)
        browse(session, store)
    except (ValueError, sqlite3.Error) as error:
        st.error(as_markdown(told(error)), icon=":material/error:")


def folder_box() -> None:
    """Which folder the traces are in; all pages of this session use it."""
    st.session_state["traces.folder"] = str(keep.folder())

    def take() -> None:
        st.session_state[keep.FOLDER] = st.session_state["traces.folder"].strip()

    st.text_input(
        "Folder", key="traces.folder", on_change=take, icon=":material/folder:",
        help="Kept runs lie there, in one SQLite file that several apps may use at once. Empty: DRAFTSCOPE_HOME, or .draftscope "
        "in your home folder.",
    )  # fmt: skip


def browse(session: Session, store: Store) -> None:
    """Filters, list, details."""
    said = st.session_state.pop("traces.said", "")
    if said:
        st.success(as_markdown(said), icon=":material/check:")
    if warned := st.session_state.pop("traces.warned", ""):
        st.warning(as_markdown(warned), icon=":material/hourglass:")
    if ORPHAN in st.session_state:
        orphan(*st.session_state[ORPHAN])
    total = store.count()
    if not total:
        nothing(store.folder)
        return
    query = filters(store)
    with searching() if query.words else nullcontext():
        found = store.found(query)
    if not found and query == Query(study=""):
        only_studies(total)
        return
    if not found:
        st.info(f"None of the {total:,} traces matches. Take a word or a filter away.", icon=":material/search_off:")
        st.button("Clear the filters", key="traces.clear", on_click=clear)
        return
    left, right = st.columns([0.58, 0.42], gap="large")
    with left:
        entry = listing(store, found, total)
    if entry is None:  # all of this page were deleted meanwhile, in another tab
        st.rerun()
    with right:
        details(session, store, entry)
    picture_box(store, entry, which(store, entry))


def only_studies(total: int) -> None:
    """All that is there was kept by studies, which the list leaves out at first."""
    with st.container(border=True, key="traces.only_studies"):
        st.markdown(f"**No run was kept by hand yet.** Studies on the page Drafter made {total:,}.")
        st.button("Show them", key="traces.show_studies", type="primary", icon=":material/list:", on_click=clear)


def nothing(folder: Path) -> None:
    """The empty store."""
    with st.container(border=True, key="traces.empty"):
        st.markdown(
            "**Nothing is kept yet.** Make a run on the page Step and press *Keep this run*, run prompts on the page Drafter, or "
            "import a trace on the left."
        )
        if limits().paths:
            st.html(f'<p class="ds-dim">The folder is {html.escape(str(folder))}.</p>')
        if st.button("Open the stepper", key="traces.to_step", type="primary", icon=":material/skip_next:"):
            st.switch_page("pages/1_Step.py")


# -- filters --------------------------------------------------------------------------------------------------------------


def filters(store: Store) -> Query:
    """One row of filters that all apply together."""
    words, method, family, since, until, kind = st.columns([0.28, 0.18, 0.16, 0.12, 0.12, 0.14], vertical_alignment="bottom")
    text = words.text_input(
        "Search", key="traces.words", persist_state="session", icon=":material/search:", placeholder="words in name, note or text",
        max_chars=LONGEST_SEARCH,
    )  # fmt: skip
    key = method.selectbox(
        "Method", [EVERY, *METHODS], key="traces.method", persist_state="session",
        format_func=lambda k: METHODS.title(k) if k in METHODS else "every method",
    )  # fmt: skip
    name = family.selectbox(
        "Family", [EVERY, *store.families()], key="traces.family", persist_state="session",
        format_func=lambda f: "every family" if f == EVERY else plain(f, 40),
    )  # fmt: skip
    first = since.date_input("From", None, key="traces.since", persist_state="session", format="YYYY-MM-DD")
    last = until.date_input("To", None, key="traces.until", persist_state="session", format="YYYY-MM-DD")
    chosen = kind.selectbox("Show", list(KINDS), key="traces.kind", persist_state="session")
    return Query(
        words=text or "",
        method="" if key == EVERY else key,
        family="" if name == EVERY else name,
        study=KINDS[chosen],
        since=midnight(first),
        until=midnight(last, 1),
    )


def midnight(day: datetime.date | None, later: int = 0) -> float | None:
    """Seconds since 1970 at which a day begins for the reader, `later` days on; infinite for one at either end of the calendar.

    >>> midnight(datetime.date.max, 1), midnight(None)
    (inf, None)
    """
    if day is None:
        return None
    try:
        return datetime.datetime.combine(day + datetime.timedelta(later), datetime.time.min, zone()).timestamp()
    except (OverflowError, ValueError):
        return math.inf if day.year > 1970 else -math.inf


def clear() -> None:
    for key in ("words", "method", "family", "since", "until", "kind"):
        st.session_state[f"traces.{key}"] = {"words": "", "method": EVERY, "family": EVERY, "kind": "debug runs too"}.get(key)


# -- the list -------------------------------------------------------------------------------------------------------------


def listing(store: Store, found: list[int], total: int) -> Entry | None:
    """One page of the list; returns the selected entry, None if there is none any more.

    Args:
        found: the ids of all that match.
        total: how many there are in all.
    """
    pages = -(-len(found) // PAGE)
    st.session_state["traces.page"] = min(st.session_state.get("traces.page") or 1, pages)
    number = st.session_state["traces.page"] - 1
    entries = store.entries_of(found[number * PAGE : (number + 1) * PAGE])
    if not entries:
        return None
    words = f"{len(found):,} of {total:,} traces" if len(found) < total else f"{total:,} {'trace' if total == 1 else 'traces'}"
    st.caption(
        f"{as_markdown(words)}, the newest first. A click on a line selects it."
        + (f" Page {number + 1:,} of {pages:,}." if pages > 1 else "")
    )
    by_id = {entry.id: entry for entry in entries}
    chosen = pick(
        pd.DataFrame([line(entry) for entry in entries]), list(by_id), "traces", "Selected trace",
        lambda i: f"{plain(by_id[i].name, 70)} · {when(by_id[i])} · no. {i}" if i in by_id else "",
        column_config=COLUMNS, row_height=32, alt=f"{len(entries)} kept traces",
    )  # fmt: skip
    if pages > 1:
        st.pagination(pages, key="traces.page")
    return by_id[chosen]


COLUMNS = {
    "name": st.column_config.TextColumn(width=210),
    "kept": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", width=120),
    "tau": st.column_config.NumberColumn(format="%.2f", width=56, help="Tokens per target call"),
    "steps": st.column_config.NumberColumn(width=56),
    "tokens": st.column_config.NumberColumn(width=64),
}


def line(entry: Entry) -> dict:
    """What the list says of a trace."""
    return {
        "name": plain(entry.name, 80),
        "method": title(entry.method),
        "kept": local(entry.created),
        "tau": entry.tau,
        "tokens": entry.tokens,
        "steps": entry.steps,
        "ended": "yes" if entry.ended else "no",
        "family": plain(entry.family, 40),
        "note": plain(entry.note, 80),
    }


def title(method: str) -> str:
    return METHODS.title(method) if method in METHODS else plain(method, 40)


def when(entry: Entry) -> str:
    return local(entry.created).strftime("%Y-%m-%d %H:%M")


# -- one trace ------------------------------------------------------------------------------------------------------------


def details(session: Session, store: Store, entry: Entry) -> None:
    """The selected trace."""
    facts(entry)
    with st.container(horizontal=True, key="traces.buttons"):
        opened = st.button(
            "Open on the Step page", key=f"traces.open.{which(store, entry)}", type="primary", icon=":material/play_circle:",
            help="Every view of the Step page, from what was recorded: no model is loaded.",
        )  # fmt: skip
        if st.button("Delete", key=f"traces.delete.{which(store, entry)}", icon=":material/delete:", help="Asks before it does."):
            ask(store, entry)
    if opened:
        open_stored(session, store, entry.id)
    naming(store, entry)
    exports(store, entry)


def facts(entry: Entry) -> None:
    """What is known without opening it; the prompt is muted."""
    tau = "none" if entry.tau is None else f"{entry.tau:.2f}"
    going = "" if entry.ended else ", not run to its end"
    st.html(
        f'<p class="ds-verdict">{html.escape(plain(entry.name, 120))}</p>'
        f'<p class="ds-dim">{html.escape(title(entry.method))} · {html.escape(plain(entry.family, 60))} · tau {tau} · '
        f"{entry.tokens:,} tokens in {keep.steps(entry.steps)}{going} · kept {when(entry)}</p>"
        '<pre style="white-space:pre-wrap;overflow-wrap:anywhere;max-height:11rem;overflow-y:auto;margin:0.4rem 0 0 0" '
        'tabindex="0">'
        f'<span style="opacity:0.65">{html.escape(clip(entry.prompt, from_end=True))}</span>{html.escape(clip(entry.text))}</pre>'
    )


def clip(text: str, from_end: bool = False) -> str:
    """At most SHOWN characters of a text."""
    if len(text) <= SHOWN:
        return text
    return "… " + text[-SHOWN:] if from_end else text[:SHOWN] + " …"


def naming(store: Store, entry: Entry) -> None:
    """Name and note, kept when the button is pressed. What another tab has written since they were drawn is not written over."""
    one = which(store, entry)
    lost = f"traces.lost.{one}"
    began = f"traces.began.{one}"
    seen = st.session_state.get(began)
    if seen is None or f"traces.note.{one}.{mark(*seen)}" not in st.session_state:  # gone with the page: begun anew
        seen = st.session_state[began] = entry.name, entry.note
    boxes = f"{one}.{mark(*seen)}"  # others for what is stored now: a box that is there goes on with what it says
    with st.form(f"traces.form.{boxes}", border=True):
        st.text_input(
            "Name", seen[0], max_chars=MAX_NAME, key=f"traces.name.{boxes}", disabled=bool(entry.study),
            help="Its study finds it by this name." if entry.study else None,
        )  # fmt: skip
        st.text_area("Note", seen[1], max_chars=MAX_NOTE, height=80, key=f"traces.note.{boxes}")
        st.form_submit_button("Save name and note", key=f"traces.rename.{one}", icon=":material/save:",
                              on_click=save, args=(store, entry, seen, boxes))  # fmt: skip
    if lost in st.session_state:
        st.warning(
            "Not saved: another tab has changed name or note since you saw them. Its words stand above; these are yours, to copy:",
            icon=":material/edit_off:",
        )
        st.code("\n".join(st.session_state[lost]), language=None, wrap_lines=True)


def save(store: Store, entry: Entry, seen: tuple[str, str], boxes: str) -> None:
    """What was written, before the page is drawn, which may have no such trace any more.

    Args:
        seen: name and note as they were when the form was drawn first.
        boxes: what the form's boxes are called by.
    """
    one = which(store, entry)
    name, note = (st.session_state[f"traces.{box}.{boxes}"] for box in ("name", "note"))
    if not name.strip():
        st.session_state["traces.warned"] = "A trace needs a name, so nothing was saved."
        return
    st.session_state.pop(f"traces.began.{one}", None)
    try:
        store.rename(entry.id, entry.name if entry.study else name.strip(), note, seen)
    except Changed:
        st.session_state[f"traces.lost.{one}"] = name, note
    except Gone:
        st.session_state[ORPHAN] = name, note
    except (ValueError, sqlite3.Error) as error:
        st.session_state["traces.warned"] = f"Name and note were not saved. {told(error)}"
    else:
        st.session_state["traces.said"] = "Name and note are saved."
        st.session_state.pop(f"traces.lost.{one}", None)


def orphan(name: str, note: str) -> None:
    """What was written for a trace that is gone."""
    st.warning(
        "Not saved: the trace was deleted meanwhile, in another tab. These are your words, to copy:", icon=":material/edit_off:"
    )
    st.code(f"{name}\n{note}", language=None, wrap_lines=True)
    st.button("I have them", key="traces.orphan.done", on_click=lambda: st.session_state.pop(ORPHAN, None))


def which(store: Store, entry: Entry) -> str:
    """A name of a trace in the state: ids are the same in every store, and begin anew in one that was removed."""
    return mark(str(store.folder), entry.id, entry.created)


def mark(*what: object) -> str:
    return hashlib.blake2s(repr(what).encode(), digest_size=8).hexdigest()


@st.dialog("Delete this trace?", icon=":material/delete:")
def ask(store: Store, entry: Entry) -> None:
    """Once, before it is gone."""
    st.html(
        f"<p><b>{html.escape(plain(entry.name, 120))}</b>, {keep.steps(entry.steps)}, kept {when(entry)}, will be gone for good. "
        "There is no way back; export it first if in doubt.</p>"
    )
    with st.container(horizontal=True):
        sure = st.button("Delete for good", key="traces.really", type="primary", icon=":material/delete_forever:",
                         on_click=remove, args=(store, entry))  # fmt: skip
        if st.button("Leave it", key="traces.leave") or sure:
            st.rerun()  # closes the dialog


def remove(store: Store, entry: Entry) -> None:
    if waits_for_file(visitor.key()):
        st.session_state["traces.warned"] = "A file of your runs is being made, so none was deleted. Try again when it is there."
        return
    try:
        store.delete(entry.id)
    except (ValueError, sqlite3.Error) as error:
        st.session_state["traces.warned"] = f"Nothing was deleted. {told(error)}"
        return
    st.session_state["traces.said"] = f"“{plain(entry.name, 80)}” is deleted."
