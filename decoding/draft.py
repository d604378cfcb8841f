"""Draft: a tree of guessed tokens below the committed text. A chain is a thin tree, plain decoding an empty one."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

How = Literal["sampled", "sampled without replacement", "sampled as sequences", "deterministic"]


@dataclass(frozen=True, eq=False)
class ResumeState:
    """What a drafter that runs the target's own first layers hands on, so that the target goes on from there. Row 0 is the root's,
    row i + 1 that of node i."""

    layer: int  # so many layers have read these rows
    hidden: Tensor  # (n + 1, width) what the last of them put out
    rows: tuple[tuple[Tensor, Tensor], ...]  # per layer keys and values, (1, heads, n + 1, head width) each

    def cut(self, kept: np.ndarray) -> "ResumeState":
        """Only the root and these nodes."""
        index = torch.from_numpy(np.concatenate(([0], kept + 1))).to(self.hidden.device)
        return ResumeState(self.layer, self.hidden[index], tuple((k[:, :, index], v[:, :, index]) for k, v in self.rows))


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """r extra rows that the target reads behind the tree. No node sees them; their keys and values are never kept.

    A prompt token hangs below a node and stands for the token some places further on: it sees what that node sees, the node, and
    the nearer prompt tokens of the same member below the same node.
    """

    embeddings: Tensor  # (r, width) in place of those of a token
    nodes: tuple[int, ...]  # below which it hangs; -1 = the root
    distances: tuple[int, ...]  # 1 = the place right behind the node
    members: tuple[int, ...]  # of an ensemble; they do not see each other

    def __len__(self) -> int:
        return len(self.nodes)

    def cut(self, kept: np.ndarray) -> "PromptTokens":
        """Only those below the root and these nodes, numbered anew."""
        place = {-1: -1} | {int(old): new for new, old in enumerate(kept)}
        left = [i for i, node in enumerate(self.nodes) if node in place]
        return PromptTokens(
            self.embeddings[left],
            tuple(place[self.nodes[i]] for i in left),
            tuple(self.distances[i] for i in left),
            tuple(self.members[i] for i in left),
        )

    def visible(self, nodes: np.ndarray) -> np.ndarray:
        """(n + 1, n + 1) bool, what the rows of the tree see of each other -> (n + 1 + r, n + 1 + r), prompt tokens included."""
        n, r = len(nodes), len(self)
        below, distance, member = (np.array(values, dtype=np.int64) for values in (self.nodes, self.distances, self.members))
        seen = np.zeros((n + r, n + r), dtype=bool)
        seen[:n, :n] = nodes
        seen[n:, :n] = nodes[below + 1]
        same = (below[:, None] == below) & (member[:, None] == member)
        seen[n:, n:] = same & (distance[:, None] >= distance)
        return seen


@dataclass(frozen=True, eq=False)
class Draft:
    """n drafted tokens, parents before children, siblings in the order they were drawn.

    `how` says which acceptance rules are exact for it (table in `decoding.verify`):
    *sampled*: node i was sampled from q[i], whatever its siblings; *sampled without replacement*: from q[i], in which the tokens of
    its elder siblings are already zero; *sampled as sequences*: whole sequences were sampled, independently, and those that agree
    share a node (`copies`); *deterministic*: top-k, retrieved, pruned by score. Then q is None.
    `draft_probabilities` and `pruned` are for the pictures only and never judged with. `resume_state` and `prompt_tokens` are wider
    doors, each for the one method that needs it.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]  # -1 = child of the root
    q: Tensor | None = None  # (n, vocab) the distribution node i was drawn from
    draft_probabilities: Tensor | None = None  # (n, vocab) the drafter's distribution at node i before sampling; None = q
    how: How = "deterministic"
    source: tuple[str, ...] = ()  # where node i came from
    scores: dict[str, Tensor] = field(default_factory=dict)  # (n,) each
    facts: dict[str, float] = field(default_factory=dict)  # method-specific numbers of the whole step
    calls: int = 0  # of the drafter's model
    copies: tuple[tuple[int, ...], ...] | None = None  # (n,) the sequences through node i, ascending; None = one draw per node
    pruned: tuple[tuple[int, int, float], ...] = ()  # candidates that were looked at and left out: token, parent, score
    resume_state: ResumeState | None = None  # states from which the target resumes
    prompt_tokens: PromptTokens | None = None  # rows that are read with the tree and belong to no token

    def __post_init__(self) -> None:
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
        seen = np.eye(len(self) + 1, dtype=bool)
        seen[:, 0] = True
        for i, parent in enumerate(self.parents):
            seen[i + 1] |= seen[parent + 1]
        return seen

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
            resume_state=None if self.resume_state is None else self.resume_state.cut(kept),
            prompt_tokens=None if self.prompt_tokens is None else self.prompt_tokens.cut(kept),
        )


@dataclass(frozen=True, eq=False)
class TargetOutput:
    """What the target said, one row per position read: row 0 after the root, row i + 1 after node i."""

    logits: Tensor  # (n + 1, vocab) float32
    probs: Tensor  # (n + 1, vocab) float32, after the run's sampling
    hidden: dict[int, Tensor] = field(default_factory=dict)  # layer -> (n + 1, width), the layers that were asked for
    prompt_tokens: Tensor | None = (
        None  # (r, vocab) float32 logits at the draft's prompt tokens; acceptance rules do not look at them
    )


EMPTY = Draft((), ())


def chain(tokens: list[int] | tuple[int, ...], source: str) -> Draft:
    """A deterministic chain, each token below the one before."""
    return Draft(tuple(tokens), tuple(range(-1, len(tokens) - 1)), source=(source,) * len(tokens))
