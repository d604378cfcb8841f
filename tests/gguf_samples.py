"""GGUF files for tests, written as llama.cpp writes them: a random model and the tokenizer of the toys."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from torch import nn

from tests import toys

SIZES = {"intermediate_size": 64, "tie_word_embeddings": False}  # rows of whole blocks
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
NORMAL, CONTROL = 1, 3  # kinds of tokens


def write(file: Path, kind: str = "llama", quant: str = "F32", facts: dict | None = None, extra: dict | None = None, **sizes):
    """A random model of architecture `kind` in a GGUF file.

    Args:
        quant: how its matrices are stored.
        facts: further keys, or others instead.
        extra: further tensors by their names in the file.

    Returns:
        the model, its weights rounded as they are in the file.
    """
    model = toys.causal_lm(kind, **(SIZES | sizes))
    writer = GGUFWriter(file, kind)
    write_facts(writer, kind, model.config)
    write_words(writer)
    for key, value in (facts or {}).items():
        add(writer, key, value)
    write_tensors(writer, kind, model, GGMLQuantizationType[quant])
    for name, values in (extra or {}).items():
        writer.add_tensor(name, np.asarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def add(writer: GGUFWriter, key: str, value) -> None:
    kinds = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, bool: writer.add_bool}
    kinds[type(value)](key, value)


def write_facts(writer: GGUFWriter, kind: str, config) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_chat_template(TEMPLATE)


def write_words(writer: GGUFWriter) -> None:
    words = toys.tokenizer()
    pieces = sorted(words.get_vocab(), key=words.get_vocab().get)
    merges = json.loads(words.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces)
    writer.add_token_types([CONTROL if piece == toys.END else NORMAL for piece in pieces])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


def write_tensors(writer: GGUFWriter, kind: str, model: nn.Module, quant: GGMLQuantizationType) -> None:
    """Every tensor, rounded in the model as well."""
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    for name, values in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        there = f"{names.get_name(stem)}.{suffix}"
        blocks = values.ndim > 1
        kept = quants.quantize(values.numpy(), quant) if blocks else values.numpy()
        if blocks:
            values.copy_(torch.from_numpy(quants.dequantize(kept, quant).copy()))
        part = there.split(".")[-2]
        if kind == "llama" and part in heads:
            kept = permuted(kept, heads[part])
        writer.add_tensor(there, kept, raw_dtype=quant if blocks else None)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix as llama.cpp orders them."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape).copy()
