"""METHODS: every file of this package, by key. Adding a method is adding a file.

A method's file is imported when the method is asked for, and torch with it. What comes before that, the keys, their order and the
titles, is read from the text of the files: a page lists the methods while torch is still being loaded.
"""

import ast
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decoding.method import Method

OPENING = "\nMETHOD = Method("


class Methods(Mapping[str, "Method"]):
    """Key -> method, the oldest first."""

    def __init__(self) -> None:
        facts = {module.name: facts_in(Path(__path__[0]) / f"{module.name}.py") for module in iter_modules(__path__)}
        self._titles = {key: facts[key][1] for key in sorted(facts, key=lambda key: (facts[key][0], key))}

    def __getitem__(self, key: str) -> "Method":
        if key not in self._titles:
            raise KeyError(key)
        return import_module(f"{__name__}.{key}").METHOD

    def __contains__(self, key: object) -> bool:  # the one of Mapping would import it
        return key in self._titles

    def __iter__(self) -> Iterator[str]:
        return iter(self._titles)

    def __len__(self) -> int:
        return len(self._titles)

    def title(self, key: str) -> str:
        """Of the method, without importing it."""
        return self._titles[key]


def facts_in(file: Path) -> tuple[int, str]:
    """Year and title that a method's file states at its end.

    Raises:
        ValueError: it does not end in `METHOD = Method(...)` with both written out.
    """
    _, _, call = file.read_text("utf-8").rpartition(OPENING)
    try:
        given = {word.arg: word.value for word in ast.parse(f"Method({call}", mode="eval").body.keywords}
        return ast.literal_eval(given["year"]), ast.literal_eval(given["title"])
    except (SyntaxError, AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} does not end in METHOD = Method(...) with year and title written out: {error!r}.") from error


METHODS = Methods()
