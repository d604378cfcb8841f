"""Windowed attention: layers that see the last tokens of a path only, or those of its chunk.

Keys and values of all rows are kept by every layer; a window is a matter of the mask alone. What it hides depends on where two rows
stand in their path, never on where they stand in the cache: in a draft tree siblings share a position. What a row sees is its path,
so counting it tells the places of all rows it sees, and nothing needs to be remembered of them.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig

SLIDING, CHUNKED = "sliding_attention", "chunked_attention"
SIZES = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}  # kind of layer -> where a config keeps how much it sees


def layer_kinds(config: PreTrainedConfig) -> tuple[str, ...]:
    """The kind of every layer of a model that takes one mask per kind; () for a model that takes the same mask in all layers."""
    return tuple(getattr(config, "layer_types", None) or ())


def windows_of(config: PreTrainedConfig) -> dict[str, int]:
    """Kind of layer -> tokens that its layers see at most; kinds that see everything are left out."""
    kinds = set(layer_kinds(config)) or {SLIDING}
    found = {kind: getattr(config, name, None) for kind, name in SIZES.items() if kind in kinds}
    return {kind: size for kind, size in found.items() if isinstance(size, int)}


def hidden_by(kind: str, size: int, seen: Tensor, before: int) -> Tensor:
    """What a window hides.

    Args:
        seen: (rows, k) bool, what every row sees of the last k rows, parents before children, its own included. It sees all of the
            `before` ones in front of those, which are a chain.

    Returns:
        (rows, before + k) bool; what a row does not see anyway may be either.

    >>> hidden_by(SLIDING, 2, torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]]).bool(), 1).int().tolist()
    [[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    """
    tree = before - 1 + seen.cumsum(1)  # the place of each of the last k rows in the path of the row that sees it
    own = tree[:, -1:]
    places = torch.arange(before, device=seen.device)
    return torch.cat((outside(kind, size, places, own), outside(kind, size, tree, own)), 1)


def outside(kind: str, size: int, places: Tensor, own: Tensor) -> Tensor:
    """Whether `places` lie outside the window of rows at the places `own`, which come later."""
    if kind == CHUNKED:
        return places // size != own // size
    return places <= own - size


def masks(kinds: tuple[str, ...], windows: Mapping[str, int], mask: Tensor, seen: Tensor) -> Tensor | dict[str, Tensor]:
    """A mask per kind of layer, or the one of a model that takes the same in all layers.

    Args:
        mask: (1, 1, rows, before + k) additive, of layers that see everything.
        seen: (rows, k) as for `hidden_by`.
    """
    least, before = torch.finfo(mask.dtype).min, mask.shape[-1] - seen.shape[1]
    narrow = {kind: mask.masked_fill(hidden_by(kind, size, seen, before).to(mask.device), least) for kind, size in windows.items()}
    return {kind: narrow.get(kind, mask) for kind in set(kinds)} if kinds else narrow[SLIDING]
