"""Speculative sampling: a draft model writes a chain, the target judges it in one call.

Leviathan et al. 2023, https://arxiv.org/abs/2211.17192, algorithm 1; Chen et al. 2023, https://arxiv.org/abs/2302.01318.
The acceptance rule is `decoding.verify.recursive_rejection`, which for one child per node is theirs. At temperature 0 p and q
are one-hot and the same rule keeps drafted tokens while they equal the arg-max.
"""

from dataclasses import dataclass

import torch

from decoding.draft import Draft
from decoding.draft_model import DraftModel
from decoding.method import Drafter, Method, param
from decoding.sample import Sampling, draw
from decoding.target import Target
from decoding.verify import recursive_rejection


@dataclass(frozen=True)
class Params:
    length: int = param(4, "Draft length", "Tokens the draft model writes per step (gamma).", low=1, high=32)


class Chain(Drafter):
    """Draws `length` tokens one after the other. Tokens stay on the device until the chain is complete."""

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.model = DraftModel(target)
        self.ends = target.ends
        self.context = target.context
        self.length = params.length
        self.sampling = sampling

    def begin(self, tokens, reading) -> None:
        self.model.begin(tokens)

    def propose(self, tokens, rng) -> Draft:
        length = min(self.length, self.context - len(tokens))
        dice = torch.rand(self.length, generator=rng).to(self.model.target.device)
        logits, drawn, q, beliefs = self.model.root(tokens), [], [], []
        for i in range(length):
            if i:  # the last drawn token is never fed: nothing is drafted behind it
                logits = self.model.extend(drawn[-1], [i - 2])
            q.append(self.sampling.probabilities(logits))
            beliefs.append(logits)
            drawn.append(draw(q[-1], dice[i : i + 1]))
        return self._draft(torch.cat(drawn).tolist(), q, beliefs) if drawn else Draft((), ())

    def _draft(self, tokens: list[int], q: list[torch.Tensor], logits: list[torch.Tensor]) -> Draft:
        """Cut behind the first end of text: nothing behind it can be committed."""
        n = next((i + 1 for i, token in enumerate(tokens) if token in self.ends), len(tokens))
        belief = torch.cat(logits[:n]).softmax(-1) if self.sampling.greedy else None
        return Draft(
            tuple(tokens[:n]),
            tuple(range(-1, n - 1)),
            torch.cat(q[:n]),
            belief,
            how="drawn",
            source=("draft model",) * n,
            calls=self.model.calls,
        )

    def observe(self, draft, reading, decision) -> None:
        self.model.keep(decision.path)


METHOD = Method(
    key="speculative_sampling",
    title="Speculative sampling",
    paper="https://arxiv.org/abs/2211.17192",
    authors="Leviathan, Kalman, Matias (ICML 2023); Chen et al. 2023",
    year=2023,
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
    build=lambda family, params, sampling: (Chain(family.draft, params, sampling), recursive_rejection),
    needs=("draft",),
)
