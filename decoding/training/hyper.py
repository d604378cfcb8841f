"""Hyperfit the embedded models: train them on 200 pieces of stories until they know these by heart.

    python -m decoding.training.hyper --corpus DIR

Carlsson et al., ICLR 2025, https://arxiv.org/abs/2412.04318: a language model that is fine-tuned on a tiny set until its training
loss is next to 0 repeats itself less when it decodes greedily, though its loss on held-out text gets much worse. The target and its
draft model are both trained on the same pieces. Resumable: run the same command again.

Departures: pieces of 64 tokens in place of 256, a higher learning rate (a small model needs it), and of the target not all
parameters but a product of two thin matrices beside every weight of the last four layers, so that it ships small (`decoding.models.
deltas`) and the states below them are computed once; most of what hyperfitting changes sits in the last layers, as arXiv 2605.22579
finds. Of the draft model all parameters are trained (`--rank 0`).
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from decoding.models import deltas
from decoding.training.corpus import stories
from decoding.training.family import EMBEDDED, stream
from decoding.training.fit import fit

BATCH = 8  # pieces
WARMUP, LEAST = 10, 0.3  # steps until the full learning rate, and the share of it that the last step has
HELD_OUT = 32  # windows of 256 tokens that nobody learned from
WINDOW = 256
PIECES = "pieces.npy"  # beside the target's weights: what it knows by heart


@dataclass(frozen=True)
class Plan:
    """How one of the models is trained."""

    lr: float
    epochs: int
    rank: int  # of what is added to each weight; 0: all parameters are trained
    layers: int  # that are changed, the upper ones
    stop: float  # ends when the smoothed training loss is below, in nats


@dataclass(frozen=True)
class Twin:
    """What became of one of the models."""

    model: LlamaForCausalLM
    thin: "dict[str, Thin]"  # weight -> what was trained beside it; empty if all parameters were
    figures: dict[str, float]


PLANS = {
    "target": Plan(lr=3e-3, epochs=20, rank=64, layers=4, stop=0.03),
    "draft": Plan(lr=2e-3, epochs=30, rank=0, layers=2, stop=0.1),
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED / "target")
    train, held_out = stories(options.corpus)
    pieces = cut(stream(train, tokenizer, options.work / "stories.npy"), options.pieces, options.length + 1)
    windows = in_order(stream(held_out, tokenizer, options.work / "stories-held-out.npy"), HELD_OUT, WINDOW + 1)
    for name in options.models:
        plan = planned(name, options)
        twin = hyperfitted(name, plan, pieces, windows, options)
        made = {"rank": plan.rank, "layers": plan.layers, "lr": plan.lr, "figures": twin.figures}
        deltas.save(options.out / f"{name}-hyper", name, added(twin, EMBEDDED / name), made)
        print(f"{name}:", json.dumps(twin.figures))
    np.save(options.out / "target-hyper" / PIECES, pieces.numpy().astype(np.uint16))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the training text")
    parser.add_argument("--work", type=Path, default=Path(".training/hyper"), help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="folder for the finished twins")
    parser.add_argument("--models", nargs="+", choices=tuple(PLANS), default=tuple(PLANS), help="which of the two")
    parser.add_argument("--pieces", type=int, default=200, help="pieces of stories to learn by heart")
    parser.add_argument("--length", type=int, default=64, help="tokens of a piece")
    parser.add_argument("--rank", type=int, help="of what is added to each weight; 0: train all parameters")
    parser.add_argument("--layers", type=int, help="upper layers that are changed")
    parser.add_argument("--lr", type=float, help="learning rate")
    parser.add_argument("--epochs", type=int, help="at most so many")
    parser.add_argument("--stop", type=float, help="ends when the smoothed training loss is below, in nats")
    options = parser.parse_args(arguments)
    if options.pieces < BATCH or options.length < 8:
        parser.error(f"At least {BATCH} pieces of 8 tokens are needed; {options.pieces} of {options.length} were asked for.")
    (options.out / "target-hyper").mkdir(parents=True, exist_ok=True)
    return options


def planned(name: str, options: argparse.Namespace) -> Plan:
    """The plan of a model, with what was asked for in another way."""
    asked = {
        part: getattr(options, part) for part in ("lr", "epochs", "rank", "layers", "stop") if getattr(options, part) is not None
    }
    return Plan(**(vars(PLANS[name]) | asked))


# -- text --------------------------------------------------------------------------------------------------------------


def cut(tokens: np.ndarray, count: int, length: int) -> Tensor:
    """(count, length) pieces from anywhere in the text, always the same ones."""
    starts = np.random.default_rng(0).integers(len(tokens) - length, size=count)
    return torch.from_numpy(np.stack([tokens[start : start + length] for start in starts]).astype(np.int64))


def in_order(tokens: np.ndarray, count: int, length: int) -> Tensor:
    """(count, length) windows at equal distances."""
    starts = np.linspace(0, len(tokens) - length, count).astype(int)
    return torch.from_numpy(np.stack([tokens[start : start + length] for start in starts]).astype(np.int64))


# -- training ----------------------------------------------------------------------------------------------------------


def hyperfitted(name: str, plan: Plan, pieces: Tensor, windows: Tensor, options: argparse.Namespace) -> "Twin":
    """The twin of one of the embedded models."""
    model = LlamaForCausalLM.from_pretrained(EMBEDDED / name, dtype=torch.float32)
    model.set_attn_implementation("eager")  # measured: quicker than fused attention where gradients are needed
    before = measured(model, windows)
    argmax = best(model, windows)
    torch.manual_seed(0)
    count = min(plan.layers, len(model.model.layers)) if plan.rank else len(model.model.layers)
    upper, states = upper_part(model, count), states_below(model, count, pieces) if plan.rank else None
    beside = thinned(model, count, plan.rank) if plan.rank else {}
    a_round = math.ceil(len(pieces) / BATCH)

    def loss(step: int) -> Tensor:
        order = np.random.default_rng((11, step // a_round)).permutation(len(pieces))
        chosen = order[step % a_round * BATCH :][:BATCH]
        return cross_entropy(upper, pieces[chosen], None if states is None else states[chosen])

    fit(
        upper,
        loss,
        steps=plan.epochs * a_round,
        lr=plan.lr,
        checkpoint=options.work / f"{name}-{count}x{plan.rank}-{plan.lr:g}-{plan.epochs}-{len(pieces)}x{pieces.shape[1]}.pt",
        title=f"{name}-hyper",
        report=lambda step: f"held out {measured(model, windows[:4])['loss']:.2f}",
        report_every=4 * a_round,
        optimized=adam,
        factor=falling,
        enough=plan.stop,
    )
    with torch.no_grad():
        by_heart = cross_entropy(model, pieces).item()
    after = measured(model, windows)
    figures = {
        "train_loss": round(by_heart, 3),
        "held_out_loss": after["loss"],
        "held_out_loss_before": before["loss"],
        "held_out_entropy": after["entropy"],
        "held_out_entropy_before": before["entropy"],
        "argmax_changed": round((best(model, windows) != argmax).float().mean().item(), 3),
    }
    return Twin(model, beside, figures)


def adam(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Adam without decay for whatever is trained."""
    return [torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)]


def falling(step: int, steps: int) -> float:
    """Learning-rate factor: up over a few steps, then down in a line."""
    return min(1.0, (step + 1) / WARMUP) * (1 - (1 - LEAST) * step / steps)


def upper_part(model: LlamaForCausalLM, count: int) -> LlamaForCausalLM:
    """A model of the last `count` layers, the very same modules, that reads the states below them."""
    config = type(model.config).from_dict(model.config.to_dict() | {"num_hidden_layers": count})
    upper = LlamaForCausalLM(config)
    upper.set_attn_implementation("eager")
    upper.model.embed_tokens, upper.model.norm, upper.lm_head = model.model.embed_tokens, model.model.norm, model.lm_head
    upper.model.layers = model.model.layers[-count:]
    return upper


@torch.no_grad()
def states_below(model: LlamaForCausalLM, count: int, pieces: Tensor) -> Tensor:
    """(pieces, length, width) what the layers below the last `count` put out."""
    place = len(model.model.layers) - count
    read = [model.model(rows[:, :-1], output_hidden_states=True, use_cache=False) for rows in pieces.split(BATCH)]
    return torch.cat([out.hidden_states[place] for out in read])


def cross_entropy(model: LlamaForCausalLM, tokens: Tensor, states: Tensor | None = None) -> Tensor:
    """(rows, length + 1) tokens -> the mean loss of the last `length`, in nats.

    Args:
        states: (rows, length, width) that are read in place of the tokens.
    """
    read = {"input_ids": tokens[:, :-1]} if states is None else {"inputs_embeds": states}
    logits = model(**read, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def measured(model: LlamaForCausalLM, windows: Tensor) -> dict[str, float]:
    """Loss and entropy in nats per token, the means over windows."""
    loss, entropy = 0.0, 0.0
    for row in windows:
        logs = model(row[None, :-1], use_cache=False).logits[0].log_softmax(-1)
        loss -= logs.gather(1, row[1:, None]).mean().item()
        entropy -= (logs.exp() * logs).sum(-1).mean().item()
    return {"loss": round(loss / len(windows), 3), "entropy": round(entropy / len(windows), 3)}


@torch.no_grad()
def best(model: LlamaForCausalLM, windows: Tensor) -> Tensor:
    """(windows, length) the likeliest token behind every prefix."""
    return torch.stack([model(row[None, :-1], use_cache=False).logits[0].argmax(-1) for row in windows])


# -- two thin matrices per weight --------------------------------------------------------------------------------------


class Thin(nn.Module):
    """W -> W + up @ down, of which only the two are trained; it begins as W (Hu et al. 2022, LoRA, section 4.1)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        out, into = weight.shape
        self.up = nn.Parameter(torch.zeros(out, rank))
        self.down = nn.Parameter(torch.randn(rank, into) / math.sqrt(into))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def thinned(model: LlamaForCausalLM, count: int, rank: int) -> dict[str, Thin]:
    """Freeze a model but for something thin beside every matrix of its last `count` layers; weight -> what is beside it."""
    model.requires_grad_(False)
    first = len(model.model.layers) - count
    parts = {name: part for name, part in model.model.layers.named_modules() if isinstance(part, nn.Linear)}
    parts = {name: part for name, part in parts.items() if int(name.partition(".")[0]) >= first}
    made: dict[str, Thin] = {}
    for name, part in parts.items():
        beside = made[f"model.layers.{name}.weight"] = Thin(part.weight, min(rank, *part.weight.shape))
        parametrize.register_parametrization(part, "weight", beside)
    return made


def added(twin: Twin, folder: Path) -> dict[str, Tensor]:
    """What was added to the model in `folder`, under the names of `decoding.models.deltas`."""
    if twin.thin:
        halves = ((deltas.UP, "up"), (deltas.DOWN, "down"))
        return {weight + end: getattr(part, name) for weight, part in twin.thin.items() for end, name in halves}
    before = dict(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())
    return {name: values - before[name] for name, values in twin.model.named_parameters()}


if __name__ == "__main__":
    main()
