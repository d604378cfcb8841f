"""A kept or imported trace on the Step page: the same views, no model. All it says is checked before a control says it."""

from dataclasses import replace
from typing import Protocol

import streamlit as st

from decoding.checks import Quoted
from decoding.methods import METHODS
from decoding.models.catalogue import NAMED
from decoding.models.chat import checked_messages, checked_options, write_options
from decoding.models.ends import write_stops
from decoding.runs.failures import told
from decoding.trace import MAX_TOKENS, Header, Trace
from pages.parts.shared import address
from pages.parts.shared.controls import EMBEDDED, say, say_params
from pages.parts.shared.loading import still_loading
from pages.parts.shared.runs import check_replayed
from pages.parts.shared.session import Session
from pages.parts.shared.settings import LEAST_TOP_P, MAX_PROMPT, Settings
from viz.tokens import as_markdown, plain

UNSETTLED = "trace_without_parameters"  # in the session's state: the trace that was opened before the methods were there


class Runs(Protocol):
    """Where runs can be opened by number: a store, or what is shipped."""

    def open(self, trace: int) -> Trace: ...


def show(session: Session, trace: Trace, cursor: int = 0, node: int | None = None) -> None:
    """Let the session look at a recorded trace.

    Raises:
        ValueError: a method that this version does not have, a limit no run can have, or more than a visitor may hold; the
            session stays as it is.
    """
    limit = trace.header.max_tokens
    if not max(1, len(trace.steps)) <= limit <= MAX_TOKENS:
        raise ValueError(f"The trace has {len(trace.steps):,} steps and a limit of {limit:,} tokens; no run here can have that.")
    settings, notes = settings_for(trace.header)
    check_replayed(trace, session.replayed)
    with session.lock:
        session.reset()
        session.trace, session.settings, session.notes = trace, settings, notes
        session.runs += 1
        session.go(cursor)
        session.pick(node)
    say(session, settings)
    st.session_state[UNSETTLED] = trace if still_loading() else None


def settle(session: Session) -> None:
    """Let the controls say the parameters of a trace that was opened before the methods, which check them, were there."""
    if still_loading() or session.trace is None or st.session_state.pop(UNSETTLED, None) is not session.trace:
        return
    session.settings, session.notes = settings_for(session.trace.header)
    say_params(session, session.settings)


def settings_for(header: Header) -> tuple[Settings, tuple[str, ...]]:
    """The settings a trace was made with, each checked like one in a link; and what they leave out, in sentences. The parameters
    are left to `settle` while the methods are being imported."""
    if header.method not in METHODS:
        raise Quoted(
            f"The trace was made with the method {address.shown(header.method)}, which this version does not have. Its files can "
            "still be exported."
        )
    sampling = header.sampling
    query = {"method": header.method, "seed": str(header.seed), "tokens": str(header.max_tokens)}
    query |= {"temperature": f"{sampling.temperature:g}", "top_k": str(sampling.top_k), "top_p": f"{sampling.top_p:g}"}
    query |= {"guidance": f"{sampling.guidance:g}"} if sampling.guidance != 1 else {}
    query |= {"stop": write_stops(header.stop)} if header.stop else {}
    query |= {"ignore_end": "True"} if header.ignore_end else {}
    query |= {} if still_loading() else {f"p.{name}": str(value) for name, value in header.params.items()}
    place = address.parse(query)
    target, _, draft = header.family.partition(" + ")
    settings = replace(place.settings, prompt=header.prompt[:MAX_PROMPT], target=target or EMBEDDED, draft=draft or None)
    settings = replace(settings, top_p=max(LEAST_TOP_P, settings.top_p))
    complaints = list(place.complaints)
    settings = with_chat(settings, header, complaints)
    notes = [f"The controls leave out a part of this trace. {complaint}" for complaint in complaints]
    if settings.target not in NAMED:
        notes.append(
            f"This run was made with the model “{plain(header.family, 80)}”, which is not loaded: all that was recorded can be "
            "looked at. A step beyond its end, or another run, would load it; choose another under Model."
        )
    return settings, tuple(notes)


def with_chat(settings: Settings, header: Header, complaints: list[str]) -> Settings:
    """The settings with the messages of a chat, if these can be."""
    if not header.messages:
        return settings
    try:
        messages, options = checked_messages(header.messages), checked_options(header.template_options)
    except ValueError as error:
        complaints.append(plain(told(error), 200))
        return settings
    return replace(settings, prompt="", messages=messages, template=write_options(options))


def open_stored(session: Session, runs: Runs, trace: int, cursor: int = 0, node: int | None = None) -> None:
    """Show one of these runs on the Step page; a sentence here if that cannot be."""
    try:
        show(session, runs.open(trace), cursor, node)
    except ValueError as error:
        st.error(as_markdown(told(error)), icon=":material/error:")
        return
    st.switch_page("pages/1_Step.py")
