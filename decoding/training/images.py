"""Train an image family: a target whose tokens are pixels, and a small draft model distilled from it.

    python -m decoding.training.images digits
    python -m decoding.training.images shapes

A picture is a text: the words of the prompt, then its pixels row by row (`decoding.trace.Raster`). The target learns by next-token
cross-entropy on the pixels, over all ids, so that hardly any probability is left for words (measured: `not a pixel`). The draft
model follows the target's distribution: KL(p || q) on pictures of the same set. Resumable: run the same command again. The finished
family, two plain Hugging Face folders with a raster.json and a model card, goes to the folder that is named after it.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from decoding.models.rasters import RASTER
from decoding.training import digits, shapes
from decoding.training.family import export
from decoding.training.fit import adamw, fit
from decoding.training.pictures import Pictures

FOLDER = Path(__file__).parent.parent
ROWS = 64  # pictures read at once where nothing is learned
DRAWN = 400  # pictures that the target draws to be measured
EMBEDDED = 0.2  # standard deviation of embeddings that begin at random
MARKED, LOOKING = 2.0, 6.0  # how far a place of words is marked, and how strongly the head that looks there begins to
SET = {pictures.name: pictures for pictures in (digits.PICTURES, shapes.PICTURES)}


@dataclass(frozen=True)
class Plan:
    """Sizes and length of a training."""

    build: Callable[..., PreTrainedModel]  # (pictures, sizes) -> a model with random weights
    target: dict[str, int]
    draft: dict[str, int]
    rows: int  # pictures of a step
    tokens: float  # pixels that the target sees
    draft_tokens: float
    lr: float = 1.5e-3
    draft_lr: float = 3e-3
    more_tokens: float = 0.0  # of a second round of the target, whose rate begins anew
    more_lr: float = 2e-3


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    pictures, plan = SET[options.set], PLANS[options.set]
    started = time.monotonic()
    target, draft = (plan.build(pictures, **sizes).to(options.device) for sizes in (plan.target, plan.draft))
    tokens, draft_tokens = options.tokens or plan.tokens, options.draft_tokens or plan.draft_tokens
    train(target, pictures, plan, tokens, plan.lr, options, "target")
    train(target, pictures, plan, plan.more_tokens, plan.more_lr, options, "target again")
    train(draft, pictures, plan, draft_tokens, plan.draft_lr, options, "draft", teacher=target)
    out = options.out or FOLDER / pictures.name
    for name, model in (("target", target), ("draft", draft)):
        export(model.cpu(), tokenizer(pictures), out / name)
        (out / name / RASTER).write_bytes(msgspec.json.format(msgspec.json.encode(pictures.raster)) + b"\n")
    found = figures(target.eval(), draft.eval(), pictures)
    print(*(f"{name}: {value:.4g}" for name, value in found.items()), sep="\n")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes of this command; {out}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SET)
    parser.add_argument("--tokens", type=float, help="pixels the target sees")
    parser.add_argument("--draft-tokens", type=float, help="pixels the draft model sees")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for checkpoints")
    parser.add_argument("--out", type=Path, help="folder for the finished family")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


# -- models ------------------------------------------------------------------------------------------------------------


def llama(pictures: Pictures, *, layers: int, hidden: int, heads: int, inner: int) -> LlamaForCausalLM:
    """Random weights; the context holds one prompt and one picture, and nothing can be asked for beyond it."""
    config = LlamaConfig(
        vocab_size=len(pictures.vocabulary),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=len(pictures.raster.asks) + pictures.raster.pixels,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def placed(pictures: Pictures, *, layers: int, hidden: int, heads: int, inner: int) -> GPT2LMHeadModel:
    """A GPT-2, whose places are learned vectors: rotary positions tell how far apart two pixels are, so that a small model counts
    for long before it knows in which row and column it draws.

    What it begins with is what it would need long to find: the vector of a pixel's place is the sum of one of its row and one of
    its column, and one head of the first layer looks at the words, few among many tokens. All else is random, at the scale of a
    small width.
    """
    raster, words = pictures.raster, len(pictures.raster.asks)
    config = GPT2Config(
        vocab_size=len(pictures.vocabulary),
        n_positions=words + raster.pixels,
        n_embd=hidden,
        n_layer=layers,
        n_head=heads,
        n_inner=inner,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="relu",  # the quickest on a processor
        initializer_range=0.8 / hidden**0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    row, column = (torch.randn(many, hidden) * EMBEDDED for many in (raster.height, raster.width))
    with torch.no_grad():
        model.transformer.wte.weight.normal_(0, EMBEDDED)
        model.transformer.wpe.weight.normal_(0, EMBEDDED)
        # the token at a place predicts the one behind it: the last word has the place of the first pixel
        model.transformer.wpe.weight[words - 1 : -1] = (row[:, None] + column).flatten(0, 1)
        look_at(model, words)
    return model


def look_at(model: GPT2LMHeadModel, words: int) -> None:
    """Let the first head of the first layer look at the first `words` places, whoever asks; to be called without gradients."""
    width = model.config.n_embd
    mark = F.normalize(torch.randn(width), dim=0)
    model.transformer.wpe.weight[:words] += MARKED * mark
    attention = model.transformer.h[0].attn.c_attn  # (width, queries, keys and values side by side)
    head = width // model.config.n_head
    attention.weight[:, :head] = 0
    attention.weight[:, width : width + head] = 0
    attention.weight[:, width] = mark
    attention.bias[0] = LOOKING


def tokenizer(pictures: Pictures) -> PreTrainedTokenizerFast:
    """Words between spaces. One that is none of the vocabulary's becomes the last one: the library wants it so, and prompts are
    checked before (`decoding.models.rasters`)."""
    known = {word: token for token, word in enumerate(pictures.vocabulary)}
    words = Tokenizer(models.WordLevel(known, unk_token=pictures.vocabulary[-1]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    most = len(pictures.raster.asks) + pictures.raster.pixels
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=most, clean_up_tokenization_spaces=False)


def train(
    model: PreTrainedModel,
    pictures: Pictures,
    plan: Plan,
    tokens: float,
    lr: float,
    options: argparse.Namespace,
    name: str,
    teacher: PreTrainedModel | None = None,
) -> None:
    """Next-pixel cross-entropy or, with a teacher, KL(p || q) to its distribution."""
    steps = math.ceil(tokens / pictures.raster.pixels / plan.rows)
    if not steps:
        return
    checkpoint = options.work / f"{pictures.name}-{name.replace(' ', '-')}-{model.num_parameters()}-{steps}.pt"

    def loss(step: int) -> Tensor:
        text = joined(*pictures.learned(np.random.default_rng((len(name), step)), plan.rows)).to(model.device)
        logits = said(model, pictures, text)
        if teacher is None:
            return F.cross_entropy(logits.flatten(0, 1), text[:, -logits.shape[1] :].flatten())
        with torch.no_grad():
            log_p = said(teacher, pictures, text).log_softmax(-1)
        return F.kl_div(logits.log_softmax(-1).flatten(0, 1), log_p.flatten(0, 1), log_target=True, reduction="batchmean")

    fit(
        model,
        loss,
        steps=steps,
        lr=lr,
        checkpoint=checkpoint,
        title=f"{pictures.name} {name}",
        report=lambda step: f"{nats(model, pictures, most=2 * ROWS):.4f} nats a pixel held out",
        report_every=max(100, steps // 20),
        optimized=adamw,
    )


def joined(prompts: np.ndarray, images: np.ndarray) -> Tensor:
    """(n, words + pixels) tokens."""
    return torch.from_numpy(np.concatenate([prompts, images], axis=1).astype(np.int64))


def said(model: PreTrainedModel, pictures: Pictures, text: Tensor) -> Tensor:
    """(n, words + pixels) tokens -> (n, pixels, vocab) logits of every pixel."""
    return model(text[:, :-1], use_cache=False).logits[:, -pictures.raster.pixels :].float()


PLANS = {
    "digits": Plan(
        llama,
        {"layers": 4, "hidden": 96, "heads": 4, "inner": 256},
        {"layers": 1, "hidden": 48, "heads": 2, "inner": 128},
        rows=64,
        tokens=1.6e6,
        draft_tokens=2e6,
    ),
    "shapes": Plan(
        placed,
        {"layers": 3, "hidden": 96, "heads": 3, "inner": 384},
        {"layers": 1, "hidden": 48, "heads": 2, "inner": 192},
        rows=16,
        tokens=3.7e6,
        draft_tokens=1.6e6,
        lr=3e-3,
        more_tokens=5.5e6,
    ),
}

# -- figures -----------------------------------------------------------------------------------------------------------


def batches(pictures: Pictures, most: int | None = None) -> Iterator[Tensor]:
    """Pictures that nothing was learned from, the first `most` of them."""
    text = joined(*pictures.held_out())[:most]
    yield from text.split(ROWS)


@torch.no_grad()
def nats(model: PreTrainedModel, pictures: Pictures, most: int | None = None) -> float:
    """Cross-entropy on held-out pictures, nats a pixel."""
    total, count = 0.0, 0
    for text in batches(pictures, most):
        text = text.to(model.device)
        logits = said(model, pictures, text)
        total += F.cross_entropy(logits.flatten(0, 1), text[:, -logits.shape[1] :].flatten(), reduction="sum").item()
        count += logits.shape[0] * logits.shape[1]
    return total / count


@torch.no_grad()
def drawn(model: PreTrainedModel, pictures: Pictures, prompts: np.ndarray, seed: int = 0, temperature: float = 1.0) -> np.ndarray:
    """(n, words) prompts -> (n, pixels) tokens, drawn one by one and, as in the app, among pixels alone; many pictures at once."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for part in torch.from_numpy(prompts).split(ROWS):
        text, cache, new = part, None, part
        for _ in range(pictures.raster.pixels):
            output = model(new, past_key_values=cache, use_cache=True)
            cache, logits = output.past_key_values, output.logits[:, -1, : len(pictures.raster.palette)].float()
            new = torch.multinomial((logits / temperature).softmax(-1), 1, generator=rng)
            text = torch.cat((text, new), 1)
        found.append(text[:, part.shape[1] :].numpy())
    return np.concatenate(found)


@torch.no_grad()
def figures(target: PreTrainedModel, draft: PreTrainedModel, pictures: Pictures) -> dict[str, float]:
    """Everything measured that the card states."""
    overlaps, words, count = 0.0, 0.0, 0
    for text in batches(pictures):
        p, q = (said(model, pictures, text).softmax(-1) for model in (target, draft))
        overlaps += torch.minimum(p, q).sum().item()
        words += p[..., len(pictures.raster.palette) :].sum().item()
        count += p.shape[0] * p.shape[1]
    prompts, images = pictures.held_out()
    prompts, images = prompts[:DRAWN], images[:DRAWN]
    return {
        "target parameters": target.num_parameters(),
        "draft parameters": draft.num_parameters(),
        "target, nats a pixel held out": nats(target, pictures),
        "draft, nats a pixel held out": nats(draft, pictures),
        "overlap": overlaps / count,
        "not a pixel": words / count,
        "held-out pictures that are what the prompt says": pictures.right(prompts, images),
        "drawn pictures that are what the prompt says": pictures.right(prompts, drawn(target, pictures, prompts)),
        "drawn at temperature 0.5": pictures.right(prompts, drawn(target, pictures, prompts, temperature=0.5)),
    }


if __name__ == "__main__":
    main()
