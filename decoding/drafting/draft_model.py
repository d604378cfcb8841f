"""DraftModel: a second, cheaper language model that grows a draft tree level by level, with its own key/value cache.

It knows tokens and logits; which children a node gets is the business of the method that uses it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from decoding.draft import ancestor_mask
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
        self._tree: Tensor | None = None  # (1 + n, 1 + n) bool, what the root and the nodes read so far see of each other

    @property
    def nodes(self) -> int:
        """Read since `root`."""
        return 0 if self._tree is None else len(self._tree) - 1

    def begin(self, tokens: Sequence[int]) -> None:
        """Read the prompt up to the root."""
        if len(tokens) > 1:
            self.target.extend(self.cache, tokens[:-1])

    def root(self, tokens: Sequence[int]) -> Tensor:
        """(1, vocab) logits after the committed text; starts a new tree."""
        self._tree, self.calls = None, 1
        return self.target.extend(self.cache, tokens[self.cache.committed :])

    def extend(self, tokens: Tensor, parents: Sequence[int] | Tensor, levels: int = 1) -> Tensor:
        """(m, vocab) logits after m new nodes, all in one call.

        Args:
            tokens: (m,) on the model's device.
            parents: (m,) nodes that were read before, or new ones, -1 for the root; always on the CPU or always on the device.
            levels: of the new nodes; 1: none of them hangs below another.
        """
        self._tree = ancestor_mask(torch.as_tensor(parents) + 1, self._tree, levels)
        self.calls += 1
        visible = self._tree[-len(parents) :, 1:]
        positions = self.cache.committed - 1 + visible.sum(1)
        logits, self.hidden = self.target.forward(self.cache, tokens, positions, visible, aux_hidden_layers=self.aux_hidden_layers)
        return logits

    def keep(self, path: Sequence[int]) -> None:
        """Commit the accepted nodes that were read; nodes that were never fed are read with the next root."""
        self.cache.keep([node for node in path if node < self.nodes])
