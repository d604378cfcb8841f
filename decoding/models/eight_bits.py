"""Matrices in eight bits: whole numbers from -127 to 127, and for each row what one of them is worth.

A head whose matrices would fill many megabytes is kept in half of what float16 takes. A value moves by half of its row's worth at
most, 1/254 of the largest one of the row; opened, it is float32 like every other head.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

LARGEST = 127
WORTH = ".worth"  # behind a matrix's name: (rows,) float32


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every matrix as int8, with its worth per row beside it; all else as float32.

    >>> found = packed({"a": torch.tensor([[1.0, -2.0], [0.0, 0.0]])})
    >>> {name: values.tolist() for name, values in unpacked({n: v.float() for n, v in found.items()}).items()}
    {'a': [[1.0078740119934082, -2.0], [0.0, 0.0]]}
    """
    found: dict[str, Tensor] = {}
    for name, values in tensors.items():
        values = values.detach().to("cpu", torch.float32)
        if values.ndim == 2:
            worth = values.abs().amax(1) / LARGEST
            found[name + WORTH] = worth
            found[name] = (values / worth.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8)
        else:
            found[name] = values
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 tensors in which matrices are worth what stands beside them -> the matrices themselves."""
    return {
        name: values * tensors[name + WORTH][:, None] if name + WORTH in tensors else values
        for name, values in tensors.items()
        if not name.endswith(WORTH)
    }
