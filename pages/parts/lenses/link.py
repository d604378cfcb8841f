"""The link to what a lens sees: the run and the place as on the Step page, the lens and its parameters beside them."""

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import streamlit as st

from decoding.lenses import LENSES
from decoding.runs.failures import told
from pages.parts.lenses.desk import Desk, say_params
from pages.parts.shared import address
from pages.parts.step.link import open_link_of
from viz.tokens import as_markdown

if TYPE_CHECKING:
    from decoding.lens import Lens

OWN = "l."  # what the names of a lens's parameters begin with in a link


def lens_link(here: Desk) -> None:
    """A button that writes the link."""
    if not st.button("Link to this look", key="lens_link", icon=":material/link:", type="tertiary"):
        return
    try:
        params = address.parameters(here.session.settings, here.cursor.step + 1, here.cursor.node)
    except ValueError as error:
        st.caption(as_markdown(told(error)))
        return
    params |= {"lens": here.lens} | {f"{OWN}{name}": str(value) for name, value in asdict(here.params).items()}
    here.session.opened = here.opened = repr(sorted(params.items()))
    st.query_params.from_dict(params)
    st.code(address.address(st.context.url or "", params), language=None, wrap_lines=True)
    if lacking := address.left_out(here.session.settings):
        st.caption(as_markdown(lacking))


def open_lens_link(here: Desk) -> None:
    """Open what the address bar asks for, once: the lens here, the run and the place as on Step."""
    query = st.query_params.to_dict()
    fingerprint = repr(sorted(query.items()))
    if not query or fingerprint == here.opened:
        return
    here.opened = fingerprint
    own = {name: value for name, value in query.items() if name == "lens" or name.startswith(OWN)}
    complaints: list[str] = []
    if (lens := own.pop("lens", here.lens)) in LENSES:
        here.lens = lens
        say_params(here, lens, checked(LENSES[lens], own, complaints))
    else:
        complaints.append(f"There is no lens {address.shown(lens)}; there are {', '.join(LENSES)}.")
    open_link_of(here.session, {name: value for name, value in query.items() if name not in own and name != "lens"}, fingerprint)
    here.notes = (*here.session.notes, *complaints)


def checked(lens: "Lens", given: dict[str, str], complaints: list[str]) -> dict[str, Any]:
    """The parameters of a lens in a link, each checked; what does not fit is said and left out."""
    known = {OWN + spec.name: spec for spec in fields(lens.params)}
    found: dict[str, Any] = {}
    for name, text in given.items():
        try:
            if name not in known:
                raise ValueError(f"{lens.title} has no such parameter.")
            value = {known[name].name: address.converted(text, known[name].default)}
            lens.checked(value)
            found |= value
        except ValueError as error:
            complaints.append(f"{address.shown(name)}: {address.shown(text)} was left out. {told(error)}")
    return found
