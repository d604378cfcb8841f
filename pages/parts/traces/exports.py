"""Files of one kept trace: JSON, tables, a replay that needs no app, and its trees as pictures and graphs."""

import re
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from decoding.runs.failures import told
from decoding.runs.store import Entry, Store
from decoding.runs.trace_files import nodes_frame, steps_frame, to_json, to_parquet
from decoding.trace import Trace
from pages.parts.drafter.findings import opened
from pages.parts.shared.chart_data import tree_downloads
from pages.parts.shared.files import on_demand
from pages.parts.shared.setup import dark
from viz.replay.replay import replay_html
from viz.step.boxes import extent_of
from viz.step.tree import tree_alt, tree_figure
from viz.tokens import as_markdown

PARQUET = "application/vnd.apache.parquet"


def exports(store: Store, entry: Entry) -> None:
    """Nothing is made before it is asked for."""
    st.markdown("**Export**")
    files: dict[str, tuple[str, str, Callable[[Trace], bytes | str], str]] = {
        "Replay (HTML)": ("html", "text/html", lambda trace: replay_html(trace, entry.name),
                          "One file that replays the run in any browser, offline: step, back, play, click."),
        "JSON": ("json.gz", "application/gzip", to_json,
                 "Every step, packed; can be imported here again. Name and note are not in it."),
        "Nodes": ("nodes.parquet", PARQUET, lambda trace: to_parquet(nodes_frame(trace)), "Parquet: one line per drafted token."),
        "Steps": ("steps.parquet", PARQUET, lambda trace: to_parquet(steps_frame(trace)), "Parquet: one line per target call."),
    }  # fmt: skip
    with st.container(horizontal=True, key="traces.exports"):
        for label, (ending, mime, make, help_) in files.items():
            st.download_button(
                as_markdown(label),
                on_demand(maker(store.folder, entry.id, make)),
                f"{file_name(entry.name)}.{ending}",
                mime,
                key=f"traces.export.{ending}",
                icon=":material/download:", on_click="ignore", help=as_markdown(help_),
            )  # fmt: skip


def picture_box(store: Store, entry: Entry, which: str) -> None:
    """The tree of any step, as wide as the page; drawn once it is wanted. `which` is the trace's name in the state."""
    with st.expander(
        "Picture of a tree (PNG or SVG), or the tree as a graph", key=f"traces.picture.{which}", on_change="rerun"
    ) as box:
        if box.open:
            picture(store, entry, which)


def maker(folder: Path, trace: int, make: Callable[[Trace], bytes | str]) -> Callable[[], bytes | str]:
    """What a download button calls on its own thread; it knows the trace by its id alone."""
    return lambda: make(Store(folder, later=True).open(trace))


def file_name(name: str) -> str:
    """A name that any file system takes.

    >>> file_name("Plain: once / upon"), file_name("…")
    ('Plain_once_upon', 'trace')
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:60].strip("._") or "trace"


def picture(store: Store, entry: Entry, which: str) -> None:
    """The tree of one step; the browser makes the file, from what it has drawn."""
    try:
        trace = opened(str(store.folder), entry.id, (entry.created, entry.steps))
    except ValueError as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        return
    if not trace.steps:
        st.info("No step was kept.")
        return
    left, right, _ = st.columns([0.2, 0.2, 0.6], vertical_alignment="bottom")
    number = left.number_input("Step", 1, len(trace.steps), key=f"traces.picture_step.{which}", help=f"1 to {len(trace.steps)}")
    kind = right.segmented_control("Format", ["PNG", "SVG"], default="PNG", key="traces.picture_kind", required=True)
    step = trace.steps[number - 1]
    figure = tree_figure(step, trace.token_bytes, dark=dark(), root=trace.root(number - 1), width=1050, extent=extent_of([step]))
    name = f"{file_name(entry.name)}_step_{number}"
    config = {
        "displayModeBar": True, "displaylogo": False, "modeBarButtons": [["toImage"]], "scrollZoom": False,
        "toImageButtonOptions": {"format": kind.lower(), "filename": name, "scale": 3 if kind == "PNG" else 1},
    }  # fmt: skip
    figure.update_layout(paper_bgcolor="#14171C" if dark() else "#FFFFFF")
    st.plotly_chart(figure, key=f"traces.tree.{kind}", config=config, alt=tree_alt(step, trace.token_bytes))
    st.caption(f"The camera above the tree saves it as {kind}. The browser makes the file; nothing is sent anywhere.")
    tree_downloads(step, trace.token_bytes, name, "traces.tree")
