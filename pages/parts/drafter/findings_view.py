"""What a study found, drawn: numbers, alarms, filters that apply to all, and the charts in tabs; only the open tab is drawn."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from math import ceil
from typing import Any, TypeVar, cast

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from decoding.runs.failures import told
from pages.parts.drafter.findings import Findings, called
from pages.parts.drafter.rejections import disagreeing, rejections
from pages.parts.shared.chart_data import data_box
from pages.parts.shared.pick import told_apart
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.step.open_trace import Runs
from viz.drafter.acceptance import (
    BY,
    HOW_TO_READ,
    INTERVAL,
    TITLES,
    Frames,
    acceptance_alt,
    acceptance_figure,
    acceptance_table,
    named,
)
from viz.drafter.heat import HOW_TO_READ_HEAT, MEASURES, heat_strip, heat_table
from viz.drafter.judgements import CLASSES, filtered
from viz.drafter.levels import depth_alt, depth_figure, depth_table, depth_words
from viz.drafter.pairs import HOW_TO_READ_BOOTSTRAP, bootstrap_sentence, paired_bootstrap, paired_taus
from viz.drafter.ranks import list_words, rank_alt, rank_figure, rank_words, ranks
from viz.drafter.reliability import (
    HOW_TO_READ_RELIABILITY,
    calibration_error,
    excluded,
    reliability_alt,
    reliability_figure,
    reliability_table,
)
from viz.tokens import as_markdown, plain
from viz.words import METRICS

DRAWN = 8  # tables and charts that are kept for whoever comes next
SMALL = 5_000  # lines of such a table: of a larger one nothing is kept, or those of a few studies would take gigabytes
STYLE = """
<style>
.ds-finding h2 { font-size: 0.95rem; font-weight: 600; margin: 0.2rem 0 0 0; padding: 0; }
.ds-finding ul { margin: 0 0 0.4rem 0; padding-left: 1.2rem; max-width: 56rem; }
.ds-finding li { font-size: 1.18rem; line-height: 1.45; margin: 0.1rem 0; overflow-wrap: anywhere; }
</style>
"""


def findings_view(session: Session, runs: Runs, found: dict[str, Findings]) -> None:
    """All of it, for one or two drafters."""
    st.html(verdict_html(found))
    with st.container(border=True, gap="xsmall", key="find.numbers"):
        for label, one in found.items():
            numbers(label, one)
    st.caption(as_markdown("; ".join(dict.fromkeys(one.stage for one in found.values()))))
    for label, one in found.items():
        for alarm in one.alarms:
            st.warning(as_markdown(f"{label}. {alarm}"), icon=":material/warning:")
    names = tuple(found)
    if len(found) == 2:
        difference = paired_bootstrap(*paired_taus(*(one.tallies for one in found.values())))
        st.markdown(as_markdown(bootstrap_sentence(difference, names)), help=HOW_TO_READ_BOOTSTRAP)
    chosen = filters(pd.concat([one.judged for one in found.values()], ignore_index=True))
    judged = passed(tuple((label, Held(one.judged)) for label, one in found.items()), tuple(chosen.items()))
    total, left = sum(len(one.judged) for one in found.values()), sum(map(len, judged.values()))
    st.caption(f"{left:,} of {total:,} judged tokens pass the filters; every chart below shows these.")
    runs_of = found[names[0]].names  # the same of both
    frames: Frames = judged if len(judged) > 1 else judged[names[0]]
    views: dict[str, Callable[[], None]] = {
        "Acceptance": lambda: acceptance(frames),
        "Its list": lambda: listed(frames),
        "Calibration": lambda: calibration(frames, judged),
        "p against q": lambda: heat(runs, found, chosen),
        "Rejections": lambda: rejections(session, runs, judged, runs_of),
    }
    if len(judged) == 2:
        views["Two drafters"] = lambda: disagreeing(session, runs, judged, runs_of)
    for tab, view in zip(st.tabs(list(views), key=f"find.tabs.{len(views)}", on_change="rerun"), views.values(), strict=True):
        if tab.open:
            with tab:
                view()


def verdict_html(found: Mapping[str, Findings]) -> str:
    """What is wrong with each, before anything else."""
    parts = []
    for label, one in found.items():
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in one.verdict)
        parts.append(f"<h2>{html.escape(plain(label, 60))}</h2><ul>{lines}</ul>")
    return f'<section class="ds-finding" aria-label="Verdict">{"".join(parts)}</section>{STYLE}'


def numbers(label: str, found: Findings) -> None:
    """One line of numbers over all prompts; the filters do not change them."""
    sums = found.tallies.sum(numeric_only=True)
    judged, accepted = len(found.judged), int(found.judged["accepted"].sum())
    error = calibration_error(found.judged)
    cells = {
        "prompts" if all(map(str.isdigit, found.names)) else "turns": (f"{len(found.tallies):,}", "Finished ones."),
        "tau": (share(sums["tokens"], sums["target calls"]), f"{METRICS['tau'].formula}. {METRICS['tau'].meaning}"),
        "alpha": (share(accepted, judged), f"{METRICS['alpha'].formula}. {METRICS['alpha'].meaning}"),
        "judged": (f"{judged:,}", "Drafted tokens the target looked at."),
        "wasted": (f"{int(sums['wasted']):,}", f"{METRICS['wasted'].formula}. {METRICS['wasted'].meaning}"),
        "calibration error": (
            "–" if error is None else f"{error:.3f}",
            "Mean distance of acceptance from drafted probability over ten bins, weighted by their tokens. "
            + excluded(found.judged),
        ),
    }
    with st.container(horizontal=True, vertical_alignment="center", key=f"find.numbers.{label[0]}"):
        st.markdown(f"**{as_markdown(label)}**", width=210)
        for name, (value, help_) in cells.items():
            st.metric(name, value, help=as_markdown(help_), width="content")
        table = found.tallies
        data_box(lambda: table.assign(prompt=called(table["prompt"], found.names)), f"find.prompts.{label[0]}", "Per prompt")


def share(part: float, whole: float) -> str:
    return f"{part / whole:.2f}" if whole else "–"


# -- filters --------------------------------------------------------------------------------------------------------------


def filters(judged: pd.DataFrame) -> dict:
    """What `viz.drafter.judgements.filtered` takes; a filter that is not used is None, so that nothing unknown is lost."""
    domain, kind, deep, sure = st.columns([0.26, 0.34, 0.2, 0.2], gap="medium", vertical_alignment="bottom")
    with domain:
        domains = several("Domain", sorted(judged["domain"].unique()), "find.domains")
    with kind:
        present = set(judged["class"])
        classes = several("Token class", [c for c in CLASSES if c in present], "find.classes")
    with deep:
        depth = between("Depth", 1, int(judged["depth"].max()) if len(judged) else 1, 1, "find.depth")
    with sure:
        top = judged["entropy"].max()
        entropy = between("Entropy of p, bits", 0.0, float(ceil(top)) if top > 0 else 0.0, 0.25, "find.entropy")
    return {"domains": domains, "classes": classes, "depth": depth, "entropy": entropy}


def several(label: str, options: list[str], key: str) -> tuple[str, ...] | None:
    """Any number of the options; none chosen means all."""
    st.session_state[key] = [option for option in st.session_state.get(key, []) if option in options]
    said = dict(zip(options, told_apart([plain(o, 40) for o in options], range(1, len(options) + 1)), strict=True))
    found = st.multiselect(as_markdown(label), options, key=key, placeholder="all", format_func=said.__getitem__)
    return tuple(found) or None


def between(label: str, low: float, high: float, step: float, key: str) -> tuple[float, float] | None:
    """A range within `low` to `high`, or None for all of it."""
    if high <= low:
        st.caption(f"{as_markdown(label)}: {low:g} only")
        return None
    chosen = st.slider(as_markdown(label), low, high, (low, high), step, key=f"{key}.{high:g}")
    return None if chosen == (low, high) else chosen


# -- charts ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Held:
    """A table that is known by being itself."""

    frame: pd.DataFrame

    def __hash__(self) -> int:
        return id(self.frame)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.frame is self.frame


Parts = tuple[tuple[str, Held], ...]  # by drafter, "" where there is one
F = TypeVar("F", bound=Callable)


def parts_of(frames: Frames) -> Parts:
    return tuple((label, Held(part)) for label, part in named(frames).items())


def frames_of(parts: Parts) -> Frames:
    return {label: part.frame for label, part in parts} if len(parts) > 1 else parts[0][1].frame


def kept(most: int) -> Callable[[F], F]:
    """Keeps what a function of small tables gave last, as `lru_cache` does."""

    def keeping(make: F) -> F:
        cached = lru_cache(most)(make)

        @wraps(make)
        def found(parts: Parts, *more: Any) -> Any:
            return (cached if sum(len(part.frame) for _, part in parts) <= SMALL else make)(parts, *more)

        return cast(F, found)

    return keeping


@kept(DRAWN)
def passed(parts: Parts, chosen: tuple[tuple[str, Any], ...]) -> dict[str, pd.DataFrame]:
    """What passes the filters; the same tables for the same ones."""
    return {label: filtered(part.frame, **dict(chosen)) for label, part in parts}


@kept(DRAWN)
def by_level(parts: Parts, dark: bool) -> tuple[go.Figure, str, str]:
    """The chart of levels, what it says, and how to read it: whoever comes sees the same of the same study."""
    frames = frames_of(parts)
    read = " ".join(f"{label}: {depth_words(part)}" if label else depth_words(part) for label, part in named(frames).items())
    return depth_figure(frames, dark), depth_alt(frames), read


@kept(4 * DRAWN)
def by_what(parts: Parts, by: str, dark: bool) -> tuple[go.Figure, str]:
    frames = frames_of(parts)
    return acceptance_figure(frames, by, dark), acceptance_alt(frames, by)


def chart(title: str, figure: go.Figure, alt: str, read: str, table: Callable[[], pd.DataFrame], key: str) -> None:
    """A chart with its title, how to read it, and its data."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{as_markdown(title)}**", width="content")
        data_box(table, key)
    st.plotly_chart(figure, key=key, config=PLOT_CONFIG, alt=alt)
    st.caption(as_markdown(read))


def acceptance(frames: Frames) -> None:
    """How often a drafted token is kept, by what may explain it."""
    sources = {source for part in named(frames).values() for source in part["source"]}
    shown = [by for by in BY if by != "depth" and (by != "source" or len(sources) > 1)]
    cells = st.columns(2, gap="large") * 4
    parts = parts_of(frames)
    with cells[0]:
        figure, alt, read = by_level(parts, dark())
        chart("Was one guess of the level right?", figure, alt, read, lambda: depth_table(frames), "find.by_depth")
    for cell, by in zip(cells[1:], shown, strict=False):
        with cell:
            figure, alt = by_what(parts, by, dark())
            chart(f"By {TITLES[by]}", figure, alt, HOW_TO_READ[by], lambda by=by: acceptance_table(frames, by), f"find.by_{by}")
    st.caption(INTERVAL)


def listed(frames: Frames) -> None:
    """Where the target's favourite stood in the drafter's list."""
    for cell, (label, part) in zip(st.columns(2, gap="large"), named(frames).items(), strict=False):
        with cell:
            chart(
                f"The target's favourite in the drafter's list{': ' if label else ''}{label}", rank_figure(part, dark()),
                rank_alt(part), f"{rank_words(part)} {list_words(part)}", lambda part=part: ranks(part), f"find.ranks.{label[:1]}",
            )  # fmt: skip


def calibration(frames: Frames, judged: Mapping[str, pd.DataFrame]) -> None:
    """Drafted probability against acceptance."""
    left, right = st.columns([0.62, 0.38], gap="large")
    with left:
        chart(
            "Can its confidence be trusted?",
            reliability_figure(frames, dark()),
            reliability_alt(frames),
            HOW_TO_READ_RELIABILITY,
            lambda: pd.concat([reliability_table(part).assign(drafter=label) for label, part in judged.items()]),
            "find.reliability",
        )  # fmt: skip
    with right:
        for label, part in judged.items():
            error = calibration_error(part)
            words = "has no drafted probability among these tokens" if error is None else f"expected calibration error {error:.3f}"
            st.markdown(as_markdown(f"{label}: {words}."))
            if left_out := excluded(part):
                st.caption(as_markdown(left_out))
        st.caption(
            "Drafted probability: what the drafter gave the token at its place, at temperature 1 in a greedy run. A drafter that "
            "is too sure of itself wastes target calls on long drafts; one that is too modest stops early."
        )


def heat(runs: Runs, found: Mapping[str, Findings], chosen: Mapping) -> None:
    """How far p and q are apart, token by token, over the text of one prompt."""
    who, what, how = st.columns([0.24, 0.5, 0.26], vertical_alignment="bottom")
    label = who.selectbox("Drafter", list(found), key="find.heat_drafter") if len(found) > 1 else next(iter(found))
    tallies = filtered(found[label].tallies, domains=chosen["domains"])
    if tallies.empty:
        st.info("No finished prompt is of the chosen domains.")
        return
    lines = {int(row["prompt"]): row for row in tallies.to_dict("records")}

    def name(number: int) -> str:
        text, run = found[label].prompts[number].text, found[label].names[number]
        return f"{run}: {plain(text.strip(), 60)} · tau {lines[number]['tau']:.2f}" if number in lines else ""

    number = what.selectbox("Prompt", list(lines), key=f"find.heat_prompt.{label[0]}", format_func=name)
    by = how.selectbox("Measure", list(MEASURES), key="find.heat_by", format_func=MEASURES.get)
    try:
        trace = runs.open(int(lines[number]["trace"]))
    except ValueError as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        return
    with st.container(border=True):
        st.html(heat_strip(trace, by))
    st.caption(as_markdown(HOW_TO_READ_HEAT + " Of the filters, the domain alone applies here."))
    data_box(lambda: heat_table(trace), "find.heat")
