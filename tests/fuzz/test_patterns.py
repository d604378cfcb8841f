"""No pattern of the program takes time of the square of the text that it is looked for in: nothing else goes on meanwhile.

Every pattern that stands in the code is tried on long texts of what patterns are made of. Time is the processor's, and this
process's alone: a hundred times what the slowest pattern takes.
"""

import ast
import importlib
import re
import signal
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("pages", "viz", "decoding", "deploy")
LENGTH = 30_000  # characters; a text of which square takes a second and more for every pattern
MOST = 1.0  # seconds of the processor
PARTS = (
    *("a", "Z9", "aB", "a.", "é", "_", "x", "1", "1,", "1+", "1 + ", "1.1", "#1", "P1"),
    *("/", "~/-", "\\", "C:\\", "/media/", "\n", "\n ", " ", "　", ".", '."', ".\n\n ", "-", '"', "'", "{", "<", "\x02"),
    *("<proposer>", "valid ", "layer ", "vision_"),
)
SEARCHES = ("search", "finditer", "findall", "sub", "subn", "split")  # they begin anywhere; others at the beginning alone


class TooLong(Exception):
    pass


@dataclass(frozen=True)
class Found:
    """A pattern of the program, and how it is used."""

    where: str
    pattern: re.Pattern
    searched: bool


def patterns() -> Iterator[Found]:
    """Those that are written out where they are used, and those that modules made."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if "training" not in path.parts]
    code = {path: path.read_text() for path in paths}
    whole = "\n".join(code.values())
    for path, text in code.items():
        where = path.relative_to(ROOT)
        for call in filter(is_pattern, ast.walk(ast.parse(text))):
            yield Found(f"{where}:{call.lineno}", re.compile(call.args[0].value), call.func.attr in SEARCHES)
        if " = re.compile(" in text:
            module = importlib.import_module(".".join(where.with_suffix("").parts))
            for name, it in vars(module).items():
                if isinstance(it, re.Pattern):
                    yield Found(f"{where} {name}", it, any(f"{name}.{how}(" in whole for how in SEARCHES))


def is_pattern(node: ast.AST) -> bool:
    """Whether it is a call of a function of `re` with a pattern that is written out."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("re.") or node.func.attr == "compile":
        return False
    return bool(node.args) and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str | bytes)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TooLong when the block has taken so much of the processor."""

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def slow(found: Found, part: str) -> bool:
    text = part * (LENGTH // len(part))
    for whole in (text, f"{text}\x00"):
        said = whole.encode() if isinstance(found.pattern.pattern, bytes) else whole
        try:
            with limited(MOST):
                found.pattern.fullmatch(said)
                if found.searched:
                    deque(found.pattern.finditer(said), 0)
        except TooLong:
            return True
    return False


@pytest.mark.parametrize("pattern", [r"[^\W_]+\Z", r"\w*$", r"/[^ ]*[\w]"])
def test_a_pattern_that_takes_too_long_is_seen(pattern):
    """Two that stood here, and one that is like a third."""
    assert any(slow(Found("", re.compile(pattern), True), part) for part in PARTS)


def test_no_pattern_takes_long():
    found = list(patterns())
    assert len(found) > 40
    assert [(it.where, part) for it in found for part in PARTS if slow(it, part)] == []
