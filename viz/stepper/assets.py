"""The stepper's script and style sheet: the files of this folder, joined. No build, nothing from outside."""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = ("base.js", "layout.js", "tree.js", "text.js", "panel.js", "bar.js", "stepper.js")  # one module; stepper.js has its door


@cache
def script() -> str:
    """An ECMAScript module whose default export draws the stepper: `({data, parentElement, setStateValue, setTriggerValue})`."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)


@cache
def style() -> str:
    return (FOLDER / "stepper.css").read_text(encoding="utf-8")
