"""Train the second, smaller target of the embedded family: some layers of the first one, taught by it.

    python -m decoding.training.small_target --corpus DIR

Its purpose is that one sorted draft model (`decoding.training.recipes.s2d`) can be seen at work for targets of two sizes. It begins
as the first, the middle and the last layer of the embedded target, with its embeddings and norm (as DistilBERT begins, Sanh et al.
2019, section 3), and follows that target's distribution on the training text: KL(p || q), which is what it needs to become the
larger model's like in few tokens. Resumable: run the same command again.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from decoding.training.corpus import read
from decoding.training.distil import FEW, LESSON, divergence, kept_log_q, mixed, taught
from decoding.training.family import DRAFT_SHARES, EMBEDDED, Text, bits_per_byte, compiled, export, written
from decoding.training.fit import fit
from decoding.training.precision import quick


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "target")
    text = Text(read(options.corpus), tokenizer, options.work)
    large = AutoModelForCausalLM.from_pretrained(EMBEDDED / "target", dtype=torch.float32).to(options.device)
    lessons = taught(large, text.streams, options.work / "lessons", LESSON, options.lesson_tokens)
    small = pruned(large, options.layers)
    if options.device == "cpu":
        small.set_attn_implementation("eager")  # measured: quicker than fused attention where gradients are needed
    steps = math.ceil(options.tokens / FEW)

    def loss(tokens: Tensor, ids: Tensor, p: Tensor) -> Tensor:
        with quick(tokens.device):
            logits = small(tokens, use_cache=False).logits
        return divergence(kept_log_q(logits, ids), p)

    fast = compiled(loss, options)

    def at_step(step: int) -> Tensor:
        return fast(*(column.to(options.device) for column in mixed(lessons, (7, step), FEW, DRAFT_SHARES, LESSON)))

    fit(
        small,
        at_step,
        steps=steps,
        lr=options.lr,
        checkpoint=options.work / "target-small.pt",
        title="small target",
        report=lambda step: written(bits_per_byte(small, text, rows=12)),
        report_every=200,
    )
    small.config.tokens_seen = steps * FEW
    export(small, tokenizer, options.out)
    print("bits per byte:", written(bits_per_byte(small, text, rows=32)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the training text")
    parser.add_argument("--work", type=Path, default=Path(".training/small"), help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED / "target-small", help="folder for the finished model")
    parser.add_argument("--layers", type=int, default=3, help="layers to keep of the target's")
    parser.add_argument("--tokens", type=float, default=2e6, help="tokens the model sees")
    parser.add_argument("--lesson-tokens", type=float, default=0.3e6, help="tokens of a domain that the target comments on")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="use torch.compile")
    return parser.parse_args()


def pruned(large: LlamaForCausalLM, count: int) -> LlamaForCausalLM:
    """A model of `count` layers of `large`, from the first to the last at equal distances, with copies of its weights."""
    chosen = [round(i * (len(large.model.layers) - 1) / max(count - 1, 1)) for i in range(count)]
    config = type(large.config).from_dict(large.config.to_dict() | {"num_hidden_layers": count})
    small = LlamaForCausalLM(config).to(large.device)
    small.model.embed_tokens.load_state_dict(large.model.embed_tokens.state_dict())
    small.model.norm.load_state_dict(large.model.norm.state_dict())
    small.model.layers.load_state_dict(nn.ModuleList(large.model.layers[i] for i in chosen).state_dict())
    for number, layer in enumerate(small.model.layers):
        layer.self_attn.layer_idx = number
    return small


if __name__ == "__main__":
    main()
