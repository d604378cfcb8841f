"""The view of the infini-gram drafter: its match, where that stands, and the counts behind every node."""

from decoding.trace import number_in
from pages.parts.shared import retrieved
from pages.parts.shared.session import Session

ANY = 10**9  # a match may be as long as the text


def view(session: Session) -> None:
    params = session.trace.header.params
    retrieved.tree(session)
    weak = f"no next token has a share of {number_in(params, 'threshold', 0.0):g}."
    retrieved.match(session, ANY, number_in(params, "shortest", 1) - 1, weak)
    retrieved.run_so_far(session)
