"""Teach a small model to fill in a missing sentence, with horizon-length prediction and without, and measure what that brings.

    python -m decoding.training.infilling --corpus DIR

Ding et al. 2024, https://arxiv.org/abs/2410.03103, section 3: a text is shown as `<pre> before <suf> after <mid> middle <eoi>`, and
beside the next token a linear head foretells behind the t-th token of the middle the share (M - t) / M of it that is still to come;
its error, times lambda, joins the loss. Two models begin as the embedded draft model and see the same batches: one with that loss
and one without. Then both are asked on held-out stories: by the head, by a linear probe of the frozen states, and by the position
alone, which is what the others must beat. Resumable: run the same command again.

Ours, as the paper's words leave it open: the sigmoid of the head, the mean absolute error, lambda = 0.1, sentences of 5 to 60
tokens for a middle. Half of a batch is ordinary text.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from decoding.models.horizons import sentence_lengths
from decoding.models.token_bytes import token_bytes_maker
from decoding.training.corpus import stories
from decoding.training.family import EMBEDDED, stream
from decoding.training.fit import adamw, fit
from decoding.training.horizon_figures import Rows, auc, by_position, figures, medians, ridge

MARKERS = ("<pre>", "<suf>", "<mid>", "<eoi>")
BEFORE, AFTER = 48, 40  # tokens around a gap at most
SHORTEST, LONGEST = 5, 60  # tokens of a gap
LENGTH = BEFORE + AFTER + LONGEST + len(MARKERS) + 1  # of a row
ROWS = 8  # of a batch, half of them with a gap
LAMBDA = 0.1
NAMES = {"plain": 0.0, "horizon": LAMBDA}  # what is trained, and how much the horizon counts
ASKED = 64  # rows read at once where nothing is learned


@dataclass(frozen=True)
class Gap:
    """A sentence of a document, and what stands around it."""

    before: tuple[int, ...]
    middle: tuple[int, ...]
    after: tuple[int, ...]


class Infiller(nn.Module):
    """A language model with a head that foretells the horizon."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(model.config.hidden_size, 1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, length) tokens -> (rows, length, vocab) logits, (rows, length) horizons."""
        states = self.model.model(tokens, use_cache=False).last_hidden_state
        return self.model.lm_head(states), self.head(states)[..., 0].sigmoid()


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED / "draft")
    train, held_out = stories(options.corpus)
    plain = stream(train, tokenizer, options.work / "stories.npy")
    learned, test = gaps(train, tokenizer), gaps(held_out, tokenizer)
    print(f"{len(learned):,} gaps to learn from, {len(test):,} held out", flush=True)
    made = {}
    for name in NAMES:
        model = trained(name, learned, plain, options)
        made[name] = measured(model, spread(learned, options.asked), spread(test, options.asked))
        print(f"{name}: {json.dumps(made[name])}", flush=True)
    (options.work / "figures.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the training text")
    parser.add_argument("--work", type=Path, default=Path(".training/infilling"), help="folder for checkpoints and figures")
    parser.add_argument("--steps", type=int, default=400, help="of each of the two models")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--asked", type=int, default=600, help="gaps that are measured on, and as many for the probes")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.asked < 20:
        parser.error(f"At least 1 step and 20 gaps are needed; {options.steps} and {options.asked} were asked for.")
    options.work.mkdir(parents=True, exist_ok=True)
    return options


# -- text --------------------------------------------------------------------------------------------------------------


def gaps(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> list[Gap]:
    """Every sentence of a fit length that has something on both sides."""
    bytes_of, found = token_bytes_maker(tokenizer), []
    known: dict[int, bytes] = {}
    for text in texts:
        tokens = tokenizer(text, verbose=False)["input_ids"]
        pieces = [known[t] if t in known else known.setdefault(t, bytes_of(t)) for t in tokens]
        start = 1  # behind the end of the text before
        for length in sentence_lengths(pieces[1:])[0]:
            stop = start + length
            if start > 1 and stop < len(tokens) and SHORTEST <= length <= LONGEST:
                before, after = tokens[max(0, start - BEFORE) : start], tokens[stop : stop + AFTER]
                found.append(Gap(tuple(before), tuple(tokens[start:stop]), tuple(after)))
            start = stop
    return found


def spread(found: Sequence[Gap], count: int) -> list[Gap]:
    """So many of them, at equal distances."""
    return [found[i] for i in np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)]


def row(gap: Gap, first: int) -> tuple[list[int], int]:
    """The tokens of a gap as the model reads them, and where its middle begins.

    Args:
        first: id of the first of MARKERS.

    >>> row(Gap((1, 2), (3,), (4,)), 10)
    ([10, 1, 2, 11, 4, 12, 3, 13], 6)
    """
    pre, suf, mid, eoi = range(first, first + len(MARKERS))
    head = [pre, *gap.before, suf, *gap.after, mid]
    return [*head, *gap.middle, eoi], len(head)


def padded(rows: Sequence[Sequence[int]], length: int) -> tuple[Tensor, Tensor]:
    """(rows, length) tokens with zeros behind them, and labels that are -100 there."""
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    for i, one in enumerate(rows):
        tokens[i, : len(one)] = labels[i, : len(one)] = torch.tensor(one)
    return tokens, labels


# -- training ----------------------------------------------------------------------------------------------------------


def begun() -> Infiller:
    """The embedded draft model with entries for the markers, and a head that says one half everywhere."""
    small = LlamaForCausalLM.from_pretrained(EMBEDDED / "draft", dtype=torch.float32)
    config = type(small.config).from_dict(small.config.to_dict() | {"vocab_size": small.config.vocab_size + len(MARKERS)})
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # measured: quicker than fused attention where gradients are needed
    weights = small.state_dict()
    known = weights["model.embed_tokens.weight"]
    rows = known.mean(0) + 0.02 * torch.randn(len(MARKERS), known.shape[1], generator=torch.Generator().manual_seed(0))
    weights["model.embed_tokens.weight"] = weights["lm_head.weight"] = torch.cat([known, rows])
    model.load_state_dict(weights)
    made = Infiller(model)
    nn.init.zeros_(made.head.weight)
    nn.init.zeros_(made.head.bias)
    return made


def trained(name: str, learned: Sequence[Gap], plain: np.ndarray, options: argparse.Namespace) -> Infiller:
    """One of the two models; both see the same batches."""
    made = begun()
    fit(
        made,
        lambda step: loss(made, *batch(step, learned, plain, made.model.config.vocab_size - len(MARKERS)), NAMES[name]),
        steps=options.steps,
        lr=options.lr,
        checkpoint=options.work / f"{name}-{options.lr:g}-{options.steps}.pt",
        title=name,
        optimized=partial(adamw, weight_decay=0.01),
    )
    return made.eval()


def batch(step: int, learned: Sequence[Gap], plain: np.ndarray, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """(ROWS, LENGTH) tokens, labels, and horizons, -1 where there is none; the same ones for the same step."""
    rng = np.random.default_rng((31, step))
    chosen = [row(learned[i], first) for i in rng.integers(len(learned), size=ROWS // 2)]
    starts = rng.integers(max(1, len(plain) - LENGTH), size=ROWS - ROWS // 2)
    tokens, labels = padded([one for one, _ in chosen] + [plain[s : s + LENGTH].tolist() for s in starts], LENGTH)
    horizons = torch.full(tokens.shape, -1.0)
    for i, (one, begin) in enumerate(chosen):
        length = len(one) - 1 - begin
        horizons[i, begin : begin + length] = 1 - torch.arange(1, length + 1) / length
    return tokens, labels, horizons


def loss(made: Infiller, tokens: Tensor, labels: Tensor, horizons: Tensor, weight: float) -> Tensor:
    """Next-token loss in nats, and `weight` times the error of the horizons."""
    logits, said = made(tokens)
    nats = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    counts = horizons >= 0
    return nats + weight * (said[counts] - horizons[counts]).abs().mean() if weight else nats


# -- figures -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """What a model says along the middles of gaps, a row per token."""

    rows: Rows
    states: np.ndarray  # (rows, width) behind the final norm
    head: np.ndarray  # (rows,)
    end: np.ndarray  # (rows,) probability that <eoi> is next
    nats: float  # of the middle's tokens and <eoi>, in the mean


@torch.no_grad()
def read(made: Infiller, found: Sequence[Gap]) -> Read:
    first, parts = made.model.config.vocab_size - len(MARKERS), []
    for start in range(0, len(found), ASKED):
        rows = [row(gap, first) for gap in found[start : start + ASKED]]
        tokens, _ = padded([one for one, _ in rows], max(len(one) for one, _ in rows))
        states = made.model.model(tokens, use_cache=False).last_hidden_state
        for i, (one, begin) in enumerate(rows):
            inner = states[i, begin - 1 : len(one) - 1]  # the first is <mid>'s
            logs = made.model.lm_head(inner).log_softmax(-1)
            nats = -logs.gather(1, torch.tensor(one[begin:])[:, None])[:, 0]
            parts.append((inner[1:], made.head(inner[1:])[:, 0].sigmoid(), logs[1:, first + MARKERS.index("<eoi>")].exp(), nats))
    states, head, end, nats = (torch.cat(part).double().numpy() for part in zip(*parts, strict=True))
    return Read(Rows.of(len(gap.middle) for gap in found), states, head, end, float(nats.mean()))


def measured(made: Infiller, learned: Sequence[Gap], test: Sequence[Gap]) -> dict[str, Any]:
    """What each reader of the horizon says of held-out gaps, and how sure the model is of their ends."""
    known, new = read(made, learned), read(made, test)
    position = medians(known.rows, LONGEST)
    weights = ridge(known.states, known.rows.y)
    both = ridge(np.column_stack([known.states, by_position(known.rows, position)]), known.rows.y)
    beside = np.column_stack([new.states, by_position(new.rows, position)])
    said = {
        "position": by_position(new.rows, position),
        "head": new.head,
        "probe": (new.states @ weights[:-1] + weights[-1]).clip(0, 1),
        "probe and position": (beside @ both[:-1] + both[-1]).clip(0, 1),
    }
    last = new.rows.left == 0
    return {name: figures(values, new.rows) for name, values in said.items()} | {
        "nats": round(new.nats, 4),
        "eoi at the end": round(float(new.end[last].mean()), 4),
        "eoi before": round(float(new.end[~last].mean()), 4),
        "eoi auc": round(auc(new.end, last), 4),
    }


if __name__ == "__main__":
    main()
