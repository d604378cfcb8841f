"""Prompts from files: plain text, or JSONL in the layouts of Spec-Bench, GSM8K and HumanEval. Uploads are untrusted."""

import json
from dataclasses import dataclass

MAX_FILE = 20 * 2**20  # bytes
MAX_PROMPTS = 10_000
MAX_CHARACTERS = 20_000  # of one prompt


@dataclass(frozen=True)
class Prompt:
    """One prompt and the domain it belongs to."""

    text: str
    domain: str


def read_prompts(data: bytes, name: str) -> list[Prompt]:
    """The prompts of a file; `.jsonl` and `.json` names are read line by line as JSON, all others as text.

    Raises:
        ValueError: too large, not text, a line that cannot be understood (with its number), no prompt at all.
    """
    if len(data) > MAX_FILE:
        raise ValueError(f"The file has {len(data):,} bytes; at most {MAX_FILE:,} are read.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The file {name!r} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    found = from_lines(text) if name.endswith((".jsonl", ".json")) else from_text(text, name)
    if not found:
        raise ValueError(f"The file {name!r} holds no prompt.")
    if len(found) > MAX_PROMPTS:
        raise ValueError(f"The file {name!r} holds {len(found):,} prompts; at most {MAX_PROMPTS:,} are read.")
    return found


def from_text(text: str, name: str) -> list[Prompt]:
    """Blank lines separate prompts; without any, every line is one.

    >>> [p.text for p in from_text("one\\ntwo", "x.txt")], [p.text for p in from_text("a\\nb\\n\\nc", "x.txt")]
    (['one', 'two'], ['a\\nb', 'c'])
    """
    parts = text.replace("\r\n", "\n").strip().split("\n\n")
    parts = parts if len(parts) > 1 else parts[0].split("\n")
    return [Prompt(checked(part.strip("\n"), i), name) for i, part in enumerate(parts, 1) if part.strip()]


def from_lines(text: str) -> list[Prompt]:
    return [from_line(line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def from_line(line: str, number: int) -> Prompt:
    """One JSON object: Spec-Bench {"turns", "category"}, GSM8K {"question"}, HumanEval {"prompt"}, or {"text"}."""
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"Line {number} is not JSON: {error}.") from error
    if not isinstance(row, dict):
        raise ValueError(f"Line {number} is a {type(row).__name__}, not an object with a prompt.")
    domain = str(row.get("domain") or row.get("category") or "")
    match row:
        case {"turns": [str(first), *_]}:
            return Prompt(checked(first, number), domain or "Spec-Bench")
        case {"question": str(question)}:
            return Prompt(checked(f"Question: {question}\nAnswer:", number), domain or "mathematics")
        case {"prompt": str(prompt)}:
            return Prompt(checked(prompt, number), domain or ("code" if "entry_point" in row else "prompts"))
        case {"text": str(prompt)}:
            return Prompt(checked(prompt, number), domain or "prompts")
    raise ValueError(f"Line {number} has no turns, question, prompt or text; it has {', '.join(map(str, list(row)[:8]))}.")


def checked(text: str, number: int) -> str:
    if not text.strip():
        raise ValueError(f"Prompt {number} is empty.")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"Prompt {number} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")
    return text
