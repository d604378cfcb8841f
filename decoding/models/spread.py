"""Models that `accelerate` spreads over several devices: where they read, and weights that it keeps aside until they are needed.

It hangs a hook on every layer, which brings what the layer is given to where it runs. What a model puts out may lie anywhere.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

AUTO_MAP = "auto-map"  # the device that is all of them


def check_spread() -> None:
    """Raise ValueError if models cannot be spread here."""
    if find_spec("accelerate") is None:
        raise ValueError(
            f"The device {AUTO_MAP!r} spreads a model over all GPUs by accelerate; "
            "it comes with the extra draftscope[accelerate], or by pip install accelerate"
        )


def hook_with(part: nn.Module, name: str) -> Any:
    """The hook on a layer that has something of this name; None if there is none."""
    hook = getattr(part, "_hf_hook", None)
    return next((one for one in getattr(hook, "hooks", (hook,)) if getattr(one, name, None) is not None), None)


def reading_device(model: PreTrainedModel) -> torch.device:
    """Where a model takes its tokens: of one that is spread, where its embeddings run."""
    spread = getattr(model, "hf_device_map", None)
    hook = hook_with(model.get_input_embeddings(), "execution_device") if spread else None
    return torch.device(hook.execution_device) if hook else model.device


def devices(model: PreTrainedModel) -> tuple[str, ...]:
    """Where the layers lie, each device once; () for a model that is in one place."""
    names = [
        f"cuda:{where}" if isinstance(where, int) else str(where)
        for where in (getattr(model, "hf_device_map", None) or {}).values()
    ]
    return tuple(dict.fromkeys(names)) if len(set(names)) > 1 else ()


def weight_of(part: nn.Module, name: str = "weight") -> Tensor:
    """A weight of a layer, also one that is kept aside."""
    values = getattr(part, name)
    hook = hook_with(part, "weights_map") if values.is_meta else None
    return hook.weights_map[name] if hook else values


def looked_up(part: nn.Module, tokens: Tensor) -> Tensor:
    """(...) tokens -> (..., width) their rows of a table, on the device of the tokens."""
    weight = weight_of(part)
    return weight[tokens.to(weight.device)].to(tokens.device)
