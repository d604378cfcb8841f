"""RASD: retrieved continuations, cut by what the draft model finds plausible, joined with the draft model's own tree.

Quan et al., Findings of ACL 2025, https://arxiv.org/abs/2503.03434. Established from the abstract: a retrieval tree, pruned by the
draft model's distribution and fused with the draft tree by longest prefix matching. Its pruning formula and budgets are not
published where we could read them, so these are ours: retrieval as in REST (He et al. 2024, https://arxiv.org/abs/2311.08252);
pruning keeps branches whose first token is in the draft model's top ten (as a re-implementation describes it), three more rules are
parameters; 16 drafted and 16 retrieved nodes. The draft tree is that of EAGLE-2 (Li et al. 2024, https://arxiv.org/abs/2406.16858)
without its head: the likeliest nodes of each level are expanded, then the likeliest of all are kept, by the draft model's
probabilities at temperature 1. All nodes are chosen, so the tree is judged by matching; the rule that tries drawn children by their
ratio first is not built.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.draft_model import DraftModel
from decoding.method import Drafter, Method, param
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.retrieval.search import WHERE, Match, Sources, Trie, sources_of, trie_of
from decoding.score_names import BOTH, DRAFT_VALUE, DRAFTED, MATCHED, OCCURRENCES, RETRIEVED, WEIGHT
from decoding.verify import match

NOTHING, FIRST, SHARED, READ = "none", "first token", "every shared node", "draft model reads the trie"
READ_AT_MOST = 128  # nodes of the trie in the extra call
BETA = 0.5  # exponent of a node's share of the occurrences, against the draft model's probabilities


@dataclass(frozen=True)
class Params:
    drafted: int = param(16, "Drafted nodes", "Nodes of the draft model's own tree; 0 leaves retrieval alone.", low=0, high=128)
    retrieved: int = param(
        16, "Retrieved nodes", "Nodes kept of the retrieved trie; 0 leaves the draft tree alone.", low=0, high=128
    )
    pruning: str = param(
        FIRST,
        "Pruning",
        "What the draft model cuts: nothing; branches by their first token; also below nodes of its own tree; or by reading all.",
        choices=(NOTHING, FIRST, SHARED, READ),
    )
    top: int = param(
        10, "Top-k of the filter", "A retrieved token must be among this many likeliest of the draft model.", low=1, high=50
    )
    depth: int = param(4, "Depth of the draft tree", "Calls of the draft model per step.", low=1, high=10)
    branch: int = param(4, "Branching", "Nodes expanded per level, and children of each.", low=1, high=16)
    longest: int = param(16, "Longest suffix", "Tokens at the end of the text to look for at most.", low=1, high=64)
    shortest: int = param(2, "Shortest suffix", "Retrieve nothing where a shorter suffix is all that occurs.", low=1, high=16)
    length: int = param(10, "Continuation length", "Tokens taken behind every occurrence.", low=1, high=32)
    where: str = param("both", "Look in", "The datastore, the text so far, or both as one.", choices=WHERE)


MOST_OCCURRENCES = 256  # used, as in REST


@dataclass
class Tree:
    """The draft model's tree; parents before children. `likely` holds what the draft model put first where it was asked."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)  # product of q along the path
    fed: dict[int, int] = field(default_factory=dict)  # node -> the draft model's own number of it
    likely: dict[int, set[int]] = field(default_factory=dict)  # node, -1 the root -> its likeliest next tokens

    def keep(self, nodes: Sequence[int]) -> "Tree":
        """Only these, which must be closed under parents, in this order."""
        place = {-1: -1} | {node: i for i, node in enumerate(nodes)}
        return Tree(
            [self.tokens[i] for i in nodes],
            [place[self.parents[i]] for i in nodes],
            [self.values[i] for i in nodes],
            {place[node]: number for node, number in self.fed.items() if node in place},
            {place[node]: tokens for node, tokens in self.likely.items() if node in place},
        )


class Rasd(Drafter):
    def __init__(self, target: Target, params: Params, sources: Sources) -> None:
        self.model = DraftModel(target)
        self.context = target.context
        self.ends = target.ends
        self.params = params
        self.sources = sources
        self.asks = params.drafted > 0 or (params.pruning != NOTHING and params.retrieved > 0)
        self.fed: dict[int, int] = {}

    def begin(self, tokens, output) -> None:
        if self.asks:
            self.model.begin(tokens)

    def propose(self, tokens, rng) -> Draft:
        deepest = self.context - len(tokens)
        if deepest < 1:
            self.fed = {}
            return EMPTY
        tree, q = self._draft_tree(tokens, deepest) if self.asks else (Tree(), None)
        found, trie = self._retrieve(tokens, deepest)
        trie = self._pruned(trie, tree, q)
        self.fed = tree.fed
        return fused(tree, trie, found, self.model.calls)

    # -- the draft model's tree ----------------------------------------------------------------------------------------

    def _draft_tree(self, tokens: Sequence[int], deepest: int) -> tuple[Tree, Tensor]:
        """The tree, and (vocab,) the draft model's distribution at the root."""
        tree, level = Tree(), [-1]
        logits = self.model.root(tokens)
        q = logits[0].softmax(-1)
        for depth in range(1, min(self.params.depth, deepest) + 1 if self.params.drafted else 2):
            if depth > 1:
                ids = torch.tensor([tree.tokens[u] for u in level], device=logits.device)
                logits = self.model.extend(ids, [tree.fed.get(tree.parents[u], -1) for u in level])
                for u in level:
                    tree.fed[u] = len(tree.fed)
            level = self._children(tree, level, logits)
            if not level:
                break
        order = sorted(range(len(tree.tokens)), key=lambda u: (-tree.values[u], u))
        return tree.keep(order[: self.params.drafted]), q

    def _children(self, tree: Tree, level: list[int], logits: Tensor) -> list[int]:
        """Add the likeliest children of every node of a level; returns the likeliest of them all, to be expanded next."""
        count = min(max(self.params.branch, self.params.top), logits.shape[1])
        best = logits.softmax(-1).topk(count)
        pairs = torch.stack((best.indices.to(best.values.dtype), best.values)).tolist()  # one copy; ids are exact up to 2^24
        first = len(tree.tokens)
        for u, row, chances in zip(level, *pairs, strict=True):
            ids = [int(token) for token in row]
            tree.likely[u] = set(ids[: self.params.top])
            for token, chance in list(zip(ids, chances, strict=True))[: self.params.branch]:
                tree.tokens.append(token)
                tree.parents.append(u)
                tree.values.append(chance * (tree.values[u] if u >= 0 else 1.0))
        alive = [u for u in range(first, len(tree.tokens)) if tree.tokens[u] not in self.ends]
        return sorted(sorted(alive, key=lambda u: -tree.values[u])[: self.params.branch])

    # -- the retrieved trie --------------------------------------------------------------------------------------------

    def _retrieve(self, tokens: Sequence[int], deepest: int) -> tuple[Match, Trie]:
        self.sources.follow(tokens)
        found = self.sources.longest(self.params.longest if self.params.retrieved else 0)
        if found.n < self.params.shortest:
            return found, Trie()
        length = min(self.params.length, deepest)
        return found, trie_of(self.sources.continuations(found, length, MOST_OCCURRENCES))

    def _pruned(self, trie: Trie, tree: Tree, q: Tensor | None) -> Trie:
        """What the draft model leaves of the trie, cut to the budget."""
        if self.params.pruning == NOTHING or not len(trie):
            return trie.heaviest(self.params.retrieved)
        everywhere = self.params.pruning == SHARED
        trie = trie.keep(plausible(trie, tree, everywhere))
        if self.params.pruning != READ or not len(trie):
            return trie.heaviest(self.params.retrieved)
        trie = trie.heaviest(READ_AT_MOST)
        scores = self._scores(trie, q)
        order = sorted(range(len(trie)), key=lambda i: (-scores[i], trie.depths[i], i))
        return trie.keep(order[: self.params.retrieved])

    def _scores(self, trie: Trie, q: Tensor) -> list[float]:
        """Product of q along the path times the share of the occurrences to the power BETA, per node; one call of the draft model
        for the whole trie. Neither factor grows along a path."""
        shape = Draft(tuple(trie.tokens), tuple(trie.parents), source=(RETRIEVED,) * len(trie))
        before = self.model.cache.length - self.model.cache.committed
        visible = np.zeros((len(trie), before + len(trie)), dtype=bool)
        visible[:, before:] = shape.visible[1:, 1:]
        positions = [self.model.cache.committed - 1 + depth for depth in trie.depths]
        ids = self.model.target.ids(trie.tokens)
        logits, _ = self.model.target.forward(self.model.cache, ids, positions, visible)
        self.model.calls += 1
        above = torch.cat((q[None], logits.softmax(-1)))
        parents = torch.tensor(trie.parents, device=ids.device) + 1
        chances = above[parents, ids].tolist()
        total = sum(weight for weight, parent in zip(trie.weights, trie.parents, strict=True) if parent < 0)
        products: list[float] = []
        for i, parent in enumerate(trie.parents):
            products.append(chances[i] * (products[parent] if parent >= 0 else 1.0))
        return [p * (weight / total) ** BETA for p, weight in zip(products, trie.weights, strict=True)]

    def observe(self, draft, output, verification) -> None:
        if self.asks and self.model.calls:
            self.model.keep([self.fed[node] for node in verification.path if node in self.fed])


def plausible(trie: Trie, tree: Tree, everywhere: bool) -> list[int]:
    """The nodes of the trie that are left when children of the root, or of every node that the draft model was asked about, must be
    among its likeliest tokens. The rest of a branch goes with its first node."""
    shared: dict[int, int] = {-1: -1}  # node of the trie -> the same node of the tree
    places = {(parent, token): u for u, (parent, token) in enumerate(zip(tree.parents, tree.tokens, strict=True))}
    kept: dict[int, None] = {-1: None}
    for i, (token, parent) in enumerate(zip(trie.tokens, trie.parents, strict=True)):
        if parent not in kept:
            continue
        above = shared.get(parent)
        asked = tree.likely.get(above) if above == -1 or (everywhere and above is not None) else None
        if asked is not None and token not in asked:
            continue
        kept[i] = None
        if above is not None and (above, token) in places:
            shared[i] = places[above, token]
    return [i for i in kept if i >= 0]


def fused(tree: Tree, trie: Trie, found: Match, calls: int) -> Draft:
    """The union of both: what is left of a retrieved path behind its longest common prefix with the tree is appended there."""
    tokens, parents = list(tree.tokens), list(tree.parents)
    source, weights = [DRAFTED] * len(tokens), [0.0] * len(tokens)
    places = {(parent, token): u for u, (parent, token) in enumerate(zip(parents, tokens, strict=True))}
    node: dict[int, int] = {-1: -1}
    for i, token in enumerate(trie.tokens):
        key = (node[trie.parents[i]], token)
        if key in places:
            source[places[key]] = BOTH
        else:
            places[key] = len(tokens)
            tokens.append(token)
            parents.append(key[0])
            source.append(RETRIEVED)
            weights.append(0.0)
        node[i] = places[key]
        weights[node[i]] = float(trie.weights[i])
    n = len(tokens)
    values = tree.values + [0.0] * (n - len(tree.values))
    scores = {
        DRAFT_VALUE: torch.tensor(values),
        WEIGHT: torch.tensor(weights, dtype=torch.float64),
        MATCHED: torch.full((n,), float(found.n)),
        OCCURRENCES: torch.full((n,), float(found.count if found.n else 0), dtype=torch.float64),
    }
    return Draft(tuple(tokens), tuple(parents), source=tuple(source), scores=scores, calls=calls)


METHOD = Method(
    key="rasd",
    title="RASD",
    paper="https://arxiv.org/abs/2503.03434",
    authors="Quan et al., Findings of ACL 2025",
    year=2025,
    idea=(
        "A draft model is weak outside its training text, retrieval is strong exactly where text repeats. Prune what was retrieved "
        "by what the draft model finds plausible, and offer both trees as one."
    ),
    algorithm=(
        "The draft model grows a tree of its likeliest paths.",
        "Look the last tokens up in the datastore and the text so far; merge what followed into a trie.",
        "Cut branches of the trie whose first token is not among the draft model's ten likeliest, then the lightest nodes.",
        "Fuse: a retrieved path follows the draft tree as far as both agree and branches off there.",
        "The target reads the fused tree in one call and draws its own token at every position; follow the children that agree.",
    ),
    lossless="Both trees are functions of the past, so the fused tree is too, and it is only compared with what the target draws.",
    params=Params,
    build=lambda family, params, sampling: (Rasd(family.draft, params, sources_of(family, params.where)), match),
    requirements=(DRAFT_MODEL,),
)
