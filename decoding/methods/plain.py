"""Plain decoding: no draft, one token per target call. The baseline of every comparison."""

from dataclasses import dataclass

from decoding.draft import EMPTY, Draft
from decoding.method import Drafter, Method
from decoding.verify import recursive_rejection


@dataclass(frozen=True)
class Params:
    """None."""


class Plain(Drafter):
    def propose(self, tokens, rng) -> Draft:
        return EMPTY


METHOD = Method(
    key="plain",
    title="Plain decoding",
    paper="https://arxiv.org/abs/1706.03762",
    authors="the usual autoregressive loop",
    year=2017,
    group="none",
    line="No guesses: one token per call.",
    idea="The target writes one token per call. Nothing is drafted, so nothing can be rejected.",
    algorithm=("Read the last token.", "Draw the next one from p.", "Repeat."),
    lossless="It is the definition: every other method is compared with it.",
    params=Params,
    build=lambda family, params, sampling: (Plain(), recursive_rejection),
)
