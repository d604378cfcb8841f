"""Everything that draws a trace, drawn on one page: the Step page with every box open, a comparison, the Drafter page's findings;
and the files that are made of it."""

import html
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.elements.lib.mutable_expander_container import ExpanderContainer
from streamlit.elements.lib.mutable_popover_container import PopoverContainer
from streamlit.elements.lib.mutable_tab_container import TabContainer
from streamlit.testing.v1 import AppTest

from decoding.runs import lesson_runs
from decoding.runs.prompts import Prompt
from decoding.runs.store import Store
from decoding.runs.trace_files import nodes_frame, steps_frame, to_json, to_parquet
from decoding.runs.tree_files import to_graphml, to_node_link
from decoding.trace import Trace
from pages.parts.compare.columns import tally_html, text_html, written_html
from pages.parts.compare.comparison import comparison
from pages.parts.compare.small_tree import draw_small_tree
from pages.parts.compare.sweep_view import best_words
from pages.parts.drafter.findings import findings_of
from pages.parts.drafter.findings_view import findings_view
from pages.parts.shared import retrieved
from pages.parts.shared.session import Session
from pages.parts.shared.stepper import Selection, stepper
from pages.parts.step import step_view
from pages.parts.step.method_panel import view_of
from pages.parts.step.open_trace import show
from pages.parts.step.tables import tables
from tests.conftest import PATIENCE
from tests.hostile import clean
from viz.drafter.judgements import positions
from viz.lanes.lanes import lanes, result
from viz.lanes.pictures import picture_lanes, picture_result
from viz.lenses.diagram_of_thought import role_figure, role_words
from viz.lessons.course import NEEDED, course
from viz.lessons.handout import handout
from viz.methods import guesses_html, pictures_of
from viz.methods.spectr import position_of
from viz.methods.spectr_transport import transport
from viz.replay.replay import replay_html
from viz.runs.compare import duration, until
from viz.runs.differences import exactness
from viz.runs.sweep import sweep_alt, sweep_figure, sweep_table
from viz.runs.track import track_html
from viz.runs.winner import winner_words
from viz.step.beside import beside_words
from viz.step.small_tree import small_tree_svg
from viz.step.text import legend_html, origins

GIVEN = "fuzz"  # in the session's state: what `drawn` was given
STEP, PANEL = "step", "panel"  # the whole Step page, or of it the tree, the inspector and the method's own panel
ALL = frozenset({STEP, "comparison", "findings", "sweep"})


@pytest.fixture(scope="package")
def all_open():
    """Every folded box, popover and tab is open, so that what is in it is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (ExpanderContainer, PopoverContainer, TabContainer):
            patch.setattr(kind, "open", property(lambda self: True, lambda self, value: None))
        yield


def drawn(
    trace: Trace, other: Trace, store: Store, number: int, cursor: int, node: int | None, parts: frozenset[str] = ALL
) -> AppTest:
    """The page that draws all of a trace; it has no traceback, and no text from outside on it is markup.

    Args:
        other: compared with it.
        number: under which the trace is in the store.
        parts: which of ALL are drawn; or PANEL alone.
    """
    at = AppTest.from_function(page, default_timeout=PATIENCE)
    at.session_state[GIVEN] = (trace, other, store, number, cursor, node, parts)
    return clean(at.run())


def page() -> None:
    from tests.fuzz.views import draw

    draw()


def draw() -> None:
    trace, other, store, number, cursor, node, parts = st.session_state[GIVEN]
    session = Session()
    show(session, trace, cursor, node)  # a trace of which the page says why not is drawn no further
    if STEP in parts:
        step_view.draw(session, lambda: None)
    if STEP in parts and session.step is not None:
        around(session, other)
    if PANEL in parts:
        panel(session)
    if not trace.steps:
        return
    if "comparison" in parts:
        comparison([("one", trace), ("other", other)], "fuzz_compare")
        st.html(f"<p>{html.escape(winner_words([('one', trace), ('other', other)]))}</p>")
        st.html(tally_html(trace) + tally_html(trace, (1.0, 2.0)) + text_html(trace) + written_html(trace))
        st.html(legend_html(origins(trace, other)))
        st.html(track_html([("one", trace), ("other", other)], {"one": len(trace.steps) // 2}))
        st.html("".join(f"<p>{html.escape(' '.join(exactness(other, trace, lossless)))}</p>" for lossless in (True, False)))
        assert len(lanes([("one", "", trace), ("other", "", other)])[0]["calls"]) == len(trace.steps)
        with suppress(ValueError):  # they wrote different texts
            result(trace, other)
        if trace.header.raster is not None:
            assert len(picture_lanes([("one", "", trace)])[0]["calls"]) == len(trace.steps)
            with suppress(ValueError):  # they drew different pictures
                picture_result(trace, other)
    if "findings" in parts:
        findings(trace, other, store, number)
    if "sweep" in parts:
        sweep([(1, trace), (2, other), (3, trace)])


def panel(session: Session) -> None:
    """What of a step depends on the numbers of its method."""
    stepper(session.trace, cursor=Selection(session.cursor, session.phase, session.node), key="fuzz_stepper", run=session.runs)
    tables(session)
    if (own := view_of(session.trace.header.method)) is not None:
        own(session)


def findings(trace: Trace, other: Trace, store: Store, number: int) -> None:
    """What the Drafter page says of them, as if either were a study."""
    runs = {"A · one": [(0, number, "stories", trace)], "B · other": [(0, number, "stories", other)]}
    prompts = (Prompt("Once upon a time", "stories"),)
    positions(runs["A · one"])
    found = {label: findings_of(prompts, label_runs) for label, label_runs in runs.items()}
    if all(len(one.judged) for one in found.values()):
        findings_view(Session(), store, found)


def around(session: Session, other: Trace) -> None:
    """What is drawn of a step when another part of the app answers, or on other pages."""
    trace, step = session.trace, session.step
    draw_small_tree(step, trace.token_bytes, "fuzz_small", session.root, 350, 6)
    if bars := guesses_html(trace, session.cursor):
        st.html(bars)
    assert small_tree_svg(trace, session.cursor).endswith("</svg>")
    for name in ("rest", "infinigram", "prompt_lookup", "token_recycling", "byte_drafting"):
        pictures_of(name).silence(trace, session.cursor)
    sections = [("proposer", trace), ("critic", other)]
    role_words(sections)
    role_figure(sections, dark=True)
    until(trace, duration(trace) / 2)
    retrieved.source_alt(step)
    if other.steps:
        beside_words(step, other.steps[0], "Other", trace.token_bytes | other.token_bytes)
    for row in range(len(step.rows)):
        position = position_of(step, row)
        if position is not None and step.rows[row] is not None:
            with suppress(ValueError):  # too many sets of guesses, which the page says
                transport(step.rows[row], position.guesses)
            break


def the_course() -> None:
    """The lessons and their handouts: always of the runs that ship."""
    runs = {name: lesson_runs.read(name) for name in NEEDED}
    for number, lesson in enumerate(course(runs), 1):
        handout(lesson, number, runs)


def sweep(points: Sequence[tuple[int, Trace]]) -> None:
    """A swept parameter whose runs these are."""
    points = [(value, trace) for value, trace in points if trace.steps]
    table = sweep_table(points, "length", 0.25)
    best_words(table, "length", 0.25)
    st.plotly_chart(sweep_figure(points, "length", 0.25), key="fuzz_sweep", alt=sweep_alt(points, "length", 0.25))


def files_of(trace: Trace, folder: Path) -> None:
    """Every file that is made of a trace; each can be read again."""
    replay = replay_html(trace, trace.header.prompt[:200])
    text = replay.split('<script type="application/json" id="data">', 1)[1].split("</script>", 1)[0]
    assert len(json.loads(text)["stepper"]["steps"]) == len(trace.steps)
    assert to_json(trace)
    for name, frame in (("nodes", nodes_frame(trace)), ("steps", steps_frame(trace))):
        (folder / f"{name}.parquet").write_bytes(to_parquet(frame))
        assert len(pd.read_parquet(folder / f"{name}.parquet")) == len(frame)
        frame.to_csv(index=False)
    for step in trace.steps[:2]:
        assert to_graphml(step, trace.token_bytes).startswith(b"<?xml") and json.loads(to_node_link(step, trace.token_bytes))
