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
from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.draft_model import DraftModel
from decoding.drafting.dynamic_tree import READ, grow
from decoding.drafting.tree_builder import TreeBuilder, products
from decoding.method import Drafter, Method, param
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.retrieval.search import NONE, WHERE, Match, Sources, heaviest, said_of, sources_of, trie_of
from decoding.score_names import BOTH, DRAFT_VALUE, DRAFTED, JOINT, RETRIEVED, WEIGHT
from decoding.verify import match

NOTHING, FIRST, SHARED, TRIE_READ = "none", "first token", "every shared node", "draft model reads the trie"
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
        choices=(NOTHING, FIRST, SHARED, TRIE_READ),
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


NOWHERE = Match(0, 0, 0, NONE)
OCCURRENCES = 256  # used, as in REST


class Rasd(Drafter):
    def __init__(self, target: Target, params: Params, sources: Sources) -> None:
        self.model = DraftModel(target)
        self.context = target.context
        self.ends = target.ends
        self.params = params
        self.sources = sources
        self.asks = params.drafted > 0 or (params.pruning != NOTHING and params.retrieved > 0)
        self.read: list[int] = []  # of every node of the last draft: the place among those that the draft model read, or -1

    def begin(self, tokens, output) -> None:
        if self.asks:
            self.model.begin(tokens)

    def propose(self, tokens, rng) -> Draft:
        deepest = self.context - len(tokens)
        if deepest < 1:
            self.read = []
            return EMPTY
        tree = self._draft_tree(tokens, deepest) if self.asks else TreeBuilder()
        found, trie = self._retrieve(tokens, deepest)
        draft = fused(tree, self._pruned(trie, tree), found, self.model.calls)
        self.read = tree[READ] + [-1] * (len(draft) - len(tree))
        return draft

    # -- the draft model's tree ----------------------------------------------------------------------------------------

    def _draft_tree(self, tokens: Sequence[int], deepest: int) -> TreeBuilder:
        """The draft model's nodes, the likeliest path first; with none wanted it is asked about the root all the same."""
        of, first = self.params, self.model.root(tokens)

        expansions = min(of.depth, deepest) - 1 if of.drafted else 0
        tree = grow(first, self.model.extend, nodes=of.drafted, fan_out=of.branch, expansions=expansions, ends=self.ends)
        return tree.keep(sorted(range(len(tree)), key=lambda node: -tree[JOINT][node]))

    def _likely(self, tree: TreeBuilder) -> dict[int, set[int]]:
        """Node of the tree, -1 the root -> the likeliest next tokens, as far as the draft model was asked and the rule asks."""
        reads = [read + 1 for read in tree[READ]] if self.params.pruning == SHARED else []
        rows = {0: -1} | {row: node for node, row in enumerate(reads) if row > 0}
        logits = tree.logits[list(rows)]
        best = logits.topk(min(self.params.top, logits.shape[1])).indices.tolist()  # one copy from the device
        return {node: set(ids) for node, ids in zip(rows.values(), best, strict=True)}

    # -- the retrieved trie --------------------------------------------------------------------------------------------

    def _retrieve(self, tokens: Sequence[int], deepest: int) -> tuple[Match, TreeBuilder]:
        self.sources.follow(tokens)
        found = self.sources.longest(self.params.longest if self.params.retrieved else 0)
        if found.n < self.params.shortest:
            return found if found.n else NOWHERE, TreeBuilder()
        length = min(self.params.length, deepest)
        return found, trie_of(self.sources.continuations(found, length, OCCURRENCES))

    def _pruned(self, trie: TreeBuilder, tree: TreeBuilder) -> TreeBuilder:
        """What the draft model leaves of the trie, cut to the budget."""
        if self.params.pruning == NOTHING or not len(trie):
            return heaviest(trie, self.params.retrieved)
        trie = trie.keep(plausible(trie, tree, self._likely(tree)))
        if self.params.pruning != TRIE_READ or not len(trie):
            return heaviest(trie, self.params.retrieved)
        trie = heaviest(trie, READ_AT_MOST)
        scores = self._scores(trie, tree.logits[0].softmax(-1))
        order = sorted(range(len(trie)), key=lambda i: (-scores[i], trie.depths[i], i))
        return trie.keep(order[: self.params.retrieved])

    def _scores(self, trie: TreeBuilder, q: Tensor) -> list[float]:
        """Product of q along the path times the share of the occurrences to the power BETA, per node; one call of the draft model
        for the whole trie. Neither factor grows along a path."""
        ids, parents = self.model.target.ids(trie.tokens), self.model.target.ids(trie.parents)
        below = torch.where(parents < 0, parents, parents + self.model.nodes)  # as the draft model counts
        logits = self.model.extend(ids, below, levels=max(trie.depths))
        above = torch.cat((q[None], logits.softmax(-1)))
        chances = products(trie.parents, above[parents + 1, ids].tolist())
        weights = trie[WEIGHT]
        total = sum(weight for weight, parent in zip(weights, trie.parents, strict=True) if parent < 0)
        return [p * (weight / total) ** BETA for p, weight in zip(chances, weights, strict=True)]

    def observe(self, draft, output, verification) -> None:
        if self.asks and self.model.calls:
            self.model.keep([self.read[node] for node in verification.path if self.read[node] >= 0])


def plausible(trie: TreeBuilder, tree: TreeBuilder, likely: dict[int, set[int]]) -> list[int]:
    """The nodes of the trie that are left when the children of some nodes of the tree, -1 the root, must be among these tokens. The
    rest of a branch goes with its first node."""
    shared: dict[int, int | None] = {-1: -1}  # node of the trie that is left -> the same node of the tree, if there is one
    for i, (token, parent) in enumerate(zip(trie.tokens, trie.parents, strict=True)):
        if parent not in shared:
            continue
        above = shared[parent]
        if above is None:
            shared[i] = None
        elif above not in likely or token in likely[above]:
            shared[i] = tree.child(above, token)
    return [i for i in shared if i >= 0]


def fused(tree: TreeBuilder, trie: TreeBuilder, found: Match, calls: int) -> Draft:
    """The union of both: what is left of a retrieved path behind its longest common prefix with the tree is appended there."""
    whole = TreeBuilder()
    for token, parent, value in zip(tree.tokens, tree.parents, tree[JOINT], strict=True):
        whole.add(token, parent, source=DRAFTED, value=value, weight=0.0)
    place: dict[int, int] = {-1: -1}
    for i, (token, parent, weight) in enumerate(zip(trie.tokens, trie.parents, trie[WEIGHT], strict=True)):
        node = whole.child(place[parent], token)
        if node is None:
            node = whole.add(token, place[parent], source=RETRIEVED, value=0.0, weight=0.0)
        else:
            whole["source"][node] = BOTH
        whole["weight"][node] = float(weight)
        place[i] = node
    scores = {DRAFT_VALUE: torch.tensor(whole["value"]), WEIGHT: torch.tensor(whole["weight"], dtype=torch.float64)}
    return whole.draft(whole["source"], scores=scores | said_of(found, len(whole)), calls=calls)


METHOD = Method(
    key="rasd",
    title="RASD",
    paper="https://arxiv.org/abs/2503.03434",
    authors="Quan et al., Findings of ACL 2025",
    year=2025,
    group="copies",
    line="Copies from a store of texts, pruned and completed by a small model.",
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
