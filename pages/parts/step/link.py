"""The link to the step that is shown: written into the address bar and shown for copying; and opening one."""

from collections.abc import Mapping

import streamlit as st

from decoding.limits import limits
from decoding.methods import METHODS
from decoding.runs.failures import told
from pages.parts.shared import address
from pages.parts.shared.controls import say
from pages.parts.shared.loading import WHY, still_loading
from pages.parts.shared.session import Session
from viz.tokens import as_markdown


def link(session: Session) -> None:
    """A button that writes the link."""
    with st.container(horizontal=True, vertical_alignment="center", key="link_box"):
        pressed = st.button(
            "Link to this step",
            key="link",
            icon=":material/link:",
            disabled=still_loading(),
            help=(WHY if still_loading() else "") + "Puts everything that repeats this run into the address bar.",
        )
        if not pressed:
            st.caption("Method, parameters, prompt, sampling, seed and step: whoever opens it sees this run again.")
            return
        try:
            params = address.parameters(session.settings, session.cursor + 1, session.node)
        except ValueError as error:
            st.caption(as_markdown(told(error)))
            return
        session.opened = repr(sorted(params.items()))
        st.query_params.from_dict(params)
        st.code(address.address(st.context.url or "", params), language=None, wrap_lines=True)
    if lacking := address.left_out(session.settings):
        st.caption(as_markdown(lacking))


def open_link(session: Session) -> None:
    """Open what the address bar asks for, once; before the controls are drawn. The methods say what it means."""
    if still_loading():
        return
    query = st.query_params.to_dict()
    fingerprint = repr(sorted(query.items()))
    if query and fingerprint != session.opened:
        open_link_of(session, query, fingerprint)


def open_link_of(session: Session, query: Mapping[str, str], fingerprint: str) -> None:
    """Open what a query asks for, and note under its fingerprint that this was done."""
    session.opened = fingerprint
    place = address.parse(query)
    if place is None:
        return
    session.notes = place.complaints
    say(session, place.settings)
    if place.step is None:
        return
    most = limits().link_steps
    if most is None or max(place.step, 1) <= most:  # at its prompt, too, a run is shown once it has a step
        session.start(place.settings, place.step - 1, place.node, notes=place.complaints)
    else:
        session.linked = place.settings, place.step - 1, place.node


def linked(session: Session) -> None:
    """The button that makes the run of a link whose way is long, or that strangers may have sent: no link works without a click."""
    if session.linked is None:
        return
    settings, step, node = session.linked
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="linked"):
        where = f"step {step + 1:,}" if step >= 0 else "the prompt"
        words = f"This link leads to {where} of a run of {METHODS[settings.method].title}, which is not made yet."
        st.markdown(as_markdown(words), width="stretch")
        st.button(
            "Make the run", key="linked_go", type="primary", icon=":material/skip_next:", on_click=session.start,
            args=(settings, step, node), kwargs={"notes": session.notes},
        )  # fmt: skip
