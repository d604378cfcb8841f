"""Speculative sampling: a draft model writes a chain, the target judges it in one call.

Leviathan et al. 2023, https://arxiv.org/abs/2211.17192, algorithm 1; Chen et al. 2023, https://arxiv.org/abs/2302.01318.
The acceptance rule is `decoding.verify.recursive_rejection`, which for one child per node is theirs. At temperature 0 p and q
are one-hot and the same rule keeps drafted tokens while they equal the arg-max.
"""

from dataclasses import dataclass

from decoding.drafting.chain import Chain
from decoding.method import Method, param
from decoding.models.requirements import DRAFT_MODEL
from decoding.verify import recursive_rejection


@dataclass(frozen=True)
class Params:
    length: int = param(4, "Draft length", "Tokens the draft model writes per step (gamma).", low=1, high=32)


METHOD = Method(
    key="speculative_sampling",
    title="Speculative sampling",
    paper="https://arxiv.org/abs/2211.17192",
    authors="Leviathan, Kalman, Matias (ICML 2023); Chen et al. 2023",
    year=2023,
    group="small model",
    line="A small model writes a few words ahead, one after the other.",
    idea=(
        "A cheap draft model writes a few tokens; the target reads them all in one call and keeps each with probability "
        "min(1, p/q). The first rejected token is replaced by a draw from what q left of p."
    ),
    algorithm=(
        "The draft model draws a chain of tokens, each from its own q.",
        "The target reads the root and the whole chain in one call.",
        "Token by token: accept if u × q < p; stop at the first rejection.",
        "After a rejection draw a correction from the residual, norm(max(p − q, 0)); otherwise a bonus from p.",
    ),
    lossless="Accepted mass min(p, q) plus the residual max(p − q, 0) is p: the text follows the target exactly.",
    params=Params,
    build=lambda family, params, sampling: (Chain(family.draft, params.length, sampling), recursive_rejection),
    requirements=(DRAFT_MODEL,),
)
