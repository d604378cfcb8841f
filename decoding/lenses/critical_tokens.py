"""Critical tokens: where target and draft model part along a text, and whether one token decides how it ends.

Lin et al., ICML 2025, https://arxiv.org/abs/2411.19943. The paper scores every token of a wrong solution by the contrast of a model
trained on right ones and another trained on wrong ones, p+^(1 + beta) / p-^beta, and finds by rollouts the token after which no
text ends right. Here p+ is the target and p- its draft model: the score says what is the target's own.

Departures: the draft model is weaker, not wrong, so nothing is called positive or negative. ln q is cut 20 below its highest, or
one token that it rules out would be all of the sum. Contested guesses (q above .3, p below a tenth of it) are ours. A rollout is
right if it ends with the number that is asked for or, where none is given, if every sum that is written out in it holds.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Generator, Tensor

from decoding.checks import Quoted
from decoding.lens import Cost, Cursor, Lens, Place, dice, place_of, read_rows
from decoding.looks.critical_tokens import BETAS, FAR, MOST, SURE, Choice, CriticalLook, Pair, Rollouts, Scored
from decoding.method import param
from decoding.models.family import Family
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.sample import draw
from decoding.trace import Step, Trace

ROWS = 32  # of a pass
REACH = 20.0  # nats below its highest at which ln q is cut
LISTED = 10  # tokens of p, and as many of q, at the cursor
PAIRS = 20
LEAST = 0.2  # mean overlap below which the pair says nothing
A_LOOK = 4  # tokens of the rollouts between two looks
# Takes a chain of numbers and signs as a whole, whether a result follows or not: so no other search begins in the middle of it.
SUM = re.compile(
    r"(?<![\d.])(\d[\d,]*+(?:\.\d++)?(?P<more>\s*[-+*/x×]\s*\$?\d[\d,]*+(?:\.\d++)?)*+)"
    r"(?:\s*=\s*\$?(?P<result>-?\d[\d,]*+(?:\.\d++)?))?"
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Params:
    rollouts: int = param(
        0, "Rollouts", "So many texts with the token at the cursor, and as many without it; 0 writes none.", low=0, high=32
    )  # fmt: skip
    length: int = param(32, "Tokens of a rollout", "How far each goes on.", low=8, high=64)
    temperature: float = param(0.7, "Temperature of rollouts", "At which they are drawn.", low=0.1, high=1.5)
    answer: str = param("", "The right answer", "The number that a rollout must end with; empty: its sums must hold.", longest=20)


# -- the contrast: no model --------------------------------------------------------------------------------------------


class Contrast(NamedTuple):
    """Of rows of p and q."""

    log_p: Tensor  # (rows, vocab)
    log_q: Tensor  # (rows, vocab), cut
    norms: Tensor  # (rows, betas) ln of sum p^(1 + beta) / q^beta

    def of(self, tokens: Tensor) -> Tensor:
        """(rows,) tokens -> (rows, betas) their scores."""
        beta = torch.tensor(BETAS, dtype=self.log_p.dtype)
        p, q = (logs.gather(1, tokens[:, None]) for logs in (self.log_p, self.log_q))
        return ((1 + beta) * p - beta * q - self.norms).exp()


def contrast(logits: Tensor, drafts: Tensor) -> Contrast:
    """(rows, vocab) logits, or logarithms, of the target and of the draft model; what neither can write counts for nothing."""
    log_p, log_q = (rows.double().log_softmax(-1) for rows in (logits, drafts))
    log_q = torch.maximum(log_q, log_q.amax(-1, keepdim=True) - REACH)
    norms = [((1 + beta) * log_p - beta * log_q).logsumexp(-1) for beta in BETAS]
    return Contrast(log_p, log_q, torch.stack(norms, 1))


# -- a text and the guesses at it --------------------------------------------------------------------------------------


class Guess(NamedTuple):
    """A judged node whose ancestors were written."""

    place: int  # of the run's tokens, prompt included, at which it stood
    token: int
    rival: int | None  # what was written there; None: the token itself, or nothing
    refused: bool


def guesses(trace: Trace) -> list[Guess]:
    """All of a run, in its order."""
    found, start = [], len(trace.header.prompt_tokens)
    for step in trace.steps:
        found += [guess for i in range(len(step.nodes)) if (guess := guess_at(step, i, start)) is not None]
        start += len(step.tokens)
    return found


def guess_at(step: Step, node: int, start: int) -> Guess | None:
    """One node of a step whose first token stands at `start`."""
    one = step.nodes[node]
    depth = step.path.index(one.parent) + 1 if one.parent in step.path else 0 if one.parent < 0 else None
    if depth is None or one.verdict == "not judged":
        return None
    written = step.tokens[depth] if depth < len(step.tokens) else None
    return Guess(start + depth, one.token, written if written != one.token else None, one.verdict == "rejected")


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[CriticalLook]:
    """What the run wrote is scored, or its prompt where it wrote nothing."""
    place = place_of(trace, cursor)
    if params.answer and NUMBER.fullmatch(params.answer.strip()) is None:
        raise Quoted(f"The right answer must be a number, as 42 or 1,000.5; it is {params.answer!r}.")
    tokens = (*trace.header.prompt_tokens, *(token for step in trace.steps for token in step.tokens))
    return looks(family, trace, tokens, place, params, dice(trace, cursor, "critical_tokens"))


def looks(
    family: Family, trace: Trace, tokens: Sequence[int], place: Place, params: Params, rng: Generator
) -> Iterator[CriticalLook]:
    """The text block by block, then the rollouts."""
    first = len(trace.header.prompt_tokens) if trace.steps else 1
    assert family.draft is not None  # it is required
    end = min(len(tokens), family.target.context, family.draft.context)
    skipped = max(first, end - MOST)
    if end <= skipped:
        raise ValueError(f"The models read {end:,} tokens, and the text to be scored begins behind {first:,}.")
    at = here(trace, tokens, place)
    notes = (
        (f"Only {end - skipped:,} of {len(tokens) - first:,} tokens are scored.",) if end - skipped < len(tokens) - first else ()
    )
    found = CriticalLook(
        total=end - skipped, token=place.token, rival=place.rival, notes=notes, answer=params.answer.strip(),
        at=at - skipped if at is not None and skipped <= at < end else -1,
    )  # fmt: skip
    judged, ratios, start = guesses(trace), [], 0
    refused = {guess.place for guess in judged if guess.refused}
    both = zip(read_rows(family.target, tokens[:end], ROWS), read_rows(family.draft, tokens[:end], ROWS), strict=True)
    for logits, drafts in both:
        rows = contrast(logits.cpu(), drafts.cpu())
        places = range(start + 1, start + 1 + len(logits))  # that these rows speak of
        ratios += [(guess, ratio(rows, guess.place - start - 1, guess.token)) for guess in judged if guess.place in places]
        new = scored(rows, tokens, range(max(places.start, skipped), min(places.stop, end)), start, refused)
        if at is not None and at in places:
            found = with_choices(found, rows, at - start - 1)
        found = msgspec.structs.replace(found, text=found.text + new, rows_read=found.rows_read + len(logits))
        start += len(logits)
        yield told(family, with_pairs(found, ratios))
    found = with_pairs(found, ratios)
    overlap = sum(one.overlap for one in found.text) / len(found.text)
    if overlap < LEAST:
        raise ValueError(
            f"p and q overlap by {overlap:.2f} in the mean, and below {LEAST:g} their contrast says nothing: choose a draft model "
            "that was trained for this target."
        )
    if params.rollouts:
        yield from (told(family, one) for one in forked(family, found, place, params, rng))


def here(trace: Trace, tokens: Sequence[int], place: Place) -> int | None:
    """The place of the cursor in the run's text; None where the text does not go through it."""
    at = len(place.context)
    return at if tuple(tokens[:at]) == place.context else None


def scored(rows: Contrast, tokens: Sequence[int], places: range, start: int, refused: set[int]) -> tuple[Scored, ...]:
    """The tokens at these places; row 0 stands behind token `start`."""
    if not len(places):
        return ()
    at = torch.arange(places.start, places.stop) - start - 1
    these = Contrast(rows.log_p[at], rows.log_q[at], rows.norms[at])
    chosen = torch.tensor(tokens[places.start : places.stop])
    p, q = (logs.gather(1, chosen[:, None])[:, 0].clamp(min=-1e6).tolist() for logs in (these.log_p, these.log_q))
    overlap = torch.minimum(these.log_p, these.log_q).exp().sum(-1).clamp(max=1).tolist()
    scores = these.of(chosen).clamp(max=1).tolist()
    z = these.norms[:, BETAS.index(1.0)].clamp(min=0).tolist()
    return tuple(
        Scored(tokens[place], p[i], q[i], z[i], overlap[i], tuple(scores[i]), place in refused) for i, place in enumerate(places)
    )


def ratio(rows: Contrast, row: int, token: int) -> tuple[float, float]:
    """ln p - ln q of a token, and ln q."""
    q = float(rows.log_q[row, token])
    return max(-1e6, float(rows.log_p[row, token])) - q, q


def with_choices(found: CriticalLook, rows: Contrast, row: int) -> CriticalLook:
    """The favourites of both models at one row."""
    count = min(LISTED, rows.log_p.shape[1])
    best = [logs[row].topk(count).indices.tolist() for logs in (rows.log_p, rows.log_q)]
    named = [token for token in (found.token, found.rival) if token is not None]
    order = dict.fromkeys([*best[0], *named, *best[1]])
    choices = tuple(Choice(t, max(-1e6, float(rows.log_p[row, t])), float(rows.log_q[row, t])) for t in order)
    return msgspec.structs.replace(found, choices=choices, norms=tuple(rows.norms[row].tolist()))


def with_pairs(found: CriticalLook, ratios: Sequence[tuple[Guess, tuple[float, float]]]) -> CriticalLook:
    """Refused guesses by what was written in their place, the most frequent first."""
    groups: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for guess, numbers in ratios:
        if guess.refused and guess.rival is not None:
            groups.setdefault((guess.token, guess.rival), []).append(numbers)
    pairs = [
        Pair(token, rival, len(each), sum(lr for lr, _ in each) / len(each), sum(map(contested, each)))
        for (token, rival), each in groups.items()
    ]
    pairs.sort(key=lambda pair: (-pair.count, pair.ratio, pair.token, pair.rival))
    return msgspec.structs.replace(
        found, pairs=tuple(pairs[:PAIRS]), judged=len(ratios), contested=sum(contested(numbers) for _, numbers in ratios)
    )  # fmt: skip


def contested(numbers: tuple[float, float]) -> bool:
    """The draft model was sure, the target was not: of (ln p - ln q, ln q)."""
    return numbers[0] < log(FAR) and numbers[1] > log(SURE)


def told(family: Family, found: CriticalLook) -> CriticalLook:
    """With the bytes of all its tokens."""
    tokens = {one.token for one in (*found.text, *found.choices, *found.pairs)} | {pair.rival for pair in found.pairs}
    tokens |= {token for token in (found.token, found.rival, *(fork.token for fork in found.forks)) if token is not None}
    return msgspec.structs.replace(found, token_bytes=family.token_bytes(sorted(tokens)))


# -- rollouts ----------------------------------------------------------------------------------------------------------


def forked(family: Family, found: CriticalLook, place: Place, params: Params, rng: Generator) -> Iterator[CriticalLook]:
    """The target goes on behind the accused token and behind others, side by side.

    Behind a refused guess the other is what the target wrote; elsewhere it is drawn from the target's row without the token.
    """
    if place.token is None:
        raise ValueError("Nothing was drafted or written at this place, so there is no token to go on with or without.")
    count, target = params.rollouts, family.target
    context = place.context[-(target.context - params.length - 1) :]
    line = family.text(context[-params.length :]).rpartition("\n")[2]  # a sum may have begun before the token
    cache = target.new_cache()
    rest = 1.0 * target.extend(cache, context)  # (1, vocab)
    rest[:, place.token] = -torch.inf
    others = draw(rest.softmax(-1).expand(count, -1).cpu(), torch.rand(count, generator=rng)).tolist()
    firsts = [*[place.token] * count, *([place.rival] * count if place.rival is not None else others)]
    before = found.rows_read + len(context)
    for n, (written, logs) in enumerate(continued(target, cache, firsts, params, rng), 1):
        if n % A_LOOK and n < params.length:
            continue
        sides = [(place.token, slice(0, count)), (place.rival, slice(count, 2 * count))]
        forks = tuple(rolled(family, token, written[side], logs[side], found.answer, line) for token, side in sides)
        yield msgspec.structs.replace(found, forks=forks, rows_read=before + 2 * count * n)


def continued(
    target: Target, cache, firsts: Sequence[int], params: Params, rng: Generator
) -> Iterator[tuple[list[list[int]], list[list[float]]]]:
    """Texts that go on behind what the cache holds, all in one pass a token; of each its tokens and their ln p at temperature 1.

    A text that has ended is drawn on and not told any more.
    """
    length, count = cache.length, len(firsts)
    written, logs = [[token] for token in firsts], [[] for _ in firsts]
    latest, visible, over = torch.tensor(firsts), np.zeros((count, 0), dtype=bool), [token in target.ends for token in firsts]
    for n in range(params.length):
        visible = np.concatenate((visible, np.eye(count, dtype=bool)), axis=1)  # none sees another
        rows, _ = target.forward(cache, latest.to(target.device), [length + n] * count, visible)
        cache.keep(range(count))
        said = rows.double().log_softmax(-1).cpu()
        latest = draw((said / params.temperature).softmax(-1), torch.rand(count, generator=rng))
        for i, token in enumerate(latest.tolist()):
            if not over[i]:
                written[i].append(token)
                logs[i].append(float(said[i, token]))
                over[i] = token in target.ends
        yield written, logs


def rolled(
    family: Family, token: int | None, written: list[list[int]], logs: list[list[float]], answer: str, before: str
) -> Rollouts:
    """One side of the fork as plain data; `before` is the line that its texts go on."""
    texts = tuple(family.text([t for t in one if t not in family.target.ends]) for one in written)
    verdicts = [right(text, answer, before) for text in texts]
    said = [one for row in logs for one in row]
    likelihood = sum(said) / len(said) if said else 0.0
    return Rollouts(token, texts, sum(v is not None for v in verdicts), sum(v is True for v in verdicts), likelihood)


def right(text: str, answer: str, before: str = "") -> bool | None:
    """Whether the last number is the answer or, without one, whether every sum holds that ends behind what stood `before`; None
    where there is nothing to check.

    >>> right("3 + 4 = 7 and 7 * 2 = 14", ""), right("3 + 4 = 8", ""), right("so 12", "12"), right("no sums", "")
    (True, False, True, None)
    """
    if answer:
        numbers = [one[0] for one in NUMBER.finditer(before + text) if one.end() > len(before)]
        return value(numbers[-1]) == value(answer) if numbers else None
    found = [one for one in SUM.finditer(before + text) if one["more"] and one["result"] and one.end() > len(before)]
    sums = [holds(one[1], one["result"]) for one in found]
    known = [held for held in sums if held is not None]
    return all(known) if known else None


def value(number: str) -> float:
    return float(number.replace(",", ""))


def holds(left: str, result: str) -> bool | None:
    """Whether a chain of numbers and signs has this result, by the usual order; None for a division by 0.

    >>> holds("2 + 3 * 4", "14"), holds("10 / 4", "2.5"), holds("1 / 0", "1")
    (True, True, None)
    """
    parts = re.findall(r"\d[\d,]*(?:\.\d+)?|[-+*/x×]", left)
    total, product, sign = 0.0, value(parts[0]), 1.0
    for operator, number in zip(parts[1::2], parts[2::2], strict=True):
        this = value(number)
        if operator in "*x×":
            product *= this
        elif operator == "/":
            if not this:
                return None
            product /= this
        else:
            total, product, sign = total + sign * product, this, 1.0 if operator == "+" else -1.0
    return abs(total + sign * product - value(result)) < 0.006


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    text = len(trace.header.prompt_tokens) + sum(len(step.tokens) for step in trace.steps)
    rollouts = len(place_of(trace, cursor).context) + 2 * params.rollouts * params.length if params.rollouts else 0
    return Cost(text + rollouts, "The draft model reads the text as well.")


LENS = Lens(
    key="critical_tokens",
    title="Critical tokens",
    paper="https://arxiv.org/abs/2411.19943",
    authors="Lin et al., ICML 2025",
    year=2024,
    scope="text",
    asks="Where do target and draft model part, and does one token decide how the text ends?",
    idea=(
        "Divide what one model says by what another says, and what they share falls away: so the paper finds the token that spoils "
        "a solution, with a model of right and one of wrong solutions. Between a target and its draft model the same shows which "
        "tokens are the target's own, and where a confident guess was bound to be refused."
    ),
    reading=(
        "Green: the target gives the token more than the draft model does; pink, dotted: the draft model gives it more. The three "
        "with the lowest contrast are underlined. The line is the disagreement of both; crosses are refused guesses."
    ),
    checks="At beta = 0 the contrast is p itself; where both models say the same it is p for every beta.",
    ours=(
        "A draft model is weaker, not wrong, so the score ranks what is the target's own and accuses nobody: it finds a planted "
        "mistake no better than p alone (docs/lenses.md). Contested guesses are ours. Success with and without a token is counted "
        "on texts that the target writes here and now; these small models solve so little that it seldom shows anything."
    ),
    params=Params,
    look=look,
    cost=cost,
    requirements=(DRAFT_MODEL,),
)
