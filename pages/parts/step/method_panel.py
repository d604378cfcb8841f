"""The panel of a method: a file `pages/parts/methods/KEY.py` with `view(session)` is drawn below the tree of a run of KEY."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec

from pages.parts.shared.session import Session


@cache
def view_of(method: str) -> Callable[[Session], None] | None:
    """The method's own view; None if it has none and the general ones say all."""
    name = f"pages.parts.methods.{method}"
    return import_module(name).view if find_spec(name) else None
