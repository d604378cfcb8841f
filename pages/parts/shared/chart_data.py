"""The numbers behind a chart: a table on demand, and the same as CSV or Parquet; a draft tree as a graph."""

from collections.abc import Callable, Mapping

import pandas as pd
import streamlit as st

from decoding.runs.trace_files import to_parquet
from decoding.runs.tree_files import to_graphml, to_node_link
from decoding.trace import Step
from pages.parts.shared.files import on_demand
from viz.tokens import as_markdown


def data_box(table: Callable[[], pd.DataFrame], key: str, label: str = "Data") -> None:
    """A button that opens the table and its downloads; `table` is only called once they are wanted."""
    with st.popover(as_markdown(label), icon=":material/table_view:", type="tertiary", key=f"{key}.data", on_change="rerun") as box:
        if box.open:
            st.dataframe(table(), hide_index=True, key=f"{key}.table", height=260)
        name = key.replace(".", "_")
        with st.container(horizontal=True):
            st.download_button(
                "CSV", on_demand(lambda: table().to_csv(index=False)), f"{name}.csv", "text/csv", key=f"{key}.csv",
                on_click="ignore", icon=":material/download:",
            )  # fmt: skip
            st.download_button(
                "Parquet", on_demand(lambda: to_parquet(table())), f"{name}.parquet", "application/vnd.apache.parquet",
                key=f"{key}.parquet", on_click="ignore", icon=":material/download:",
            )  # fmt: skip


def tree_downloads(step: Step, token_bytes: Mapping[int, bytes], name: str, key: str) -> None:
    """The draft tree of a step for graph tools; nothing is made before it is asked for."""
    with st.container(horizontal=True, key=f"{key}.graph"):
        st.download_button(
            "GraphML", on_demand(lambda: to_graphml(step, token_bytes)), f"{name}.graphml", "application/graphml+xml",
            key=f"{key}.graphml", on_click="ignore", icon=":material/download:",
            help="The tree as a graph: for Gephi, yEd, networkx.",
        )  # fmt: skip
        st.download_button(
            "Node-link JSON", on_demand(lambda: to_node_link(step, token_bytes)), f"{name}.json", "application/json",
            key=f"{key}.node_link", on_click="ignore", icon=":material/download:",
            help="The tree as a graph: for d3, networkx.",
        )  # fmt: skip
