"""Train a small draft model for a chat model, on what the target says about conversations.

    python -m decoding.training.draft_model --family smollm2 --data chat.jsonl --out path/to/draft

A Llama of a few narrow layers with the target's tokenizer. Its embeddings begin as the target's, seen along the directions in which
those differ most, so that rare tokens mean something from the start. Distilled as the embedded draft model is (`decoding.training.
distil`): first KL(p || q), then the chance of a rejection, 1 - sum_v min(p, q) (Zhou et al. 2024, DistillSpec, section 4), on
places whose next token the assistant writes. p is computed from the target's stored states. Resumable: run the same command again.

With `--exits` the model is a sorted one (method `s2d`; Kavehzadeh et al. 2024, https://arxiv.org/abs/2407.01955): after each of
these numbers of layers it answers through the same norm and head, and the mean of their losses trains all. A model that was
trained before without exits goes on as a sorted one (`--go-on`); its deepest exit is the plain draft model.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from decoding.models import layers
from decoding.models.family import Family, load
from decoding.models.sorted_draft import check_exits, exit_states, exits_of
from decoding.models.target import Target
from decoding.training import forecast, train
from decoding.training.family import export
from decoding.training.fit import fit
from decoding.training.precision import quick
from decoding.training.shortlist import Shortlist, frequent, shortlist
from decoding.training.states import Batch, Pool

HEAD = 64  # width of an attention head
ROW = 0.6  # norm of an embedding at the beginning, in the mean
KL_SHARE = 0.6  # of the steps that follow KL


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    torch.manual_seed(0)
    family = load(options.family, device=options.device)
    train.prepared(family.target)
    learned, test = train.filled(family, train.layers_of_others(family.target, options), options)
    draft = gone_on(options.out, family) if options.go_on else begun(family, options)
    if options.exits:
        draft.config.exits = list(options.exits)
        check_exits(draft.config, str(options.out))
    seen = getattr(draft.config, "tokens_seen", 0)
    steps = max(1, math.ceil(options.epochs * int(learned.counts.sum()) / (options.rows * learned.length)))
    usual = frequent(learned.tokens, family.target.vocab)

    def loss(step: int) -> Tensor:
        batch = learned.batch(step, options.rows)
        part = shortlist(family.target, usual, batch.tokens, step)
        return apart(draft, part, batch, rejections=step >= KL_SHARE * steps)

    exits = f"-exits-{'-'.join(map(str, exits_of(draft.config)))}" if exits_of(draft.config) else ""
    sizes = f"{options.layers}x{options.width}{exits}-{options.lr:g}-{options.rows}-{steps}-behind-{seen}"
    kept = learned.folder / f"draft-{sizes}.pt"
    print(forecast.learning(draft, family.target, loss, steps, kept), flush=True)
    fit(
        draft,
        loss,
        steps=steps,
        lr=options.lr,
        checkpoint=kept,
        title="draft model",
        report_every=train.REPORT_EVERY,
        report=lambda step: figures(draft, family.target, test, most=8),
    )
    draft.config.tokens_seen = seen + steps * options.rows * learned.length
    export(draft, family.tokenizer, options.out)
    print(figures(draft, family.target, test), options.out, sep="\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    train.common(parser)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=192, help=f"of the states, a multiple of {HEAD}")
    parser.add_argument("--exits", type=int, nargs="+", default=[], help="layers after which it may answer (method s2d)")
    parser.add_argument("--go-on", action="store_true", help="begin with the model in --out, trained before")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    return parser.parse_args(arguments)


@torch.no_grad()
def begun(family: Family, options: argparse.Namespace) -> LlamaForCausalLM:
    """Untrained layers between embeddings that are the target's, in fewer directions."""
    given = layers.embedding(family.target.model).weight.detach().float()
    if options.width % HEAD or not 0 < options.width <= given.shape[1]:
        raise ValueError(f"The width {options.width} is no multiple of {HEAD}, or more than the target's {given.shape[1]}.")
    config = LlamaConfig(
        vocab_size=given.shape[0],
        hidden_size=options.width,
        intermediate_size=options.width * 8 // 3 // HEAD * HEAD,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // HEAD,
        num_key_value_heads=options.width // HEAD,
        max_position_embeddings=family.target.context,
        tie_word_embeddings=True,
        bos_token_id=family.tokenizer.bos_token_id,
        eos_token_id=family.tokenizer.eos_token_id,
    )
    draft = LlamaForCausalLM(config)
    _, directions = torch.linalg.eigh(given.T @ given)  # ascending
    seen = given @ directions[:, -options.width :]
    draft.model.embed_tokens.weight.copy_(seen * ROW / seen.norm(dim=-1).mean())
    return draft.to(family.target.device)


def gone_on(folder: Path, family: Family) -> LlamaForCausalLM:
    """The draft model that was trained before; ValueError if it is none for this target."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"There is no draft model in {str(folder)!r} to go on with; leave out --go-on.")
    draft = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(family.target.device)
    if draft.config.vocab_size < family.target.vocab:
        raise ValueError(
            f"The draft model in {str(folder)!r} has {draft.config.vocab_size:,} tokens, the target {family.target.vocab:,}."
        )
    return draft.train()


def apart(draft: LlamaForCausalLM, part: Target, batch: Batch, rejections: bool) -> Tensor:
    """KL(p || q) in nats or, for `rejections`, 1 - sum_v min(p, q); means over places whose next token may be learned, and over the
    exits of a sorted model."""
    counts = batch.counts[:, 1:]
    with quick(batch.tokens.device):
        answers = [states[:, :-1][counts] for states in said_by(draft, batch.tokens)]
        with torch.no_grad():
            log_p = part.score(batch.states[part.last_hidden][:, :-1][counts]).log_softmax(-1)
        return torch.stack([distance(log_p, scored(draft, part, states).log_softmax(-1), rejections) for states in answers]).mean()


def said_by(draft: LlamaForCausalLM, tokens: Tensor) -> list[Tensor]:
    """(rows, length, width) states that its head reads: one, or one per exit."""
    return exit_states(draft, tokens) if exits_of(draft.config) else [draft.model(tokens, use_cache=False).last_hidden_state]


def distance(log_p: Tensor, log_q: Tensor, rejections: bool) -> Tensor:
    """(n, tokens) each -> the mean of KL(p || q) in nats, or of the chance of a rejection."""
    if rejections:
        return 1 - torch.minimum(log_p.exp(), log_q.exp()).sum(-1).mean()
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def scored(draft: LlamaForCausalLM, part: Target, hidden: Tensor) -> Tensor:
    """(n, width) states of the draft model -> (n, tokens) logits, of the tokens that the target scores."""
    if not isinstance(part, Shortlist):
        return draft.lm_head(hidden).float()[:, : part.vocab]
    return (hidden @ draft.lm_head.weight[part.chosen].T).float() + part.raised


@dataclass(frozen=True)
class Judged:
    """As much of a recipe as `train.measured` asks for."""

    exit: int = -1  # which of its answers, the deepest one without a sorted model
    first: int = 0  # the draft model foretells what the target says at the same place

    def predict(self, draft: LlamaForCausalLM, target: Target, batch: Batch) -> Iterator[Tensor]:
        with quick(batch.tokens.device):
            yield draft.lm_head(said_by(draft, batch.tokens)[self.exit])[..., : target.vocab]


def figures(draft: LlamaForCausalLM, target: Target, test: Pool, most: int | None = None) -> str:
    """In a line, or a line per exit."""
    exits = exits_of(draft.config)
    lines = [train.short(train.measured(Judged(number), draft, target, test, most)) for number in range(max(1, len(exits)))]
    return "\n".join(f"exit {layer}: {line}" for layer, line in zip(exits, lines, strict=True)) if exits else lines[0]


if __name__ == "__main__":
    main()
