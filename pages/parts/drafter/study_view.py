"""The middle of the Drafter page: start and stop, progress while a study runs, and what it found."""

import streamlit as st

from decoding.methods import METHODS
from decoding.models.catalogue import MODELS
from decoding.runs.failures import told
from decoding.runs.prompts import Prompt
from decoding.runs.recorded_study import FAMILY, METHOD, MOST, PROMPTS
from decoding.runs.store import Store
from decoding.runs.study import Plan
from pages.parts.drafter.controller import Job, StudyController, finished, stamp
from pages.parts.drafter.findings import Findings, KeptRuns, found_in, recorded_findings
from pages.parts.drafter.findings_view import findings_view
from pages.parts.drafter.sidebar import jobs
from pages.parts.shared import keep
from pages.parts.shared import recorded_run as demo
from pages.parts.shared.following import timed
from pages.parts.shared.in_turn import Later
from pages.parts.shared.session import Session
from viz.tokens import as_markdown, plain


def study_view(controller: StudyController, session: Session, prompts: tuple[Prompt, ...], problem: str) -> None:
    """Everything below the title."""
    try:
        store = keep.store()
    except ValueError as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        if controller.busy:  # it goes on where it was begun
            stop_button(controller)
            timed(controller, controller.poll, lambda: progress(controller))
        return
    try:
        wanted = jobs(controller, prompts)
    except ValueError as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        if not controller.jobs:
            return
        wanted, problem = controller.jobs, "No run can be started before this is put right."  # what goes on, or is there, stays
    controller.sync()
    controller.belongs(store)
    busy = controller.busy  # asked once: a run that ends while this page is drawn must still get its timer
    bar(controller, store, wanted, problem, busy)
    shown = wanted if any(finished(store, job) for job in wanted) or not controller.jobs else controller.jobs
    if [job.key for job in shown] != [job.key for job in wanted]:
        st.info(
            "The controls say something else now. What follows was found with the settings of the last run.",
            icon=":material/history:",
        )
    if busy:
        timed(controller, controller.poll, lambda: progress(controller))
    results(controller, session, store, shown)


def bar(controller: StudyController, store: Store, wanted: tuple[Job, ...], problem: str, busy: bool) -> None:
    """One button that starts, goes on or stops, and a sentence about what it will do."""
    total = len(wanted[0].plan.places)
    there, failed = [finished(store, job) for job in wanted], [len(controller.problems.get(job.key, ())) for job in wanted]
    left = sum(max(0, total - done - lost) for done, lost in zip(there, failed, strict=True))
    with st.container(horizontal=True, vertical_alignment="center", key="study_bar"):
        if busy:
            stop_button(controller)
        else:
            label = "Try again" if not left and any(failed) else "Go on" if any(there) and left else "Run"
            st.button(as_markdown(label), key="study_run", type="primary", icon=":material/play_arrow:", on_click=start,
                      args=(controller, wanted, store), disabled=bool(problem) or not (left or any(failed)))  # fmt: skip
        st.markdown(as_markdown(problem or sentence(wanted[0].plan, there, left, sum(failed))), width="stretch")
    if controller.problem:
        st.error(as_markdown(plain(controller.problem, 400)), icon=":material/error:")


def stop_button(controller: StudyController) -> None:
    st.button("Stop", key="study_stop", type="primary", icon=":material/stop:", shortcut="Esc", on_click=controller.stop,
              help="The step under way is the last. Run goes on from here.")  # fmt: skip


def start(controller: StudyController, wanted: tuple[Job, ...], store: Store) -> None:
    """Run them, if what they find can be kept."""
    try:
        store.begun()
    except ValueError as error:
        controller.problem = told(error)
        return
    controller.start(wanted, store)


def sentence(plan: Plan, there: list[int], left: int, failed: int) -> str:
    """What is there, what is still to be done, and how many runs came to nothing."""
    total, limit = len(plan.places), f"at most {plan.max_tokens:,} {'token' if plan.max_tokens == 1 else 'tokens'} each"
    prompts = asked(plan)
    drafters = "one drafter" if len(there) == 1 else "two drafters"
    if not left and failed:
        runs = "1 run came to nothing, for the reason" if failed == 1 else f"{failed:,} runs came to nothing, for the reasons"
        found, again = "1 run is" if sum(there) == 1 else f"{sum(there):,} runs are", "It" if failed == 1 else "They"
        return f"{prompts}, {drafters}, {limit}: {found} there, {runs} below. {again} can be tried again."
    if not any(there):
        return f"{prompts}, {drafters}, {limit}. Every run is kept; a stopped study goes on where it was, also in another session."
    if not left:
        return f"{prompts}, {drafters}, {limit}: all runs are there, nothing is left to be done."
    done = " and ".join(f"{min(n, total):,}" for n in there)
    return f"{prompts}, {drafters}, {limit}: {done} finished before. The same plan goes on where it stopped."


def asked(plan: Plan) -> str:
    """How many prompts there are, and how many turns if a chat has more of these: every turn is a run.

    >>> asked(Plan("", "", (Prompt("a", "", ("a", "b")), Prompt("c", "")), chat=True)), asked(Plan("", "", (Prompt("a", ""),)))
    ('2 prompts of 3 turns', '1 prompt')
    """
    count, turns = len(plan.prompts), len(plan.places)
    prompts = "1 prompt" if count == 1 else f"{count:,} prompts"
    return prompts if turns == count else f"{prompts} of {turns:,} turns"


def progress(controller: StudyController) -> None:
    """One bar per drafter, and what the run has come to."""
    series = controller.series
    if series is None:
        if said := controller.in_line():
            st.info(as_markdown(said), icon=":material/hourglass_top:")
        st.progress(0.0, text=as_markdown(controller.loading()))
        return
    for job, done in zip(series.jobs, series.done, strict=True):
        total = len(job.plan.places)
        skipped = len(series.problems[job.key])
        words = f"{job.label}: {done:,} of {total:,} {'prompts' if total == len(job.plan.prompts) else 'turns'}" + (
            f", {skipped} skipped" if skipped else ""
        )
        st.progress(min(1.0, done / total), text=as_markdown(words))
    seconds, said = controller.waited, ""
    if series.count:
        said = f" · tau so far {series.tokens / series.count:.2f} over {series.count:,} target calls"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{seconds:.0f} s{as_markdown(said)}", width="content")
        if any(series.done) and st.button("Show what is there", key="study_look", type="tertiary", icon=":material/refresh:"):
            controller.looked.clear()
            st.rerun()


def results(controller: StudyController, session: Session, store: Store, shown: tuple[Job, ...]) -> None:
    """What the finished runs say; while others are still made, those that were there at the last look."""
    found: dict[str, Findings] = {}
    unread = False
    for job in shown:
        place = (str(store.folder), job.key)
        if not controller.busy or place not in controller.looked:
            controller.looked[place] = stamp(store, job)
        if controller.looked[place][0]:
            try:
                found[job.label] = found_in(*place, controller.looked[place], job.plan)
            except Later as error:
                unread = True
                st.info(as_markdown(told(error)), icon=":material/hourglass:")
            except ValueError as error:
                unread = True
                st.error(as_markdown(plain(told(error), 400)), icon=":material/error:")
    skipped(controller, shown)
    for label, one in found.items():
        damaged(label, one)
    if found := {label: one for label, one in found.items() if len(one.tallies)}:
        findings_view(session, KeptRuns(store.folder), found)
    elif not controller.busy and not unread:
        before_the_first(session)


def skipped(controller: StudyController, shown: tuple[Job, ...]) -> None:
    """Prompts that could not be run, each with its reason."""
    reasons = {(job.label, number): why for job in shown for number, why in controller.problems.get(job.key, {}).items()}
    if not reasons:
        return
    names = {job.label: job.plan.names for job in shown}
    with st.expander(
        f"{len(reasons)} skipped {'prompt' if len(reasons) == 1 else 'prompts'}", icon=":material/warning:", key="study_skipped"
    ):
        rows = [
            {"drafter": label, "prompt": names[label][number].removeprefix("prompt "), "why": plain(why, 300)}
            for (label, number), why in reasons.items()
        ]
        st.dataframe(rows, hide_index=True, key="study_skipped_table")


def damaged(label: str, found: Findings) -> None:
    """Runs that cannot be read, by the names that they have on the page Traces."""
    if not found.damaged:
        return
    names = ", ".join(name for name, _ in found.damaged)
    said = f"{label}: what was kept of {names} cannot be read and is left out. {found.damaged[0][1]}"
    st.warning(
        as_markdown(f"{plain(said, 400)} Delete it on the page Traces to have it run again."), icon=":material/broken_image:"
    )


def before_the_first(session: Session) -> None:
    """Before the first study: a recorded one, or what there will be to see."""
    study = demo.study()
    if study is None:
        nothing()
        return
    with st.container(border=True, key="study_recorded"):
        st.markdown(
            f"**A recorded study**, to show what this page finds: {len(PROMPTS)} questions to "
            f"{as_markdown(MODELS[FAMILY].title)}, at most {MOST} tokens each. Choose prompts and a drafter on the left and press "
            "*Run*: yours takes its place."
        )
    findings_view(session, study, {METHODS.title(METHOD): recorded_findings()})


def nothing() -> None:
    """Where there is no recorded study."""
    with st.container(border=True, key="study_empty"):
        st.markdown(
            "**Why are a drafter's tokens turned down?** Choose prompts and a drafter on the left and press *Run*. When prompts "
            "are finished you see here"
        )
        st.html(
            "<ul style='line-height:1.7;margin:0'><li>how often it is right by depth, position, domain, kind of token, and by how "
            "sure the target is,</li><li>whether its confidence can be trusted,</li><li>where in the text it is far from the "
            "target,</li><li>which rejections cost most, each one click away from its step,</li><li>with a second drafter: where "
            "one is right and the other is not.</li></ul>"
        )
