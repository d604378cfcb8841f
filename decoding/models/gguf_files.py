"""GGUF files: a model in llama.cpp's format -> a folder of safetensors that opens like any other, made once, tensor by tensor.

Names, shapes and configs are transformers'; what it passes over in silence is read here (scaled rotary positions, how text is split
before merging, further end tokens) or refused by its name. Blocks of every kind that the package `gguf` knows are dequantised.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedConfig
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from decoding.models.downloads import check_room
from decoding.models.model_folder import check_numbers
from decoding.models.progress import Progress

MAGIC = b"GGUF"
SHARD = 2**30  # bytes of tensors that are held before they are written
DIGITS = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}  # every digit apart, then as GPT-2
AS_GPT2 = {"gpt-2", "mpt", "olmo", "jais", "trillion", "phi-2"}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # of every Llama 3
FREQUENCIES = "rope_freqs.weight"
ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
WRITTEN = {"F32": torch.float32, "BF16": torch.bfloat16}  # as it is stored; blocks become float16
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, NotImplementedError, RuntimeError)


def convert(file: Path, folder: Path) -> Iterator[Progress]:
    """Write what a GGUF file holds into `folder`, which is made; a step for every tensor.

    Yields:
        bytes of the file that were read.

    Raises:
        ValueError: it is no GGUF file, is cut short, or holds a model or parts of one that cannot be opened.
    """
    reader = opened(file)
    config = config_of(file, reader)
    check_numbers(config.to_dict())
    check_room(folder, sum(int(tensor.n_elements) for tensor in reader.tensors) * stored(reader).itemsize, file.name)
    folder.mkdir(parents=True, exist_ok=True)
    yield Progress("converting", 0, sum(int(tensor.n_bytes) for tensor in reader.tensors))
    notes = write_tokenizer(file, reader, folder)
    yield from write_weights(reader, config, folder)
    config.save_pretrained(folder)
    ends = sorted({int(value) for key in ENDS if (value := field(reader, key)) is not None})
    generation = GenerationConfig(bos_token_id=config.bos_token_id, eos_token_id=ends[0] if len(ends) == 1 else ends or None)
    generation.save_pretrained(folder)
    (folder / "notes.json").write_text(json.dumps(notes) + "\n", "utf-8")


def opened(file: Path) -> GGUFReader:
    """Its list of tensors and facts; ValueError if there is none, or the file ends before its tensors do."""
    try:
        with file.open("rb") as data:
            if data.read(4) != MAGIC:
                raise ValueError(f"{str(file)!r} is no GGUF file: it does not begin as one.")
    except OSError as error:
        raise ValueError(f"{str(file)!r} cannot be read: {error.strerror or error}.") from error
    try:
        reader = GGUFReader(file)
        size = file.stat().st_size
        whole = all(int(tensor.data_offset) + int(tensor.n_bytes) <= size for tensor in reader.tensors)
    except DAMAGE as error:
        raise ValueError(f"{str(file)!r} is cut short, or is no GGUF file that can be read: {error}") from error
    if not whole or not reader.tensors:
        raise ValueError(f"{str(file)!r} is cut short: its last tensors are not there.")
    return reader


def field(reader: GGUFReader, key: str) -> Any:
    """A fact of the file; None if it does not say."""
    found = reader.get_field(key)
    return None if found is None else found.contents()


# -- what the model is -------------------------------------------------------------------------------------------------


def config_of(file: Path, reader: GGUFReader) -> PreTrainedConfig:
    """The config that transformers makes of the file, with the scaling of its positions; ValueError for what cannot be one."""
    kind = field(reader, "general.architecture")
    try:
        config = AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name)
    except DAMAGE as error:
        raise ValueError(f"{str(file)!r} holds a model of the kind {kind!r}, which cannot be opened from a GGUF file.") from error
    vars(config).pop("_model_name_or_path", None)
    config.dtype = stored(reader)
    factor = rope_scaling(reader, kind, str(file), config)
    if factor:
        config.rope_parameters = {**(config.rope_parameters or {}), **factor}
    return config


def stored(reader: GGUFReader) -> torch.dtype:
    """The number format that loses nothing that the file still has."""
    kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1)
    return WRITTEN.get(next(iter(kinds), ""), torch.float16) if len(kinds) == 1 else torch.float16


def rope_scaling(reader: GGUFReader, kind: str, name: str, config: PreTrainedConfig) -> dict[str, Any]:
    """How rotary positions are scaled, in transformers' words; ValueError for a way that is not known here."""
    factors = next((np.array(tensor.data, dtype=np.float64) for tensor in reader.tensors if tensor.name == FREQUENCIES), None)
    scaling, factor = field(reader, f"{kind}.rope.scaling.type"), field(reader, f"{kind}.rope.scaling.factor")
    if factors is not None:
        found = {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3}
        if not np.allclose(factors, llama3_factors(len(factors), config, found["factor"]), rtol=1e-3):
            raise ValueError(f"{name!r} scales its rotary positions in a way that is not known here ({FREQUENCIES}).")
        return found
    if scaling in (None, "none") or factor in (None, 0.0, 1.0):
        return {}
    if scaling == "linear":
        return {"rope_type": "linear", "factor": float(factor)}
    original = field(reader, f"{kind}.rope.scaling.original_context_length")
    if scaling == "yarn" and original:
        return {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": int(original)}
    raise ValueError(f"{name!r} scales its rotary positions in a way that is not known here ({scaling}).")


def llama3_factors(count: int, config: PreTrainedConfig, factor: float) -> np.ndarray:
    """(count,) what Llama 3 divides its rotary frequencies by."""
    theta = float((config.rope_parameters or {}).get("rope_theta", 10_000.0))
    wavelength = 2 * np.pi * theta ** (np.arange(count) / count)
    low, high, length = (LLAMA3[key] for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings"))
    smooth = np.clip((length / wavelength - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


# -- its tokens --------------------------------------------------------------------------------------------------------


def write_tokenizer(file: Path, reader: GGUFReader, folder: Path) -> list[str]:
    """The tokenizer with its chat template, and notes in sentences about what is not certain of it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except DAMAGE as error:
        raise ValueError(f"The tokenizer in {str(file)!r} cannot be opened: {error}") from error
    notes, split = [], field(reader, "tokenizer.ggml.pre")
    if field(reader, "tokenizer.ggml.model") == "gpt2":
        if split in DIGITS:
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
            )
        elif split not in AS_GPT2 and split not in GGUF_PRE_TOKENIZER_SPLITS:
            notes.append(
                f"How {file.name} splits text before it merges pieces ({split or 'not said'}) is not known here; it is split as "
                "GPT-2 does, so some texts may get other tokens than in llama.cpp."
            )
    tokenizer.save_pretrained(folder)
    return notes


# -- its weights -------------------------------------------------------------------------------------------------------


def write_weights(reader: GGUFReader, config: PreTrainedConfig, folder: Path) -> Iterator[Progress]:
    """All tensors, in files of about SHARD bytes; memory holds one of these."""
    total = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    shards: list[list[str]] = []
    held: dict[str, Tensor] = {}
    for done, ready in tensors(reader, config):
        held |= ready
        if sum(values.nbytes for values in held.values()) >= SHARD:
            write_shard(held, folder, shards)
        yield Progress("converting", done, total)
    write_shard(held, folder, shards)
    if len(shards) == 1:
        (folder / shard_name(0)).rename(folder / "model.safetensors")
        return
    index = {name: shard_name(number) for number, names in enumerate(shards) for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}), "utf-8")


def write_shard(held: dict[str, Tensor], folder: Path, shards: list[list[str]]) -> None:
    if held:
        save_file(held, folder / shard_name(len(shards)), {"format": "pt"})
        shards.append(list(held))
        held.clear()


def shard_name(number: int) -> str:
    return f"model-{number + 1:05}.safetensors"


def tensors(reader: GGUFReader, config: PreTrainedConfig) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Bytes read so far, and the tensors that are whole with them, by transformers' names.

    Experts that the file keeps apart are put together by transformers' processor, which collects them in `merged`.
    """
    kind = field(reader, "general.architecture")
    processor = TENSOR_PROCESSORS.get(kind, TensorProcessor)(config=config.to_dict())
    names = names_of(config, processor)
    parts, seen, done = Counter(names.values()), Counter(), 0
    merged: dict[str, dict[str, Tensor]] = {"tensors": {}}
    unused = []
    for tensor in reader.tensors:
        weights = dequantized(tensor)
        had = len(merged["tensors"])
        result = processor.process(weights=weights, name=tensor.name, tensor_key_mapping=names, parsed_parameters=merged)
        name = names.get(tensor.name) or names.get(tensor.name.removesuffix(".weight"))
        ready = {}
        if result.name in names:
            ready[names[result.name]] = torch.tensor(result.weights).to(config.dtype)
        elif name is not None and name in merged["tensors"]:
            seen[name] += 1
            if seen[name] == parts[name]:
                ready[name] = merged["tensors"].pop(name).to(config.dtype)
        elif len(merged["tensors"]) == had and tensor.name != FREQUENCIES:
            unused.append(tensor.name)
        done += int(tensor.n_bytes)
        yield done, ready
    if unused:
        raise ValueError(f"The GGUF file holds tensors that transformers has no place for: {', '.join(sorted(unused)[:4])}.")
    yield done, {name: values.to(config.dtype) for name, values in merged["tensors"].items()}


def names_of(config: PreTrainedConfig, processor: TensorProcessor) -> Mapping[str, str]:
    """A tensor's name in the file -> in transformers."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    try:
        return get_gguf_hf_weights_map(model, processor)
    except DAMAGE as error:
        raise ValueError(f"Models of the kind {config.model_type!r} cannot be opened from a GGUF file: {error}") from error


def dequantized(tensor: Any) -> np.ndarray:
    try:
        return dequantize(tensor.data, tensor.tensor_type)
    except DAMAGE as error:
        kind = tensor.tensor_type.name
        raise ValueError(f"The tensor {tensor.name} is stored as {kind}, which the package gguf cannot read.") from error
