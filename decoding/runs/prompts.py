"""Prompts from files, in the layouts people have: text, CSV, JSON and JSONL, also packed with gzip. Uploads are untrusted.

A prompt has two forms: a text to go on from, and the user's turns of a chat, which the model answers one after the other.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, zip_longest
from pathlib import PurePath
from sys import getsizeof
from typing import Any

from decoding.checks import Quoted
from decoding.limits import check_brackets, check_file, check_upload, limits
from decoding.runs.trace_files import unpacked
from decoding.trace import Message

MAX_FILE = 20 * 2**20  # bytes
MAX_UNPACKED = 100 * 2**20  # bytes of a packed file
MAX_PROMPTS = 10_000
MAX_CHARACTERS = 20_000  # of one prompt, or of one turn
MAX_TURNS = 50
MAX_DOMAIN = 100  # characters
HALF = re.compile("[\ud800-\udfff]")  # of a character
JSON = (".jsonl", ".json", ".ndjson")  # endings
MAX_COLUMNS = 100  # of a table
ALPACA = (
    "Below is an instruction that describes a task{context}. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n{given}### Response:\n"
)
FROM = {  # who speaks in ShareGPT's conversations and in messages -> role
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "model": "assistant",
    "bing": "assistant", "bard": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
KNOWN = ("turns", "conversations", "messages", "instruction", "question", "prompt", "text")  # what a row may be known by


@dataclass(frozen=True)
class Prompt:
    """One prompt and the domain it belongs to."""

    text: str  # for a model that goes on from a text
    domain: str
    turns: tuple[str, ...] = ()  # what the user says in a chat, one after the other; () = the text
    system: str = ""  # in front of a chat

    @property
    def questions(self) -> tuple[str, ...]:
        return self.turns or (self.text,)

    def messages(self, answers: Sequence[str]) -> tuple[Message, ...]:
        """The chat up to the question behind these answers of the model.

        >>> [m.content for m in Prompt("Hello", "chat", ("Hello", "And?")).messages(["Hi."])]
        ['Hello', 'Hi.', 'And?']
        """
        asked = [Message("user", question) for question in self.questions[: len(answers) + 1]]
        turns = chain.from_iterable(zip_longest(asked, (Message("assistant", answer) for answer in answers)))
        return (*((Message("system", self.system),) if self.system else ()), *filter(None, turns))


def read_prompts(data: bytes, name: str) -> list[Prompt]:
    """The prompts of a file: JSON and CSV by the ending of its name, in any case and also before `.gz`, all others as text.

    Raises:
        ValueError: too large (also once unpacked), damaged, not text, a line that cannot be understood (with its number), no prompt
            at all.
    """
    if len(data) > MAX_FILE:
        raise Quoted(f"The file has {len(data):,} bytes; at most {MAX_FILE:,} are read.")
    check_upload(len(data))
    if data[:2] == b"\x1f\x8b":
        data = unpacked(data, min(MAX_UNPACKED, limits().upload or MAX_UNPACKED), f"The file {name!r}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Quoted(f"The file {name!r} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    found, size = [], 0
    for prompt in islice(from_file(text.replace("\r\n", "\n"), name), MAX_PROMPTS + 1):  # a small file may unpack to millions
        found.append(prompt)
        check_file(len(found), size := size + sum(map(getsizeof, {prompt.text, prompt.system, *prompt.turns})))
    if not found:
        raise Quoted(f"The file {name!r} holds no prompt.")
    if len(found) > MAX_PROMPTS:
        raise Quoted(f"The file {name!r} holds more prompts than are read: at most {MAX_PROMPTS:,}.")
    return found


def from_file(text: str, name: str) -> Iterator[Prompt]:
    """
    >>> [p.text for p in from_file('[{"text": "a"}]', "A.JSON.gz")], [p.text for p in from_file("text\\na", "a.csv")]
    (['a'], ['a'])
    """
    ending = PurePath(name.lower().removesuffix(".gz")).suffix
    if ending in (".csv", ".tsv"):
        return from_table(text)
    if ending in JSON:
        check_brackets(text)
    if ending == ".json" and text.lstrip().startswith("["):
        return from_array(text)
    return from_lines(text) if ending in JSON else from_text(text, name)


def spread(prompts: Sequence[Prompt], most: int) -> tuple[Prompt, ...]:
    """At most so many of them, as evenly from all domains as can be, in the order they have; 0 takes all. Fewer are a part of more.

    >>> [p.text for p in spread([Prompt("a", "x"), Prompt("b", "x"), Prompt("c", "y")], 2)]
    ['a', 'c']
    """
    if not most:
        return tuple(prompts)
    domains: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        domains.setdefault(prompt.domain, []).append(number)
    turns = [(rank, domain, n) for domain, own in enumerate(domains.values()) for rank, n in enumerate(own)]
    return tuple(prompts[number] for number in sorted(n for *_, n in sorted(turns)[:most]))


# -- layouts ------------------------------------------------------------------------------------------------------------


def from_text(text: str, name: str) -> Iterator[Prompt]:
    """Blank lines separate prompts; without any, every line is one.

    >>> [p.text for p in from_text("one\\ntwo", "x.txt")], [p.text for p in from_text("a\\nb\\n\\nc", "x.txt")]
    (['one', 'two'], ['a\\nb', 'c'])
    """
    text = text.strip()
    parts = parted(text, "\n\n" if "\n\n" in text else "\n")
    return (Prompt(checked(part.strip("\n"), i), name[:MAX_DOMAIN]) for i, part in enumerate(parts, 1) if part.strip())


def parted(text: str, by: str) -> Iterator[str]:
    """What `text.split(by)` gives, one after the other.

    >>> list(parted("a,b,,c", ",")), list(parted("", ","))
    (['a', 'b', '', 'c'], [''])
    """
    at = 0
    while (end := text.find(by, at)) >= 0:
        yield text[at:end]
        at = end + len(by)
    yield text[at:]


def from_lines(text: str) -> Iterator[Prompt]:
    """JSONL: one object a line."""
    return (from_line(line, number) for number, line in enumerate(parted(text, "\n"), 1) if line.strip())


def from_line(line: str, number: int) -> Prompt:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Quoted(f"Line {number} is not JSON: {error}.") from error
    return from_row(row, number)


def from_array(text: str) -> Iterator[Prompt]:
    """A JSON array of objects, of any layout; each is known by the line that it begins in."""
    return (from_row(row, number) for row, number in entries(text))


def entries(text: str) -> Iterator[tuple[Any, int]]:
    """The entries of a JSON array and the lines that they begin in."""
    decoder, number, counted = json.JSONDecoder(), 1, 0
    at = blank(text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        number, counted = number + text.count("\n", counted, at), at
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise Quoted(f"Line {number} is not JSON: {error}.") from error
        yield row, number
        at = blank(text, at)
        if text[at : at + 1] not in (",", "]"):
            raise Quoted(f"Line {number + text.count(chr(10), counted, at)} is not JSON: a comma or the end ] is missing.")
        at = blank(text, at + 1) if text[at] == "," else at
    if text[at + 1 :].strip():
        raise Quoted(f"Line {number + text.count(chr(10), counted, at)} is not JSON: something follows the end ].")


def blank(text: str, at: int) -> int:
    """The place of the next character from `at` that is not blank."""
    while text[at : at + 1] in (" ", "\t", "\n", "\r"):
        at += 1
    return at


def from_table(text: str) -> Iterator[Prompt]:
    """CSV whose first line names the columns, parted by commas, semicolons or tabs."""
    head = text.split("\n", 1)[0].lower()
    if (columns := 1 + max(head.count(sign) for sign in ",;\t")) > MAX_COLUMNS:
        raise Quoted(f"The first line names {columns:,} columns; at most {MAX_COLUMNS:,} are read.")
    parts = {sign: [name.strip(' "') for name in head.split(sign)] for sign in ",;\t"}
    sign = max(parts, key=lambda sign: len({*KNOWN, "category", "domain", "input"}.intersection(parts[sign])))
    reader = csv.DictReader(io.StringIO(text, newline=""), fieldnames=parts[sign], delimiter=sign, strict=True)
    try:
        next(reader, None)  # the names
        for row in reader:
            if None in row or None in row.values():
                raise Quoted(f"Line {reader.line_num} has another number of fields than the first line, which names them.")
            yield from_row({name: value for name, value in row.items() if value}, reader.line_num)
    except csv.Error as error:
        raise Quoted(f"Line {reader.line_num} is not CSV: {error}.") from error


def from_row(row: object, number: int) -> Prompt:
    """One object: {"turns", "category"} as Spec-Bench and MT-Bench have it, {"conversations"} as ShareGPT, {"messages"},
    {"instruction", "input"} as Alpaca, {"question"} as GSM8K, {"prompt"} as HumanEval, or {"text"}."""
    if not isinstance(row, dict):
        raise Quoted(f"Line {number} is a {type(row).__name__}, not an object with a prompt.")
    domain = " ".join(word(row.get("domain") or row.get("category")).split())[:MAX_DOMAIN]
    for name, read in READ.items():
        if (prompt := read(row, number) if row.get(name) else None) is not None:
            return replace(prompt, domain=domain or prompt.domain)
    if any(name in row and row[name] == "" for name in ("question", "prompt", "text", "instruction")):
        raise Quoted(f"Prompt {number} is empty.")
    names = ", ".join(word(name)[:40] for name in list(row)[:8])
    raise Quoted(f"Line {number} has no {', '.join(KNOWN[:-1])} or {KNOWN[-1]} that can be read; it has {names}.")


def spec_bench(row: Mapping[str, Any], number: int) -> Prompt | None:
    turns = row["turns"]
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        return None
    return chat(turns, "", number, "Spec-Bench")


def share_gpt(row: Mapping[str, Any], number: int) -> Prompt | None:
    return dialogue(row["conversations"], ("from", "role"), ("value", "content"), number, "ShareGPT")


def messages(row: Mapping[str, Any], number: int) -> Prompt | None:
    return dialogue(row["messages"], ("role", "from"), ("content", "value"), number, "chat")


def dialogue(parts: object, who: tuple[str, ...], what: tuple[str, ...], number: int, domain: str) -> Prompt | None:
    """The user's turns and the system's; the answers in the file are left out, for the model gives its own."""
    if not isinstance(parts, list):
        return None
    turns, system = [], []
    for part in parts:
        if not isinstance(part, dict):
            raise Quoted(f"Line {number} has a turn that is a {type(part).__name__}, not an object.")
        speaker = word(next((part[key] for key in who if key in part), ""))
        said = next((part[key] for key in what if key in part), None)
        role = FROM.get(speaker.lower())
        if role is None:
            raise Quoted(f"Line {number} has a turn of {speaker[:40]!r}; those of {', '.join(FROM)} are read.")
        if role != "assistant" and not isinstance(said, str):
            raise Quoted(f"Line {number} has a turn of the {role} whose content is no text.")
        if role == "user":
            turns.append(said)
        elif role == "system" and said is not None:
            system.append(said.strip())
    return chat(turns, "\n\n".join(filter(None, system)), number, domain)


def chat(turns: Sequence[str], system: str, number: int, domain: str) -> Prompt:
    if not turns:
        raise Quoted(f"Line {number} has no turn of a user, to which the model could answer.")
    if len(turns) > MAX_TURNS:
        raise Quoted(f"Line {number} has {len(turns):,} turns of a user; at most {MAX_TURNS} are read.")
    good = tuple(checked(turn, number) for turn in turns)
    return Prompt(good[0], domain, good if len(good) > 1 or system else (), checked(system, number) if system else "")


def alpaca(row: Mapping[str, Any], number: int) -> Prompt | None:
    instruction, given = row["instruction"], row.get("input") or ""
    if not isinstance(instruction, str) or not isinstance(given, str):
        return None
    context = ", paired with an input that provides further context" if given else ""
    text = ALPACA.format(context=context, instruction=instruction, given=f"### Input:\n{given}\n\n" if given else "")
    checked(instruction, number)
    turn = checked(f"{instruction}\n\n{given}" if given else instruction, number)
    return Prompt(checked(text, number), "instructions", (turn,))


def gsm8k(row: Mapping[str, Any], number: int) -> Prompt | None:
    if not isinstance(question := row["question"], str):
        return None
    return Prompt(checked(f"Question: {checked(question, number)}\nAnswer:", number), "mathematics", (question,))


def human_eval(row: Mapping[str, Any], number: int) -> Prompt | None:
    prompt = row["prompt"]
    if not isinstance(prompt, str):
        return dialogue(prompt, ("role", "from"), ("content", "value"), number, "chat")
    if "entry_point" not in row:
        return Prompt(checked(prompt, number), "prompts")
    turn = f"Complete this Python function. Answer with the whole function.\n\n```python\n{prompt.rstrip()}\n```"
    return Prompt(checked(prompt, number), "code", (checked(turn, number),))


def text_alone(row: Mapping[str, Any], number: int) -> Prompt | None:
    return Prompt(checked(row["text"], number), "prompts") if isinstance(row["text"], str) else None


READ: dict[str, Callable[[Mapping[str, Any], int], Prompt | None]] = dict(
    zip(KNOWN, (spec_bench, share_gpt, messages, alpaca, gsm8k, human_eval, text_alone), strict=True)
)


def word(value: object) -> str:
    """A word or a number of a row as text, "" for anything else; with a mark in place of every half of a character, which JSON can
    hold and no text can.

    >>> word("a\\ud800b"), word(7), word(["x"])
    ('a?b', '7', '')
    """
    return str(value).encode("utf-8", "replace").decode() if isinstance(value, (str, int, float)) else ""


def checked(text: str, number: int) -> str:
    if not text.strip():
        raise Quoted(f"Prompt {number} is empty.")
    if not text.isascii() and (alone := HALF.search(text)):
        raise Quoted(f"Prompt {number} holds half of a character (U+{ord(alone[0]):04X}), which no text can; take it out.")
    if len(text) > MAX_CHARACTERS:
        raise Quoted(f"Prompt {number} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")
    return text
