"""The most expensive rejections, and where two drafters disagree: tables whose lines lead to the step on the Step page."""

import html
from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from pages.parts.drafter.findings import called
from pages.parts.shared.chart_data import data_box
from pages.parts.shared.pick import pick
from pages.parts.shared.session import Session
from pages.parts.step.open_trace import Runs, open_stored
from viz.drafter.pairs import HOW_TO_READ_DISAGREEMENTS, agreement_sentence, disagreements
from viz.drafter.rejections import HOW_TO_READ_REJECTIONS, LUCK, MISSES, expensive
from viz.tokens import as_markdown, plain
from viz.words import number

MANY = 50  # lines
SHORT = st.column_config.NumberColumn(format="%.2g", width=76)
LOOK = {
    "cost": st.column_config.NumberColumn(width=50, help="Tokens the step could have brought in addition; an upper bound."),
    "context": st.column_config.TextColumn(width=300),
    **dict.fromkeys(("p", "q", "u", "wanted p"), SHORT),
    "prompt": st.column_config.Column(width=60),
    "step": st.column_config.NumberColumn(width=60),
}


def rejections(session: Session, runs: Runs, judged: Mapping[str, pd.DataFrame], names: Sequence[str]) -> None:
    """A table; the chosen line can be opened.

    Args:
        names: of the runs.
    """
    label = next(iter(judged))
    if len(judged) > 1:
        label = st.segmented_control("Drafter", list(judged), default=label, key="find.rejecting", required=True)
    rejected = judged[label][~judged[label]["accepted"]]
    counts = {MISSES: int((~rejected["luck"]).sum()), LUCK: int(rejected["luck"].sum())}
    group = st.segmented_control(
        "Why", list(counts), default=MISSES, key="find.why", required=True, format_func=lambda g: f"{g} ({counts[g]:,})",
        label_visibility="collapsed",
    )  # fmt: skip
    table = expensive(judged[label], MANY, luck=group == LUCK).reset_index(drop=True)
    if table.empty:
        st.info("No such rejection passes the filters.", icon=":material/search_off:")
        return
    st.caption(as_markdown(HOW_TO_READ_REJECTIONS[str(group)]))
    rows = {f"{row['trace']}.{row['step']}.{row['node']}": row for row in table.to_dict("records")}
    chosen = pick(
        rejection_lines(table, names), list(rows), "find.rejections", "Selected rejection",
        lambda k: name(rows[k], names) if k in rows else "",
        column_config=LOOK, height=height(table), alt=f"The {len(table)} most expensive rejections",
    )  # fmt: skip
    row = rows[chosen]
    st.html(f'<p class="ds-say">{as_text(words(row))}</p>')
    with st.container(horizontal=True):
        if st.button(
            "Open this step",
            key="find.open",
            type="primary",
            icon=":material/open_in_new:",
            help="On the Step page, from the kept run.",
        ):
            open_stored(session, runs, int(row["trace"]), int(row["step"]), int(row["node"]))
        data_box(lambda: table, "find.rejections_data")


def height(table: pd.DataFrame) -> int:
    """Pixels: at most seven lines, so that what was chosen is seen below them."""
    return 37 + 35 * min(len(table), 7)


def rejection_lines(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The columns a reader wants; prompts and steps count from 1."""
    columns = ["cost", "context", "token", "wanted", "wanted p", "p", "confidence", "u", "class", "domain", "prompt", "step"]
    frame = table[columns].rename(columns={"confidence": "q"})
    return frame.assign(prompt=called(frame["prompt"], names), step=frame["step"] + 1)


def name(row: Mapping, names: Sequence[str]) -> str:
    where = f"prompt {names[row['prompt']]}, step {row['step'] + 1}, node {row['node'] + 1}"
    return f"{plain(row['token'], 20)} after “{plain(row['context'][-24:], 24)}” · {where}"


def words(row: Mapping) -> str:
    """The rejection in a sentence."""
    q = "" if pd.isna(row["confidence"]) else f" with q = {number(row['confidence'])}"
    wanted = "" if pd.isna(row["wanted p"]) else f", which liked “{row['wanted']}” best, with {number(row['wanted p'])}"
    return (
        f"After “{row['context'][-30:]}” the drafter wrote “{row['token']}”{q}; the target gave it p = {number(row['p'])}{wanted}. "
        f"“{row['committed']}” came to stand there."
    )


def as_text(sentence: str) -> str:
    return html.escape(plain(sentence, 400))


def disagreeing(session: Session, runs: Runs, judged: Mapping[str, pd.DataFrame], names: Sequence[str]) -> None:
    """Places where one drafter was right and the other was not."""
    (a, one), (b, two) = judged.items()
    st.markdown(as_markdown(agreement_sentence(one, two, (a, b))))
    table = disagreements(one, two, (a, b))
    if table.empty:
        st.info("There is no place among these tokens where one was accepted and the other was not.", icon=":material/search_off:")
        return
    st.caption(as_markdown(HOW_TO_READ_DISAGREEMENTS))
    shown = table.head(MANY).reset_index(drop=True)
    columns = ["accepted by", "context", f"tried, {a}", f"tried, {b}", "wanted", "wanted p", "domain", "prompt", "position"]
    lines = shown[columns].assign(prompt=called(shown["prompt"], names), position=shown["position"] + 1)
    rows = {f"{row['prompt']}.{row['position']}": row for row in shown.to_dict("records")}
    chosen = pick(
        lines, list(rows), "find.apart", "Selected place", lambda k: place(rows[k], names) if k in rows else "",
        column_config=LOOK, height=height(shown), alt=f"{len(shown)} places where the drafters disagree",
    )  # fmt: skip
    with st.container(horizontal=True):
        for label in (a, b):
            if st.button(f"Open at {as_markdown(label)}", key=f"find.open_{label[0]}", icon=":material/open_in_new:"):
                row = rows[chosen]
                open_stored(session, runs, *(int(row[f"{what}, {label}"]) for what in ("trace", "step", "node")))
        data_box(lambda: table, "find.apart_data")


def place(row: Mapping, names: Sequence[str]) -> str:
    where = f"prompt {names[row['prompt']]}, position {row['position'] + 1}"
    return f"after “{plain(row['context'][-30:], 30)}” · {row['accepted by']} was right · {where}"
