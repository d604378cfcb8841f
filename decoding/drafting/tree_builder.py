"""TreeBuilder: a draft while it is made. Nodes are added one by one, or all at once where they were grown on a device.

It knows tokens, parents and whatever a method wants to remember of a node; which nodes there are is the business of those who
build. Nothing here copies from a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from decoding.draft import Draft, How
from decoding.sample import Sampling


def products(parents: Sequence[int], factors: Sequence[float]) -> list[float]:
    """(n,) the product of the factors down to every node.

    >>> products([-1, 0, 0], [0.5, 0.5, 0.1])
    [0.5, 0.25, 0.05]
    """
    found: list[float] = []
    for parent, factor in zip(parents, factors, strict=True):
        found.append(factor * (found[parent] if parent >= 0 else 1.0))
    return found


@dataclass(eq=False)
class TreeBuilder:
    """n nodes, parents before children. `known` has a list of n entries for everything that is known of the nodes, by name.

    `how`, `q`, `draft_probabilities` and `pruned` are those of the draft. A tree that was grown on the device has `logits`,
    (reads, vocab), all that it was grown from, and `rows`, (n,), from which of them each node was picked.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)  # -1 = child of the root
    known: dict[str, list[Any]] = field(default_factory=dict)
    how: How = "deterministic"
    q: Tensor | None = None
    draft_probabilities: Tensor | None = None
    pruned: list[tuple[int, int, float]] = field(default_factory=list)
    logits: Tensor | None = None
    rows: Tensor | None = None
    depths: list[int] = field(init=False, default_factory=list)  # 1 for children of the root
    _children: dict[tuple[int, int], int] = field(init=False, default_factory=dict)  # parent, token -> the eldest such node

    def __post_init__(self) -> None:
        for node, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True)):
            self._place(node, token, parent)

    def _place(self, node: int, token: int, parent: int) -> None:
        self.depths.append(1 if parent < 0 else self.depths[parent] + 1)
        self._children.setdefault((parent, token), node)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, name: str) -> list[Any]:
        """(n,) what is known of the nodes under this name."""
        return self.known[name] if self.tokens else []

    def add(self, token: int, parent: int, **known: Any) -> int:
        """One node more below `parent`, -1 for the root; returns its number. Every node is given the same names."""
        self._place(len(self.tokens), token, parent)
        self.tokens.append(token)
        self.parents.append(parent)
        for name, value in known.items():
            self.known.setdefault(name, []).append(value)
        return len(self.tokens) - 1

    def child(self, parent: int, token: int) -> int | None:
        """The eldest child of `parent` that carries `token`.

        >>> tree = TreeBuilder([7, 8], [-1, 0]); tree.child(0, 8), tree.child(-1, 8)
        (1, None)
        """
        return self._children.get((parent, token))

    def keep(self, nodes: Sequence[int]) -> "TreeBuilder":
        """Only these, which must be closed under parents, in this order, parents first.

        >>> tree = TreeBuilder([7, 8, 9], [-1, -1, 1]).keep([1, 2]); tree.tokens, tree.parents
        ([8, 9], [-1, 0])
        """
        place = {-1: -1} | {node: i for i, node in enumerate(nodes)}

        def kept(rows: Tensor | None) -> Tensor | None:
            return None if rows is None else rows[torch.tensor(nodes, dtype=torch.long, device=rows.device)]

        return TreeBuilder(
            [self.tokens[i] for i in nodes],
            [place[self.parents[i]] for i in nodes],
            {name: [values[i] for i in nodes] for name, values in self.known.items()},
            self.how,
            kept(self.q),
            kept(self.draft_probabilities),
            [(token, place[parent], score) for token, parent, score in self.pruned if parent in place],
            self.logits,
            kept(self.rows),
        )

    def tensors(self, *names: str) -> dict[str, Tensor]:
        """What is known under these names as the scores of a draft, (n,) float32 each."""
        return {name: torch.tensor(self[name], dtype=torch.float32) for name in names}

    def believed(self, shown: Sampling) -> Tensor:
        """(n, vocab) the distributions under `shown` that the nodes were picked from."""
        return shown.probabilities(self.logits.float())[self.rows]

    def draft(self, source: str | Sequence[str], **more: Any) -> Draft:
        """As a draft; `source` is that of every node or of all, `more` are fields of it that are not known here or win."""
        own = {"q": self.q, "draft_probabilities": self.draft_probabilities, "how": self.how, "pruned": tuple(self.pruned)}
        sources = (source,) * len(self) if isinstance(source, str) else tuple(source)
        return Draft(tuple(self.tokens), tuple(self.parents), source=sources, **(own | more))
