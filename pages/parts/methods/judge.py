"""Judge Decoding on the Step page: the score beside the standard rule, what only the judge let through, and the run without it."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import streamlit as st

from decoding.trace import Step, Trace, number_in
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG, dark
from pages.parts.shared.side_job import Question, offer
from viz.methods.judge import (
    CSS,
    count,
    count_table,
    count_words,
    marked_html,
    marked_table,
    scored,
    scores_alt,
    scores_figure,
    scores_table,
    threshold_figure,
    threshold_table,
)
from viz.runs.tally import tally
from viz.step.text import CSS as TEXT_CSS
from viz.step.text import strip, strip_html
from viz.tokens import as_markdown
from viz.words import number


def view(session: Session) -> None:
    """Draw it for the step that is shown, and for the run up to it."""
    trace, step = session.trace, session.step
    threshold = number_in(trace.header.params, "threshold", 0.5)
    st.markdown("**The judge beside the standard rule** :orange-badge[lossy]")
    if scored(step):
        alt = scores_alt(step, trace.token_bytes, threshold)
        st.plotly_chart(scores_figure(step, trace.token_bytes, threshold, dark()), key="judge_scores", config=PLOT_CONFIG, alt=alt)
        st.caption(
            "A token stays if the standard rule accepts it (u × q < p) or its score lies above the line; the first that fails both "
            "is replaced, and nothing behind it counts. The score comes from the target's state behind the token. End of text "
            "passes by the standard rule only."
        )
        with st.expander("The scores as a table"):
            st.dataframe(scores_table(step, trace.token_bytes, threshold), hide_index=True, key="judge_scores_table")
    else:
        st.caption("Nothing was drafted in this step.")
    text(session)
    counters(session, threshold)
    without(session)


def text(session: Session) -> None:
    """The text, with what only the judge let through marked."""
    trace = session.trace
    st.markdown("**The text: ⚖ marks what only the judge let through**")
    st.html(TEXT_CSS + CSS + marked_html(trace, session.cursor))
    with st.expander("The marked tokens as a table", key="judge_marked_box", on_change="rerun") as box:
        if box.open:
            st.dataframe(marked_table(trace, session.cursor), hide_index=True, key="judge_marked")


def counters(session: Session, threshold: float) -> None:
    """Who let how many through, the expected deviation, and other thresholds on the same drafts."""
    steps = session.trace.steps[: session.cursor + 1]
    total = count(steps, threshold)
    st.caption(as_markdown(count_words(total)))
    with st.expander("Counters, and the same drafts under other thresholds", key="judge_count_box", on_change="rerun") as box:
        if not box.open:
            return
        st.dataframe(count_table(total), hide_index=True, key="judge_count")
        st.caption(
            "At each position the distance from the target, in total variation, is the chance that the judge overrules a refusal: "
            "Σ J(x) max(q(x) − p(x), 0). Each judged token adds J max(0, 1 − p/q), whose mean over draws from q is that distance."
        )
        table = threshold_table(steps, threshold)
        st.plotly_chart(
            threshold_figure(steps, threshold, dark()), key="judge_thresholds", config=PLOT_CONFIG, alt=count_words(total)
        )
        st.caption(
            "The stored drafts judged anew, without a model call; under another threshold the later drafts would have been others."
        )
        st.dataframe(table, hide_index=True, key="judge_thresholds_table")


# -- the same run without the judge ------------------------------------------------------------------------------------


def without(session: Session) -> None:
    """The same prompt, seed and draft length under the standard rule, on a button, to its end."""
    if session.recorded or session.settings is None:
        return
    question = standard(session)
    offer(session.sides, question, "Run it with the standard rule as well", "judge_standard")
    if (other := session.sides.answer(question.panel, question.about)) is not None:
        beside(session.trace, session.cursor, other)


def standard(session: Session) -> Question:
    """What the worker is asked: the whole run without the judge."""
    length = session.settings.full_params["length"]
    settings = session.settings.instead("speculative_sampling", {"length": length})
    waiting = "Decoding the same prompt with the standard rule … {count} target calls"
    return Question("judge", session.runs, settings.device, settings.maker(), "The run with the standard rule", waiting)


def beside(trace: Trace, cursor: int, other: Trace) -> None:
    """The other run's text, and both taus."""
    mine = tally(trace.steps[: cursor + 1])
    theirs = tally(steps_to(other.steps, mine.tokens))
    st.markdown("**The same run with the standard rule**")
    st.html(TEXT_CSS + strip_html(strip(other), legend=False))
    st.caption(
        f"Tokens per target call: {number(mine.tau or 0)} with the judge, {number(theirs.tau or 0)} without it, up to token "
        f"{mine.tokens:,}. Same prompt, seed "
        "and draft length; the texts part at the first token that only the judge let through."
    )


def steps_to(steps: Sequence[Step], tokens: int) -> Sequence[Step]:
    """The steps of a run until it has written as many tokens; all of one that wrote fewer."""
    written = list(accumulate(len(step.tokens) for step in steps))
    return steps[: bisect_left(written, tokens) + 1]
