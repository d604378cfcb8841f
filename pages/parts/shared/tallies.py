"""The running tally: what the run has cost and gained up to the step that is shown. Measured and modelled are never mixed."""

import streamlit as st

from decoding.trace import Step
from pages.parts.shared.panel import folded
from pages.parts.shared.session import Session
from pages.parts.shared.setup import PLOT_CONFIG
from pages.parts.shared.side_job import Question
from viz.runs.tally import (
    Tally,
    alpha_alt,
    alpha_figure,
    alpha_table,
    modelled_speedup,
    phase_bar,
    tally,
    times_alt,
    times_figure,
    times_table,
)
from viz.style import PHASES
from viz.tokens import as_markdown
from viz.words import METRICS, filled, filled_speedup, number

PLAIN = "plain decoding"


def tallies(session: Session, dark: bool) -> None:
    steps = session.trace.steps[: session.cursor + 1]
    total = tally(steps)
    numbers(total)
    speed(session, total)
    st.html(phase_bar(total))
    folded("Every step's milliseconds, and alpha by depth", "tally_charts", charts, steps, total, dark)


def charts(steps: tuple[Step, ...], total: Tally, dark: bool) -> None:
    """Two charts and their tables; drawn only when wanted, because every chart makes every click slower."""
    left, right = st.columns(2)
    with left:
        st.markdown("**Milliseconds per step**")
        st.plotly_chart(times_figure(steps, dark), key="times", config=PLOT_CONFIG, alt=times_alt(steps))
        st.dataframe(times_table(steps), hide_index=True, key="times_table")
    with right:
        st.markdown("**Alpha by depth**")
        st.plotly_chart(alpha_figure(total, dark), key="alphas", config=PLOT_CONFIG, alt=alpha_alt(total))
        st.dataframe(alpha_table(total), hide_index=True, key="alpha_table")


def numbers(total: Tally) -> None:
    """One metric each, with its formula and the numbers filled in behind the question mark."""
    per_step = {phase: ms / total.target_calls for phase, ms in total.ms.items()} if total.target_calls else {}
    cells = {
        "tau": (two(total.tau), helped("tau", total)),
        "alpha": (two(total.alpha), helped("alpha", total)),
        "target calls": (str(total.target_calls), "Passes of the target over a draft: one per step. " + calls_saved(total)),
        "drafter calls": (str(total.draft_calls), "Passes of the draft model; methods without a draft model have none."),
        "tokens": (str(total.tokens), "Committed so far, the target's own included."),
        "ms per step": (
            f"{sum(per_step.values()):.1f}" if per_step else "–",
            "Mean over the steps: " + ", ".join(f"{phase} {per_step.get(phase, 0):.1f}" for phase in PHASES),
        ),
        "tokens per second": (two(total.tokens_per_second, 1), helped("tokens per second", total)),
    }
    with st.container(horizontal=True, gap="small", key="tally"):
        for label, (value, help_) in cells.items():
            st.metric(as_markdown(label), value, help=help_, width="content")


def two(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def helped(metric: str, total: Tally) -> str:
    return as_markdown(f"{filled(metric, total)}. {METRICS[metric].meaning}")


def calls_saved(total: Tally) -> str:
    return as_markdown(filled("calls saved", total))


def speed(session: Session, total: Tally) -> None:
    """Measured on the left, modelled on the right, each said to be what it is."""
    left, right = st.columns(2, border=True)
    with left:
        measured(session, total)
    with right:
        modelled(total, session.trace.steps[: session.cursor + 1])


def measured(session: Session, total: Tally) -> None:
    st.markdown("**Measured speed-up** over plain decoding", help=as_markdown(
        "tokens per second of this run / tokens per second of plain decoding of the same prompt with the same sampling and seed, "
        "on this machine, one after the other, both recorded in full; reading the prompt is not counted."
    ))  # fmt: skip
    plain = session.sides.answer(PLAIN, session.settings)
    if plain is not None:
        base = tally(plain.steps)
        if base.tokens_per_second and total.tokens_per_second:
            ratio = total.tokens_per_second / base.tokens_per_second
            st.markdown(f"### {ratio:.2f} ×")
            st.caption(
                f"{total.tokens_per_second:.1f} tokens per second in this run, {base.tokens_per_second:.1f} in plain decoding "
                f"({base.tokens:,} tokens, measured on this machine, {as_markdown(session.trace.header.device)})."
            )
    else:
        st.caption("Not measured yet." + (" This run was recorded: make it here to compare." if session.recorded else ""))
    st.button(
        "Measure again" if plain is not None else "Measure plain decoding", key="measure", icon=":material/timer:",
        on_click=lambda: session.sides.ask(plain_question(session)), disabled=session.recorded or session.busy or not session.count,
        help="Decodes the same prompt without a draft, as many tokens as this run has.",
    )  # fmt: skip


def plain_question(session: Session) -> Question:
    """The same prompt without a draft, as far as the shown run went."""
    settings = session.settings.instead("plain", tokens=session.tokens)
    waiting = "Decoding the same prompt without a draft … {count} tokens"
    return Question(PLAIN, session.settings, settings.device, settings.maker(), "Plain decoding", waiting)


def modelled(total: Tally, steps: tuple[Step, ...]) -> None:
    st.markdown("**Modelled speed-up**, not measured", help=as_markdown(
        f"{METRICS['modelled speed-up'].formula}. {METRICS['modelled speed-up'].meaning} It assumes that reading a draft costs the "
        "target as much as reading one token: true on a GPU that waits for memory, not on a CPU."
    ))  # fmt: skip
    ratio = cost_ratio(total)
    choose = st.toggle("Choose the cost ratio c", key="choose_c", persist_state="session",
                       help="c = time of a drafter call / time of a target call")  # fmt: skip
    c = st.slider("c", 0.0, 1.0, 0.1, 0.01, key="c", persist_state="session", label_visibility="collapsed") if choose else ratio
    if c is None or total.tau is None:
        st.caption("No cost ratio yet: no step was run.")
        return
    st.markdown(f"### {modelled_speedup(total.tau, total.calls_per_step or 0, c):.2f} ×")
    st.caption(
        as_markdown(f"{filled_speedup(total, c)}; c {'chosen' if choose else 'measured in these steps: ' + ratio_words(total)}")
    )


def cost_ratio(total: Tally) -> float | None:
    """Mean time of a drafter call over mean time of a target call; without a draft model the drafting per step counts as one."""
    if not total.target_calls or not total.ms["read"]:
        return None
    if not total.draft_calls:
        return 0.0
    return (total.ms["propose"] / total.draft_calls) / (total.ms["read"] / total.target_calls)


def ratio_words(total: Tally) -> str:
    if not total.draft_calls:
        return "no draft model is called"
    drafter, target = total.ms["propose"] / total.draft_calls, total.ms["read"] / total.target_calls
    return f"{number(drafter)} ms per drafter call / {number(target)} ms per target call"
