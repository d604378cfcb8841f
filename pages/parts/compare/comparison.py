"""Runs compared in charts and tables: the same for live runs and stored ones. Needs no model."""

from collections.abc import Callable, Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from decoding.methods import METHODS
from decoding.trace import Trace
from pages.parts.shared.chart_data import data_box
from pages.parts.shared.files import on_demand
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.shared.tallies import cost_ratio
from viz.runs.alignment import HOW_TO_READ_ALIGNED, align, aligned_alt, aligned_figure
from viz.runs.compare import (
    HOW_TO_READ,
    alpha_by_depth_alt,
    alpha_by_depth_figure,
    alpha_by_depth_table,
    comparison_table,
    progress_alt,
    progress_figure,
    progress_table,
    time_split_alt,
    time_split_figure,
    time_split_table,
)
from viz.runs.differences import difference_sentence, difference_table, first_difference, incomparable, reference
from viz.runs.lines import pairs
from viz.runs.tally import tally
from viz.step.probabilities import probability_bars
from viz.tokens import as_markdown, quoted
from viz.words import METRICS

Runs = Sequence[tuple[str, Trace]]
WINDOW = 48  # output positions in the strip
SHARE = "%.2f"
TELLING = (
    "run",
    "tau",
    "alpha",
    "measured speed-up",
    "modelled speed-up",
    "tokens per second",
)  # leftmost in the table
FORMATS = {
    **dict.fromkeys(("tau", "alpha", "tokens per second", "drafter calls per step"), SHARE),
    **dict.fromkeys(("propose (ms)", "read (ms)", "accept (ms)", "commit (ms)", "total (ms)"), "%.1f"),
    **dict.fromkeys(("measured speed-up", "modelled speed-up"), "%.2f ×"),
}


def comparison(runs: Runs, key: str) -> None:
    """The tabs; only the open one is drawn."""
    views: dict[str, Callable[[Runs, str], None]] = {
        "Progress": progress,
        "Numbers": numbers,
        "Text": text,
        "Acceptance": acceptance,
        "Time": time,
    }
    for tab, view in zip(st.tabs(list(views), key=f"{key}_tabs", on_change="rerun"), views.values(), strict=True):
        if tab.open:
            with tab:
                view(runs, key)


def chart(figure: go.Figure, alt: str, table: Callable[[], pd.DataFrame], key: str, read: str = "") -> None:
    """A figure with its alternative text, a sentence on how to read it, and its twin as a table with a download."""
    st.plotly_chart(figure, key=key, config=PLOT_CONFIG, alt=alt)
    if read:
        st.caption(as_markdown(read))
    data_box(table, key, "As a table")


def show(table: pd.DataFrame, key: str, first: Sequence[str] = ()) -> None:
    """A table that sorts by a click on its head, and its download; the columns `first` stand on the left."""
    config = {name: st.column_config.NumberColumn(format=FORMATS[name]) for name in table.columns if name in FORMATS}
    table = table[[*first, *(name for name in table.columns if name not in first)]]
    st.dataframe(table, hide_index=True, key=key, column_config=config)
    st.download_button(
        "Download as CSV",
        on_demand(lambda: table.to_csv(index=False)),
        f"{key}.csv",
        "text/csv",
        key=f"{key}_csv",
        on_click="ignore",
        icon=":material/download:",
        type="tertiary",
    )


def progress(runs: Runs, key: str) -> None:
    for cell, against in zip(st.columns(2), ("calls", "time"), strict=True):
        with cell:
            st.markdown("**Tokens against target calls**" if against == "calls" else "**Tokens against measured time**")
            chart(
                progress_figure(runs, against, dark()),
                progress_alt(runs, against),
                lambda against=against: progress_table(runs, against),
                f"{key}_progress_{against}",
            )
    st.caption(as_markdown(HOW_TO_READ["progress"]))


def numbers(runs: Runs, key: str) -> None:
    """One line per run; measured and modelled speed-up are never mixed."""
    chosen = None
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.toggle("Choose the cost ratio c", key=f"{key}_choose_c", help="c = time of a drafter call / time of a target call"):
            chosen = st.slider("c", 0.0, 1.0, 0.1, 0.01, key=f"{key}_c", label_visibility="collapsed", width=260)
    measured = {name: cost_ratio(tally(trace.steps)) for name, trace in pairs(runs)}
    ratios = dict.fromkeys(measured, chosen) if chosen is not None else measured
    show(comparison_table(runs, {name: c for name, c in ratios.items() if c is not None}), f"{key}_numbers", TELLING)
    if not any(trace.is_plain for _, trace in runs):
        st.caption("**Measured speed-up** stays empty: no plain decoding among the runs. Add it as a column to measure one.")
    else:
        st.caption(
            "**Measured speed-up**: tokens per second over those of plain decoding of the same prompt, on the same "
            "kind of device; empty where the work was not the same. Reading the prompt is not counted."
        )
    where = f"c = {chosen:.2f}, chosen" if chosen is not None else "c measured in each run"
    metric = METRICS["modelled speed-up"]
    st.caption(
        f"**Modelled speed-up**, not measured ({where}): "
        + as_markdown(f"{metric.formula}; it assumes that reading a draft costs the target as much as reading one token.")
    )


def acceptance(runs: Runs, key: str) -> None:
    st.markdown("**Alpha by depth**")
    figure = alpha_by_depth_figure(runs, dark())
    chart(figure, alpha_by_depth_alt(runs), lambda: alpha_by_depth_table(runs), f"{key}_alpha", HOW_TO_READ["alpha"])


def time(runs: Runs, key: str) -> None:
    per = st.segmented_control("Milliseconds per", ["run", "token"], default="token", required=True, key=f"{key}_per")
    figure = time_split_figure(runs, per, dark())
    chart(figure, time_split_alt(runs, per), lambda: time_split_table(runs, per), f"{key}_time", HOW_TO_READ["time"])


def text(runs: Runs, key: str) -> None:
    """The steps by output position, and where texts part that should not."""
    longest = max(sum(len(step.tokens) for step in trace.steps) for _, trace in runs)
    start = 0
    if longest > WINDOW:
        pages = list(range(0, longest, WINDOW))
        start = st.selectbox(
            "Tokens",
            pages,
            key=f"{key}_window",
            width=160,
            format_func=lambda i: f"{i + 1} to {min(i + WINDOW, longest)}",
        )
    figure = aligned_figure(runs, start, WINDOW, dark(), width=1080)
    chart(figure, aligned_alt(runs), lambda: align(runs), f"{key}_aligned", HOW_TO_READ_ALIGNED)
    differences(runs, key)


def differences(runs: Runs, key: str) -> None:
    """Greedy and lossless: token for token against the reference. Sampling: why that would be the wrong test."""
    st.markdown("**Are the texts the same?**")
    warm = sorted({trace.header.sampling.temperature for _, trace in runs if trace.header.sampling.temperature > 0})
    if warm:
        st.markdown(
            f"At temperature {', '.join(f'{t:g}' for t in warm)} tokens are drawn at random, and methods use their "
            "dice differently: a lossless method promises the same **distribution** over texts, not the same text, so "
            "that two texts that differ say nothing. Set the temperature to 0 (greedy) to compare token for token."
        )
    first = runs[reference(list(runs))]
    for other in runs:
        if other is not first and not (incomparable(first[1], other[1]) and warm):
            difference(first, other, f"{key}_difference_{other[0]}")


def difference(first: tuple[str, Trace], other: tuple[str, Trace], key: str) -> None:
    """The verdict on one run, and where they part the target's distributions in both."""
    found = None if incomparable(first[1], other[1]) else first_difference(first[1], other[1])
    lossless = all(is_lossless(trace) for _, trace in (first, other))
    verdict = "" if incomparable(first[1], other[1]) else found.verdict if found else "exact"
    color = {"exact": "green", "near-tie": "blue", "mismatch": "red" if lossless else "orange"}.get(verdict, "gray")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.badge(verdict or "not comparable", color=color)
        st.markdown(
            as_markdown(
                difference_sentence(first, other)
                + ("" if lossless or not found else " One of the two is not lossless, so that its text may differ.")
            ),
            width="stretch",
        )
    if found is None:
        return
    with st.expander(
        as_markdown(f"The target's probabilities where {other[0]} parts from {first[0]}"), key=key, on_change="rerun"
    ) as box:
        if box.open:
            token_bytes = first[1].token_bytes | other[1].token_bytes
            for i, cell in enumerate(st.columns(2)):
                label, row = (first, other)[i][0], found.rows[i]
                with cell:
                    st.markdown(as_markdown(f"{label} took {quoted(found.tokens[i], token_bytes)}"))
                    if row is not None:
                        st.html(probability_bars(row, token_bytes, found.tokens[i], limit=6))
            show(difference_table(found, token_bytes), f"{key}_table")


def is_lossless(trace: Trace) -> bool:
    """As far as this version knows the method."""
    method = METHODS.get(trace.header.method)
    header = trace.header
    return method is not None and method.lossless_with(header.params, greedy=header.sampling.temperature == 0)
