"""What a training will take, told before it begins: disk and memory from its sizes, time from a small part that is measured."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from decoding.models.target import Target
from decoding.training.states import Pool, states

MEASURED = 256  # tokens that the target reads to see how quick it is
OPTIMIZER = 3 * 4  # bytes per trained number: its gradient and two means
GIGA = 1e9


def reading(target: Target, pools: list[Pool]) -> str:
    """Disk and time for the states that are not there yet.

    Raises:
        ValueError: the disk has no room for them; the sentence says how much is needed and where.
    """
    lacking = sum(pool.lacking_bytes for pool in pools)
    tokens = sum(pool.lacking_windows * pool.length for pool in pools)
    if not tokens:
        return "The states of the target are all there from an earlier run."
    folder = pools[0].folder
    free = shutil.disk_usage(folder).free
    if lacking > free:
        raise ValueError(
            f"The states of the target need {lacking / GIGA:.1f} GB in {str(folder)!r}, where {free / GIGA:.1f} GB are free; "
            "take fewer --tokens, or another --work."
        )
    ids = torch.arange(MEASURED, device=target.device)[None] % target.vocab
    began = time.monotonic()
    states(target, ids[:, : target.context], (target.last_hidden,))
    minutes = (time.monotonic() - began) * tokens / MEASURED / 60
    return (
        f"The target reads {tokens:,} tokens: {lacking / GIGA:.1f} GB on disk ({free / GIGA:.0f} GB are free), about {minutes:.0f} "
        "minutes (texts that it writes itself take longer)."
    )


def learning(heads: nn.Module, target: Target, loss: Callable[[int], Tensor], steps: int, checkpoint: Path) -> str:
    """Memory and time for the steps, one of which is measured and thrown away."""
    began = time.monotonic()
    loss(0).backward()
    minutes = (time.monotonic() - began) * steps / 60
    for values in heads.parameters():
        values.grad = None
    trained = sum(values.numel() for values in heads.parameters())
    held = sum(values.numel() * values.element_size() for values in target.model.parameters())
    memory = held + trained * (4 + OPTIMIZER)
    on = ", going on from a checkpoint" if checkpoint.exists() else ""
    return (
        f"{trained:,} numbers are trained in {steps:,} steps{on}: about {minutes:.0f} minutes, {memory / GIGA:.1f} GB "
        "of memory for weights and optimizers, and the scores of a batch on top."
    )
