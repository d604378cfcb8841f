"""Following the worker: a page, or a part of it, that is drawn again when there is something new."""

from collections.abc import Callable
from time import monotonic, thread_time

import streamlit as st
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

from pages.parts.shared.remembered import controls_said
from pages.parts.shared.runs import RunController


def timed(controller: RunController, every: float | None, draw: Callable[[], None]) -> None:
    """Follow the worker and draw, every so many seconds; the whole page is run again when something begins to move or comes to
    rest. For what stands on a page where more than this depends on that."""

    def once() -> None:
        controller.wait()
        controller.sync()
        if (controller.tick() is None) != (every is None):
            st.rerun()
        draw()

    st.fragment(once, run_every=every)()


def followed(controller: RunController, key: str, draw: Callable[[Callable[[], None]], None], line: Callable[[], None]) -> None:
    """Draw in a fragment, and again as soon as the worker has something new; meanwhile a line that says what is waited for.

    The whole page is not run for that: the timer is a fragment inside of the fragment, which draws the line alone. It begins, ends
    and becomes slower when what is around it is drawn.

    Args:
        key: of the fragment, one on a page.
        draw: puts the line where it belongs, by calling what it is given.
        line: draws it; called only while something moves.
    """
    said, pace, whole = controls_said(), None, False

    def once() -> None:
        nonlocal pace, whole
        if controls_said() != said:  # a button in here has changed the controls, which stand outside
            st.rerun()
        controller.wait()
        controller.sync()
        look, pace = controller.looked(), controller.tick()  # first: what comes meanwhile is news
        began, had = monotonic(), thread_time()
        whole = True
        try:
            draw(st.fragment(timer, key=f"{key}.timer"))
        finally:
            whole = False
        controller.was_drawn(look, monotonic() - began, thread_time() - had)

    def timer() -> None:
        every = pace if whole else controller.tick() or controller.poll
        around = [True]  # what is drawn now is drawn by what is around it

        def tick() -> None:
            if not around:
                controller.sync()
                now = controller.tick()
                if now is None or controller.due():
                    run_fragment(key)
                elif now != every:
                    run_fragment(f"{key}.timer")
            around.clear()
            line()

        if every is None:
            st.empty()  # in the place of the line, which would stay: a browser keeps what a fragment inside has drawn
        else:
            st.fragment(tick, run_every=every)()

    st.fragment(once, key=key)()


def asking(controller: RunController, key: str, ask: Callable[[], None]) -> Callable[[], None]:
    """What a button of a followed fragment does when pressed: it asks the worker. If that brings nothing new at once, the timer
    begins and the rest of the fragment, which would be the same again, is not drawn.

    Args:
        key: of the fragment.
    """

    def pressed() -> None:
        said = controls_said()
        ask()
        context = get_script_run_ctx()
        if context is None or not context.fragment_ids_this_run:  # a run of the whole page, which cannot be cut short
            return
        controller.wait()
        controller.sync()
        if controller.look() == controller.drawn and controller.tick() is not None and controls_said() == said:
            st.rerun(scope=f"{key}.timer")

    return pressed


def run_fragment(key: str) -> None:
    """Have a fragment of the page run next, from within another one, which ends with what it draws now. `st.rerun` does the same,
    but takes the key of a fragment in callbacks alone."""
    context = get_script_run_ctx()
    if context is not None and context.script_requests is not None:
        data = RerunData(
            query_string=context.query_string,
            page_script_hash=context.page_script_hash,
            fragment_id_queue=context.fragment_storage.resolve_target(key),
            is_fragment_scoped_rerun=True,
            cached_message_hashes=context.cached_message_hashes,
            context_info=context.context_info,
        )
        context.script_requests.request_rerun(data)
