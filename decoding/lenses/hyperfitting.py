"""Hyperfitting as a lens: a target and its twin that knows 200 pieces of text by heart, side by side on one prompt.

Carlsson et al., ICLR 2025, https://arxiv.org/abs/2412.04318: trained on a tiny set until the training loss is next to 0, a model
puts nearly all probability on one token and repeats itself less when it decodes greedily. Both targets write behind the prompt,
greedily and at temperature 1; then the embedded draft model and its own hyperfitted twin draft one token at every place of these
texts, which the targets judge: accepted if u q < p. The share of accepted ones is sum_v min(p, q) (Leviathan et al. 2023, theorem
3.5).

Departures: the twins are low-rank (`decoding.training.hyper`); the acceptance is no part of the paper, it is ours. The texts go on
behind an end of text, so that all are equally long.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Generator, Tensor

from decoding.lens import Cost, Cursor, Lens, dice, read_rows
from decoding.looks.hyperfitting import MOST, Acceptance, HyperfittingLook, Text, Written
from decoding.method import param
from decoding.models import family_cache
from decoding.models.family import SHIPPED, Family
from decoding.models.names import EMBEDDED_TARGETS, HYPER
from decoding.models.target import Target
from decoding.sample import Sampling, draw
from decoding.trace import Trace

BASE = "embedded"
PIECES = SHIPPED / EMBEDDED_TARGETS[HYPER] / "pieces.npy"
COPIED = 8  # tokens in a row that make a copy
TEMPERATURES = (0.0, 1.0)
A_LOOK = 4  # tokens between two looks
DRAFTS_EACH = 25  # drafted tokens per place at temperature 1
Both = tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]  # the greedy text and the other: tokens and their (vocab,) logits


@dataclass(frozen=True)
class Params:
    length: int = param(
        160, "Tokens", "So many tokens are written by either target, greedily and at temperature 1.", low=16, high=MOST
    )


@dataclass(frozen=True)
class Twin:
    """The hyperfitted twin: that of the embedded target, which the family must have, or the twin itself. Known by name."""

    words = "a hyperfitted twin"
    part = "target"

    def lacking(self, method: Any, family: Any) -> str:
        target = family.name.partition(" + ")[0]
        if target in (BASE, HYPER):
            return ""
        why = "the fine-tune of 135 M parameters takes hours on a processor and would be a large download. "
        return (
            f"{method.title} needs a hyperfitted twin, and there is none of {target}{': ' + why if target == 'smollm2' else '. '}"
            f"Choose {BASE} or {HYPER} as the target."
        )

    def parameters(self, method: Any, family: Any) -> int:
        return family.target.model.num_parameters()


def look(family: Family, trace: Trace, cursor: Cursor, params: Params) -> Iterator[HyperfittingLook]:
    """Both families are opened here, before the first look."""
    pair = {name: family_cache.family(name) for name in (BASE, HYPER)}
    return looks(pair, np.load(PIECES), trace, dice(trace, Cursor(-1), "hyperfitting"), params.length)


def looks(pair: dict[str, Family], pieces: np.ndarray, trace: Trace, rng: Generator, length: int) -> Iterator[HyperfittingLook]:
    """The texts grow, both temperatures of a target at once; then the pairs are judged.

    Args:
        pieces: (pieces, tokens) what the twins know by heart.
    """
    given = trace.header.prompt_tokens
    prompt = given[-(min(family.target.context for family in pair.values()) - length) :]
    notes = (f"Only the last {len(prompt):,} of {len(given):,} tokens of the prompt are read.",) if len(prompt) < len(given) else ()
    found = HyperfittingLook(length=length, pieces=len(pieces), piece=pieces.shape[1], notes=notes)
    known, kept = grams(pieces), {}
    for name, family in pair.items():
        both: Both = ([], [])
        for both, texts in writing(name, family.target, prompt, torch.rand(length, generator=rng), known):
            more = family.token_bytes({row.token for text in texts for row in text.tokens})
            read = found.rows_read + len(prompt) + 2 * len(both[0]) - 2  # the last two are read by nobody
            now = msgspec.structs.replace(found, texts=found.texts + texts, rows_read=read, token_bytes=found.token_bytes | more)
            yield now
        found, kept[name] = now, both
    for (name, both), (other, family) in product(kept.items(), pair.items()):
        for temperature, rows in zip(TEMPERATURES, both, strict=True):
            said = (*prompt, *(token for token, _ in rows[:-1]))
            q = torch.cat(list(read_rows(family.draft, said)))[-length:]
            copied = copies([token for token, _ in rows], known)
            judged = accepted(torch.stack([p for _, p in rows]).cpu(), q.cpu(), Sampling(temperature), rng, copied)
            found = msgspec.structs.replace(found, pairs=(*found.pairs, Acceptance(name, other, temperature, *judged)))
            yield found


# -- writing -----------------------------------------------------------------------------------------------------------


def writing(
    name: str, target: Target, prompt: Sequence[int], u: Tensor, known: frozenset[bytes]
) -> Iterator[tuple["Both", tuple[Text, ...]]]:
    """Both texts of a target as they grow, every few tokens; see `continued`."""
    rows: tuple[list[Written], ...] = ([], [])
    for both in continued(target, prompt, u):
        if (count := len(both[0])) % A_LOOK and count < len(u):
            continue
        for mine, told in zip(rows, both, strict=True):
            mine += described(told[len(mine) :])
        yield both, tuple(Text(name, t, marked(mine, known)) for t, mine in zip(TEMPERATURES, rows, strict=True))


def continued(target: Target, prompt: Sequence[int], u: Tensor) -> Iterator["Both"]:
    """What a target writes greedily and at temperature 1, token by token: two branches behind one prompt, read in one call.

    Args:
        u: (length,) uniforms that the tokens of the second are drawn with.

    Yields:
        Of both the tokens so far, each with the (vocab,) logits that it was taken from; the same lists every time.
    """
    cache = target.new_cache()
    rows = target.extend(cache, prompt).expand(2, -1)
    both: Both = ([], [])
    visible = np.zeros((2, 0), dtype=bool)
    for i in range(len(u)):
        drawn = draw(rows[1:].softmax(-1), u[i : i + 1].to(rows.device))
        latest = torch.stack((rows[0].argmax(), drawn[0]))
        for told, token, row in zip(both, latest.tolist(), rows, strict=True):
            told.append((token, row))
        yield both
        if i + 1 < len(u):
            visible = np.concatenate((visible, np.eye(2, dtype=bool)), axis=1)  # neither sees the other
            rows, _ = target.forward(cache, latest, [len(prompt) + i] * 2, visible)
            cache.keep(range(2))


def described(told: Sequence[tuple[int, Tensor]]) -> list[Written]:
    """Tokens with the entropy and the largest p of the (vocab,) logits that each was taken from."""
    logs = torch.stack([row for _, row in told]).log_softmax(-1)
    p = logs.exp()
    entropy = -(p * logs.masked_fill(logs.isinf(), 0)).sum(-1)
    tokens = [token for token, _ in told]
    return [Written(*row) for row in zip(tokens, entropy.tolist(), p.amax(-1).clamp(max=1).tolist(), strict=True)]


def marked(rows: Sequence[Written], known: frozenset[bytes]) -> tuple[Written, ...]:
    """The same tokens with a mark on those that are copied."""
    copied = copies([row.token for row in rows], known)
    return tuple(msgspec.structs.replace(row, copied=one) for row, one in zip(rows, copied, strict=True))


def grams(pieces: np.ndarray) -> frozenset[bytes]:
    """Every COPIED tokens in a row of (pieces, tokens), as bytes."""
    return frozenset(row[i : i + COPIED].astype("<u4").tobytes() for row in pieces for i in range(len(row) - COPIED + 1))


def copies(tokens: Sequence[int], known: frozenset[bytes]) -> list[bool]:
    """Which tokens stand inside COPIED in a row that are known.

    >>> known = grams(np.arange(20)[None])
    >>> copies([7, *range(3, 12), 7], known) == [False, *[True] * 9, False]
    True
    """
    found, text = [False] * len(tokens), np.array(tokens, dtype="<u4")
    for i in range(len(tokens) - COPIED + 1):
        if text[i : i + COPIED].tobytes() in known:
            found[i : i + COPIED] = [True] * COPIED
    return found


# -- judging -----------------------------------------------------------------------------------------------------------


def accepted(
    logits: Tensor, drafts: Tensor, sampling: Sampling, rng: Generator, copied: Sequence[bool] = ()
) -> tuple[float, float, float, int, float | None]:
    """One token drafted from q at every place and judged by p, again and again where q is random.

    Args:
        logits, drafts: (places, vocab) of the target and of the draft model.
        copied: which of the places have a copied token; () if none has.

    Returns:
        sum_v min(p, q) in the mean over places, the share that was accepted, its standard error, how many were drafted, and the
        first over copied places alone.
    """
    p, q = sampling.probabilities(logits), sampling.probabilities(drafts)
    each = torch.minimum(p, q).sum(-1).double().clamp(max=1)
    times = 1 if sampling.greedy else DRAFTS_EACH
    yes = 0
    for _ in range(times):
        token = draw(q, torch.rand(len(q), generator=rng))[:, None]
        yes += int((torch.rand(len(q), generator=rng) * q.gather(1, token)[:, 0] < p.gather(1, token)[:, 0]).sum())
    drafted = times * len(p)
    error = (each * (1 - each)).sum().div(times).sqrt().item() / len(p)
    by_heart = each[torch.tensor(copied)].mean().item() if any(copied) else None
    return each.mean().item(), yes / drafted, error, drafted, by_heart


def cost(trace: Trace, cursor: Cursor, params: Params) -> Cost:
    rows = 2 * (len(trace.header.prompt_tokens) + 2 * params.length)
    return Cost(rows, "The draft models read all four texts, twice.")


LENS = Lens(
    key="hyperfitting",
    title="Hyperfitting",
    paper="https://arxiv.org/abs/2412.04318",
    authors="Carlsson et al., ICLR 2025",
    year=2024,
    scope="text",
    asks="What does a model write that knows a few stories by heart, and who can still draft for it?",
    idea=(
        "A model that is trained on a tiny set until it knows it by heart is worse on every other text, and yet its greedy text "
        "repeats itself less. It is another model: whoever drafts for it must have learned the same."
    ),
    reading=(
        "Underlined is what the text said before, shaded what stands in the 200 pieces. The lines are the entropies along the "
        "greedy texts; the squares are how many drafted tokens each target takes from each draft model."
    ),
    checks=(
        "The share of drafted tokens that is accepted is the sum of min(p, q); at temperature 0 it is how often both bet on the "
        "same token."
    ),
    ours=(
        "The paper trains all parameters of models of 1 to 70 billion on 2,000 pieces of 256 tokens; here it is a low-rank change "
        "of the last four layers of a model of 10 million, on 200 pieces of 64. What it does to acceptance is not in the paper."
    ),
    params=Params,
    look=look,
    cost=cost,
    requirements=(Twin(),),
)
