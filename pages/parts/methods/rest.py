"""The view of REST: the trie by weight, its match, and where that stands."""

from pages.parts.shared import retrieved
from pages.parts.shared.session import Session


def view(session: Session) -> None:
    params = session.trace.header.params
    retrieved.tree(session)
    retrieved.match(session, int(params.get("longest", 16)), int(params.get("shortest", 2)))
    retrieved.run_so_far(session)
