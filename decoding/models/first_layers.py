"""The first layers of a target over keys and values of their own, by the shortest way there is to them."""

from typing import cast

import torch
from torch import Tensor

from decoding.models import layers
from decoding.models.cache import TreeCache
from decoding.models.graphs import Graphs
from decoding.models.plain_forward import PRE_NORM
from decoding.models.target import Target


class FirstLayers:
    """Of one run.

    Args:
        count: how many.
    """

    def __init__(self, target: Target, count: int) -> None:
        self.target, self.count = target, count
        self.plain = None if target.plain is None else target.plain.first(count)
        self.graphs = None if self.plain is None or target.graphs is None else Graphs(self.plain, target.graphs.capture)

    @torch.inference_mode()
    def __call__(self, cache: TreeCache, ids: Tensor) -> Tensor:
        """(rows,) tokens behind everything in the cache -> (rows, width) states behind the last of these layers."""
        target, before, n = self.target, cache.length, len(ids)
        places = torch.arange(before, before + n, device=target.device)
        if self.plain is None or not self.plain.serves(target.model):
            hidden = target.model.model.embed_tokens(ids)[None]
            mask = target.layer_mask(n, before)
            return layers.through(target.model, hidden, range(self.count), places[None], mask, cache)[0]
        rows = self.plain.embedded(ids)
        cache.reserve(self.count)
        self.plain.reach(before + n - 1)
        if self.graphs is not None and self.graphs.takes(n):
            return self.graphs.read(cache, rows, places, None, (PRE_NORM,))[1][PRE_NORM]
        mask = cast("Tensor | None", target.mask(n, before, None))
        return self.plain(rows, places, mask, cache.store, (PRE_NORM,))[1][PRE_NORM]
