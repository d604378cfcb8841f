"""Prompt tokens: trained vectors that are read behind a draft in place of tokens; what is said at them is for the drafter alone."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput, ancestor_mask


@dataclass(frozen=True, eq=False)
class PromptTokensOutput(TargetOutput):
    """Of a draft with r prompt tokens."""

    prompt_tokens: Tensor = field(kw_only=True)  # (r, vocab) float32 logits there


@dataclass(frozen=True, eq=False)
class WithPromptTokens:
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

    def cut(self, kept: np.ndarray) -> "WithPromptTokens":
        """Only those below the root and these nodes."""
        place = {-1: -1} | {int(old): new for new, old in enumerate(kept)}
        left = [i for i, node in enumerate(self.nodes) if node in place]
        return WithPromptTokens(
            self.embeddings[left],
            tuple(place[self.nodes[i]] for i in left),
            tuple(self.distances[i] for i in left),
            tuple(self.members[i] for i in left),
        )

    def above(self, nodes: int) -> list[int]:
        """(r,) the row above each: that of the next nearer one, else of the node; the root is row 0, prompt tokens stand last."""
        rows, newest = [0] * len(self), {}
        for i in sorted(range(len(self)), key=self.distances.__getitem__):
            chain = self.nodes[i], self.members[i]
            rows[i] = newest.get(chain, self.nodes[i] + 1)
            newest[chain] = nodes + 1 + i
        return rows

    def visible(self, draft: Draft) -> np.ndarray:
        """(n + 1 + r, n + 1 + r) bool, what the root, the nodes and the prompt tokens see of each other."""
        above = [parent + 1 for parent in draft.parents] + self.above(len(draft))
        levels = int(draft.depths.max(initial=0)) + max(self.distances)
        return ancestor_mask(torch.tensor(above), levels=levels).numpy()

    def read(self, target, cache, tokens, draft, sampling, aux_hidden_layers) -> TargetOutput:
        """As `Reading.read`, with what is said at the prompt tokens, if there are any."""
        if not len(self):
            return target.read(cache, tokens, draft, sampling, aux_hidden_layers)
        text = len(draft) + 1
        ids, positions = target.ids([tokens[-1], *draft.tokens]), draft.positions(len(tokens) - 1)
        positions += [positions[node + 1] + d for node, d in zip(self.nodes, self.distances, strict=True)]
        embeddings = torch.cat((target.embedded(ids), self.embeddings.to(target.dtype)))
        logits, hidden = target.forward(
            cache, None, positions, self.visible(draft), embeddings=embeddings, aux_hidden_layers=aux_hidden_layers
        )
        hidden = {aux_layer: rows[:text] for aux_layer, rows in hidden.items()}
        return PromptTokensOutput(logits[:text], sampling.probabilities(logits[:text]), hidden, prompt_tokens=logits[text:])
