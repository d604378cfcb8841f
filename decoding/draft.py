"""Draft: a tree of guessed tokens below the committed text. A chain is a thin tree, plain decoding an empty one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from decoding.sample import Sampling

How = Literal["sampled", "sampled without replacement", "sampled as sequences", "deterministic"]


def ancestor_mask(above: Tensor, seen: Tensor | None = None, levels: int = 1) -> Tensor:
    """What the rows of a tree see of each other: themselves, their ancestors and the root, row 0. Copies nothing from the device.

    Args:
        above: (m,) the row above each new one: the root, another one that was there before, or a new one.
        seen: (r, r) bool, the same of the rows that were there before; None: of the root alone.
        levels: of the new rows, at least; 1: none of them hangs below another.

    Returns:
        (r + m, r + m) bool: whether row i sees column j.

    >>> ancestor_mask(torch.tensor([0, 1]), levels=2).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    old = 1 if seen is None else len(seen)
    mask = torch.eye(old + len(above), dtype=torch.bool, device=above.device)
    if seen is not None:
        mask[:old, :old] = seen
    above = torch.cat((above.new_zeros(old), above))  # rows that were there before see all of their ancestors already
    for _ in range(levels.bit_length()):  # every round looks twice as far up as the one before
        mask[old:] |= mask[above[old:]]
        above = above[above]
    return mask


class Reading(Protocol):
    """How the target reads a draft: from where on, and what is read beside it. A method that needs another way than the plain one
    brings it (`decoding.drafting`); neither the loop nor the target knows which it is."""

    def read(
        self, target: Any, cache: Any, tokens: Sequence[int], draft: "Draft", sampling: Sampling, aux_hidden_layers: Sequence[int]
    ) -> "TargetOutput":
        """What the target says at the root, the last of `tokens`, and at every node; commits nothing. Behind it `keep` on the cache
        works as behind `Target.read`."""
        ...

    def cut(self, kept: np.ndarray) -> "Reading":
        """The same for the root and the nodes `kept`, ascending and closed under parents, which are numbered anew."""
        ...


class PlainTree:
    """The root and every node in one call, all through the whole target, and nothing else."""

    def read(self, target, cache, tokens, draft, sampling, aux_hidden_layers) -> "TargetOutput":
        return target.read(cache, tokens, draft, sampling, aux_hidden_layers)

    def cut(self, kept: np.ndarray) -> "PlainTree":
        return self


PLAIN = PlainTree()


@dataclass(frozen=True, eq=False)
class Draft:
    """n drafted tokens, parents before children, siblings in the order they were drawn.

    `how` says which acceptance rules are exact for it (table in `decoding.verify`):
    *sampled*: node i was sampled from q[i], whatever its siblings; *sampled without replacement*: from q[i], in which the tokens of
    its elder siblings are already zero; *sampled as sequences*: whole sequences were sampled, independently, and those that agree
    share a node (`copies`); *deterministic*: top-k, retrieved, pruned by score. Then q is None.
    `draft_probabilities` and `pruned` are for the pictures only and never judged with. `scores` and `facts` cannot be written to.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]  # -1 = child of the root
    q: Tensor | None = None  # (n, vocab) the distribution node i was drawn from
    draft_probabilities: Tensor | None = None  # (n, vocab) the drafter's distribution at node i before sampling; None = q
    how: How = "deterministic"
    source: tuple[str, ...] = ()  # where node i came from
    scores: Mapping[str, Tensor] = field(default_factory=dict)  # (n,) each
    facts: Mapping[str, float] = field(default_factory=dict)  # method-specific numbers of the whole step
    calls: int = 0  # of the drafter's model
    copies: tuple[tuple[int, ...], ...] | None = None  # (n,) the sequences through node i, ascending; None = one draw per node
    pruned: tuple[tuple[int, int, float], ...] = ()  # candidates that were looked at and left out: token, parent, score
    reading: Reading = PLAIN  # how the target reads it

    def __post_init__(self) -> None:
        for name in ("scores", "facts"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        n = len(self.tokens)
        if len(self.parents) != n or len(self.source) != n:
            raise ValueError(f"{n} tokens, {len(self.parents)} parents and {len(self.source)} sources do not fit together.")
        if any(not -1 <= parent < i for i, parent in enumerate(self.parents)):
            raise ValueError(f"Parents must stand before their children: {self.parents}.")
        if (self.q is None) != (self.how == "deterministic" or n == 0):
            raise ValueError(f"A draft that was {self.how} must{' not' if self.how == 'deterministic' else ''} carry q.")
        if self.q is not None and len(self.q) != n:
            raise ValueError(f"{n} nodes but {len(self.q)} rows of q.")
        if (self.copies is None) == (self.how == "sampled as sequences"):
            word = "must" if self.copies is None else "must not"
            raise ValueError(f"A draft that was {self.how} {word} say which sequences share a node.")
        if self.copies is not None and (problem := self._torn(self.copies)):
            raise ValueError(f"Sequences that cannot be: {problem} in {self.copies}.")

    def _torn(self, copies: tuple[tuple[int, ...], ...]) -> str:
        """What is wrong with `copies`, or ""."""
        if len(copies) != len(self):
            return f"{len(self)} nodes but {len(copies)} entries"
        reached: dict[int, int] = {}  # sequence -> its last node so far
        for node, (through, parent) in enumerate(zip(copies, self.parents, strict=True)):
            if not through or tuple(sorted(set(through))) != through:
                return f"node {node} needs its sequences once each, in ascending order"
            if any(reached.get(sequence, -1) != parent for sequence in through):
                return f"a sequence comes to node {node} from elsewhere than its parent"
            reached |= dict.fromkeys(through, node)
        return ""

    @property
    def uniforms(self) -> int:
        """Uniforms that judging it takes: one per draw, so several for a node that several sequences share."""
        return len(self) if self.copies is None else sum(map(len, self.copies))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def depths(self) -> np.ndarray:
        """(n,) 1 for children of the root.

        >>> chain([7, 8], "prompt").depths.tolist()
        [1, 2]
        """
        depths = np.zeros(len(self), dtype=np.int64)
        for i, parent in enumerate(self.parents):
            depths[i] = 1 if parent < 0 else depths[parent] + 1
        return depths

    def positions(self, root: int) -> list[int]:
        """(n + 1,) where the root, which stands at `root`, and every node stand in their own path."""
        return [root, *(root + self.depths).tolist()]

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """(n,) the place of node i among its siblings: 0 for the eldest."""
        seen: dict[int, int] = {}
        ranks = []
        for parent in self.parents:
            ranks.append(seen.get(parent, 0))
            seen[parent] = ranks[-1] + 1
        return tuple(ranks)

    @cached_property
    def by_parent(self) -> dict[int, tuple[int, ...]]:
        """Parent (or -1) -> its children in order."""
        found: dict[int, list[int]] = {}
        for i, parent in enumerate(self.parents):
            found.setdefault(parent, []).append(i)
        return {parent: tuple(nodes) for parent, nodes in found.items()}

    def children(self, node: int) -> tuple[int, ...]:
        return self.by_parent.get(node, ())

    @cached_property
    def visible(self) -> np.ndarray:
        """(n + 1, n + 1) bool: row r sees row c: itself, its ancestors, the root. Row 0 is the root, row i + 1 node i.

        >>> chain([7, 8], "prompt").visible.astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
        """
        above = torch.tensor(self.parents, dtype=torch.long) + 1
        return ancestor_mask(above, levels=int(self.depths.max(initial=0))).numpy()

    def path_to(self, node: int) -> tuple[int, ...]:
        """The nodes from the root's child down to `node`; () for -1."""
        return tuple(reversed(tuple(self._upwards(node))))

    def _upwards(self, node: int) -> Iterator[int]:
        while node >= 0:
            yield node
            node = self.parents[node]

    def cut(self, keep: np.ndarray) -> "Draft":
        """Only the nodes where `keep` (n,) is True; must be closed under parents."""
        kept = np.flatnonzero(keep)
        place = {-1: -1} | {int(old): new for new, old in enumerate(kept)}
        return replace(
            self,
            tokens=tuple(self.tokens[i] for i in kept),
            parents=tuple(place[self.parents[i]] for i in kept),
            q=None if self.q is None or not len(kept) else self.q[kept],
            draft_probabilities=None if self.draft_probabilities is None else self.draft_probabilities[kept],
            source=tuple(self.source[i] for i in kept),
            scores={name: values[kept] for name, values in self.scores.items()},
            copies=None if self.copies is None else tuple(self.copies[i] for i in kept),
            pruned=tuple((token, place[parent], score) for token, parent, score in self.pruned if parent in place),
            reading=self.reading.cut(kept),
        )


@dataclass(frozen=True, eq=False)
class TargetOutput:
    """What the target said, one row per position read: row 0 after the root, row i + 1 after node i."""

    logits: Tensor  # (n + 1, vocab) float32
    probs: Tensor  # (n + 1, vocab) float32, after the run's sampling
    hidden: dict[int, Tensor] = field(default_factory=dict)  # layer -> (n + 1, width), the layers that were asked for


EMPTY = Draft((), ())


def chain(tokens: list[int] | tuple[int, ...], source: str) -> Draft:
    """A deterministic chain, each token below the one before."""
    return Draft(tuple(tokens), tuple(range(-1, len(tokens) - 1)), source=(source,) * len(tokens))
