"""Windows of conversations to learn from: a file of messages, of which only what the assistant says is learned.

One JSON object per line with `messages`, as `decoding.training.conversations` writes them, and as most chat data comes. Every
window begins with a conversation and is filled with those that follow; every 20th conversation is held out.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from decoding.models.family import Family
from decoding.retrieval.python_source import HOLD_OUT_EVERY
from decoding.training.states import ROWS

MAX_FILE = 2**31  # bytes
Read = tuple[list[int], list[bool]]  # tokens of a conversation, and which are the assistant's


@dataclass(frozen=True)
class Conversations:
    """Conversations in a shuffled order, as windows."""

    family: Family
    found: Sequence[list[dict[str, str]]]
    seed: int

    @classmethod
    def of(cls, family: Family, file: Path, held_out: bool, own: bool = False) -> "Conversations":
        """Those of a file, the held-out ones or the others; ValueError, with the line, for what is no conversation.

        Args:
            own: leave out those whose line says that the model did not answer itself (`"own": false`).
        """
        everything = list(conversations(file))
        if len(everything) < HOLD_OUT_EVERY:
            raise ValueError(f"{file.name!r} holds {len(everything)} conversations; at least {HOLD_OUT_EVERY} are needed.")
        part = [each for i, (each, mine) in enumerate(everything) if (i % HOLD_OUT_EVERY == 0) == held_out and (mine or not own)]
        return cls(family, part, int(held_out))

    def windows(self, family: Family, kind: str, number: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """(ROWS, length) tokens, int64, and bool: which of them may be learned. The same ones for the same number."""
        tokens, counts = self.packed(length)
        rows = np.arange(number * ROWS, (number + 1) * ROWS) % len(tokens)
        return tokens[rows], counts[rows]

    def packed(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """All windows of this length."""
        if length not in self._packed:
            self._packed[length] = self._pack(length)
        return self._packed[length]

    @cached_property
    def _packed(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {}

    def _pack(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        tokens: list[list[int]] = []
        counts: list[list[bool]] = []
        for i in np.random.default_rng(self.seed).permutation(len(self.found)):
            text, learned = rendered(self.family, self.found[i])
            if not tokens or len(tokens[-1]) >= length:
                tokens.append([])
                counts.append([])
            tokens[-1] += text
            counts[-1] += learned
        full = [i for i, row in enumerate(tokens) if len(row) >= length]
        if not full:
            raise ValueError(f"The conversations fill no window of {length} tokens; add some, or take a shorter --window.")
        return np.array([tokens[i][:length] for i in full]), np.array([counts[i][:length] for i in full])


def conversations(file: Path) -> Iterator[tuple[list[dict[str, str]], bool]]:
    """The messages of every line that has some, and whether the model answered itself as far as the line says so."""
    if (size := file.stat().st_size) > MAX_FILE:
        raise ValueError(f"{file.name!r} has {size:,} bytes; at most {MAX_FILE:,} are read.")
    with file.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict) or "messages" not in entry:
                    continue
                messages = [{"role": str(said["role"]), "content": str(said["content"])} for said in entry["messages"]]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"Line {number:,} of {file.name!r} is no conversation: {error}") from error
            if any(said["role"] == "assistant" for said in messages):
                yield messages, entry.get("own") is not False


def rendered(family: Family, messages: Sequence[dict[str, str]]) -> Read:
    """The tokens of a conversation in the model's own template, and which of them the assistant says, its end token included."""

    def text(count: int, asks: bool) -> str:
        found = family.tokenizer.apply_chat_template(list(messages[:count]), add_generation_prompt=asks, tokenize=False)
        return str(found)

    tokens: list[int] = []
    learned: list[bool] = []
    before = ""
    for i, said in enumerate(messages):
        if said["role"] != "assistant":
            continue
        for part, counts in ((text(i, True), False), (text(i + 1, False), True)):
            if not part.startswith(before):
                raise ValueError("This model's chat template writes earlier turns anew; its conversations cannot be learned from.")
            ids = family.tokenizer(part[len(before) :], add_special_tokens=False)["input_ids"]
            tokens, learned, before = tokens + ids, learned + [counts] * len(ids), part
    ends = [i for i, token in enumerate(tokens) if token in family.target.ends]
    for end in ends:  # what a template writes behind the end of an answer is not the model's
        for i in range(end + 1, len(tokens)):
            if not learned[i]:
                break
            learned[i] = False
    return tokens, learned
