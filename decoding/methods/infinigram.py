"""Infini-gram drafter: counts of the longest match in a datastore as a drafter with real probabilities.

Liu et al., COLM 2024, https://arxiv.org/abs/2401.17377, sections 2 and 3; the paper measures and interpolates language models,
drafting is our use of it. The longest suffix of the text that occurs in the store (binary search in a suffix array) says by its
exact counts what comes next: P(y) = cnt(s y) / cnt(s), no back-off on the numerator, no smoothing. Appending a drafted y makes the
match one token longer, so the products of P along a path are cnt(s path) / cnt(s): the tree of the c likeliest paths is the trie
of REST with its c heaviest nodes, without limits on lengths. Departures: the text so far is a second store (a parameter); drafting
stops below a shortest match and a least probability (parameters; the paper has no drafter to stop).
"""

import heapq
from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.tree_builder import TreeBuilder
from decoding.method import Drafter, Method, param
from decoding.models.target import Target
from decoding.retrieval.search import WHERE, Match, Next, Sources, said_of, sources_of
from decoding.sample import Sampling, draw
from decoding.score_names import COUNT, RETRIEVED, SHARE
from decoding.verify import match, recursive_rejection


@dataclass(frozen=True)
class Params:
    variant: str = param(
        "chain",
        "Variant",
        "chain: always the likeliest token; sampled chain: drawn from P, judged by p/q; tree: the likeliest paths.",
        choices=("chain", "sampled chain", "tree"),
    )
    length: int = param(10, "Chain length", "Tokens of a chain at most.", low=1, high=64)
    nodes: int = param(24, "Tree size", "Nodes of the tree variant.", low=1, high=256)
    shortest: int = param(
        3,
        "Shortest n",
        "Draft only where n, the tokens of the match and the next one, is at least this; 1 also drafts by bare frequency.",
        low=1,
        high=32,
    )
    threshold: float = param(
        0.5, "Least probability", "A chain stops where no token reaches this share of the counts.", low=0.0, high=1.0
    )
    where: str = param("both", "Look in", "The datastore, the text so far, or both as one.", choices=WHERE)


def add(tree: TreeBuilder, token: int, parent: int, after: Next) -> int:
    """One node more; `after` is what its parent is followed by. Its count is that of the match with the path up to this token."""
    return tree.add(token, parent, count=after.counts[after.tokens.index(token)], after=after)


class InfiniGram(Drafter):
    def __init__(self, params: Params, sources: Sources, target: Target, sampling: Sampling) -> None:
        self.params = params
        self.sources = sources
        self.vocab, self.device = target.vocab, target.device
        # At temperature 0 only the likeliest token can be right, and drawing would miss it for nothing.
        self.sampled = params.variant == "sampled chain" and not sampling.greedy

    def propose(self, tokens, rng) -> Draft:
        self.sources.follow(tokens)
        found = self.sources.longest(len(tokens))
        if found.n + 1 < self.params.shortest or not found.count:
            return EMPTY
        tree = TreeBuilder()
        if self.params.variant == "tree":
            self._grow(tree, found)
        else:
            self._chain(tree, found, torch.rand(self.params.length, generator=rng) if self.sampled else None)
        return self._draft(tree, found)

    def _chain(self, tree: TreeBuilder, found: Match, uniforms: Tensor | None) -> None:
        """One token behind the other. Whether one more is drawn depends on the distribution, never on the token that comes out."""
        for i in range(self.params.length):
            after = self.sources.next(found)
            if not after.tokens or max(after.counts) < self.params.threshold * after.total:
                return
            if uniforms is None:  # tokens ascend: the first maximum is that of the lowest id
                token = after.tokens[after.counts.index(max(after.counts))]
            else:
                token = int(draw(self._rows([after]), uniforms[i : i + 1]))
            add(tree, token, i - 1, after)
            if token in self.sources.ends:
                return
            found = self.sources.longer(found, token)

    def _grow(self, tree: TreeBuilder, found: Match) -> None:
        """Always the path with the most occurrences; of equals the shallower, then the one with the lower token ids."""
        waiting: list[tuple[int, int, tuple[int, ...], int, Match, Next]] = []
        self._offer(waiting, (), -1, found)
        while waiting and len(tree) < self.params.nodes:
            _, _, path, parent, before, after = heapq.heappop(waiting)
            node = add(tree, path[-1], parent, after)
            if path[-1] not in self.sources.ends:
                self._offer(waiting, path, node, self.sources.longer(before, path[-1]))

    def _offer(self, waiting: list, path: tuple[int, ...], node: int, found: Match) -> None:
        """Put the likeliest tokens behind `node` into the queue; more than the tree may hold cannot be needed."""
        after = self.sources.next(found)
        pairs = sorted(zip(after.tokens, after.counts, strict=True), key=lambda pair: -pair[1])
        for token, count in pairs[: self.params.nodes]:
            heapq.heappush(waiting, (-count, len(path) + 1, (*path, token), node, found, after))

    def _rows(self, after: list[Next]) -> Tensor:
        """(len(after), vocab) P, on the CPU."""
        rows = torch.zeros(len(after), self.vocab)
        place = torch.tensor([i for i, row in enumerate(after) for _ in row.tokens])
        tokens = torch.tensor([token for row in after for token in row.tokens])
        rows[place, tokens] = torch.tensor([count / total for row in after for total in (row.total,) for count in row.counts])
        return rows

    def _draft(self, tree: TreeBuilder, found: Match) -> Draft:
        if not len(tree):
            return EMPTY
        different = {id(after): after for after in tree["after"]}  # siblings share one
        place = {key: i for i, key in enumerate(different)}
        rows = self._rows(list(different.values())).to(self.device)[[place[id(after)] for after in tree["after"]]]
        shares = [count / after.total for count, after in zip(tree["count"], tree["after"], strict=True)]
        scores = {SHARE: torch.tensor(shares), COUNT: torch.tensor(tree["count"], dtype=torch.float64)}
        return tree.draft(
            RETRIEVED,
            q=rows if self.sampled else None,
            draft_probabilities=None if self.sampled else rows,
            how="sampled" if self.sampled else "deterministic",
            scores=scores | said_of(found, len(tree)),
        )


def build(family, params: Params, sampling: Sampling):
    drafter = InfiniGram(params, sources_of(family, params.where), family.target, sampling)
    return drafter, recursive_rejection if drafter.sampled else match


METHOD = Method(
    key="infinigram",
    title="Infini-gram",
    paper="https://arxiv.org/abs/2401.17377",
    authors="Liu et al., COLM 2024 (the language model; its use as a drafter is ours)",
    year=2024,
    group="copies",
    line="Finds the longest ending that millions of words have, and counts what followed it.",
    idea=(
        "An n-gram model without a limit on n: find the longest end of the text anywhere in millions of tokens and draft what "
        "followed there, with the counts as probabilities."
    ),
    algorithm=(
        "Find the longest suffix of the text that occurs in the datastore or earlier in the text, and count all its occurrences.",
        "The share of a token among the next tokens is its probability P.",
        "Draft the likeliest token, which makes the match one longer, and go on while P is large enough; or draw; or grow a tree.",
        "The target reads the draft in one call: a drawn chain is judged by p against P, all others by matching.",
    ),
    lossless=(
        "Chain and tree are functions of the past, judged by matching; a drawn chain is judged with the distribution it was drawn "
        "from."
    ),
    params=Params,
    build=build,
)
