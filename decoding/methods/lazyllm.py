"""LazyLLM: the target reads less and less of the prompt from layer to layer, decides anew at every call, and brings tokens back.

Fu, Cho, Merth, Mehta, Rastegari, Najibi 2024, https://arxiv.org/abs/2407.14057. How it prunes, and what the paper leaves open,
stands in `decoding.models.lazy_target`, which takes the place of the target (`Method.wrap`): no drafter is needed for it, and any
that reads tokens alone may guess for it. Such a draft is judged against the pruned target, by the rule that is exact for it; so a
drafter makes the run quicker and not truer: the text is another than the full model's either way, except where nothing is pruned.

There is no code of the authors. Departures are said in `lazy_target`: shares of 0.7, 0.5 and 0.3 behind a quarter, a half and three
quarters of the layers are a choice, as the paper publishes no schedule.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.chain import Chain
from decoding.drafting.lookup import Lookup
from decoding.method import NOTHING, Drafter, Method, Observed, param
from decoding.models.attention_row import refusal
from decoding.models.lazy_target import ATTENTION, MOST_LAYERS, RANDOM, STATIC, LazyOutput, LazyTarget, Pruned
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import (
    ATTENTION_PAID,
    AUX_ENTRIES,
    DEPTH_REACHED,
    FULL_AGREES,
    FULL_KL,
    FULL_OVERLAP,
    FULL_PASSES,
    PASSES,
    REVIVED,
)
from decoding.trace import MAX_GRID
from decoding.verify import match, recursive_rejection

NONE, COPIES, MODEL = "none", "copies from the text", "draft model"
SCORED_STEPS, SCORED = 64, 2**16  # the first steps of a run, and scores of a step, that are kept
LEAST = -1e4  # in place of the logarithm of 0


@dataclass(frozen=True)
class Params:
    keep_early: float = param(
        0.7, "Keep behind a quarter", "Share of the tokens that go on behind a quarter of the layers; 1: all.", low=0.02, high=1.0
    )
    keep_middle: float = param(
        0.5, "Keep behind a half", "Share of those that are left, behind half of the layers; 1: all.", low=0.02, high=1.0
    )
    keep_late: float = param(
        0.3, "Keep behind three quarters", "Share of those that are left, behind three quarters; 1: all.", low=0.02, high=1.0
    )
    importance: str = param(
        ATTENTION,
        "Who stays",
        "Those the last token attends to, at every call; random ones; or those of the first call for good (static pruning).",
        choices=(ATTENTION, RANDOM, STATIC),
    )
    drafter: str = param(
        NONE,
        "Drafter",
        "Who guesses for the pruned target: nobody, copies of the text (up to 10 tokens), or the draft model (4 tokens).",
        choices=(NONE, COPIES, MODEL),
    )
    compared: bool = param(
        False,
        "Compare with the full model",
        "The full model reads every call as well: a whole pass each, and all of the prompt.",
    )


class Nobody(Drafter):
    def propose(self, tokens, rng) -> Draft:
        return EMPTY


class Lazily(Drafter):
    """A drafter under a target that prunes: whatever it does, and for the trace what the target did to the text."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter, self.context = drafter, drafter.context
        self.steps = 0

    def begin(self, tokens, output) -> None:
        self.drafter.begin(tokens, output)

    def propose(self, tokens, rng) -> Draft:
        return self.drafter.propose(tokens, rng)

    def observe(self, draft, output, verification) -> Observed:
        own = self.drafter.observe(draft, output, verification) or NOTHING
        if not isinstance(output, LazyOutput):
            return own
        self.steps += 1
        drawn = [0, *(node + 1 for node in verification.path)]
        facts = {**own.facts, **counted(output.pruned), **damage(output, drawn)}
        return Observed(own.scores, facts, {**own.grids, **grids(output.pruned, scored=self.steps <= SCORED_STEPS)})


def counted(pruned: Pruned) -> dict[str, float]:
    """What a call cost, in rows times layers, and whom it brought back."""
    return {
        PASSES: pruned.passes,
        FULL_PASSES: pruned.full_passes,
        REVIVED: pruned.revived,
        AUX_ENTRIES: pruned.waiting,
    }


@torch.inference_mode()
def damage(output: LazyOutput, rows: list[int]) -> dict[str, Tensor]:
    """How far the pruned target is from the full one at the rows that tokens were drawn from: means over these, at temperature 1.
    KL(full || pruned) in nats, the overlap, the share of rows whose likeliest token is the same; {} if the full model did not read.
    """
    if output.full_logits is None:
        return {}
    index = torch.tensor(rows, device=output.logits.device)
    full, pruned = (of[index].log_softmax(-1).clamp(min=LEAST) for of in (output.full_logits, output.logits))
    p = full.exp()
    return {
        FULL_KL: (p * (full - pruned)).sum(-1).mean(),
        FULL_OVERLAP: torch.minimum(p, pruned.exp()).sum(-1).mean(),
        FULL_AGREES: (full.argmax(-1) == pruned.argmax(-1)).float().mean(),
    }


def grids(pruned: Pruned, *, scored: bool) -> dict[str, Tensor]:
    """The depth that every token reached, and, if `scored` and there are not too many, what the root paid it in every layer: 255
    times the square root of its share of the layer's highest, not counting the first token, which draws more than all others."""
    made = {DEPTH_REACHED: torch.from_numpy(pruned.depths)}
    if scored and pruned.scores.numel() <= SCORED:
        highest = pruned.scores[:, -max(1, len(pruned.depths) - 1) :].amax(1, keepdim=True).clamp(min=1e-30)
        made[ATTENTION_PAID] = (255 * (pruned.scores / highest).clamp(max=1).sqrt()).ceil().to(torch.uint8)
    return {name: values for name, values in made.items() if values.numel() <= MAX_GRID}


class PrunableLayers:
    """A target whose layers can be run one by one over some of the rows; of one that is not loaded it cannot be told."""

    words, part = "a target built like a Llama, all of whose layers see all of the text", "target"

    def lacking(self, method: Method, family: Any) -> str:
        target = getattr(family, "target", None)
        if not isinstance(target, Target):
            return ""
        count = getattr(target.model.config, "num_hidden_layers", 0)
        if not 2 <= count <= MOST_LAYERS:
            return f"{method.title} prunes between layers, 2 to {MOST_LAYERS} of them; this target has {count}."
        return refusal(target)

    def parameters(self, method: Method, family: Any) -> int:
        return 0


def build(family: Any, params: Params, sampling: Sampling):
    """ValueError where the draft model is to guess and there is none."""
    if params.drafter == COPIES:
        return Lazily(Lookup(family.target.ends)), match
    if params.drafter == MODEL:
        if reason := DRAFT_MODEL.lacking(METHOD, family):
            raise ValueError(reason)
        return Lazily(Chain(family.draft, 4, sampling)), recursive_rejection
    return Lazily(Nobody()), recursive_rejection


def wrap(target: Target, params: Params) -> LazyTarget:
    shares = (params.keep_early, params.keep_middle, params.keep_late)
    return LazyTarget(target, shares, params.importance, params.compared)


def keeps_all(values, greedy: bool) -> bool:
    """Whether nothing is pruned: the full model, up to rounding."""
    usual = Params()
    return all(values.get(name, getattr(usual, name)) == 1 for name in ("keep_early", "keep_middle", "keep_late"))


METHOD = Method(
    key="lazyllm",
    title="LazyLLM, a pruned prompt",
    paper="https://arxiv.org/abs/2407.14057",
    authors="Fu, Cho, Merth, Mehta, Rastegari, Najibi (ICML 2024 workshop)",
    year=2024,
    group="none",
    line="The large model reads less and less of its prompt from layer to layer: sooner there, another text.",
    idea=(
        "Most of a long prompt hardly matters for the next token. Behind some layers only the tokens that the last one attends to "
        "go on; every call decides anew, and a token that stopped goes on later from where it stopped. The first token comes "
        "sooner; the text is another."
    ),
    algorithm=(
        "All layers up to the first place of pruning read what they have not read yet.",
        "Rank the tokens by the attention of the last one, averaged over the heads; the best share goes on, the others stop there.",
        "What a token was when it stopped is kept beside the keys and values: the aux cache.",
        "The layers above read those alive that they have not read yet, some of them from the aux cache, and so on upwards.",
        "The head says the next token; at the next call everything is alive again in the first layers.",
    ),
    lossless=(
        "No: a token that stopped is not seen by the layers above, so the text is another than the full model's. A draft is judged "
        "exactly, but against the pruned target. With all shares at 1 nothing is pruned, and the text is the full model's."
    ),
    params=Params,
    build=build,
    requirements=(PrunableLayers(),),
    wrap=wrap,
    lossless_with=keeps_all,
)
