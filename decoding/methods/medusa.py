"""Medusa: small heads on the target's last state guess the next few tokens, each its own; their best guesses make a fixed tree.

Cai et al. 2024, https://arxiv.org/abs/2401.10774: heads (section 2.1.1), tree attention (2.1.2), typical acceptance (2.3.1) and the
sparse tree from measured accuracies (2.3.3). Trained by `python -m decoding.training medusa`, with the target left as it is
(Medusa-1).

Two kinds of head. *Own*: a residual block and a language-model head of its own, as in the paper; so are the shipped ones.
*Shared* ("legacy" in the released code): the residual block alone, scored by the target's own language-model head, 6 % of the
parameters at 4,096 entries and a width of 256.

Departures: exact acceptance is the default (the target draws, the tree is followed where it agrees), since the paper's rule for
temperatures above 0 is not lossless; every node of the tree is a token of some rank, so that nothing has to be padded (the released
code pads short paths with token 0, and takes it where the target happens to write token 0); the tree is measured on this target and
its size is a parameter.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from decoding.acceptance.typical import typical
from decoding.draft import EMPTY, Draft
from decoding.drafting.static_tree import Path, parents_of, sparse_tree, worth
from decoding.method import Drafter, Method, param
from decoding.models.family import Family
from decoding.models.heads import Head
from decoding.models.medusa_heads import KEY, MAX_HEADS, load_head
from decoding.models.pieces import Pieces
from decoding.models.requirements import TARGET_HEAD
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import HEAD_PROBABILITY, RANK, TREE_VALUE
from decoding.verify import match

MOST_NODES = 64


# -- the tree ----------------------------------------------------------------------------------------------------------


@cache
def cartesian_tree(heads: int, ranks: int, nodes: int) -> tuple[Path, ...]:
    """Every combination of the best guesses of every head (section 2.1.2), with as many guesses per head as fit into `nodes`: one
    more for head 1, then one more for head 2, and so on.

    >>> cartesian_tree(2, 10, 8)
    ((0,), (1,), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    """
    widths = [1] * min(heads, nodes)
    grown = True
    while grown:
        grown = False
        for k in range(len(widths)):
            wider = [*widths[:k], widths[k] + 1, *widths[k + 1 :]]
            if wider[k] <= ranks and sum(math.prod(wider[: i + 1]) for i in range(len(wider))) <= nodes:
                widths, grown = wider, True
    paths: list[Path] = []
    level: list[Path] = [()]
    for width in widths:
        level = [(*path, rank) for path in level for rank in range(width)]
        paths += level
    return tuple(paths)


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    nodes: int = param(24, "Tree size", "Nodes of the static tree; the paper's trees have 63.", low=1, high=MOST_NODES)
    heads: int = param(4, "Heads", "Heads that are asked, at most as many as were trained.", low=1, high=MAX_HEADS)
    tree: str = param(
        "sparse",
        "Tree",
        "sparse: the paths most often right on held-out text; Cartesian: every combination of the heads' best tokens.",
        choices=("sparse", "Cartesian"),
    )
    rule: str = param(
        "exact",
        "Acceptance",
        "exact: follow the token that the target draws; typical: take what the target finds plausible, which is not lossless "
        "above temperature 0.",
        choices=("exact", "typical"),
    )
    epsilon: float = param(0.09, "Typical: threshold", "No token above this probability is refused (epsilon).", low=0.0, high=1.0)
    delta: float = param(
        0.3, "Typical: entropy share", "A token passes above this share of exp(-entropy) too (delta).", low=0.0, high=1.0
    )


class Medusa(Drafter):
    """Keeps the state that the next root was drawn from; a draft takes K small matrix products and one copy from the device."""

    reads_prompt_hidden = True

    def __init__(self, target: Target, params: Params, sampling: Sampling, head: Head | None = None) -> None:
        self.target, self.pieces = target, Pieces(target.graphs)
        self.heads, ranks = load_head(target, head)
        ranks = tuple(row[: target.vocab] for row in ranks[: params.heads])
        widest = min(map(len, ranks))
        sparse = params.tree == "sparse"
        self.paths = sparse_tree(ranks, params.nodes) if sparse else cartesian_tree(len(ranks), widest, params.nodes)
        self.values = torch.tensor([worth(ranks, path) for path in self.paths])
        self.parents = parents_of(self.paths)
        self.head = torch.tensor([len(path) - 1 for path in self.paths], device=target.device)
        ranks_from_0 = [path[-1] for path in self.paths]
        self.rank = torch.tensor(ranks_from_0, device=target.device)
        self.widest, self.shown_ranks = max(ranks_from_0) + 1, torch.tensor(ranks_from_0) + 1.0
        self.source = tuple(f"head {len(path)}" for path in self.paths)
        self.aux_hidden_layers = (target.last_hidden,)
        self.shown = Sampling() if sampling.greedy else sampling
        self.hidden: Tensor | None = None  # (1, width) at the token before the root

    def begin(self, tokens, output) -> None:
        self.hidden = None if output is None else output.hidden[self.aux_hidden_layers[0]][-1:]

    def propose(self, tokens, rng) -> Draft:
        if self.hidden is None:  # a prompt of one token: nothing was read yet
            return EMPTY
        (logits,) = self.pieces(self._scored, self.hidden, more=(len(self.paths[-1]),))
        logits = logits[0]  # (heads, vocab)
        best, found = logits.softmax(-1).topk(self.widest)
        packed = torch.stack((found[self.head, self.rank].double(), best[self.head, self.rank].double()))
        drafted, probabilities = packed.tolist()  # the one copy from the device
        return Draft(
            tuple(map(int, drafted)),
            self.parents,
            draft_probabilities=self.shown.probabilities(logits)[self.head],
            source=self.source,
            scores={HEAD_PROBABILITY: torch.tensor(probabilities), RANK: self.shown_ranks, TREE_VALUE: self.values},
            calls=1,
        )

    def _scored(self, hidden: Tensor, heads: int) -> tuple[Tensor]:
        """(n, width) -> (n, heads, vocab) logits."""
        return (torch.stack([self.heads.scored(hidden, k, self.target) for k in range(heads)], 1),)

    def observe(self, draft, output, verification) -> None:
        row = verification.row
        self.hidden = output.hidden[self.aux_hidden_layers[0]][row : row + 1]


def build(family: Family, params: Params, sampling: Sampling):
    rule = typical(params.epsilon, params.delta) if params.rule == "typical" else match
    return Medusa(family.target, params, sampling, family.published_head(KEY)), rule


METHOD = Method(
    key=KEY,
    title="Medusa",
    paper="https://arxiv.org/abs/2401.10774",
    authors="Cai et al. (ICML 2024)",
    year=2024,
    group="heads",
    line="Several small heads, each for one place further ahead.",
    idea=(
        "A few small heads sit on the target's last hidden state; head k guesses the token k places behind the next one. A draft "
        "costs one small product and no second model, and the heads' best guesses are read together as one tree."
    ),
    algorithm=(
        "From the state that the root was drawn from, every head ranks the whole vocabulary; no head knows what another picked.",
        "A fixed tree says which ranks are combined; it was grown from how often each rank was right on held-out text.",
        "The target reads the whole tree in one call and draws its own token at every position.",
        "Follow the children that agree; the first token without a child is the correction.",
        "The state at the last accepted node is what the heads read next: drafting needs no call of the target.",
    ),
    lossless=(
        "The tree is a function of the past and is only compared with what the target draws itself. Typical acceptance, an option, "
        "gives this up at temperatures above 0."
    ),
    params=Params,
    build=build,
    requirements=(TARGET_HEAD,),
    lossless_with=lambda values, greedy: greedy or values.get("rule") != "typical",
)
