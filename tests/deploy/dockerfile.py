"""A Dockerfile as a list of instructions, read well enough for `deploy/Dockerfile`; what is not known here is an error."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "deploy" / "Dockerfile"
KNOWN = ("ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Instruction:
    kind: str
    text: str  # all behind the first word, lines joined
    line: int

    @property
    def words(self) -> list[str]:
        """Of a list in JSON, or parted by blanks; quotes are taken off."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)

    @property
    def pairs(self) -> dict[str, str]:
        """Of NAME=VALUE words; a name without a value has ""."""
        return {name: value for name, _, value in (word.partition("=") for word in self.words)}


def instructions(text: str) -> list[Instruction]:
    """ValueError for a kind that is not known here."""
    found, parts, first = [], [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not parts):
            continue
        first = first if parts else number
        parts.append(line.strip().removesuffix("\\").strip())
        if not line.rstrip().endswith("\\"):
            kind, _, rest = " ".join(parts).partition(" ")
            if kind not in KNOWN:
                raise ValueError(f"Line {first}: {kind!r} is no instruction that is known here.")
            found.append(Instruction(kind, rest.strip(), first))
            parts = []
    return found


def filled(text: str, values: dict[str, str]) -> str:
    """`text` with its variables; one that has no value is empty, as in Docker."""
    return VARIABLE.sub(lambda name: values.get(name[1] or name[2], ""), text)


def command(text: str) -> list[str]:
    """The words behind CMD in a HEALTHCHECK or a CMD: only the form of a list, which needs no shell to pass signals on."""
    return json.loads(text.partition("CMD")[2] if "CMD" in text else text)
