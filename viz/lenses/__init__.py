"""Pictures of one lens each: what is called X has its own in `X.py`, found by name and registered nowhere else.

Every file has four functions of its look: `sentence(look)`, what was found, with its numbers, as plain text; `figure(look, dark)`,
a Plotly figure, or None where there is nothing to draw; `alt(look)`, the figure in words; `table(look)`, its twin. It may have
`html(look, dark)`, escaped HTML above the figure.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


@cache
def pictures_of(lens: str) -> Any:
    """The pictures of a lens, a module; None if it has none. The name may come from any look."""
    known = {module.name for module in iter_modules(__path__)}
    return import_module(f"{__name__}.{lens}") if lens in known else None
