"""Deltas: a model that ships as what a fine-tune added to another one that ships.

The folder of a delta holds `delta.json`, which names the folder of the other model beside it, and `delta.safetensors`: for a weight
X of the other model either what is added to it, under its own name, or two thin matrices, `X.up` (out, rank) and `X.down` (rank,
in), whose product is added. Config and tokenizer are the other model's. Only what ships with the app is opened so: a folder from
outside can name no other.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from decoding.models.heads import fingerprint, lend

FACTS, WEIGHTS = "delta.json", "delta.safetensors"
UP, DOWN = ".up", ".down"


def base_of(folder: Path) -> Path:
    """The folder whose config, tokenizer and weights a shipped model begins with: its own, unless it is a delta."""
    return folder.parent / facts(folder)["of"] if (folder / FACTS).is_file() else folder


def facts(folder: Path) -> dict[str, Any]:
    """What `delta.json` says: the other model under "of", and what was measured."""
    return json.loads((folder / FACTS).read_text("utf-8"))


@torch.no_grad()
def add(model: nn.Module, folder: Path) -> None:
    """Make the model in memory the one of the delta in `folder`; nothing is done for a folder that is none. The heads that were
    trained on the model as it was are lent to it.

    Raises:
        ValueError: the delta is not one of this model.
    """
    if not (folder / FACTS).is_file():
        return
    lend(model, fingerprint(model))
    tensors = load_file(folder / WEIGHTS)
    for name in sorted({name.removesuffix(UP).removesuffix(DOWN) for name in tensors}):
        whole = tensors.get(name)
        added = whole.float() if whole is not None else tensors[name + UP].float() @ tensors[name + DOWN].float()
        weight = model.get_parameter(name)
        if weight.shape != added.shape:
            raise ValueError(f"The delta in {str(folder)!r} is of another model: {name} has the shape {tuple(weight.shape)}.")
        weight.copy_(weight.float() + added.to(weight.device))  # rounded once


def save(folder: Path, of: str, tensors: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    """Write a delta in float16.

    Args:
        of: folder of the other model, beside this one.
        tensors: what is added, under the names above.
        found: what goes into `delta.json` beside that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: values.detach().to("cpu", torch.float16).contiguous() for name, values in tensors.items()}, folder / WEIGHTS)
    (folder / FACTS).write_text(json.dumps({"of": of, **found}, indent=1) + "\n", "utf-8")
