"""Import of a trace file: read once, strictly; a file that does not fit is refused with a sentence and changes nothing."""

from dataclasses import dataclass

import streamlit as st

from decoding.limits import limits
from decoding.runs.failures import told
from decoding.runs.store import MAX_NAME
from decoding.runs.trace_files import MAX_UPLOAD, from_json
from decoding.trace import Trace
from pages.parts.shared import keep
from pages.parts.shared.in_turn import Later, reading
from pages.parts.shared.runs import check_replayed, cleanup
from pages.parts.shared.session import Session
from pages.parts.step.open_trace import show
from viz.tokens import as_markdown, plain

KEPT_AS = "imported.kept"  # in the session's state: an upload and a folder, and as what it was kept there


@dataclass
class Imported:
    """An uploaded file and what became of it."""

    file: str  # id of the upload
    trace: Trace | None
    problem: str = ""
    passes: bool = False  # the problem may: the same file can be read another time

    @property
    def replayed(self) -> tuple[Trace, ...]:
        """What of it lies in memory."""
        return () if self.trace is None else (self.trace,)

    def let_go(self, problem: str) -> None:
        self.trace, self.problem, self.passes = None, problem, True


def importing(session: Session) -> None:
    """The upload, and what can be done with a good file."""
    most = min(MAX_UPLOAD, limits().upload or MAX_UPLOAD) // 2**20
    file = st.file_uploader(
        "Import a trace", type=["json", "gz"], key="import", max_upload_size=most,
        help=f"A JSON file that was exported here, at most {most:,} MiB, packed or not.",
    )  # fmt: skip
    if file is None:
        forget()
        return
    found: Imported | None = st.session_state.get("imported")
    if found is None or found.file != file.file_id:
        forget()
        found = read(file)
    if (trace := found.trace) is None:
        st.error(as_markdown(f"The file was not imported. {found.problem}"), icon=":material/error:")
        if found.passes:
            st.button("Try again", key="import.again", icon=":material/refresh:", on_click=forget)
        return
    count = keep.steps(len(trace.steps))
    st.caption(as_markdown(f"A run of {plain(trace.header.method, 40)}, {count}, of the family {plain(trace.header.family, 60)}."))
    with st.container(horizontal=True):
        opened = st.button("Open it", key="import.open", icon=":material/play_circle:")
        kept = st.button("Keep it", key="import.keep", icon=":material/bookmark_add:")
    if kept:
        keep_it(found.file, trace, file.name)
    if opened:
        open_it(session, trace)


def forget() -> None:
    """What was imported before."""
    st.session_state.pop("imported", None)
    cleanup().kept.pop("imported", None)


def read(file) -> Imported:
    """An upload -> a trace, or the sentence that says why not; this tab's from then on."""
    try:
        if file.size > MAX_UPLOAD:
            raise ValueError(f"It has {file.size:,} bytes; at most {MAX_UPLOAD:,} are read.")
        with reading():
            trace = from_json(file.getvalue())
            try:
                check_replayed(trace)
            except ValueError as error:  # other pages may hold less in a while
                return remembered(Imported(file.file_id, None, plain(told(error), 300), passes=True))
            return remembered(Imported(file.file_id, trace))  # counted before the next one is looked at
    except ValueError as error:
        return remembered(Imported(file.file_id, None, plain(told(error), 300), passes=isinstance(error, Later)))


def remembered(found: Imported) -> Imported:
    st.session_state["imported"] = cleanup().kept["imported"] = found
    return found


def keep_it(file: str, trace: Trace, name: str) -> None:
    """Into the store, under the name of its file; once, however often the button is pressed."""
    name = name.removesuffix(".gz").removesuffix(".json")[:MAX_NAME] or "imported"
    before, number = st.session_state.get(KEPT_AS, ("", 0))
    this = file, keep.folder()
    try:
        store = keep.store()
        if before == this and store.entries_of([number]):
            said = "is kept already"
        else:
            st.session_state[KEPT_AS] = this, store.keep(trace, name, "imported")
            said = "is kept"
    except ValueError as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        return
    st.session_state["traces.said"] = f"“{plain(name, 80)}” {said}."


def open_it(session: Session, trace: Trace) -> None:
    """On the Step page, without keeping it."""
    try:
        show(session, trace)
    except ValueError as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        return
    st.switch_page("pages/1_Step.py")
