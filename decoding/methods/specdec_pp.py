"""SpecDec++: draft until it is likely that something was drafted in vain, as a small trained head predicts.

Huang, Guo, Wang 2024, https://arxiv.org/abs/2405.19715, section 3 (theorem: stop once the chance of a rejection passes a threshold)
and 4 (the head and its training, `decoding.training.recipes.specdec_pp`). Departures: the residual blocks have weights of their own
(the released code repeats one block); one head was trained for sampling at temperature 1 and one for greedy runs, and the first
serves every temperature above 0.

Why a length that depends on the drafted tokens keeps the text exact: every token that was drawn is submitted, and whether another
one is drawn at position i + 1 is settled by tokens up to i, before the one at i + 1 is known. Given that it is drawn, it still
follows q, which is all that the rule of speculative sampling asks for. Withdrawing a token because of its own prediction would
break that.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite, nan

import torch
from torch import Tensor, nn

from decoding.checks import check_int
from decoding.draft import Draft
from decoding.drafting.chain import Chain
from decoding.method import Method, param
from decoding.models.family import Family
from decoding.models.heads import Settings, check_width, head_for, shared
from decoding.models.requirements import DRAFT_HEAD, DRAFT_MODEL
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import PREDICTED
from decoding.verify import NotFinite, recursive_rejection

KEY = "specdec_pp"
MAX_WIDTH, MAX_BLOCKS = 65_536, 16
Predict = Callable[[Tensor], Tensor]  # (m, width) last hidden states -> (m,) chance that the tokens fed there are accepted


class Head(nn.Module):
    """(m, width) last hidden states of the draft model -> (m, 2) logits: rejected, accepted."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.out = nn.Linear(width, 2)

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = hidden + nn.functional.silu(block(hidden))
        return self.out(hidden)

    def accepted(self, hidden: Tensor) -> Tensor:
        """(m,) predicted chance of acceptance; with weighted refusals (w) it is P / (P + w (1 - P)) for a true chance P."""
        return self(hidden.float()).softmax(-1)[:, 1]


def pair(width: int, blocks: int) -> nn.ModuleDict:
    """Untrained heads for sampling and for greedy runs."""
    return nn.ModuleDict({kind: Head(width, blocks) for kind in ("sampled", "greedy")})


def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The tensors of a head file; ValueError for settings that cannot be."""
    width, blocks = settings.get("width"), settings.get("blocks")
    for value, name, most in ((width, "width", MAX_WIDTH), (blocks, "blocks", MAX_BLOCKS)):
        check_int(f"A head of SpecDec++ with {name}", value, 1, most)
    with torch.device("meta"):
        return {name: tuple(values.shape) for name, values in pair(width, blocks).state_dict().items()}


def predictor(target: Target, greedy: bool) -> Predict:
    """The trained head of a draft model; ValueError if there is none that fits."""

    def build() -> nn.ModuleDict:
        head = head_for(KEY, target.model, shapes)
        check_width("The heads of SpecDec++ are", head, target.model, "draft model")
        both = pair(head.settings["width"], head.settings["blocks"])
        both.load_state_dict(head.tensors)
        return both.to(target.device).eval()

    return shared(KEY, target.model, build)["greedy" if greedy else "sampled"].accepted


@dataclass(frozen=True)
class Params:
    threshold: float = param(
        0.7,
        "Stop threshold",
        "Drafting stops once the predicted chance that something was rejected passes it (h); 1 never stops early.",
        low=0.0,
        high=1.0,
    )
    shortest: int = param(2, "Shortest draft", "Tokens that are drafted whatever the head says.", low=1, high=20)
    length: int = param(20, "Longest draft", "Tokens per step at most; it wins over the shortest.", low=1, high=32)


class Adaptive(Chain):
    """A chain that asks the head after every token it fed."""

    def __init__(self, target: Target, params: Params, sampling: Sampling, predict: Predict) -> None:
        self.aux_layer = target.last_hidden
        super().__init__(target, params.length, sampling, (self.aux_layer,))
        self.shortest, self.threshold = params.shortest, params.threshold
        self.predict = predict
        self.predicted: list[float] = []  # of every token that was fed in this step
        self.all_accepted = 1.0  # their product

    def enough(self, sampled: int) -> bool:
        if sampled == 1:  # nothing was fed yet
            self.predicted, self.all_accepted = [], 1.0
        else:
            self.predicted.append(float(self.predict(self.model.hidden[self.aux_layer])[0]))
            if not isfinite(self.predicted[-1]):
                raise NotFinite("acceptance head")
            self.all_accepted *= self.predicted[-1]
        return sampled >= self.shortest and 1 - self.all_accepted > self.threshold

    def _draft(self, tokens, q, logits) -> Draft:
        draft = super()._draft(tokens, q, logits)
        return replace(draft, scores={PREDICTED: torch.tensor([*self.predicted, nan][: len(draft)])})


def build(family: Family, params: Params, sampling: Sampling):
    predict = predictor(family.draft, sampling.greedy)
    return Adaptive(family.draft, params, sampling, predict), recursive_rejection


METHOD = Method(
    key=KEY,
    title="SpecDec++",
    paper="https://arxiv.org/abs/2405.19715",
    authors="Huang, Guo, Wang (COLM 2025)",
    year=2024,
    group="small model",
    line="A small model stops guessing once a refusal has become likely.",
    idea=(
        "How many tokens to draft is a stopping problem. A small head on the draft model predicts for each drafted token whether "
        "the target will accept it; once a rejection somewhere has become likely enough, drafting stops."
    ),
    algorithm=(
        "The draft model draws a token from its own q; the token will be submitted whatever follows.",
        "Fed to the draft model, it leaves a hidden state, from which the head predicts its chance of acceptance.",
        "Multiply the predictions; once one minus the product passes the threshold, stop behind the token just drawn.",
        "The target reads the chain in one call and judges it as in speculative sampling: accept if u × q < p.",
        "After a rejection draw a correction from norm(max(p − q, 0)); otherwise a bonus from p.",
    ),
    lossless=(
        "The head decides only whether another token is drawn, from tokens that are submitted anyway; each drawn token still "
        "follows q, so speculative sampling keeps the target's law."
    ),
    params=Params,
    build=build,
    requirements=(
        DRAFT_MODEL,
        DRAFT_HEAD,
    ),
)
