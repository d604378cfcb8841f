"""Train a sorted draft model for a family: one stack of layers whose prefixes all draft (method `s2d`).

    python -m decoding.training s2d --family PATH --corpus DIR [--out FOLDER]

Sorted fine-tuning (SoFT; Kavehzadeh et al. 2024, arXiv 2407.01955, and Valipour et al. 2023, arXiv 2309.08968): in one forward pass
every exit answers through the same norm and head, and the mean of their losses trains all weights. With `--loss text` that is the
papers' loss, cross-entropy with the next token. The default `--loss target` departs from them: every exit follows the distribution
of the family's target on the text, first by KL(p || q), then by the chance of a rejection, as the plain draft model of the embedded
family does, because a model of this size learns far more from a distribution than from a token. It begins from the family's draft
model where that is a Llama of the same width: its layers, and behind them layers that change nothing yet.
Resumable: run the same command again. The finished folder is a draft model for the family's target:
`load(target, FOLDER)` or the Model menu's "Draft model" opens it, and the method finds its exits in the config.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from decoding.models.family import Family, load
from decoding.models.sorted_draft import check_exits, exit_logits, exits_of
from decoding.retrieval.datastore import checksum
from decoding.training.corpus import read
from decoding.training.distil import FEW, LESSON, disagreement, divergence, kept_log_q, mixed, taught
from decoding.training.family import CONTEXT, DRAFT_SHARES, Text, compiled, export, mean_by_domain
from decoding.training.fit import fit
from decoding.training.precision import quick


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    family = load(options.family, device=options.device)
    work = options.work or Path(".training") / f"sorted-{checksum(family.tokenizer)[:8]}"
    text = Text(read(options.corpus), family.tokenizer, work)
    model = init_head(family, options)
    steps = math.ceil(options.tokens / FEW)
    fit(
        model,
        losses(model, family, text, work, options, steps),
        steps=steps,
        lr=options.lr,
        checkpoint=work / "sorted.pt",
        title="sorted draft model",
        report=lambda step: report(model, family, text, rows=4),
    )
    model.config.tokens_seen = getattr(model.config, "tokens_seen", 0) + steps * FEW
    export(model, family.tokenizer, options.out)
    print(report(model, family, text, rows=32))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", default="embedded", help="'embedded', a model folder or a Hub id: the target")
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the training text")
    parser.add_argument("--work", type=Path, help="folder for checkpoints, one per family")
    parser.add_argument("--out", type=Path, default=Path("sorted-draft"), help="folder for the finished model")
    parser.add_argument("--exits", type=int, nargs="+", default=[1, 2, 4], help="layers after which it may answer")
    parser.add_argument("--hidden", type=int, default=128, help="width, a multiple of 64")
    parser.add_argument("--tokens", type=float, default=2e6, help="tokens the model sees")
    parser.add_argument("--lesson-tokens", type=float, default=0.3e6, help="tokens of a domain that the target comments on")
    parser.add_argument("--loss", choices=("target", "text"), default="target", help="what every exit follows")
    parser.add_argument("--kl-share", type=float, default=0.6, help="of the steps that follow KL; the others lower rejections")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="use torch.compile")
    return parser.parse_args(arguments)


# -- the model ---------------------------------------------------------------------------------------------------------


def init_head(family: Family, options: argparse.Namespace) -> LlamaForCausalLM:
    """A sorted model for the family's tokenizer, begun from its draft model if that fits."""
    model = sorted_llama(family.tokenizer, options.exits, options.hidden, min(CONTEXT, family.target.context))
    if family.draft is not None:
        grown_from(family.draft.model, model)
    return model.to(family.target.device)


def sorted_llama(tokenizer: PreTrainedTokenizerBase, exits: list[int], hidden: int, context: int) -> LlamaForCausalLM:
    """A Llama with tied embeddings, random weights and `exits` in its config.

    Raises:
        ValueError: exits that cannot be, or a width that is no multiple of the width of a head.
    """
    if hidden < 64 or hidden % 64:
        raise ValueError(f"The width must be a multiple of 64, the width of an attention head; it is {hidden}.")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=8 * round(hidden * 8 / 3 / 8),
        num_hidden_layers=max(exits),
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        exits=list(exits),
    )
    check_exits(config, "the model to be trained")
    return LlamaForCausalLM(config)


def grown_from(draft: torch.nn.Module, model: LlamaForCausalLM) -> None:
    """Take over the draft model's weights where every one of its shapes fits; the layers behind them change nothing at first.

    A layer whose two output matrices are zero hands its input on (LLaMA Pro, Wu et al. 2024, section 3.2), so that the deepest exit
    starts as good as the draft model.
    """
    own, given = model.state_dict(), draft.state_dict()
    if draft.config.model_type != "llama" or any(name not in own or own[name].shape != w.shape for name, w in given.items()):
        return
    model.load_state_dict(given, strict=False)
    for layer in model.model.layers[len(draft.model.layers) :]:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.config.tokens_seen = getattr(draft.config, "tokens_seen", 0)


# -- the loss ----------------------------------------------------------------------------------------------------------


def soft(model: LlamaForCausalLM, tokens: Tensor, judge: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of `judge`, a loss on (batch, length, vocab) logits, over all exits, from one pass."""
    with quick(tokens.device):
        found = exit_logits(model, tokens)
    return torch.stack([judge(logits) for logits in found]).mean()


def next_token(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """The papers' loss on (batch, length + 1) tokens."""
    wanted = tokens[:, 1:].flatten()
    return soft(model, tokens[:, :-1], lambda logits: F.cross_entropy(logits.float().flatten(0, 1), wanted))


def followed(
    model: LlamaForCausalLM, compare: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, ids: Tensor, p: Tensor
) -> Tensor:
    """The same against the target's distribution, as `Lessons.rows` gives it, by `divergence` or `disagreement`."""
    return soft(model, tokens, lambda logits: compare(kept_log_q(logits, ids), p))


def losses(
    model: LlamaForCausalLM, family: Family, text: Text, work: Path, options: argparse.Namespace, steps: int
) -> Callable[[int], Tensor]:
    """Step -> loss."""
    length = min(LESSON, model.config.max_position_embeddings)
    if options.loss == "text":
        fast = compiled(partial(next_token, model), options)
        return lambda step: fast(text.batch((11, step), length, FEW).to(options.device))
    lessons = taught(family.target.model, text.streams, work / "lessons", length, options.lesson_tokens)
    by_divergence, by_disagreement = (compiled(partial(followed, model, f), options) for f in (divergence, disagreement))

    def at_step(step: int) -> Tensor:
        batch = mixed(lessons, (11, step), FEW, DRAFT_SHARES, length)
        follow = by_divergence if step < options.kl_share * steps else by_disagreement
        return follow(*(column.to(options.device) for column in batch))

    return at_step


# -- figures -----------------------------------------------------------------------------------------------------------


def exit_bits(model: LlamaForCausalLM, text: Text, rows: int | None = None) -> dict[str, Tensor]:
    """Cross-entropy of every exit on held-out text, in bits per byte: domain -> (exits,)."""

    def bits(tokens: Tensor, bytes_per_token: float) -> Tensor:
        tokens = tokens.to(model.device)
        nats = [F.cross_entropy(logits[0].float(), tokens[0, 1:]) for logits in exit_logits(model, tokens[:, :-1])]
        return torch.stack(nats).cpu() / math.log(2) / bytes_per_token

    return mean_by_domain(text, rows, bits)


def exit_overlaps(target: torch.nn.Module, model: LlamaForCausalLM, text: Text, rows: int | None = None) -> dict[str, Tensor]:
    """sum_v min(p, q) at temperature 1 on held-out text for every exit, which is the chance that its token is accepted:
    domain -> (exits,)."""

    def shared(tokens: Tensor, _: float) -> Tensor:
        ids = tokens[:, :-1].to(model.device)
        p = target(ids, use_cache=False).logits[..., : model.config.vocab_size].float().softmax(-1)
        found = [torch.minimum(p, logits.float().softmax(-1)).sum(-1).mean() for logits in exit_logits(model, ids)]
        return torch.stack(found).cpu()

    return mean_by_domain(text, rows, shared)


def report(model: LlamaForCausalLM, family: Family, text: Text, rows: int) -> str:
    bits, overlaps = exit_bits(model, text, rows), exit_overlaps(family.target.model, model, text, rows)
    lines = [f"  {domain}: bits per byte {listed(bits[domain])}; overlap {listed(overlaps[domain])}" for domain in bits]
    return "\n".join([f"exits {exits_of(model.config)}", *lines])


def listed(values: Tensor) -> str:
    return "  ".join(f"{value:.3f}" for value in values.tolist())


if __name__ == "__main__":
    main()
