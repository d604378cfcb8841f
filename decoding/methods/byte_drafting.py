"""Byte drafting: a model with any byte-level tokenizer drafts bytes, the target judges them one by one, and tokens are written.

After Phan et al., ICLR 2025, https://arxiv.org/abs/2410.09303, who make the byte distributions of token models exact; that one
model drafts for the other in them is an extension of ours. q comes from `decoding.drafting.byte_chain`, p and the verdicts from
`decoding.acceptance.byte_rejection`, which says why the text follows the target.

Why it is a rule of acceptance, and neither a target of bytes (`Method.wrap`) nor a branch in the loop: a wrapped target that
speaks bytes would write text in single bytes, tau would count bytes, and its greedy text would be another than the plain
target's. Judged by this rule the draft is an ordinary tree of the target's tokens, read in one call, and every accepted byte
shortens the way to whole tokens; so steps, tau and losslessness mean what they mean for every other method.

Departures from the specification: it re-spells the text at every byte and cuts off what the tokenizer would never write; here the
tokens that are written stay as they are, and nothing is cut. Behind a prompt that ends inside a word the target is therefore as
wrong as it is without a drafter (the lens `byte_level` shows by how much).
"""

from dataclasses import dataclass
from typing import Any

from decoding.acceptance.byte_rejection import byte_rejection
from decoding.drafting.byte_chain import ByteChain
from decoding.method import Method, param
from decoding.models.byte_drafter import find, lacking
from decoding.models.family import Family
from decoding.sample import Sampling

LONGEST = 32


@dataclass(frozen=True)
class Params:
    length: int = param(8, "Bytes drafted", "Bytes that the draft model draws per step.", low=1, high=LONGEST)


class ByteTokens:
    """Two tokenizers that write bytes; of a family that is not loaded it cannot be told."""

    words, part = "byte-level tokenizers", "draft"

    def lacking(self, method: Method, family: Any) -> str:
        if getattr(family, "raster", None) is not None:
            return f"{method.title} has one model read what another wrote as text, and {family.name} draws pictures."
        return lacking(family) if isinstance(family, Family) else ""

    def parameters(self, method: Method, family: Any) -> int:
        return find(family).model.model.num_parameters()


def build(family: Family, params: Params, sampling: Sampling):
    return ByteChain(family.target, family.tokenizer, find(family), params.length, sampling), byte_rejection


METHOD = Method(
    key="byte_drafting",
    title="Byte drafting",
    paper="https://arxiv.org/abs/2410.09303",
    authors="after Phan et al. (ICLR 2025)",
    year=2025,
    group="small model",
    line="A small model with other tokens drafts bytes; the large one judges them byte by byte.",
    idea=(
        "Two models whose tokens differ have one thing in common: bytes. The small one draws bytes from the exact distribution of "
        "its next byte; the large one judges each by its own, and then writes the whole tokens that the accepted bytes are part of."
    ),
    algorithm=(
        "Retell the text in the draft model's tokens; draw byte after byte from its byte view, the sum over its tokens that fit.",
        "Spell every beginning of the drafted bytes in the target's tokens; the target reads all spellings in one call, as a tree.",
        "For every byte, sum the target's probability over all tokens that agree with the bytes before it: p of each next byte.",
        "Byte by byte: accept if u × q < p; at the first that fails draw another one from norm(max(p − q, 0)).",
        "Of the target's tokens that begin with the accepted bytes draw some by their probability, and write them whole.",
    ),
    lossless=(
        "Bytes are judged by the rule of speculative sampling, and the tokens that spell them are then drawn from the target: both "
        "together are a token drawn from the target, whatever the drafter's tokens are."
    ),
    params=Params,
    build=build,
    requirements=(ByteTokens(),),
)
