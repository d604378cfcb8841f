"""S2D, sorted speculative decoding: one draft model whose prefixes of layers all draft, the smallest one that is sure enough.

Kavehzadeh et al. 2024, https://arxiv.org/abs/2407.01955; code: https://github.com/parsareal/SD2. The sub-models, their caches and
the rows that wait for a deeper pass stand in `decoding.models.sorted_draft`, the training (SoFT) in
`decoding.training.recipes.s2d`. Because the draft model knows no target's states, one serves targets of any size with its
tokenizer.

Which exit answers is settled by the text so far, not by the token that is then drawn; so q, the distribution of that exit, is what
the token was drawn from, and the rule of speculative sampling stays exact for any thresholds. Departures from the authors' code:
tokens are drawn from q (the code takes the arg-max and judges it with the soft q, which is not lossless above temperature 0);
thresholds 0.7 and 0.6 and a fixed length of 5 are choices for models of this size, the code's 0.5 and 0.5 and its schedule
of lengths (5 at first, 2 more after a full acceptance, else 1 less) can be set.
"""

from dataclasses import dataclass, replace
from functools import cache
from math import nan
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from decoding.draft import Draft
from decoding.drafting.chain import Chain
from decoding.method import Method, param
from decoding.models.family import EMBEDDED, Family, open_model
from decoding.models.sorted_draft import SortedModel, exit_logits, exits_of
from decoding.models.target import Target
from decoding.retrieval.datastore import checksum, checksum_of
from decoding.sample import Sampling
from decoding.score_names import CONFIDENCE_AFTER, EXIT, LAYER_PASSES, LAYERS, ROWS_READ
from decoding.verify import recursive_rejection

SHIPPED = EMBEDDED / "sorted"
FIXED, SCHEDULE = "fixed", "2 more or 1 less"
LONGEST = 32


@dataclass(frozen=True)
class Params:
    length: int = param(5, "Draft length", "Tokens the draft model writes per step, or in the first one.", low=1, high=LONGEST)
    schedule: str = param(
        FIXED,
        "Length of later steps",
        "The paper's code: 2 more after a step that kept all, else 1 less.",
        choices=(FIXED, SCHEDULE),
    )
    first: float = param(
        0.7, "Threshold, first exit", "If its largest probability is above this it answers. 0: always, 1: never.", low=0.0, high=1.0
    )
    middle: float = param(0.6, "Threshold, exits between", "Likewise for those between the first and the last.", low=0.0, high=1.0)


class SortedChain(Chain):
    """A chain whose tokens come from sub-models of different depth."""

    model: SortedModel

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        super().__init__(target, params.length, sampling)
        between = len(exits_of(target.model.config)) - 2
        self.model = SortedModel(target, (params.first, *[params.middle] * between)[: between + 1])
        self.scheduled = params.schedule == SCHEDULE

    def _draft(self, tokens: list[int], q: list[Tensor], logits: list[Tensor]) -> Draft:
        draft = super()._draft(tokens, q, logits)
        answers = self.model.answers[: len(draft)]
        exits = self.model.exits
        scores = {
            CONFIDENCE_AFTER.format(e): [(*a.confidences, *[nan] * len(exits))[i] for a in answers] for i, e in enumerate(exits)
        }
        scores |= {
            EXIT: [exits[len(a.confidences) - 1] for a in answers],
            LAYERS: [exits[-1]] * len(answers),
            ROWS_READ: [a.rows for a in answers],
            LAYER_PASSES: [a.passes for a in answers],
        }
        source = tuple(f"layers 1 to {e}" if e > 1 else "layer 1" for e in scores[EXIT])
        tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in scores.items()}
        return replace(draft, source=source, scores=tensors)

    def observe(self, draft, output, verification) -> None:
        super().observe(draft, output, verification)
        if self.scheduled and len(draft):
            everything = len(verification.path) == len(draft)
            self.length = min(self.length + 2, LONGEST) if everything else max(self.length - 1, 1)


# -- which draft model -------------------------------------------------------------------------------------------------


def find(family: Family) -> Target | None:
    """The sorted draft model that serves a family: its own, or the shipped one if the tokenizers agree."""
    if family.draft is not None and exits_of(family.draft.model.config):
        return family.draft
    if (SHIPPED / "tokenizer.json").exists() and checksum(family.tokenizer) == tokens_of(SHIPPED):
        return shipped(family.target.device, family.target.dtype)
    return None


@cache
def tokens_of(folder: Path) -> str:
    """The checksum of a folder's tokenizer."""
    return checksum_of(Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab())


@cache
def shipped(device: torch.device, dtype: torch.dtype) -> Target:
    """The shipped sorted draft model; one for all families."""
    return open_model(str(SHIPPED), device, str(dtype).removeprefix("torch."))[1]


class SortedDraft:
    """A draft model that may answer after several of its layers; of a family that is not loaded it cannot be told."""

    words, part = "a sorted draft model", "draft"

    def lacking(self, method: Method, family: Any) -> str:
        if getattr(family, "raster", None) is not None:
            return f"{method.title}, needs a sorted draft model, and there is none for the pictures of {family.name}."
        if not isinstance(family, Family) or find(family) is not None:
            return ""
        name = quote(family.name.partition(" + ")[0])
        plain, chat = f"s2d --family {name} --corpus DIR", f"draft_model --family {name} --data CHAT.jsonl --exits 1 2 4"
        return (
            "S2D needs a sorted draft model, one that may answer after several of its layers, and the family "
            f"{family.name} has none with its tokenizer. This makes one, to be loaded as its draft model: "
            f"python -m decoding.training{'.' + chat if family.chats else ' ' + plain} --out FOLDER."
        )

    def parameters(self, method: Method, family: Any) -> int:
        model = find(family)
        return model.model.num_parameters() if model else 0


def build(family: Family, params: Params, sampling: Sampling):
    return SortedChain(find(family), params, sampling), recursive_rejection


# -- what the others would have said -----------------------------------------------------------------------------------


class Opinion(NamedTuple):
    """What one sub-model says after a text, at temperature 1 and before any filter."""

    exit: int  # layers
    tokens: tuple[int, ...]  # likeliest first; the same ones for every sub-model
    q: tuple[float, ...]
    asked: float  # probability of the token that was asked for


@torch.inference_mode()
def opinions(family: Family, text: tuple[int, ...], token: int, count: int = 5) -> tuple[Opinion, ...]:
    """What every sub-model says after a text, from a fresh pass over all of it.

    Args:
        text: at least one token, at most as many as the draft model's context.
        token: whose probability is asked for.
        count: of the likeliest tokens of each sub-model; all of them are named for every one.

    Raises:
        ValueError: the family has no sorted draft model, or the text is longer than its context.
    """
    draft = find(family)
    if draft is None:
        raise ValueError(METHOD.missing(family))
    if not 1 <= len(text) <= draft.context:
        raise ValueError(f"The text has {len(text):,} tokens; the sorted draft model reads 1 to {draft.context:,}.")
    logits = exit_logits(draft.model, draft.fed(draft.ids(text))[None])
    q = draft.scores(torch.stack([rows[0, -1] for rows in logits])).softmax(-1).cpu()  # (exits, vocab)
    named = q.topk(min(count, draft.vocab)).indices.unique()
    found = []
    for exit_, row in zip(exits_of(draft.model.config), q, strict=True):
        order = row[named].argsort(descending=True)
        found.append(Opinion(exit_, tuple(named[order].tolist()), tuple(row[named][order].tolist()), float(row[token])))
    return tuple(found)


METHOD = Method(
    key="s2d",
    title="S2D, sorted drafting",
    paper="https://arxiv.org/abs/2407.01955",
    authors="Kavehzadeh, Pourreza, Valipour, Zhu, Bai, Ghodsi, Chen, Rezagholizadeh 2024",
    year=2024,
    group="small model",
    line="One small model of several depths: easy words with few layers, hard ones with more.",
    idea=(
        "One draft model is trained so that each prefix of its layers drafts by itself. Every token tries the smallest prefix "
        "first and goes deeper only where that one is not sure; the same weights serve targets of any size."
    ),
    algorithm=(
        "Read the last token with the layers up to the first exit.",
        "If the largest probability there is above the exit's threshold, draw the token from it; else go on to the next exit.",
        "What left early waits and is read by the deeper layers together with the next token that goes there.",
        "The deepest exit always answers; so the whole chain is drawn.",
        "The target reads the chain in one call; accept token by token if u × q < p, as in speculative sampling.",
    ),
    lossless=(
        "The exit depends on the text before a token and not on the token, so q is what it was drawn from: accepted mass min(p, q) "
        "plus the residual is p, for any thresholds and any target."
    ),
    params=Params,
    build=build,
    requirements=(SortedDraft(),),
)
