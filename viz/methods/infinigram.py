"""Infini-gram drafting: why it drafted nothing. Its pictures are those of all methods on a datastore."""

from decoding.trace import Trace
from viz.tokens import Say, quoted


def silence(trace: Trace, cursor: int, say: Say = quoted) -> str:
    """Why nothing was drafted at a step; plain text."""
    return "what the text ends in stands nowhere else, or nothing behind it is likely enough"
