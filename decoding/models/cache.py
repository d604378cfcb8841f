"""The per-run key/value cache: rows of a whole tree are written behind the committed ones, then one path is kept.

Built on transformers' cache interface, because its own caches either copy everything at every step or cannot gather rows.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from decoding.models.ledger import note

FIRST_ROWS = 256


class Layer(CacheLayerMixin):
    """Keys and values of one layer, (1, heads, capacity, width) each, in buffers that double when they are full."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (s.new_empty(*s.shape[:2], FIRST_ROWS, s.shape[3]) for s in (key_states, value_states))
        self.is_initialized = True

    @property
    def nbytes(self) -> int:
        """Of the buffers, full or not."""
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write (1, heads, rows, width) behind what is there; returns views of all rows so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        while end > self.keys.shape[2]:
            self.keys, self.values = (torch.cat((b, torch.empty_like(b)), 2) for b in (self.keys, self.values))
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def settle(self, keys: Tensor, values: Tensor) -> None:
        """Lie in these buffers from now on, which hold its rows already."""
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values, self.is_initialized = keys, values, True

    def keep(self, committed: int, rows: Tensor | None, count: int) -> None:
        """Move `rows` (count,) to right behind the `committed` ones and forget the rest; None: they stand there already."""
        end = committed + count
        if rows is not None:
            for buffer in (self.keys, self.values):
                found = buffer.index_select(2, rows.to(buffer.device))  # a copy first: the ranges may overlap
                buffer[:, :, committed:end] = found
        self.length = end

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class Room(Protocol):
    """Buffers for all layers of one text, in one piece (`decoding.models.graphs`)."""

    def keep(self, cache: "TreeCache", rows: Tensor | None, count: int) -> bool:
        """As `Layer.keep`, of all layers at once; False, and nothing done, if they lie there no more."""
        ...


class TreeCache(Cache):
    """All layers. `committed` rows belong to committed text; whatever was read since stands behind them.

    `room` is where the rows lie if they lie in buffers that several texts take turns in.
    """

    layers: list[Layer]

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=Layer)
        self.committed = 0
        self.room: Room | None = None
        note(self)

    def reserve(self, count: int) -> None:
        """See to it that there are so many layers."""
        self.layers.extend(Layer() for _ in range(count - len(self.layers)))

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in list(self.layers))

    def store(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write rows into one of the layers; see `Layer.update`."""
        return self.layers[number].update(keys, values)

    @property
    def length(self) -> int:
        return self.layers[0].length if self.layers else 0

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Commit `rows`, counted from the first uncommitted one, in this order; drop the other uncommitted rows."""
        index = None
        if list(rows) != list(range(len(rows))):
            index = torch.tensor(rows, device=self.layers[0].device) + self.committed
        if self.room is None or not self.room.keep(self, index, len(rows)):
            for layer in self.layers:
                layer.keep(self.committed, index, len(rows))
        self.committed += len(rows)

    def cut(self, count: int) -> None:
        """Forget all but the first `count` of the committed rows."""
        self.committed = count
        self.keep(())
