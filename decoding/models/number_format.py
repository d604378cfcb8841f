"""The number format of a model on a processor.

A model that is stored in bfloat16 is half as much to read as in float32, which is what a token costs on a processor that
multiplies bfloat16 by itself, and is an order slower on one that does not. Neither is taken on trust: where the instructions are
there, both are timed over weights of the model's own shape, too large for the caches, for one row and for the rows of a draft tree.
The models that ship stay in float32, in which their recorded runs were made.
"""

from time import perf_counter

import torch
from torch import Tensor
from transformers import PreTrainedConfig

ROWS = (1, 32)  # a token of plain decoding, a draft tree
SECONDS = 2.0  # that the comparison may take
ROUNDS = 25  # of both formats in turn, if they fit in
BYTES = 64 * 2**20  # of the float32 weights that a round reads
WIDEST = 4096  # of a matrix, on either side
FORMATS = (torch.float32, torch.bfloat16)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself: AVX512-BF16 or AMX."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def on_processor(config: PreTrainedConfig, source: str) -> tuple[str, str]:
    """The number format that a model is opened in on a CPU if the user names none, and a note; "" if there was no choice."""
    if (shape := stored_in_bfloat16(config)) is None or not has_bfloat16():
        return "float32", ""
    one, many = speedups(*shape)
    measured = f"{one:.2f} times as fast as float32 for one row, and {many:.2f} times for {ROWS[1]}"
    if min(one, many) > 1:
        return "bfloat16", f"{source!r} is read in bfloat16, as it is stored: on this processor that is {measured}."
    return "float32", f"{source!r} is read in float32: bfloat16, in which it is stored, is on this processor {measured}."


def stored_in_bfloat16(config: PreTrainedConfig) -> tuple[int, int] | None:
    """(outputs, inputs) of the widest matrix of a layer; None for a model that is stored otherwise, or does not say."""
    inner = config.get_text_config()
    if getattr(config, "quantization_config", None) or torch.bfloat16 not in (inner.dtype, config.dtype):
        return None
    outputs, inputs = (getattr(inner, name, None) for name in ("intermediate_size", "hidden_size"))
    if not (isinstance(outputs, int) and isinstance(inputs, int) and min(outputs, inputs) > 0):
        return None
    return min(outputs, WIDEST), min(inputs, WIDEST)


def speedups(outputs: int, inputs: int) -> list[float]:
    """For each of ROWS how many times as fast as in float32 a product with (outputs, inputs) weights is in bfloat16, by the
    quickest of some rounds of both in turn."""
    count = max(2, BYTES // (4 * outputs * inputs))
    weights = {kind: [torch.zeros(outputs, inputs, dtype=kind) for _ in range(count)] for kind in FORMATS}
    rows = {kind: [torch.zeros(n, inputs, dtype=kind) for n in ROWS] for kind in FORMATS}
    best = {(kind, i): float("inf") for kind in FORMATS for i in range(len(ROWS))}
    end = perf_counter() + SECONDS
    with torch.inference_mode():
        for turn in range(ROUNDS):
            for kind, i in best:
                best[kind, i] = min(best[kind, i], seconds(rows[kind][i], weights[kind]))
            if turn and perf_counter() > end:
                break
    return [best[torch.float32, i] / best[torch.bfloat16, i] for i in range(len(ROWS))]


def seconds(rows: Tensor, weights: list[Tensor]) -> float:
    began = perf_counter()
    for matrix in weights:
        torch.nn.functional.linear(rows, matrix)
    return perf_counter() - began
