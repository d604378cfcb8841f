"""Checkpoints: a model's folder or Hub id -> its weights, and what must be known of them before they are trusted.

Untrusted input: only safetensors are opened, and no code of a model folder is ever run.
"""

import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME as INDEX
from transformers.utils.hub import cached_file

from decoding.models.default_format import opening_alone
from decoding.models.panics import is_panic
from decoding.models.quantised import note as quantised_note
from decoding.models.quantised import opening_quantised
from decoding.models.sorted_draft import check_exits
from decoding.models.windows import SIZES, layer_kinds

RECURRENT = ("rwkv", "xlstm")  # models that list no layers by kind
STATELESS = {"mlp", "moe"}  # kinds of layers that read one row alone
Model = TypeVar("Model", bound=nn.Module)
# what wraps a model when it is trained, and leaves in front of the names of its tensors
PREFIXES = {"_orig_mod.": "torch.compile", "module.": "data-parallel training", "base_model.model.": "PEFT"}
WRAPPED = "^(" + "|".join(map(re.escape, PREFIXES)) + ")+"
# where a model of texts, images and sound keeps its language model, and the tensors of its other parts
LANGUAGE = {r"^language_model\.lm_head": "lm_head", r"^(model\.)?language_model\.(model\.)?": "model."}
OTHER_SENSES = re.compile(r"(^|\.)(vision_\w+|audio_\w+|multi_modal_projector|embed_vision|embed_audio)\.")
IMPLEMENTATIONS = {"_attn_implementation_internal", "_experts_implementation_internal"}  # fields that name kernels to be fetched
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")
REPORTS = "transformers.modeling_utils"  # the logger that prints what weights lack
TREE_ROWS = 1024  # more than a draft tree has
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


RAISED = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError, RuntimeError, ImportError,
    EOFError, SafetensorError, StrictDataclassError, MemoryError,
)  # fmt: skip


@contextmanager
def opening(source: str) -> Iterator[None]:
    """Whatever a damaged or unknown folder makes the libraries raise, as one sentence (ValueError)."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, RAISED) and not is_panic(error):
            raise
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise ValueError(
                f"The model {source!r} does not fit into the memory that is left ({first_line(error)}). Choose a smaller model."
            ) from error
        raise ValueError(f"The model {source!r} cannot be opened: {first_line(error)}") from error


def open_config(source: str) -> PreTrainedConfig:
    """What config.json says, without what would choose code to be fetched and run; of a model of texts, images and sound
    what it says of texts."""
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise ValueError("there is no config.json in that folder")
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        for name in IMPLEMENTATIONS & vars(part).keys():
            setattr(part, name, None)
        vars(part).pop("auto_map", None)
    composite = not config.is_encoder_decoder and not hasattr(config, "vocab_size")
    return config.get_text_config() if composite else config


def check_index(source: str) -> None:
    """Refuse a list of shards that leads out of the folder or to anything but safetensors (ValueError)."""
    file = cached_file(source, INDEX, _raise_exceptions_for_missing_entries=False)
    if file is not None:
        shards_of(Path(file))


def shards_of(index: Path, most: int | None = None) -> dict[str, str]:
    """Tensor -> the file beside `index` that holds it; ValueError if it is damaged or leads anywhere else.

    Args:
        most: bytes that are read of it.
    """
    try:
        if most is not None and (size := index.stat().st_size) > most:
            raise ValueError(f"{str(index)!r} has {size:,} bytes; at most {most:,} are read.")
        found = json.loads(index.read_text("utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{str(index)!r} cannot be read, or it is damaged: {error}") from error
    shards = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(shards, dict):
        raise ValueError(f"{INDEX} has no list of tensors.")
    for shard in shards.values():
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            raise ValueError(f"{INDEX} names {shard!r}, which is no safetensors file beside it.")
    return shards


def open_weights(
    source: str, config: PreTrainedConfig, device: torch.device | None, dtype: str
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The model with fused attention where it has it, and notes; safetensors only, no remote code.

    Args:
        device: None: spread over all GPUs and the main memory by accelerate.

    Raises:
        ValueError: a tensor is missing, left over or of another shape, with their names: transformers would fill in random numbers.
    """
    on_cpu = not torch.accelerator.is_available() if device is None else device.type == "cpu"
    wanted = torch.float32 if dtype == "auto" and on_cpu else DTYPES.get(dtype, "auto")
    check_index(source)
    options: dict[str, Any] = {"dtype": wanted, "use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
    options |= {"config": config, "ignore_mismatched_sizes": True, "key_mapping": {WRAPPED: "", **LANGUAGE}}
    options |= {"device_map": "auto"} if device is None else {}
    opener = cast(Any, AutoModelForCausalLM)  # whose types know no loading info, and lose those of `to`
    with opening_quantised(config), opening_alone(changes=wanted is not torch.get_default_dtype()), without_report():
        try:
            model, loaded = opener.from_pretrained(source, attn_implementation="sdpa", **options)
        except ValueError:  # this architecture has no fused attention
            model, loaded = opener.from_pretrained(source, attn_implementation="eager", **options)
    others = {name for name in loaded["unexpected_keys"] if OTHER_SENSES.search(name)}
    check_complete({**loaded, "unexpected_keys": set(loaded["unexpected_keys"]) - others})
    stored = quantised_note(source, config, str(model.dtype).removeprefix("torch."))
    notes = (*prefix_notes(source), *stored, *senses_notes(source, others))
    return transpose_weights(model if device is None else model.to(device)), notes


@contextmanager
def without_report() -> Iterator[None]:
    """While the block runs, transformers does not print at length what a model lacks: `check_complete` says it in a sentence."""
    logger = logging.getLogger(REPORTS)
    logger.addFilter(no_report)
    try:
        yield
    finally:
        logger.removeFilter(no_report)


def no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def check_complete(loaded: Mapping[str, Any]) -> None:
    """Refuse weights that do not fill the model exactly (ValueError).

    Args:
        loaded: what `from_pretrained` says about its loading.
    """
    shapes = [f"{name} {tuple(there)} instead of {tuple(wanted)}" for name, there, wanted in sorted(loaded["mismatched_keys"])]
    kinds = (
        ("missing", sorted(loaded["missing_keys"])),
        ("not used", sorted(loaded["unexpected_keys"])),
        ("of another shape", shapes),
    )
    wrong = [f"{kind}: {listed(names)}" for kind, names in kinds if names]
    if wrong:
        raise ValueError(f"its weights are not those of the model that its config.json describes ({'; '.join(wrong)}).")


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first few names.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def prefix_notes(source: str) -> tuple[str, ...]:
    """A sentence for every wrapper whose prefix was taken off the names of a folder's tensors."""
    names: set[str] = set()
    for file in sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else ():
        with safe_open(file, "pt") as opened:
            names |= set(opened.keys())
    there = [prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in names)]
    return tuple(
        f"The tensors of {source!r} were named {prefix}..., as {PREFIXES[prefix]} writes them; that was taken off."
        for prefix in there
    )


def senses_notes(source: str, names: Collection[str]) -> tuple[str, ...]:
    """A sentence if parts of a model were left out."""
    return (f"Only the text part of {source!r} is used; its {len(names):,} tensors for images or sound are not.",) if names else ()


def transpose_weights(model: Model) -> Model:
    """The same weights; on a CPU those of linear layers lie in memory input by input rather than output by output.

    A draft tree has few rows, and multiplying few rows by a matrix that lies like this takes half the time there.
    """
    for part in model.modules():
        weight = getattr(part, "weight", None) if isinstance(part, nn.Linear) else None
        if not isinstance(weight, Tensor) or type(weight.data) is not torch.Tensor:  # numbers that a quantisation packed
            continue
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            weight.data = weight.data.t().contiguous().t()
    return model


def check_architecture(config: PreTrainedConfig, source: str) -> None:
    """Refuse what cannot be read over a tree and says so itself; the self-test finds the rest."""
    check_known(config, source)
    if config.is_encoder_decoder:
        raise ValueError(f"{source!r} is an encoder-decoder; Draftscope needs a decoder-only model.")
    local = "local" in (getattr(config, "attention_layers", None) or ())
    strange = set(layer_kinds(config)) - STATELESS - {"full_attention", "attention", *SIZES}
    if strange:
        raise ValueError(
            f"{source!r} ({config.model_type}) has layers of kind {', '.join(sorted(strange))}, whose state runs through the whole "
            "tree; it cannot be read over a draft tree."
        )
    check_exits(config, source)
    window = getattr(config, "window_size", None)
    if local and isinstance(window, int) and window < context(config):
        raise ValueError(
            f"{source!r} attends through a window of {window:,} tokens, shorter than its context of {context(config):,}, and "
            "counts them by rows, not by positions; beyond the window a draft tree would be read wrongly."
        )


def check_known(config: PreTrainedConfig, source: str) -> None:
    """Refuse, by the reason, what is known to be unreadable over a tree and says so in no list of layers (ValueError)."""
    kind, inner = config.model_type, getattr(config, "attn_config", None)
    if kind == "bloom" or getattr(config, "alibi", False) is True or getattr(inner, "alibi", False) is True:
        raise ValueError(
            f"{source!r} ({kind}) weighs what it sees by how many rows ago that was read (ALiBi), not by positions. In a draft "
            "tree brothers are rows of the same position, and every distance would be wrong: it cannot be read over a draft tree."
        )
    if kind in RECURRENT:
        raise ValueError(
            f"{source!r} ({kind}) has no attention but one state that every token changes. A state cannot follow several branches "
            "at once nor forget a rejected token: it cannot be read over a draft tree."
        )


def context(config: PreTrainedConfig) -> int:
    """Positions the model was made for. With rotary scaling that depends on the length only the original ones are used: a tree
    across that border changes the frequencies of all its rows. Layers of Llama 4 without positions scale their queries by the
    number of a row, not by its position: only as far as that makes no difference."""
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048
    rope = getattr(config, "rope_parameters", None) or {}
    if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
        limit = min(limit, rope.get("original_max_position_embeddings", limit))
    if getattr(config, "attn_temperature_tuning", False) and 0 in config.no_rope_layers:
        limit = min(limit, int(config.floor_scale) - TREE_ROWS)
    return limit


def vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> tuple[int, tuple[int, ...]]:
    """How many ids there are, by the largest one, and those below it that no token has."""
    ids = set(tokenizer.get_vocab().values())
    count = max(ids) + 1
    if count > config.vocab_size:
        raise ValueError(f"The tokenizer has ids up to {count - 1:,} and the model scores only {config.vocab_size:,} tokens.")
    return count, tuple(sorted(set(range(count)) - ids))


def end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    return cast("int | None", tokenizer.eos_token_id)  # which the library's types take for any kind of attribute


def end_tokens(model, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a text: those of generation_config.json, and the tokenizer's, which ends a turn of a chat."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return frozenset(end for end in (*ends, end_token(tokenizer)) if end is not None)


def first_line(error: BaseException) -> str:
    """What an error says, and where that only announces something, the line behind it.

    >>> first_line(ValueError("It is wrong.\\nTrace: ...")), first_line(TypeError("Wrong field:\\n  it is 7\\n"))
    ('It is wrong.', 'Wrong field: it is 7')
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(map(str.strip, lines[: 2 if lines[0].endswith(":") else 1]))[:300]
