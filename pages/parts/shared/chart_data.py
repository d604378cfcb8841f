"""The numbers behind a chart: a table on demand, and the same as CSV or Parquet."""

from collections.abc import Callable

import pandas as pd
import streamlit as st

from decoding.runs.trace_files import to_parquet


def data_box(table: Callable[[], pd.DataFrame], key: str, label: str = "Data") -> None:
    """A button that opens the table and its downloads; `table` is only called once they are wanted."""
    with st.popover(label, icon=":material/table_view:", type="tertiary", key=f"{key}.data", on_change="rerun") as box:
        if box.open:
            st.dataframe(table(), hide_index=True, key=f"{key}.table", height=260)
        name = key.replace(".", "_")
        with st.container(horizontal=True):
            st.download_button(
                "CSV", lambda: table().to_csv(index=False), f"{name}.csv", "text/csv", key=f"{key}.csv", on_click="ignore",
                icon=":material/download:",
            )  # fmt: skip
            st.download_button(
                "Parquet", lambda: to_parquet(table()), f"{name}.parquet", "application/vnd.apache.parquet", key=f"{key}.parquet",
                on_click="ignore", icon=":material/download:",
            )  # fmt: skip
