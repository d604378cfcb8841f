"""Train the small drafter of `byte_drafting`: a language model with a byte-level BPE of its own, of few entries.

    python -m decoding.training byte_drafting --corpus DIR

It knows no target: it drafts for whatever writes bytes. Its tokenizer is trained on the corpus, with few entries, so that its
embeddings take little and its tokens are short. The model begins as the embedded draft model, whose layers know the corpus; a
token that both have begins with the embedding it has there, another one with the mean. Then it learns the next token of the
corpus and, as one more domain, of the text that the embedded target wrote for the datastore (`decoding.training.outputs`):
distillation by sequences (Kim and Rush 2016, https://arxiv.org/abs/1606.07947, section 3.2). The target's own distributions would
teach more, but they are over other tokens, and their byte views cost a pass per byte. Resumable: run the same command again.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from decoding.retrieval.python_source import HOLD_OUT_EVERY
from decoding.training.corpus import Domain, read
from decoding.training.family import EMBEDDED, Text, bits_per_byte, export, llama, load_tokenizer, read_logits, window, written
from decoding.training.fit import adamw, fit

VOCAB = 1024
FEW = 2048  # tokens of a batch
SHARES = (0.3, 0.2, 0.3, 0.2)  # stories, mathematics, Python, what the target wrote


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    domains = mixture(options.corpus)
    tokenizer = load_tokenizer(options.work / "tokenizer", domains[:3], options.vocab)
    text = Text(domains, tokenizer, options.work)
    model = begun(tokenizer).to(options.device)
    steps = math.ceil(options.tokens / FEW)

    def loss(step: int) -> Tensor:
        tokens = text.batch((17, step), window(step, steps), FEW).to(options.device)
        logits = read_logits(model, tokens[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    fit(
        model,
        loss,
        steps=steps,
        lr=options.lr,
        checkpoint=options.work / f"drafter-{steps}.pt",
        title="drafter",
        report=lambda step: "bits per byte: " + written(bits_per_byte(model, text, rows=4)),
        report_every=200,
        optimized=adamw,
    )
    model.config.tokens_seen = steps * FEW
    export(model, tokenizer, options.out)
    print(f"{model.num_parameters():,} parameters, {steps * FEW:,} tokens seen of {sum(map(len, text.train)):,} distinct ones")
    print("bits per byte:", written(bits_per_byte(model, text, rows=32)))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with the training text")
    parser.add_argument("--work", type=Path, default=Path(".training/bytes"), help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=EMBEDDED / "bytes", help="folder for the finished model")
    parser.add_argument("--vocab", type=int, default=VOCAB, help="entries of its tokenizer")
    parser.add_argument("--tokens", type=float, default=1e6, help="tokens the model sees")
    parser.add_argument("--lr", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(arguments)


@torch.no_grad()
def begun(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """The embedded draft model with other tokens."""
    given = LlamaForCausalLM.from_pretrained(EMBEDDED / "draft", dtype=torch.float32)
    known = AutoTokenizer.from_pretrained(EMBEDDED / "draft").get_vocab()
    old = given.model.embed_tokens.weight
    config = given.config
    model = llama(
        layers=config.num_hidden_layers, hidden=config.hidden_size, heads=config.num_attention_heads,
        inner=config.intermediate_size, vocab=len(tokenizer),
    )  # fmt: skip
    model.load_state_dict({name: w for name, w in given.state_dict().items() if w.shape != old.shape}, strict=False)
    for piece, token in tokenizer.get_vocab().items():
        model.model.embed_tokens.weight[token] = old[known[piece]] if piece in known else old.mean(0)
    return model


def mixture(corpus: Path) -> tuple[Domain, ...]:
    """The corpus, and what the embedded target wrote, each with its share of a batch."""
    texts = outputs()
    own = Domain("own", 0.0, tuple(t for i, t in enumerate(texts) if i % HOLD_OUT_EVERY), tuple(texts[::HOLD_OUT_EVERY]))
    every = (*read(corpus), own)
    return tuple(Domain(d.name, share, d.train, d.held_out) for d, share in zip(every, SHARES, strict=True))


def outputs() -> list[str]:
    """The texts that the embedded target wrote."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "target")
    tokens = np.load(EMBEDDED / "outputs.npy")
    ends = np.flatnonzero(tokens == tokenizer.eos_token_id)
    pieces = np.split(tokens.astype(np.int64), ends + 1)
    return [text for piece in pieces if (text := tokenizer.decode(piece, skip_special_tokens=True))]


if __name__ == "__main__":
    main()
