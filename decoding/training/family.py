"""Train the embedded family: tokenizer, target, and a draft model distilled from the target.

    python -m decoding.training.family --corpus DIR

Resumable at any point: run the same command again. Checkpoints stay in the work folder; the finished family, three
plain Hugging Face folders and a model card, goes to `decoding/embedded`.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from decoding.training.card import write_card
from decoding.training.corpus import Domain, read
from decoding.training.distil import disagreement, divergence, kept_log_q, mixed, taught
from decoding.training.fit import fit
from decoding.training.precision import quick

END = "<|endoftext|>"
VOCAB = 4096
CONTEXT = 1024
BATCH = 8192  # tokens
SHORT = 256  # window of the first steps; attention is cheap there
LONG_FROM = 0.8  # of the steps: from here on windows of the whole context
DRAFT_SHARES = (0.5, 0.2, 0.3)  # stories are the hardest to follow

EMBEDDED = Path(__file__).parent.parent / "embedded"


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    domains = read(options.corpus)
    tokenizer = load_tokenizer(options.work / "tokenizer", domains)
    text = Text(domains, tokenizer, options.work)

    target = begin("target", options, layers=12, hidden=256, heads=4, inner=688)
    train_target(target, text, options)
    draft = begin("draft", options, layers=2, hidden=128, heads=2, inner=344)
    train_draft(draft, target, text, options)

    for name, model, tokens in (("target", target, options.tokens), ("draft", draft, options.draft_tokens)):
        model.config.tokens_seen = getattr(model.config, "tokens_seen", 0) + math.ceil(tokens / BATCH) * BATCH
        export(model, tokenizer, options.out / name)
    write_card(options.out / "README.md", figures(target, draft, text, options))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the training text")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED, help="folder for the finished family")
    parser.add_argument("--tokens", type=float, default=40e6, help="tokens the target sees")
    parser.add_argument("--draft-tokens", type=float, default=16e6, help="tokens the draft model sees")
    parser.add_argument("--lesson-tokens", type=float, default=4e6, help="tokens of a domain that the target comments on")
    parser.add_argument("--draft-lr", type=float, default=4e-3, help="learning rate of the draft model")
    parser.add_argument("--kl-share", type=float, default=0.5, help="of the draft model's steps that follow KL")
    parser.add_argument("--go-on", action="store_true", help="start from the finished family in --out; --tokens count on top")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="use torch.compile")
    return parser.parse_args()


# -- tokenizer ---------------------------------------------------------------------------------------------------------


def load_tokenizer(folder: Path, domains: Iterable[Domain], vocab: int = VOCAB) -> PreTrainedTokenizerFast:
    """The trained tokenizer in `folder`; trains it first if it is not there, with so many entries."""
    if not (folder / "tokenizer.json").exists():
        train_tokenizer([text for domain in domains for text in domain.train], vocab).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def train_tokenizer(texts: Iterable[str], vocab: int = VOCAB) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits stay single, so that numbers look alike wherever they stand."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, bpe.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=END,
        eos_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


# -- text --------------------------------------------------------------------------------------------------------------


class Text:
    """Token streams of every domain, and windows cut from them."""

    def __init__(self, domains: Iterable[Domain], tokenizer: PreTrainedTokenizerFast, work: Path) -> None:
        self.domains = tuple(domains)
        self.train = [stream(d.train, tokenizer, work / f"{d.name}.npy") for d in self.domains]
        self.held_out = [stream(d.held_out, tokenizer, work / f"{d.name}-held-out.npy") for d in self.domains]
        self.bytes = [sum(len(t.encode()) for t in d.held_out) for d in self.domains]

    @property
    def streams(self) -> dict[str, np.ndarray]:
        """Domain -> its training tokens."""
        return {domain.name: tokens for domain, tokens in zip(self.domains, self.train, strict=True)}

    def batch(self, seed: tuple[int, ...], length: int, tokens: int = BATCH) -> Tensor:
        """(tokens // length, length + 1) tokens, the domains mixed by their shares."""
        rng = np.random.default_rng(seed)
        rows = tokens // length
        which = rng.choice(len(self.train), size=rows, p=[d.share for d in self.domains])
        starts = [rng.integers(len(self.train[w]) - length - 1) for w in which]
        windows = [self.train[w][s : s + length + 1] for w, s in zip(which, starts, strict=True)]
        return torch.from_numpy(np.stack(windows).astype(np.int64))


def stream(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, cache: Path) -> np.ndarray:
    """Every text behind one end-of-text token, as one array of token ids; kept in `cache`."""
    if not cache.exists():
        ids = [i for text in texts for i in tokenizer(text)["input_ids"]]
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, np.array(ids, dtype=np.uint16 if len(tokenizer) <= 2**16 else np.uint32))
    return np.load(cache)


# -- models ------------------------------------------------------------------------------------------------------------


def llama(*, layers: int, hidden: int, heads: int, inner: int, vocab: int = VOCAB) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config)


def begin(name: str, options: argparse.Namespace, **sizes: int) -> LlamaForCausalLM:
    """Random weights, or with --go-on those of the finished family; its config says how many tokens they have seen."""
    if options.go_on:
        return LlamaForCausalLM.from_pretrained(options.out / name, dtype=torch.float32).to(options.device)
    return llama(**sizes).to(options.device)


def read_logits(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """(rows, length) tokens -> (rows, length, vocab) logits, in bfloat16 where the device is quick at it."""
    with quick(tokens.device):
        return model(tokens, use_cache=False).logits


def window(step: int, steps: int) -> int:
    return SHORT if step < LONG_FROM * steps else CONTEXT


def train_target(target: LlamaForCausalLM, text: Text, options: argparse.Namespace) -> None:
    """Next-token cross-entropy on the mixture."""

    def cross_entropy(tokens: Tensor) -> Tensor:
        logits = read_logits(target, tokens[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    run_fit(
        target,
        cross_entropy,
        text,
        options,
        name="target",
        tokens=options.tokens,
        lr=3e-3,
        report=lambda step: written(bits_per_byte(target, text, rows=24)),
    )


def train_draft(draft: LlamaForCausalLM, target: LlamaForCausalLM, text: Text, options: argparse.Namespace) -> None:
    """Distillation: first KL(p || q) against the target's distribution, then the chance of a rejection itself.

    The second loss departs from plain distillation. A model of this size cannot follow the target everywhere; KL makes it
    spread its probability over all that the target might say, and what counts here is how often it says the same.
    """
    steps = math.ceil(options.draft_tokens / BATCH)
    lessons = taught(target, text.streams, options.work / "lessons", CONTEXT, options.lesson_tokens)

    def batch(step: int) -> list[Tensor]:
        return [column.to(options.device) for column in mixed(lessons, (5, step), BATCH, DRAFT_SHARES, CONTEXT)]

    def loss(step: int, tokens: Tensor, ids: Tensor, p: Tensor) -> Tensor:
        compare = divergence if step < options.kl_share * steps else disagreement
        return compare(kept_log_q(draft(tokens, use_cache=False).logits, ids), p)

    by_divergence, by_disagreement = (compiled(partial(loss, step), options) for step in (0, steps))
    fit(
        draft,
        lambda step: (by_divergence if step < options.kl_share * steps else by_disagreement)(*batch(step)),
        steps=steps,
        lr=options.draft_lr,
        checkpoint=options.work / "draft.pt",
        title="draft",
        report=lambda step: written(overlap(target, draft, text, rows=24)),
    )


def compiled(loss: Callable[..., Tensor], options: argparse.Namespace) -> Callable[..., Tensor]:
    return torch.compile(loss, dynamic=False) if options.compile else loss


def run_fit(
    model: LlamaForCausalLM,
    loss: Callable[[Tensor], Tensor],
    text: Text,
    options: argparse.Namespace,
    *,
    name: str,
    tokens: float,
    lr: float,
    report: Callable[[int], str],
) -> None:
    steps = math.ceil(tokens / BATCH)
    fast = compiled(loss, options)

    def at_step(step: int) -> Tensor:
        length = window(step, steps)
        # Measured on a CPU: explicit attention is quicker at 256 tokens, fused attention at 1,024.
        model.set_attn_implementation("eager" if options.device == "cpu" and length == SHORT else "sdpa")
        return fast(text.batch((len(name), step), length).to(options.device))

    fit(
        model,
        at_step,
        steps=steps,
        lr=lr,
        checkpoint=options.work / f"{name}.pt",
        title=name,
        report=report,
    )


# -- figures -----------------------------------------------------------------------------------------------------------


def held_out_windows(text: Text, rows: int | None) -> Iterable[tuple[str, float, Tensor]]:
    """(domain, bytes per token, (1, CONTEXT + 1) tokens) for the first `rows` windows of every domain, or all of them."""
    for domain, tokens, size in zip(text.domains, text.held_out, text.bytes, strict=True):
        starts = range(0, len(tokens) - CONTEXT - 1, CONTEXT)
        for start in starts if rows is None else starts[:rows]:
            ids = tokens[start : start + CONTEXT + 1].astype(np.int64)
            yield domain.name, size / len(tokens), torch.from_numpy(ids)[None]


def mean_by_domain(text: Text, rows: int | None, value: Callable[[Tensor, float], float]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for name, bytes_per_token, tokens in held_out_windows(text, rows):
            found.setdefault(name, []).append(value(tokens, bytes_per_token))
    return {name: sum(values) / len(values) for name, values in found.items()}


def bits_per_byte(model: LlamaForCausalLM, text: Text, rows: int | None = None) -> dict[str, float]:
    """Cross-entropy on held-out text, in bits per byte, by domain; windows of the whole context without overlap."""

    def bits(tokens: Tensor, bytes_per_token: float) -> float:
        tokens = tokens.to(model.device)
        logits = read_logits(model, tokens[:, :-1]).float()
        nats = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        return nats.item() / math.log(2) / bytes_per_token

    return mean_by_domain(text, rows, bits)


def overlap(target: LlamaForCausalLM, draft: LlamaForCausalLM, text: Text, rows: int | None = None) -> dict[str, float]:
    """sum_v min(p, q) at temperature 1 on held-out text: the chance that one drafted token is accepted."""

    def shared(tokens: Tensor, _: float) -> float:
        ids = tokens[:, :-1].to(target.device)
        p, q = (read_logits(model, ids).float().softmax(-1) for model in (target, draft))
        return torch.minimum(p, q).sum(-1).mean().item()

    return mean_by_domain(text, rows, shared)


def written(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


def figures(target: LlamaForCausalLM, draft: LlamaForCausalLM, text: Text, options: argparse.Namespace) -> dict[str, object]:
    """Everything measured that the model card states."""
    return {
        "target_parameters": target.num_parameters(),
        "draft_parameters": draft.num_parameters(),
        "target_tokens": target.config.tokens_seen,
        "draft_tokens": draft.config.tokens_seen,
        "distinct_tokens": sum(len(t) for t in text.train),
        "target_bits": bits_per_byte(target, text),
        "draft_bits": bits_per_byte(draft, text),
        "overlap": overlap(target, draft, text),
        "options": f"--tokens {options.tokens:.3g} --draft-tokens {options.draft_tokens:.3g}"
        f" --draft-lr {options.draft_lr:g} --kl-share {options.kl_share:g} --lesson-tokens {options.lesson_tokens:.3g}"
        + " --go-on"
        * options.go_on,
        "date": time.strftime("%Y-%m-%d"),
    }


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A plain Hugging Face folder, weights in float16 (safetensors)."""
    half = type(model)(model.config).to(torch.float16)
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
