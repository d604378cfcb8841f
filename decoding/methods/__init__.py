"""METHODS: every file of this package, by key. Adding a method is adding a file.

A method's file is imported when the method is asked for, and torch with it. What comes before that, the keys, their order, the
titles, groups and lines, is read from the text of the files: a page lists the methods while torch is still being loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from decoding.listings import written_out

if TYPE_CHECKING:
    from decoding.method import Method


@dataclass(frozen=True)
class Group:
    """An idea that several methods share: where their guesses come from."""

    title: str
    line: str


GROUPS = {  # in the order in which they are explained
    "none": Group("No guesses", "One token per call; plain decoding is what every other method is compared with."),
    "copies": Group("Copies from text", "What followed the same words before follows them again."),
    "small model": Group("A small model", "A cheaper model writes ahead, the large one checks."),
    "heads": Group("Heads on the large model", "Small trained parts read the large model's own state and say what it will write."),
    "itself": Group("The model itself", "The large model guesses for itself, with a part of it or with trained placeholders."),
    "parallel": Group("In parallel", "Nothing drafts: many places are guessed at once and repaired call by call."),
}


@dataclass(frozen=True)
class Listing:
    """What is known of a method before its file is imported."""

    year: int
    title: str
    group: str
    line: str


LISTED = tuple(field.name for field in fields(Listing))


class Methods(Mapping[str, "Method"]):
    """Key -> method, the oldest first."""

    def __init__(self) -> None:
        facts = {module.name: facts_in(Path(__path__[0]) / f"{module.name}.py") for module in iter_modules(__path__)}
        self._listings = {key: facts[key] for key in sorted(facts, key=lambda key: (facts[key].year, key))}

    def __getitem__(self, key: str) -> "Method":
        if key not in self._listings:
            raise KeyError(key)
        return import_module(f"{__name__}.{key}").METHOD

    def __contains__(self, key: object) -> bool:  # the one of Mapping would import it
        return key in self._listings

    def __iter__(self) -> Iterator[str]:
        return iter(self._listings)

    def __len__(self) -> int:
        return len(self._listings)

    def title(self, key: str) -> str:
        """Of the method, without importing it."""
        return self._listings[key].title

    def line(self, key: str) -> str:
        """What the method does, in one line; without importing it."""
        return self._listings[key].line

    def group(self, key: str) -> str:
        """The key of its group in `GROUPS`; without importing it."""
        return self._listings[key].group

    def grouped(self) -> dict[str, tuple[str, ...]]:
        """Group -> its methods, the oldest first, in the order of `GROUPS`; without importing them."""
        return {group: tuple(key for key in self if self.group(key) == group) for group in GROUPS}


def facts_in(file: Path) -> Listing:
    """Year, title, group and line that a method's file states at its end.

    Raises:
        ValueError: it does not end in `METHOD = Method(...)` with all four written out, or there is no such group.
    """
    found = Listing(**written_out(file, "METHOD", "Method", LISTED))
    if found.group not in GROUPS:
        raise ValueError(f"{file} names the group {found.group!r}; there are {', '.join(GROUPS)}.")
    return found


METHODS = Methods()
