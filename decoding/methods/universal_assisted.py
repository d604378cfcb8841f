"""Universal assisted drafting: any language model drafts for any target, because it is text that passes between them.

Timor et al., ICML 2025, https://arxiv.org/abs/2502.05202 (string-level exact match); in transformers since 2024 as universal
assisted generation. How text is written, re-encoded and compared stands in `decoding.drafting.reencoded`, with the departures. A
draft model with the target's tokens works as well, but drafts better where q is known (speculative sampling).
"""

from dataclasses import dataclass

from decoding.drafting.reencoded import Reencoded
from decoding.method import Method, param
from decoding.models.draft_tokens import OtherDraft
from decoding.models.family import Family
from decoding.models.requirements import ANY_DRAFT_MODEL
from decoding.models.spelling import Spelling
from decoding.sample import Sampling
from decoding.verify import match


@dataclass(frozen=True)
class Params:
    length: int = param(5, "Draft length", "Tokens the draft model writes per step, in its own tokens.", low=1, high=32)


def build(family: Family, params: Params, sampling: Sampling):
    draft = family.other_draft
    if draft is None:
        assert family.draft is not None  # `ANY_DRAFT_MODEL` refused families without either
        draft = OtherDraft(family.draft, family.tokenizer)
    return Reencoded(family.target, Spelling(family.tokenizer), draft, params.length), match


METHOD = Method(
    key="universal_assisted",
    title="Universal assisted drafting",
    paper="https://arxiv.org/abs/2502.05202",
    authors="Timor et al. (ICML 2025); Hugging Face 2024 (UAG)",
    year=2025,
    group="small model",
    line="A small model with other tokens: its text is encoded again for the large one.",
    idea=(
        "A draft model whose tokens are not the target's can still draft: it writes text, the text is encoded again with the "
        "target's tokenizer, and the target keeps what it would have written itself."
    ),
    algorithm=(
        "Encode the text so far with the draft model's tokenizer; special tokens become those of the same name, or nothing.",
        "The draft model writes a few of its own tokens, the likeliest each time.",
        "Encode what it wrote with the target's tokenizer, together with the last few tokens of the text, and cut at the border.",
        "The target reads the chain in one call, draws its own token at every position and keeps the draft while they agree.",
    ),
    lossless="The draft is a function of the text and is only ever compared with what the target draws itself.",
    params=Params,
    build=build,
    requirements=(ANY_DRAFT_MODEL,),
)
