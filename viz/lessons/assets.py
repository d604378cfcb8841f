"""Style sheets and the script of the course: the files of this folder."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def style() -> str:
    return text("learn.css")


def class_style() -> str:
    """On top of it, for a projector: large type, no settings, no sidebar."""
    return text("class_view.css")


def draws_script() -> str:
    """An ECMAScript module whose default export draws what `draws_data` gives."""
    return text("draws.js")


def draws_style() -> str:
    return text("draws.css")
