"""REST: why it drafted nothing. Its pictures are those of all methods on a datastore (`viz/methods/shared/retrieved.py`)."""

from decoding.trace import Trace, number_in
from viz.tokens import Say, quoted


def silence(trace: Trace, cursor: int, say: Say = quoted) -> str:
    """Why nothing was drafted at a step; plain text."""
    shortest = number_in(trace.header.params, "shortest", 2)
    last = "the last token stands" if shortest == 1 else f"the last {shortest} tokens stand"
    return f"{last} nowhere in what it looks in with anything behind"
