"""Family: a tokenizer, a target, and the draft model that fits it: embedded, from a folder, or from the Hub.

Untrusted input: only safetensors are opened, no code of a model folder is ever run, and every model proves at load that it can
be read over a tree before anybody relies on it.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from decoding.models.published_heads import method_of, read
from decoding.models.self_test import check_tree_reading
from decoding.models.sorted_draft import check_exits
from decoding.models.target import Target
from decoding.models.token_bytes import token_bytes_maker

EMBEDDED = Path(__file__).parent.parent / "embedded"
EMBEDDED_TARGETS = {"embedded": "target", "embedded-small": "target-small"}  # name -> folder; both take the same draft models
HUB_ID = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
MAX_PROMPT = 100_000  # characters
Model = TypeVar("Model", bound=nn.Module)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Family:
    """Models that belong together. Shared by all runs; holds no state of any."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    target: Target
    draft: Target | None = None
    heads: Mapping[str, Path] = field(default_factory=dict)  # method -> folder of a published head

    def encode(self, prompt: str, limit: int) -> tuple[int, ...]:
        """Token ids of a prompt; ValueError if it is empty or leaves no room below `limit` tokens."""
        if not prompt.strip():
            raise ValueError("The prompt is empty. Write a few words for the target to continue.")
        if len(prompt) > MAX_PROMPT:
            raise ValueError(f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT:,} are read.")
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

    @cached_property
    def _token_bytes(self):
        return token_bytes_maker(self.tokenizer)


def load(target: str = "embedded", draft: str | None = None, device: str = "auto", dtype: str = "auto") -> Family:
    """Load a family.

    Args:
        target: "embedded", "embedded-small", a folder in Hugging Face format, or a Hub id.
        draft: "embedded", a folder or a Hub id; None: the embedded draft model with an embedded target, otherwise none. A folder
            with a published head (`decoding.models.published_heads`) is kept for the method that it belongs to.
        device: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (float32 on a CPU, else as stored), "float32", "bfloat16", "float16".

    Raises:
        ValueError: with a sentence that says what is wrong and with which value.
    """
    where = find_device(device)
    name = target if draft is None else f"{target} + {draft}"
    method = method_of(draft)
    published, draft = (draft, None) if method else (None, draft)
    if target in EMBEDDED_TARGETS:
        target, draft = str(EMBEDDED / EMBEDDED_TARGETS[target]), draft or "embedded"
    draft = str(EMBEDDED / "draft") if draft == "embedded" else draft
    tokenizer, big = open_model(target, where, dtype)
    heads = {method: Path(published)} if published else {}
    for folder in heads.values():
        read(folder, big)  # whatever is wrong with it is said now
    if draft is None:
        return Family(name, tokenizer, big, heads=heads)
    other, small = open_model(draft, where, dtype)
    check_same_tokens(tokenizer, other, target, draft)
    if small.vocab != big.vocab:
        raise ValueError(f"The draft model scores {small.vocab:,} tokens and the target {big.vocab:,}; they must agree.")
    return Family(name, tokenizer, big, small, heads)


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


def open_model(source: str, device: torch.device, dtype: str) -> tuple[PreTrainedTokenizerBase, Target]:
    """A tokenizer and a model that passed the self-test; ValueError with the reason if it cannot be opened or read."""
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"There is no number format {dtype!r}; use auto, {', '.join(DTYPES)}.")
    if not os.path.isdir(source) and not HUB_ID.fullmatch(source):
        raise ValueError(f"{source!r} is neither a folder nor the id of a model on the Hub.")
    with opening(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    check_architecture(config, source)
    with opening(source):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = open_weights(source, device, dtype)
    target = Target(model.eval(), vocabulary(tokenizer, config), context(config), end_tokens(model, tokenizer))
    check_tree_reading(target, source)
    return tokenizer, target


@contextmanager
def opening(source: str) -> Iterator[None]:
    """Whatever a damaged or unknown folder makes the libraries raise, as one sentence (ValueError)."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"The model {source!r} cannot be opened: {first_line(error)}") from error


def open_weights(source: str, device: torch.device, dtype: str) -> PreTrainedModel:
    """The model with fused attention where it has it; safetensors only, no remote code."""
    wanted = torch.float32 if dtype == "auto" and device.type == "cpu" else DTYPES.get(dtype, "auto")
    options = {"dtype": wanted, "use_safetensors": True, "trust_remote_code": False}
    try:
        model = AutoModelForCausalLM.from_pretrained(source, attn_implementation="sdpa", **options)
    except ValueError:  # this architecture has no fused attention
        model = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager", **options)
    return transpose_weights(model.to(device))


def transpose_weights(model: Model) -> Model:
    """The same weights; on a CPU those of linear layers lie in memory input by input rather than output by output.

    A draft tree has few rows, and multiplying few rows by a matrix that lies like this takes half the time there.
    """
    for part in model.modules():
        if isinstance(part, nn.Linear) and part.weight.device.type == "cpu" and part.weight.dtype == torch.float32:
            part.weight.data = part.weight.data.t().contiguous().t()
    return model


def check_architecture(config: PreTrainedConfig, source: str) -> None:
    """Refuse what cannot be read over a tree and says so itself; the self-test finds the rest."""
    if config.is_encoder_decoder:
        raise ValueError(f"{source!r} is an encoder-decoder; Draftscope needs a decoder-only model.")
    kinds = set(getattr(config, "layer_types", None) or ()) | set(getattr(config, "attention_layers", None) or ())
    strange = kinds - {"full_attention", "attention", "global", "sliding_attention", "chunked_attention", "local"}
    if strange:
        raise ValueError(
            f"{source!r} has layers of kind {', '.join(sorted(strange))}, whose state runs through the whole tree; it cannot be "
            "read over a draft tree."
        )
    check_exits(config, source)
    window = window_of(config, kinds)
    if window is not None and window < context(config):
        raise ValueError(
            f"{source!r} attends through a window of {window:,} tokens, shorter than its context of {context(config):,}; beyond "
            "the window a draft tree would be read wrongly."
        )


def window_of(config: PreTrainedConfig, kinds: set[str]) -> int | None:
    """Tokens a windowed layer sees, or None if every layer sees everything."""
    if kinds and not kinds & {"sliding_attention", "chunked_attention", "local"}:
        return None
    if getattr(config, "use_sliding_window", True) is False:
        return None
    names = ("sliding_window", "attention_chunk_size", *(("window_size",) if "local" in kinds else ()))
    return min((w for name in names if isinstance(w := getattr(config, name, None), int)), default=None)


def context(config: PreTrainedConfig) -> int:
    """Positions the model was made for. With rotary scaling that depends on the length only the original ones are used: a tree
    across that border changes the frequencies of all its rows."""
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048
    rope = getattr(config, "rope_parameters", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
        limit = min(limit, rope.get("original_max_position_embeddings", limit))
    return limit


def vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> int:
    if len(tokenizer) > config.vocab_size:
        raise ValueError(f"The tokenizer has {len(tokenizer):,} entries and the model scores only {config.vocab_size:,}.")
    return len(tokenizer)


def end_tokens(model, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return frozenset(ends if isinstance(ends, list) else () if ends is None else (ends,))


def check_same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, target: str, draft: str) -> None:
    mine, theirs = one.get_vocab(), other.get_vocab()
    if mine != theirs:
        different = sum(theirs.get(token) != i for token, i in mine.items()) + len(theirs.keys() - mine.keys())
        raise ValueError(
            f"The draft model {draft!r} has another tokenizer than the target {target!r}: {different:,} entries differ "
            f"({len(mine):,} against {len(theirs):,}). Their tokens would not mean the same."
        )


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
