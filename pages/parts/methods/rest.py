"""The view of REST: the trie by weight, its match, and where that stands."""

from decoding.trace import number_in
from pages.parts.shared import retrieved
from pages.parts.shared.session import Session


def view(session: Session) -> None:
    params = session.trace.header.params
    retrieved.tree(session)
    retrieved.match(session, number_in(params, "longest", 16), number_in(params, "shortest", 2))
    retrieved.run_so_far(session)
