"""DraftModel: a second, cheaper language model that grows a draft tree level by level, with its own key/value cache.

It knows tokens and logits; which children a node gets is the business of the method that uses it.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from decoding.models.cache import TreeCache
from decoding.models.target import Target


class DraftModel:
    """One run's view of a draft model. Nodes count as in the Draft that is being grown: 0, 1, ... in the order of `extend`."""

    def __init__(self, target: Target, aux_hidden_layers: Sequence[int] = ()) -> None:
        self.target = target
        self.aux_hidden_layers = aux_hidden_layers
        self.hidden: dict[int, Tensor] = {}  # layer -> (m, width) of the last `extend`
        self.cache = TreeCache()
        self.calls = 0  # since `root`
        self._tree = np.zeros((0, 0), dtype=bool)  # what each node read so far sees of the others
        self._depths: list[int] = []

    def begin(self, tokens: Sequence[int]) -> None:
        """Read the prompt up to the root."""
        if len(tokens) > 1:
            self.target.extend(self.cache, tokens[:-1])

    def root(self, tokens: Sequence[int]) -> Tensor:
        """(1, vocab) logits after the committed text; starts a new tree."""
        self._tree, self._depths, self.calls = np.zeros((0, 0), dtype=bool), [], 1
        return self.target.extend(self.cache, tokens[self.cache.committed :])

    def extend(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        """(m, vocab) logits after m new nodes, all in one call.

        Args:
            tokens: (m,) on the model's device.
            parents: (m,) nodes that were read before, -1 for the root.
        """
        old, new = len(self._tree), len(parents)
        tree = np.zeros((old + new, old + new), dtype=bool)
        tree[:old, :old] = self._tree
        for i, parent in enumerate(parents, old):
            if parent >= 0:
                tree[i] = tree[parent]
            tree[i, i] = True
        depths = [1 + (self._depths[parent] if parent >= 0 else 0) for parent in parents]
        self._tree = tree
        self._depths += depths
        self.calls += 1
        root = self.cache.committed - 1
        positions = [root + d for d in depths]
        logits, self.hidden = self.target.forward(
            self.cache, tokens, positions, tree[old:], aux_hidden_layers=self.aux_hidden_layers
        )
        return logits

    def keep(self, path: Sequence[int]) -> None:
        """Commit the accepted nodes that were read; nodes that were never fed are read with the next root."""
        self.cache.keep([node for node in path if node < len(self._tree)])
