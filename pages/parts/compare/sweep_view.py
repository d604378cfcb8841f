"""The view of a sweep: which parameter, from where to where; the chart of what it does, and the cost ratio."""

import html
from collections.abc import Callable
from dataclasses import fields, replace

import pandas as pd
import streamlit as st

from decoding.methods import METHODS
from pages.parts.compare.address import SWEPT, sweep_parameters
from pages.parts.compare.comparison import chart
from pages.parts.compare.race import Race, shown_value
from pages.parts.compare.share import link_button
from pages.parts.compare.sidebar import set_value, shared_controls
from pages.parts.compare.sweep import Plan, Sweep, spread, sweepable
from pages.parts.shared.absent import offer
from pages.parts.shared.controls import kept, lacking_methods, method_menu, param_control, param_key, read, remember, say, value
from pages.parts.shared.following import followed
from pages.parts.shared.runs import of_tab
from pages.parts.shared.session import Session
from pages.parts.shared.setup import dark
from pages.parts.shared.tallies import cost_ratio
from viz.runs.sweep import HOW_TO_READ_SWEEP, sweep_alt, sweep_figure, sweep_table
from viz.runs.tally import tally
from viz.tokens import as_markdown
from viz.words import number, stage

MOST_POINTS, MOST_SEEDS = 16, 5
MOST_C = 2.0  # end of the slider
C = "sweep.c"


def sweep(session: Session, race: Race) -> None:
    """The view."""
    state = of_tab("draftscope_sweep", Sweep)
    shared_controls(session, lambda: method_rail(session, race))
    plan = range_controls(session, race)
    race.values |= {key: st.session_state[key] for key in st.session_state if str(key).startswith(("sweep.", "param.sweep."))}
    followed(state, "sweep_view", lambda line: draw(session, state, race, plan, line), lambda: progress(state))
    with st.container(key="sweep_share"):
        link_button(lambda: sweep_parameters(plan.base, plan.parameter, plan.values, plan.seeds), race, "sweep_link", plan.base)


def method_rail(session: Session, race: Race) -> None:
    models = read(session)
    lacking = lacking_methods(models.target, models.draft)
    method = method_menu(race, "sweep.method", "speculative_sampling", lacking, "Method")
    for spec in fields(METHODS[method].params):
        param_control(race, f"sweep.{method}", spec)


def range_controls(session: Session, race: Race) -> Plan:
    """Which parameter, from where to where."""
    method = value(race, "sweep.method", "speculative_sampling")
    known = sweepable(METHODS[method])
    if (asked := race.values.pop("sweep.asked", "")) in known:
        st.session_state[f"sweep.parameter.{method}"] = asked
    swept = race.values.pop("sweep.swept", {})
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="sweep_range"):
        parameter = st.selectbox(
            "Swept parameter",
            list(known),
            **kept(race, f"sweep.parameter.{method}", next(iter(known)), known),
            format_func=lambda name: known[name][0],
            width=220,
            help="Its value on the left is not used.",
        )
        label, low, high = known[parameter]
        whole = isinstance(low, int) and isinstance(high, int)
        keys = [f"sweep.{end}.{method}.{parameter}" for end in ("low", "high")]
        most = {keys[0]: (low, high), keys[1]: (low, high), "sweep.points": (2, MOST_POINTS), "sweep.seeds": (1, MOST_SEEDS)}
        for name, (key, (least, largest)) in zip(SWEPT, most.items(), strict=True):
            if name in swept:  # a link's, within what there is
                set_value(race, key, type(least)(min(max(swept[name], least), largest)))
        step = 1 if whole else 0.05
        start = st.number_input("From", low, high, step=step, **kept(race, keys[0], low), width=120)
        end = st.number_input("To", low, high, step=step, **kept(race, keys[1], min(high, low + 7) if whole else high), width=120)
        points = st.number_input("Points", 2, MOST_POINTS, step=1, **kept(race, "sweep.points", 6), width=110)
        seeds = st.number_input(
            "Seeds",
            1,
            MOST_SEEDS,
            step=1,
            **kept(race, "sweep.seeds", 1),
            width=110,
            help="Runs per point, with one seed after the other; their steps are added up.",
        )
    params = {f.name: value(race, param_key(f"sweep.{method}", f.name), f.default) for f in fields(METHODS[method].params)}
    base = replace(read(session), method=method, params=params)
    return Plan(base, parameter, label, spread(min(start, end), max(start, end), points), seeds)


def draw(session: Session, state: Sweep, race: Race, plan: Plan, line: Callable[[], None]) -> None:
    said = html.escape(sentence(state, plan))
    st.html(f'<p class="ds-say" role="status" aria-live="polite">{said}</p>')
    for note in (*race.notes, *filter(None, (state.problem,))):
        st.warning(as_markdown(note), icon=":material/link_off:")
    buttons(state, plan)
    if plan.base.to_fetch:
        offer("sweep", plan.base, lambda base: start(session, state, replace(plan, base=base)))
    line()
    for at, column in state.points:
        if column.problem:
            st.warning(as_markdown(f"{state.plan.label} {shown_value(at)}: {column.problem}"), icon=":material/error:")
    if state.runs:
        if state.plan != plan and not state.running:
            st.caption("**The settings have changed** since these runs were made.")
        st.html(f'<p class="ds-dim">{html.escape(stage(trace.header for _, trace in state.runs))}</p>')
        results(state, race)


def start(session: Session, state: Sweep, plan: Plan) -> None:
    """Run it, and let the controls say its prompt and models."""
    base = plan.base
    say(session, replace(read(session), prompt=base.prompt, messages=base.messages, target=base.target, draft=base.draft))
    state.start(plan)


def sentence(state: Sweep, plan: Plan) -> str:
    """Where the sweep stands."""
    many = len(state.points)
    if state.running:
        return f"Run {state.done + 1} of {many}: one after the other on one worker."
    if state.missing:
        return f"Stopped after {len(state.runs)} of {many} runs."
    if many:
        return f"{METHODS[state.plan.base.method].title}: {len(state.runs)} runs, {state.plan.label.lower()} swept."
    runs = f"{len(plan.values)} runs" if plan.seeds == 1 else f"{len(plan.values)} × {plan.seeds} runs"
    return f"{runs} to their ends: {plan.label} = {', '.join(map(shown_value, plan.values))}. Press Run the sweep."


def buttons(state: Sweep, plan: Plan) -> None:
    problem = plan.problem
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="sweep_buttons"):
        st.button(
            "Run the sweep",
            key="sweep_run",
            icon=":material/play_arrow:",
            type="primary",
            shortcut="P",
            disabled=state.running or bool(problem),
            on_click=state.start,
            args=(plan,),
        )
        st.button(
            "Stop",
            key="sweep_stop",
            icon=":material/stop:",
            shortcut="Esc",
            disabled=not state.running,
            on_click=state.stop,
            help="The step under way is the last.",
        )
        if state.missing and not state.running:
            st.button(
                "Go on",
                key="sweep_go_on",
                icon=":material/resume:",
                on_click=state.go_on,
                help="Only the runs that are missing.",
            )
    if problem and not plan.base.to_fetch:
        st.warning(as_markdown(problem), icon=":material/block:")


def progress(state: Sweep) -> None:
    """Runs finished, and how far the one is whose turn it is."""
    if state.running and (point := state.now) is not None:
        at, column = point
        tokens = sum(len(step.tokens) for step in column.trace.steps) if column.trace else 0
        now = f"{state.plan.label} = {shown_value(at)}, {tokens} of at most {column.settings.max_tokens} tokens"
        text = f"{state.done} of {len(state.points)} runs finished; {state.in_line() or f'now {now}'}"
        st.progress(state.done / len(state.points), text=as_markdown(text))


def results(state: Sweep, race: Race) -> None:
    """The chart, its best value in a sentence, and the cost ratio to play with."""
    runs, label = state.runs, state.plan.label
    total = tally([step for _, trace in runs for step in trace.steps])
    c = cost(race, cost_ratio(total), bool(total.draft_calls))
    table = sweep_table(runs, label, c)
    st.markdown(as_markdown(best_words(table, label, c)))
    figure = sweep_figure(runs, label, c, dark())
    chart(figure, sweep_alt(runs, label, c), lambda: table, "sweep", HOW_TO_READ_SWEEP)


def cost(race: Race, measured: float | None, calls: bool) -> float:
    """The cost ratio: as measured in these runs, until somebody moves the slider."""
    measured = min(MOST_C, round(measured or 0.0, 3))
    if race.values.get("sweep.c_chosen"):
        remember(race, C, measured)
    else:
        st.session_state[C] = measured

    def moved() -> None:
        race.values["sweep.c_chosen"] = True

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="sweep_cost"):
        c = st.slider(
            "Cost ratio c = t(drafter call) / t(target call)",
            0.0,
            MOST_C,
            st.session_state[C],
            step=0.001,
            key=C,
            on_change=moved,
            width=420,
            format="%.3f",
            disabled=not calls,
        )
        st.button(
            f"Use the measured one ({measured:.3f})",
            key="sweep_measured",
            disabled=not race.values.get("sweep.c_chosen"),
            on_click=lambda: race.values.pop("sweep.c_chosen", None),
        )
    if not calls:
        st.caption("This method calls no draft model: its modelled speed-up is its tau, whatever c is.")
    return c


def best_words(table: pd.DataFrame, label: str, c: float) -> str:
    """What the chart shows, as a sentence."""
    best, most = table[table["best"]].iloc[0], table.loc[table["tau"].idxmax()]
    edge = best.iloc[0] in (table.iloc[0, 0], table.iloc[-1, 0]) and len(table) > 1
    more = " It lies at the end of the range: the optimum may lie beyond." if edge else ""
    return (
        f"Best at c = {number(c)}: {label} = {shown_value(best.iloc[0])}, with a modelled speed-up of "
        f"{best['modelled speed-up']:.2f} (not measured); "
        f"tau is largest at {shown_value(most.iloc[0])}, with {most['tau']:.2f}.{more}"
    )
