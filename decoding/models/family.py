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

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

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
from decoding.models.memory import BYTES, check_memory, needs
from decoding.models.names import EMBEDDED_TARGETS
from decoding.models.places import Place, place
from decoding.models.progress import said, tell
from decoding.models.published_heads import method_of, read
from decoding.models.self_test import check_tree_reading
from decoding.models.target import Target
from decoding.models.token_bytes import token_bytes_maker

EMBEDDED = Path(__file__).parent.parent / "embedded"
DRAFTS = {**EMBEDDED_TARGETS, "embedded": "draft"}  # name as a draft model -> folder
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

    def encode(self, prompt: str, limit: int) -> tuple[int, ...]:
        """Token ids of a prompt; ValueError if it is empty or leaves no room below `limit` tokens."""
        if not prompt.strip():
            raise ValueError("The prompt is empty. Write a few words for the target to continue.")
        if len(prompt) > MAX_PROMPT:
            raise ValueError(f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT:,} are read.")
        if alone := [c for c in prompt if 0xD800 <= ord(c) <= 0xDFFF]:
            raise ValueError(f"The prompt holds half of a character (U+{ord(alone[0]):04X}), which no text can; take it out.")
        return self.checked(self.tokenizer(prompt)["input_ids"], limit)

    def checked(self, tokens: Sequence[int], limit: int) -> tuple[int, ...]:
        """Token ids to go on from, as they are; ValueError if there are none, unknown ones, or no room below `limit` tokens."""
        if not tokens:
            raise ValueError("The prompt has no tokens; at least one is needed to go on from.")
        if strange := [token for token in tokens if not 0 <= token < self.target.vocab]:
            raise ValueError(f"The prompt has the token {strange[0]}; the target has {self.target.vocab:,} tokens.")
        if len(tokens) >= limit:
            raise ValueError(f"The prompt has {len(tokens):,} tokens; the context holds {limit:,} and one must be left free.")
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


def load(target: str = "embedded", draft: str | None = None, device: str = "auto", dtype: str = "auto") -> Family:
    """Load a family.

    Args:
        target: a name of the catalogue ("smollm2", "embedded", "embedded-small"), a folder in Hugging Face format, a GGUF
            file, or a Hub id.
        draft: "embedded", or what a target can be called by. None: the embedded draft model with an embedded target, otherwise
            none. A published head (`decoding.models.published_heads`) is kept for the method that it belongs to.
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
    own = "embedded" if target in EMBEDDED_TARGETS else None
    target, notes = opened_from(target, EMBEDDED_TARGETS)
    draft, more = opened_from(draft, DRAFTS) if draft else (None, ())
    notes += more
    method = method_of(draft)
    published, draft = (draft, None) if method else (None, draft)
    if draft is None and own:
        draft = str(EMBEDDED / DRAFTS[own])
    tokenizer, big, more = open_model(target, where, dtype)
    notes += more
    heads = {method: Path(published)} if published else {}
    for folder in heads.values():
        read(folder, big)  # whatever is wrong with it is said now
    if draft is None:
        return Family(name, tokenizer, big, heads=heads, notes=notes)
    other, small, more = open_model(draft, where, dtype)
    check_same_tokens(tokenizer, other, target, draft)
    if small.vocab != big.vocab:
        raise ValueError(f"The draft model scores {small.vocab:,} tokens and the target {big.vocab:,}; they must agree.")
    return Family(name, tokenizer, big, small, heads, notes + more)


def opened_from(name: str, shipped: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The folder that a name stands for, and notes; a GGUF file is converted and a model of the Hub fetched if need be."""
    found = Place(str(EMBEDDED / shipped[name])) if name in shipped else place(name)
    return found.source, found.notes


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
    found = needs(Path(source), BYTES["float32"] if dtype == "auto" else BYTES[dtype])
    if device.type == "cpu":
        check_memory(found, source)
    shown = "float32" if dtype == "auto" and device.type == "cpu" else "its own number format" if dtype == "auto" else dtype
    tell(f"loading {Path(source).name} on {device} in {shown}{f', {said(found.weights)}' if found else ''}")
    with opening(source):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model, notes = open_weights(source, config, device, dtype)
    vocab, unused = vocabulary(tokenizer, config)
    target = Target(model.eval(), vocab, context(config), end_tokens(model, tokenizer), unused)
    tell(f"testing {Path(source).name} over a draft tree")
    check_tree_reading(target, source)
    return tokenizer, target, notes


def check_same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, target: str, draft: str) -> None:
    mine, theirs = one.get_vocab(), other.get_vocab()
    if mine != theirs:
        different = sum(theirs.get(token) != i for token, i in mine.items()) + len(theirs.keys() - mine.keys())
        raise ValueError(
            f"The draft model {draft!r} has another tokenizer than the target {target!r}: {different:,} entries differ "
            f"({len(mine):,} against {len(theirs):,}). Their tokens would not mean the same."
        )
