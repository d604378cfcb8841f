"""Token Recycling: a table of what the target last thought might follow each token, read as a static tree.

Luo et al., ACL 2025, https://arxiv.org/abs/2408.08696; tree and update rule as released. Departures: sampling works (the
released code is greedy only) because every draft is judged by matching; rows that were never written draft nothing, where the
released table starts as zeros and drafts token 0; the prompt fills the table too (a parameter); repeated siblings are dropped;
of several rows for one token in one step the accepted path, written last, wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.static_tree import parents_of
from decoding.drafting.tree_builder import TreeBuilder
from decoding.method import Drafter, Method, param
from decoding.score_names import RANK
from decoding.verify import match

PUBLISHED = {  # rank path -> number of children; "" is the root. 80 nodes: 8, 21, 25, 15, 8, 3 by depth
    "": 8,
    **{"0": 8, "1": 4, "2": 3, "3": 2, "4": 1, "5": 1, "6": 1, "7": 1},
    **{"00": 8, "01": 3, "02": 2, "03": 1, "04": 1, "05": 1, "06": 1, "07": 1, "10": 2, "11": 1},
    **{"20": 1, "30": 1, "40": 1, "50": 1},
    **{"000": 5, "001": 2, "002": 1, "003": 1, "004": 1, "010": 1, "020": 1, "100": 1, "200": 1, "300": 1},
    **{"0000": 3, "0001": 1, "0002": 1, "0010": 1, "0100": 1, "1000": 1},
    **{"00000": 2, "00010": 1},
}


def rank_paths(limit: int, ranks: int) -> tuple[tuple[int, ...], ...]:
    """The published tree breadth first, cut to ranks below `ranks` and to `limit` nodes.

    >>> len(rank_paths(80, 8)), rank_paths(3, 8)
    (80, ((0,), (1,), (2,)))
    """
    paths: list[tuple[int, ...]] = []
    level: list[tuple[int, ...]] = [()]
    while level:
        level = [(*p, r) for p in level for r in range(min(ranks, PUBLISHED.get("".join(map(str, p)), 0)))]
        paths += level
    return tuple(paths[:limit])


def static_tree(nodes: int, ranks: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(parent of every node, rank of every node); the best `nodes` paths of the published tree, parents first.

    Smaller trees keep the paths with the lowest ranks, so that depth survives: ordered by sum of ranks + depth.
    """
    best = sorted(rank_paths(80, ranks), key=lambda path: (sum(path) + len(path), path))[:nodes]
    chosen = sorted(best, key=lambda path: (len(path), path))
    return parents_of(chosen), tuple(path[-1] for path in chosen)


def levels(parents: Sequence[int]) -> list[Tensor]:
    """The nodes of every depth, from the children of the root down.

    >>> [nodes.tolist() for nodes in levels([-1, -1, 0])]
    [[0, 1], [2]]
    """
    depths: list[int] = []
    for parent in parents:
        depths.append(1 if parent < 0 else depths[parent] + 1)
    found = torch.tensor(depths)
    return [(found == depth).nonzero()[:, 0] for depth in range(1, max(depths) + 1)]


@dataclass(frozen=True)
class Params:
    k: int = param(8, "Candidates per token", "Next tokens kept for every token of the vocabulary.", low=1, high=8)
    nodes: int = param(80, "Tree size", "Nodes of the static tree; 80 is the published one.", low=1, high=80)
    prompt: bool = param(True, "Learn from the prompt", "Fill the table while the prompt is read (the released code does not).")
    accepted_only: bool = param(False, "Accepted rows only", "Update the table from accepted nodes only; the paper uses all.")


class TokenRecycling(Drafter):
    """The table lives on the device; `propose` walks it level by level and copies the tree's tokens once."""

    def __init__(self, params: Params, vocab: int, device: torch.device) -> None:
        self.params = params
        self.reads_prompt = params.prompt
        self.table = torch.full((vocab, min(params.k, vocab)), -1, dtype=torch.long, device=device)
        self.parents, self.ranks = static_tree(params.nodes, min(params.k, vocab))
        self.levels = levels(self.parents)
        self.root = -1

    def begin(self, tokens, output) -> None:
        if output is not None and len(output.logits):
            self._write(tokens[: len(output.logits)], output.logits)

    def propose(self, tokens, rng) -> Draft:
        self.root = tokens[-1]
        tree, place = TreeBuilder(), {-1: -1}
        for node, (token, parent) in enumerate(zip(self._looked_up(), self.parents, strict=True)):
            if token >= 0 and parent in place and tree.child(place[parent], token) is None:
                place[node] = tree.add(token, place[parent], rank=self.ranks[node])
        return tree.draft("table", scores=tree.tensors(RANK)) if len(tree) else EMPTY

    def _looked_up(self) -> list[int]:
        """The token of every node of the static tree; -1 where the table was never written."""
        tokens = torch.full((len(self.parents) + 1,), -1, dtype=torch.long, device=self.table.device)
        tokens[0] = self.root
        parents = torch.tensor(self.parents) + 1
        ranks = torch.tensor(self.ranks)
        for nodes in self.levels:
            above = tokens[parents[nodes]]
            below = self.table[above.clamp(min=0), ranks[nodes]]
            tokens[nodes + 1] = torch.where(above >= 0, below, -1)
        return tokens[1:].tolist()

    def observe(self, draft, output, verification) -> None:
        path = set(verification.path)
        others = [] if self.params.accepted_only else [node for node in range(len(draft)) if node not in path]
        rows = [*(node + 1 for node in others), 0, *(node + 1 for node in verification.path)]
        self._write([draft.tokens[row - 1] if row else self.root for row in rows], output.logits[rows])

    def _write(self, tokens: Sequence[int], logits: Tensor) -> None:
        """Row token <- the best next tokens; a later entry for the same token wins."""
        last = {token: i for i, token in enumerate(tokens)}
        best = logits.topk(self.table.shape[1]).indices
        self.table[list(last)] = best[list(last.values())]


METHOD = Method(
    key="token_recycling",
    title="Token Recycling",
    paper="https://arxiv.org/abs/2408.08696",
    authors="Luo et al., ACL 2025",
    year=2024,
    group="copies",
    line="Keeps the runners-up of every call in a table and walks it for the next guesses.",
    idea=(
        "Every call the target ranks the whole vocabulary and plain decoding throws all but one token away. Keep the best eight "
        "for every token just read, and draft a tree by walking that table."
    ),
    algorithm=(
        "Start at the last token; a static tree of rank paths says which of its eight candidates to follow, six levels deep.",
        "The target reads the whole tree in one call and draws its own token at every position.",
        "Follow the children that agree; the first token without a child is the correction.",
        "Write the best eight of every row, accepted or not, back into the table.",
    ),
    lossless="The tree is a function of the past and is only compared with what the target draws itself.",
    params=Params,
    build=lambda family, params, sampling: (TokenRecycling(params, family.target.vocab, family.target.device), match),
)
