"""Multi-candidate: a draft model grows a tree, several children per node; rejected siblings leave a residual for the next.

Children drawn with replacement: SpecInfer, Miao et al. 2024, https://arxiv.org/abs/2305.09781 (multi-step speculative
sampling). Without: Yang et al. 2024, https://arxiv.org/abs/2401.06706, and Sequoia, Chen et al. 2024,
https://arxiv.org/abs/2402.12374, section 3.2, which also says how to go on when q is used up.
At temperature 0 q is one-hot and would offer a single child, so the top-k of the draft model are chosen instead and judged by
matching, as in all three papers.
"""

from dataclasses import dataclass

from decoding.draft import EMPTY, Draft
from decoding.drafting.draft_model import DraftModel
from decoding.drafting.sampled_tree import draw_tree, uniform
from decoding.method import Drafter, Method, param
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.verify import match, recursive_rejection

MAX_NODES = 256
SHAPES = ("3-2-2-1", "4-2-2", "2-2-2-2", "1-1-3-1-1-1-1-1", "8-4-2", "4-4-4", "5-1-1-1-1", "2-1", "1-1-1-1")


@dataclass(frozen=True)
class Params:
    shape: str = param(
        "3-2-2-1",
        "Tree shape",
        "Children per node, level by level; 4-2-2 is the tree of the MCSD paper.",
        choices=SHAPES,
    )
    replacement: bool = param(
        False,
        "Siblings with replacement",
        "Draw siblings independently (SpecInfer) instead of without repeats (Sequoia).",
    )


class Tree(Drafter):
    """Grows a tree level by level, one call of the draft model per level."""

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.model = DraftModel(target)
        self.context = target.context
        self.shape = tuple(min(int(k), target.vocab) for k in params.shape.split("-"))
        self.replacement = params.replacement
        self.sampling = sampling

    def begin(self, tokens, output) -> None:
        self.model.begin(tokens)

    def propose(self, tokens, rng) -> Draft:
        shape = self.shape[: max(0, self.context - len(tokens))]
        if not shape:
            return EMPTY
        how = {"sampling": self.sampling, "rng": rng, "replacement": self.replacement}
        tree = draw_tree(self.model.root(tokens), self.model.extend, uniform(shape), **how)
        return tree.draft("draft model", calls=self.model.calls)

    def observe(self, draft, output, verification) -> None:
        self.model.keep(verification.path)


def build(family, params: Params, sampling: Sampling):
    return Tree(family.draft, params, sampling), match if sampling.greedy else recursive_rejection


METHOD = Method(
    key="multi_candidate",
    title="Multi-candidate tree",
    paper="https://arxiv.org/abs/2401.06706",
    authors="Yang et al. 2024 (MCSD); Miao et al., ASPLOS 2024 (SpecInfer); Chen et al., NeurIPS 2024 (Sequoia)",
    year=2024,
    group="small model",
    line="A small model offers several words at every place, so there is a second chance.",
    idea=(
        "Offer the target several guesses at every position. When one is rejected, the next sibling is tried against what is "
        "left of p, so a second chance costs no second call."
    ),
    algorithm=(
        "The draft model draws k children for every node of a level, level by level, in one call each.",
        "The target reads the whole tree in one call; every node sees its own ancestors only.",
        "At each node try the children in draw order: accept if u × q < p.",
        "After a rejection p becomes the residual norm(max(p − q, 0)) and, without replacement, q loses the rejected token.",
        "If no child is accepted, the correction is drawn from what is left.",
    ),
    lossless="Each try is ordinary rejection sampling against the current residual, so any number of children is exact.",
    params=Params,
    build=build,
    requirements=(DRAFT_MODEL,),
)
