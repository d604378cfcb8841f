"""What the file of a method or a lens states at its end, read without importing it: a page lists both before torch is there."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast


def written_out(file: Path, name: str, kind: str, wanted: Sequence[str]) -> dict[str, Any]:
    """The keyword arguments `wanted` of the `NAME = Kind(...)` that a file ends in.

    Raises:
        ValueError: it does not end so, or one of them is not there as a literal.
    """
    _, _, call = file.read_text("utf-8").rpartition(f"\n{name} = {kind}(")
    try:
        words = cast(ast.Call, ast.parse(f"{kind}({call}", mode="eval").body).keywords
        given = {word.arg: word.value for word in words}
        return {one: ast.literal_eval(given[one]) for one in wanted}
    except (SyntaxError, AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} does not end in {name} = {kind}(...) with {', '.join(wanted)} written out: {error!r}.") from error
