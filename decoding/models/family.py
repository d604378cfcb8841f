"""Family: a tokenizer, a target, and the draft model that fits it: embedded, from a folder, or from the Hub.

Untrusted input: only safetensors are opened, no code of a model folder is ever run, and every model proves at load that it can
be read over a tree before anybody relies on it.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedTokenizerBase

from decoding.models.checkpoints import (
    DTYPES,
    check_architecture,
    context,
    end_tokens,
    open_config,
    open_weights,
    opening,
    vocabulary,
)
from decoding.models.heads import Head
from decoding.models.names import EMBEDDED_TARGETS
from decoding.models.published_heads import method_of, read
from decoding.models.self_test import check_tree_reading
from decoding.models.target import Target
from decoding.models.token_bytes import token_bytes_maker
from decoding.models.tokenizers import open_tokenizer

EMBEDDED = Path(__file__).parent.parent / "embedded"
HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
MAX_PROMPT = 100_000  # characters


@dataclass(frozen=True, eq=False)
class Family:
    """Models that belong together. Shared by all runs; holds no state of any."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    target: Target
    draft: Target | None = None
    heads: Mapping[str, Path] = field(default_factory=dict)  # method -> folder of a published head
    notes: tuple[str, ...] = ()  # what was done at loading that a user should know, in sentences

    def encode(self, prompt: str, limit: int, whose: str = "") -> tuple[int, ...]:
        """Token ids of a prompt, which begin with the token for the beginning of a text once at most, whoever put it there.

        Args:
            whose: " of the draft model", if the limit is the context of that.

        Raises:
            ValueError: it is empty, or leaves no room below `limit` tokens.
        """
        if not prompt.strip():
            raise ValueError("The prompt is empty. Write a few words for the target to continue.")
        if len(prompt) > MAX_PROMPT:
            raise ValueError(f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT:,} are read.")
        if alone := [c for c in prompt if 0xD800 <= ord(c) <= 0xDFFF]:
            raise ValueError(f"The prompt holds half of a character (U+{ord(alone[0]):04X}), which no text can; take it out.")
        tokens = self.tokenizer(prompt)["input_ids"]
        return self.checked(tokens[1:] if self.begins_twice(prompt) else tokens, limit, whose)

    def begins_twice(self, prompt: str) -> bool:
        """Whether a prompt begins with the very token that the tokenizer puts before every text, as a rendered template does."""
        first = cast("int | None", self.tokenizer.bos_token_id)  # which the library's types take for any kind of attribute
        tokens = self.tokenizer(prompt)["input_ids"]
        if first is None or tokens[:2] != [first, first]:
            return False
        return leading(first, self.tokenizer(prompt, add_special_tokens=False)["input_ids"]) < leading(first, tokens)

    def prompt_notes(self, prompt: str) -> tuple[str, ...]:
        """What was done to a prompt that a user should know, in sentences."""
        if not self.begins_twice(prompt):
            return ()
        first = self.tokenizer.bos_token
        return (f"The prompt begins with {first}, and the tokenizer puts {first} before every text: it was put there once.",)

    def checked(self, tokens: Sequence[int], limit: int, whose: str = "") -> tuple[int, ...]:
        """Token ids to go on from, as they are; ValueError if there are none, unknown ones, or no room below `limit` tokens."""
        if not tokens:
            raise ValueError("The prompt has no tokens; at least one is needed to go on from.")
        if strange := [token for token in tokens if not 0 <= token < self.target.vocab]:
            raise ValueError(f"The prompt has the token {strange[0]}; the target has {self.target.vocab:,} tokens.")
        if len(tokens) >= limit:
            raise ValueError(
                f"The prompt has {len(tokens):,} tokens; the context{whose} holds {limit:,} and one must be left free."
            )
        return tuple(tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """What these tokens say; bytes that are no character become U+FFFD."""
        token_bytes = self.token_bytes(tokens)
        return b"".join(token_bytes[token] for token in tokens).decode("utf-8", "replace")

    def token_bytes(self, tokens: Iterable[int]) -> dict[int, bytes]:
        """Token -> its bytes, which may be half a character."""
        return {token: self._token_bytes(token) for token in tokens}

    def published_head(self, method: str) -> Head | None:
        """The published head that was loaded with the family; None if it has none for this method."""
        folder = self.heads.get(method)
        return None if folder is None else read(folder, self.target)

    @cached_property
    def _token_bytes(self):
        return token_bytes_maker(self.tokenizer)


def leading(token: int, tokens: Sequence[int]) -> int:
    """How many tokens at the beginning are this one.

    >>> leading(1, [1, 1, 5, 1])
    2
    """
    return next((i for i, other in enumerate(tokens) if other != token), len(tokens))


def load(target: str = "embedded", draft: str | None = None, device: str = "auto", dtype: str = "auto") -> Family:
    """Load a family.

    Args:
        target: "embedded", "embedded-small", a folder in Hugging Face format, or a Hub id.
        draft: "embedded", "embedded-small" (the small target as a draft model), a folder or a Hub id. None: the embedded draft
            model with an embedded target, otherwise none. A folder with a published head (`decoding.models.published_heads`) is
            kept for the method that it belongs to.
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (float32 on a CPU, else as stored), "float32", "bfloat16", "float16".

    Raises:
        ValueError: with a sentence that says what is wrong and with which value.
    """
    for what, given in (("target", target), ("draft model", draft or ""), ("device", device), ("number format", dtype)):
        if not isinstance(given, str):
            raise ValueError(f"The {what} must be given by its name; it is {given!r}.")
    where = find_device(device)
    name = target if draft is None else f"{target} + {draft}"
    method = method_of(draft)
    published, draft = (draft, None) if method else (None, draft)
    if target in EMBEDDED_TARGETS:
        target, draft = str(EMBEDDED / EMBEDDED_TARGETS[target]), draft or "embedded"
    draft = str(EMBEDDED / {**EMBEDDED_TARGETS, "embedded": "draft"}.get(draft, draft)) if draft else None
    tokenizer, big, notes = open_model(target, where, dtype)
    heads = {method: Path(published)} if published else {}
    for folder in heads.values():
        notes += read(folder, big).notes  # whatever is wrong with it is said now
    if draft is None:
        return Family(name, tokenizer, big, heads=heads, notes=notes)
    other, small, more = open_model(draft, where, dtype)
    check_same_tokens(tokenizer, other, target, draft)
    if small.vocab != big.vocab:
        raise ValueError(f"The draft model scores {small.vocab:,} tokens and the target {big.vocab:,}; they must agree.")
    return Family(name, tokenizer, big, small, heads, notes + more)


def weights_mark(source: str | None) -> str:
    """A short checksum of the weights a name stands for, from file sizes and last bytes; "" for a Hub id.

    Kept results of a folder whose weights were trained on must not pass for results of the new ones.
    """
    folder = EMBEDDED if source in EMBEDDED_TARGETS else Path(source or "")
    if source is None or not folder.is_dir():
        return ""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as data:
            size = data.seek(0, os.SEEK_END)
            data.seek(max(0, size - 65_536))
            found.update(f"{file.name} {size} ".encode() + data.read())
    return found.hexdigest()[:8]


def find_device(device: str) -> torch.device:
    if device == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"There is no device {device!r}; use auto, cpu, cuda or mps.") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(where.type, False):
        raise ValueError(f"The device {device!r} is not available on this machine.")
    return where


def open_model(source: str, device: torch.device, dtype: str) -> tuple[PreTrainedTokenizerBase, Target, tuple[str, ...]]:
    """A tokenizer, a model that passed the self-test, and notes; ValueError with the reason if it cannot be opened or read."""
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"There is no number format {dtype!r}; use auto, {', '.join(DTYPES)}.")
    if not os.path.isdir(source) and not HUB_ID.fullmatch(source):
        raise ValueError(f"{source!r} is neither a folder nor the id of a model on the Hub.")
    with opening(source):
        config = open_config(source)
    check_architecture(config, source)
    with opening(source):
        tokenizer, words = open_tokenizer(source)
        model, notes = open_weights(source, config, device, dtype)
    vocab, unused = vocabulary(tokenizer, config)
    target = Target(model.eval(), vocab, context(config), end_tokens(model, tokenizer), unused)
    check_tree_reading(target, source)
    return tokenizer, target, words + notes


def check_same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, target: str, draft: str) -> None:
    mine, theirs = one.get_vocab(), other.get_vocab()
    if mine != theirs:
        different = sum(theirs.get(token) != i for token, i in mine.items()) + len(theirs.keys() - mine.keys())
        raise ValueError(
            f"The draft model {draft!r} has another tokenizer than the target {target!r}: {different:,} entries differ "
            f"({len(mine):,} against {len(theirs):,}). Their tokens would not mean the same."
        )
