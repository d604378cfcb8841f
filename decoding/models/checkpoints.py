"""Checkpoints: a model's folder or Hub id -> its weights, and what must be known of them before they are trusted.

Untrusted input: only safetensors are opened, and no code of a model folder is ever run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from decoding.models.sorted_draft import check_exits

Model = TypeVar("Model", bound=nn.Module)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    options: dict[str, Any] = {"dtype": wanted, "use_safetensors": True, "trust_remote_code": False}
    try:
        model = AutoModelForCausalLM.from_pretrained(source, attn_implementation="sdpa", **options)
    except ValueError:  # this architecture has no fused attention
        model = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager", **options)
    return transpose_weights(cast(Any, model).to(device))  # the types of `to` are lost in the library's wrapper


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
    kinds: set[str] = set(getattr(config, "layer_types", None) or ()) | set(getattr(config, "attention_layers", None) or ())
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


def end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    return cast("int | None", tokenizer.eos_token_id)  # which the library's types take for any kind of attribute


def end_tokens(model, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    ends = end_token(tokenizer) if ends is None else ends
    return frozenset(ends if isinstance(ends, list) else () if ends is None else (ends,))


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
