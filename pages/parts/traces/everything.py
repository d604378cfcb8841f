"""All kept runs of a visitor of a public server: whose they are and for how long, my link, download all, delete all."""

import io
import sqlite3
import zipfile

import streamlit as st

from decoding.limits import limits
from decoding.runs.failures import told
from decoding.runs.store import Gone, Store
from decoding.runs.trace_files import to_json
from decoding.runs.visitors import waits_for_file
from pages.parts.shared import visitor
from pages.parts.shared.files import on_demand
from pages.parts.traces.exports import file_name


def whose(store: Store) -> None:
    """One line, and a folded box with what goes for all runs."""
    rules, count = limits(), store.count()
    st.caption(
        f"Yours alone, in this browser: {count:,} of at most {rules.kept:,} runs, {store.filled / 2**20:.1f} of "
        f"{(rules.kept_bytes or 0) / 2**20:g} MB. A run is forgotten {rules.kept_days:,} days after it was kept."
    )
    with st.expander("My link, download all, delete all", key="traces.everything", on_change="rerun") as box:
        if box.open:
            everything(store, count)


def everything(store: Store, count: int) -> None:
    st.caption("My link opens these runs in another browser. Whoever has it can see, change and delete them: keep it to yourself.")
    st.code(visitor.my_link(), language=None, wrap_lines=True)
    with st.container(horizontal=True, key="traces.all"):
        st.download_button(
            "Download all", on_demand(lambda: archive(store)), "draftscope_runs.zip", "application/zip", key="traces.all.zip",
            on_click="ignore", icon=":material/download:", disabled=not count,
            help="Every run as a JSON file that can be imported again, and its name and note as text if it has a note.",
        )  # fmt: skip
        pressed = st.button(
            "Delete all", key="traces.all.delete", icon=":material/delete:", disabled=not count, help="Asks before it does."
        )
        if pressed:
            ask_all(store, count)


def archive(store: Store) -> bytes:
    """A zip file of all runs, as they are now; of a damaged one a text that says so. What a file's own name cannot say of its run,
    the name, the study and the note, is a text beside it.

    Raises:
        ValueError: all or some were deleted meanwhile. Half of them would look like all.
    """
    out, entries = io.BytesIO(), store.entries()
    if not entries:
        raise ValueError("There is no run any more that a file could hold.")
    with zipfile.ZipFile(out, "w") as files:  # what is inside is packed already
        for entry in entries:
            name = f"{entry.id}_{file_name(entry.name)}"
            try:
                files.writestr(f"{name}.json.gz", to_json(store.open(entry.id)))
            except Gone:
                raise
            except ValueError as error:
                files.writestr(f"{name}.damaged.txt", told(error))
            if entry.note or entry.study or file_name(entry.name) != entry.name:
                study = f"of the study {entry.study}\n" if entry.study else ""
                files.writestr(f"{name}.note.txt", f"{entry.name}\n{study}\n{entry.note}\n")
    return out.getvalue()


@st.dialog("Delete all kept runs?", icon=":material/delete:")
def ask_all(store: Store, count: int) -> None:
    """Once, before they are gone."""
    st.markdown(f"{count:,} kept runs, those of studies among them, will be gone for good. Download them first if in doubt.")
    with st.container(horizontal=True):
        sure = st.button("Delete for good", key="traces.all.really", type="primary", icon=":material/delete_forever:",
                         on_click=remove_all, args=(store,))  # fmt: skip
        if st.button("Leave them", key="traces.all.leave") or sure:
            st.rerun()  # closes the dialog


def remove_all(store: Store) -> None:
    if waits_for_file(visitor.key()):
        st.session_state["traces.warned"] = "A file of your runs is being made, so none was deleted. Try again when it is there."
        return
    try:
        store.forget()
    except (ValueError, sqlite3.Error) as error:
        st.session_state["traces.warned"] = f"Nothing was deleted. {told(error)}"
        return
    st.session_state["traces.said"] = "All kept runs are deleted."
