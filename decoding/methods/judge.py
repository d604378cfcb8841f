"""Judge Decoding: a linear layer on the target's hidden state lets tokens pass that the target would not have written itself.

Bachmann et al. 2025, https://arxiv.org/abs/2501.19309. The rule is `decoding.acceptance.judge.either`; the head and its data are
made by `decoding.training.recipes.judge`. What the paper leaves open, or what could not be read in it, and is our choice: the draft
length, the residual after a rejection, a chosen strength of regularisation, an end-of-text token only by the ordinary rule, and
checkable mistakes in place of mistakes that people marked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from decoding.acceptance.judge import Judge, either
from decoding.checks import check_int
from decoding.draft import TargetOutput
from decoding.drafting.chain import Chain
from decoding.method import Method, never, param
from decoding.models.family import Family
from decoding.models.heads import Settings, check_width, head_for, shared
from decoding.models.requirements import DRAFT_MODEL, TARGET_HEAD
from decoding.models.target import PRE_NORM, Target
from decoding.sample import Sampling

KEY = "judge"
MAX_WIDTH = 65_536


def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The tensors of a head file; ValueError for a width that cannot be."""
    width = settings.get("width")
    check_int("A judge of width", width, 1, MAX_WIDTH)
    return {"mean": (width,), "scale": (width,), "weight": (width,), "bias": ()}


def score(hidden: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """(m, width) states before the target's final norm -> (m,) score of the token read there, from 0 to 1."""
    return torch.sigmoid(((hidden.float() - head["mean"]) / head["scale"]) @ head["weight"] + head["bias"])


def load_head(target: Target) -> Judge:
    """The judge of a target; ValueError if there is none that fits."""

    def build() -> dict[str, Tensor]:
        found = head_for(KEY, target.model, shapes)
        check_width("The judge is", found, target.model)
        return {name: values.to(target.device) for name, values in found.tensors.items()}

    head = shared(KEY, target.model, build)

    def judge(output: TargetOutput) -> Tensor:
        return score(output.hidden[PRE_NORM][1:], head)  # row i + 1 has seen node i; row 0 is the root

    return judge


@dataclass(frozen=True)
class Params:
    length: int = param(16, "Draft length", "Tokens the draft model writes per step (gamma).", low=1, high=32)
    threshold: float = param(
        0.5,
        "Judge threshold",
        "The judge lets a token through if its score lies above (delta); 1 switches it off.",
        low=0.0,
        high=1.0,
    )


class Judged(Chain):
    """The chain of speculative sampling, for a judge that wants to see the target's last state."""

    aux_hidden_layers = (PRE_NORM,)


def build(family: Family, params: Params, sampling: Sampling):
    rule = either(load_head(family.target), params.threshold, family.target.ends)
    return Judged(family.draft, params.length, sampling), rule


METHOD = Method(
    key=KEY,
    title="Judge Decoding",
    paper="https://arxiv.org/abs/2501.19309",
    authors="Bachmann et al. (ICLR 2025)",
    year=2025,
    group="small model",
    line="A small model guesses; a judge also lets words pass that are merely fine.",
    idea=(
        "Is a drafted token what the target would have said, or is it merely fine? A linear judge on the target's own hidden "
        "state answers the second question; a token stays if either speculative sampling or the judge accepts it."
    ),
    algorithm=(
        "The draft model draws a chain of tokens, each from its own q.",
        "The target reads root and chain in one call; behind each token it leaves a hidden state, before the final norm.",
        "The judge scores every token from that state.",
        "Token by token: accept if u × q < p, or if the score lies above the threshold; stop at the first that fails both.",
        "End of text passes by the first rule only.",
        "After a rejection draw a correction from norm(max(p − q, 0)); otherwise a bonus from p.",
    ),
    lossless=(
        "Lossy: the text may leave the target's law. At one position the distance from it equals the chance that the judge "
        "overrules a refusal; with threshold 1 there is none."
    ),
    params=Params,
    build=build,
    requirements=(
        DRAFT_MODEL,
        TARGET_HEAD,
    ),
    lossless_with=never,
)
