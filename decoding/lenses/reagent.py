"""ReAGent: which tokens of the context made the target refuse a guess, found by putting others in their place.

Zhao and Shan, 2024, https://arxiv.org/abs/2402.00794. Random subsets of the context are swapped; what is swapped gains by the fall
of the probability, the rest loses as much, again and again. No gradient is needed.

Departures, after measuring (docs/lenses.md): the scores start at 0 instead of anywhere in [0, 1), which decided the order of a
short run; there is no stop test, for one lucky draw ended a run; and what comes first is not ReAGent but one token after the other,
each swapped alone a few times ("leave one out"), which agrees with itself far sooner. Others are drawn from the target's own top 20
at the place, without the token itself, so that no tagger is needed. The contrast of a refusal, ln p(written) - ln p(guess), and the
draft model's row are ours. So is the random control of the two scores: the same importances in any order.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, exp
from typing import NamedTuple

import msgspec
import torch
from torch import Generator, Tensor

from decoding.attribution.swapping import PROBES, Estimate, Others, leave_one_out, rank_correlation, reagent
from decoding.lens import Cost, Cursor, Lens, dice, place_of
from decoding.looks.reagent import LOGGED, MOST, Altered, Cause, Form, Held, Kind, ReagentLook
from decoding.method import param
from decoding.models.altered import AlteredTexts
from decoding.models.family import Family
from decoding.trace import Trace

ALONE, REAGENT = "leave one out", "ReAGent"
OTHERS = 20  # the target's own top at a place
LEAST = 0.05  # below that there is nothing to explain
KEPT = 5  # tokens that are left in the text of which all others were swapped
TESTED = 4  # draws of each of the four texts of a score
FIFTH = 0.2
LOWEST = -30.0  # a logarithm of next to nothing


@dataclass(frozen=True)
class Params:
    way: str = param(
        ALONE, "Way", "Every token swapped alone, or random sets of them as in the paper.", choices=(ALONE, REAGENT)
    )  # fmt: skip
    tokens: int = param(24, "Tokens asked", "So many of the last tokens are swapped; those before are left.", low=4, high=MOST)
    draws: int = param(3, "Draws a token", "Leave one out: so many others stand in the place of a token.", low=2, high=8)
    steps: int = param(200, "Steps", f"ReAGent: so many times {PROBES} altered texts are read.", low=10, high=500)
    share: float = param(0.3, "Share swapped", "ReAGent: a token is swapped this often.", low=0.1, high=0.5)


# -- the models --------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """Behind (n,) altered texts, logarithms of probabilities at temperature 1."""

    p: Tensor  # of the token
    q: Tensor | None
    rival: Tensor | None
    rank: Tensor  # of the token in p

    def of(self, kinds: Sequence[Kind]) -> Tensor:
        """(n, kinds)."""
        rows = {"target": self.p, "draft": self.q, "contrast": None if self.rival is None else self.rival - self.p}
        return torch.stack([row for kind in kinds if (row := rows[kind]) is not None], 1)


class Reader:
    """Target and draft model over altered versions of one text; remembers the last of them."""

    def __init__(self, family: Family, context: Sequence[int], window: int, rival: int | None) -> None:
        self.target = AlteredTexts(family.target, context, window)
        self.draft = AlteredTexts(family.draft, context, window) if family.draft is not None else None
        self.token, self.rival = -1, rival
        self.kinds: tuple[Kind, ...] = ("target", *(["draft"] if self.draft else []), *(["contrast"] if rival is not None else []))
        self.passes = 0
        self.log: deque[Altered] = deque(maxlen=LOGGED)
        self.noting = True  # in the log

    @property
    def lead(self) -> int:
        """The kind that the look is about: the choice after a refusal, otherwise what the target says."""
        return len(self.kinds) - 1 if self.rival is not None else 0

    def said(self, logits: Tensor, drafted: Tensor | None) -> Said:
        """(n, vocab) logits of the two models behind n texts."""
        logs = logits.double().log_softmax(-1).cpu()
        p = logs[:, self.token]
        q = None if drafted is None else drafted.double().log_softmax(-1)[:, self.token].cpu().clamp(min=LOWEST)
        rival = None if self.rival is None else logs[:, self.rival].clamp(min=LOWEST)
        return Said(p.clamp(min=LOWEST), q, rival, 1 + (logs > p[:, None]).sum(1))

    def read(self, texts: Tensor) -> Said:
        """(n, window) altered texts in one pass."""
        said = self.said(self.target.read(texts), None if self.draft is None else self.draft.read(texts))
        self.passes += len(texts)
        if self.noting:
            self.log.extend(altered_at(texts, said, i) for i in range(max(0, len(texts) - LOGGED), len(texts)))
        return said

    def values(self, texts: Tensor) -> Tensor:
        """(n, window) -> (n, kinds)."""
        return self.read(texts).of(self.kinds)


def altered_at(texts: Tensor, said: Said, i: int) -> Altered:
    q, rival = (None if one is None else min(1.0, exp(one[i])) for one in (said.q, said.rival))
    return Altered(tuple(texts[i].tolist()), min(1.0, exp(said.p[i])), q, rival, int(said.rank[i]))


def others_of(rows: Tensor, text: Tensor, barred: Sequence[int]) -> Others:
    """The target's top at every place that can be swapped.

    Args:
        rows: (window, vocab) logits in front of every token of the text, NaN for the first of all texts, which has none.
        barred: marks that are no text: they stay, and stand in no other's place.
    """
    places = [i for i, token in enumerate(text.tolist()) if token not in set(barred) and not bool(rows[i, 0].isnan())]
    if not places:
        raise ValueError("The text has no token in whose place another could stand: it is a mark, or the first of all.")
    at = torch.tensor(places)
    scores = rows[at]
    scores[:, list(barred)] = -torch.inf
    scores.scatter_(1, text[at, None], -torch.inf)
    top = scores.topk(min(OTHERS, scores.shape[1] - 1))
    return Others(at, top.indices, top.values.softmax(-1).clamp(min=1e-9))


# -- the look ----------------------------------------------------------------------------------------------------------


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[ReagentLook]:
    """The text, what is to be explained of it, and the die that it fell by."""
    place = place_of(trace, cursor)
    models = [family.target, *([family.draft] if family.draft is not None else [])]
    context = place.context[-min(model.context for model in models) :]
    window = min(params.tokens, len(context))
    found = ReagentLook(
        way=params.way,
        text=context[-window:],
        earlier=len(context) - window,
        rival=place.rival,
        judged=judged_at(trace, cursor),
    )
    reader = Reader(family, context, window, place.rival)
    return looks(family, found, reader, place.token, params, dice(trace, cursor, "reagent"))


def judged_at(trace: Trace, cursor: Cursor) -> tuple[float, float, float] | None:
    """p, q and u that a drafted token was refused with; None where nothing was, by another rule, or greedily: no die was needed."""
    if (
        trace.header.sampling.temperature == 0
        or cursor.step < 0
        or cursor.node is None
        or not 0 <= cursor.node < len(trace.steps[cursor.step].nodes)
    ):
        return None
    node = trace.steps[cursor.step].nodes[cursor.node]
    if node.verdict != "rejected" or node.q is None or node.u is None:
        return None
    return node.p, node.q, node.u


def looks(
    family: Family, found: ReagentLook, reader: Reader, token: int | None, params: Params, rng: Generator
) -> Iterator[ReagentLook]:
    """First the text as it stands, then the altered ones, then how far the importances can be trusted."""
    text = reader.target.text
    rows = torch.full((len(text), family.target.vocab), torch.nan)
    logits, done = torch.empty(0), 0
    for logits in reader.target.begin():
        first = done + 1 - found.earlier  # the place of the window in front of which the first of these rows stands
        kept = logits[max(0, -first) : len(text) - first].float().cpu()
        rows[max(0, first) : max(0, first) + len(kept)] = kept
        done += len(logits)
        yield told(family, found, reader)
    drafted = deque(reader.draft.begin(), maxlen=1).pop()[-1:] if reader.draft else None
    reader.token = int(logits[-1].argmax()) if token is None else token
    said = reader.said(logits[-1:], drafted)
    others = others_of(rows, text, family.special_tokens)
    found = with_said(found, reader.token, said, others)
    yield told(family, found, reader)
    if not found.enough:
        return
    before, importance = said.of(reader.kinds)[0], torch.empty(0)
    planned = len(others.places) * params.draws if params.way == ALONE else PROBES * params.steps
    found = msgspec.structs.replace(found, planned=planned + 1 + 8 * TESTED)
    for estimate in estimates(reader, others, before, params, rng):
        importance = estimate.importance[reader.lead]
        found = msgspec.structs.replace(found, causes=causes(estimate, before, reader.kinds, others, len(text)))
        yield told(family, found, reader)
    reader.noting = False
    yield from (told(family, one, reader) for one in trusted(found, reader, others, importance, before, rng))


def estimates(reader: Reader, others: Others, before: Tensor, params: Params, rng: Generator) -> Iterator[Estimate]:
    """By the way that was chosen."""
    read, parts, text = reader.values, reader.target.blocks, reader.target.text
    if params.way == ALONE:
        return leave_one_out(read, parts, text, others, before, params.draws, rng)
    return reagent(read, parts, text, others, before, reader.kinds, params.steps, params.share, rng)


def told(family: Family, found: ReagentLook, reader: Reader) -> ReagentLook:
    """With what was read so far, and the bytes of all tokens."""
    log = tuple(reader.log)
    tokens = {*found.text, found.token, *(token for one in log for token in one.tokens)} | {
        *(found.kept.tokens if found.kept else ())
    }
    tokens |= {found.rival} if found.rival is not None else set()
    return msgspec.structs.replace(
        found, log=log, passes=reader.passes, rows_read=reader.target.rows, token_bytes=family.token_bytes(sorted(tokens))
    )  # fmt: skip


def with_said(found: ReagentLook, token: int, said: Said, others: Others) -> ReagentLook:
    """What the models say behind the text as it stands, and whether that is enough to be explained."""
    here = altered_at(torch.tensor([found.text]), said, 0)
    places = set(others.places.tolist())
    most = max(here.p, here.q or 0.0) if found.rival is not None else here.p
    return msgspec.structs.replace(
        found, token=token, p=here.p, q=here.q, rival_p=here.rival, enough=most >= LEAST,
        swapped=tuple(i in places for i in range(len(found.text))),
    )  # fmt: skip


def causes(estimate: Estimate, before: Tensor, kinds: Sequence[Kind], others: Others, window: int) -> tuple[Cause, ...]:
    """An estimate as plain data, zero for what is never swapped."""

    def spread_out(row: Tensor) -> tuple[float, ...]:
        whole = torch.zeros(window, dtype=torch.double)
        whole[others.places] = row.double()
        return tuple(whole.tolist())

    found = []
    for i, kind in enumerate(kinds):
        effects, spread, importance = (spread_out(part[i]) for part in (estimate.effects, estimate.spread, estimate.importance))
        agree = None if estimate.halves is None else rank_correlation(*(half[i] for half in estimate.halves))
        found.append(Cause(kind, float(before[i]), effects, spread, importance, agree))
    return tuple(found)


# -- how far it can be trusted -----------------------------------------------------------------------------------------


def trusted(
    found: ReagentLook, reader: Reader, others: Others, importance: Tensor, before: Tensor, rng: Generator
) -> Iterator[ReagentLook]:
    """The text of which only the most important tokens are left, then sufficiency and comprehensiveness against chance."""
    best = importance.argsort(descending=True)
    left = torch.zeros(len(importance), dtype=torch.bool)
    left[best[:KEPT]] = True
    strip = others.altered(reader.target.text, ~left[None], rng)
    kept = altered_at(strip, reader.read(strip), 0)
    found = msgspec.structs.replace(found, kept=kept, left=tuple(sorted(others.places[left].tolist())))
    yield found
    fifth = torch.zeros(len(importance), dtype=torch.double)
    fifth[best[: ceil(FIFTH * len(best))]] = 1
    forms: dict[Form, Tensor] = {"soft": importance / importance.max(), "hard": fifth}
    for form, weights in forms.items():
        kept, lost = scored(reader, others, weights, before, False, rng)
        yield found
        held = Held(form, kept, lost, *scored(reader, others, weights, before, True, rng))
        found = msgspec.structs.replace(found, held=(*found.held, held))
        yield found


def scored(reader: Reader, others: Others, weights: Tensor, before: Tensor, chance: bool, rng: Generator) -> tuple[float, float]:
    """Sufficiency and comprehensiveness of one number, a mean over draws.

    Args:
        weights: (places,) how often each token is kept, or swapped.
        chance: the weights in any order instead.
    """
    rows = [weights[torch.randperm(len(weights), generator=rng)] if chance else weights for _ in range(2 * TESTED)]
    chosen = torch.rand(2 * TESTED, len(weights), generator=rng, dtype=torch.double) < torch.stack(rows)
    chosen[:TESTED] = ~chosen[:TESTED]  # the first are kept, and all others swapped
    texts = others.altered(reader.target.text, chosen, rng)
    after = torch.cat([reader.values(block)[:, reader.lead] for block in reader.target.blocks(texts)])
    contrast = reader.rival is not None
    share = kept_share(after, contrast) / kept_share(before[reader.lead], contrast).clamp(min=1e-9)
    return float(share[:TESTED].mean()), 1 - float(share[TESTED:].mean())


def kept_share(nats: Tensor, contrast: bool) -> Tensor:
    """A number as a probability: of the token, or of what was written if only that and the guess were there."""
    return nats.sigmoid() if contrast else nats.exp()


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    context = len(place_of(trace, cursor).context)
    window = min(params.tokens, context)
    alone = params.draws * window * (window + 1) // 2
    rows = alone if params.way == ALONE else PROBES * params.steps * window
    return Cost(context + rows + window * (1 + 8 * TESTED), "A draft model reads the same.")


LENS = Lens(
    key="reagent",
    title="ReAGent",
    paper="https://arxiv.org/abs/2402.00794",
    authors="Zhao and Shan, 2024",
    year=2024,
    scope="position",
    asks="Which words of the text made the target refuse this guess?",
    idea=(
        "If a token of the context matters for a prediction, something plausible in its place changes it. So tokens are swapped "
        "for what the target itself might have written there, and those whose loss costs most are the reasons."
    ),
    reading=(
        "Darker blue: the number falls when this token is another, so the token speaks for it. Orange, dotted: it speaks against. "
        "A frame marks what the draft model leant on and the target did not; the bars carry the spread over draws."
    ),
    checks=(
        "Importances are not negative and sum to 1. Two halves of the draws are ranked against each other: above .7 the map is "
        "stable, below .4 it is noise."
    ),
    ours=(
        "One token after the other comes first, as ReAGent with few steps is noise on these models; its scores start at 0, and "
        "there is no stop test. Others are drawn from the target's own top 20. The contrast of a refusal, the row of the draft "
        "model and the random control are ours. Probabilities are those at temperature 1, not those that the die was held against."
    ),
    params=Params,
    look=look,
    cost=cost,
)
