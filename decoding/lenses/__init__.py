"""LENSES: every file of this package, by key. Adding a lens is adding a file.

As with the methods, a lens's file is imported when the lens is asked for, and torch with it; its card (year, title, scope,
question) is read from the text of the file before that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from decoding.listings import written_out

if TYPE_CHECKING:
    from decoding.lens import Lens

SCOPES = {  # what a lens looks at, in the order in which they are offered
    "position": "One position",
    "prompt": "The prompt",
    "text": "The text",
    "run": "The whole run",
}


@dataclass(frozen=True)
class Card:
    """What is known of a lens before its file is imported."""

    year: int
    title: str
    scope: str
    asks: str


LISTED = tuple(field.name for field in fields(Card))


class Lenses(Mapping[str, "Lens"]):
    """Key -> lens, in the order of `SCOPES`, the oldest first."""

    def __init__(self) -> None:
        cards = {module.name: card_in(Path(__path__[0]) / f"{module.name}.py") for module in iter_modules(__path__)}
        place = list(SCOPES).index
        self._cards = {key: cards[key] for key in sorted(cards, key=lambda k: (place(cards[k].scope), cards[k].year, k))}

    def __getitem__(self, key: str) -> "Lens":
        if key not in self._cards:
            raise KeyError(key)
        return import_module(f"{__name__}.{key}").LENS

    def __contains__(self, key: object) -> bool:  # the one of Mapping would import it
        return key in self._cards

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)

    def card(self, key: str) -> Card:
        """Of the lens, without importing it."""
        return self._cards[key]

    def grouped(self) -> dict[str, tuple[str, ...]]:
        """Scope -> its lenses, without importing them; scopes that have none are left out."""
        found = {scope: tuple(key for key in self if self.card(key).scope == scope) for scope in SCOPES}
        return {scope: keys for scope, keys in found.items() if keys}


def card_in(file: Path) -> Card:
    """What a lens's file states at its end.

    Raises:
        ValueError: it does not end in `LENS = Lens(...)` with all of it written out, or there is no such scope.
    """
    found = Card(**written_out(file, "LENS", "Lens", LISTED))
    if found.scope not in SCOPES:
        raise ValueError(f"{file} names the scope {found.scope!r}; there are {', '.join(SCOPES)}.")
    return found


LENSES = Lenses()
