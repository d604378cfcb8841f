"""Clover: cross-entropy of every head with the token that many places ahead, told the true tokens before it; the k-th weighs 0.8^k.

Xiao et al. 2024, https://arxiv.org/abs/2405.00263, where the loss is not stated. All places of a window at once: the state behind
the augmenting block goes through the cell as often as there are heads, every time with the token one place further on.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from decoding.methods.clover import KEY, Heads, described, embedded, init_head
from decoding.models.target import PRE_NORM, Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch

DECAY = 0.8  # weight of every head, of the one before


def options(parser) -> None:
    parser.add_argument("--heads", type=int, default=4, help="heads; the paper has 3")


def forced(heads: Heads, target: Target, batch: Batch) -> Iterator[Tensor]:
    """Per head (rows, length, width), what it hands to the language-model head at every place, given the true tokens."""
    states = batch.states[PRE_NORM]
    positions = torch.arange(states.shape[1], device=states.device)[None]
    tokens = F.pad(batch.tokens, (0, len(heads.blocks)))
    state = heads.augmented(states, positions, *heads.augment.keys_values(states, positions))
    for k in range(len(heads.blocks)):
        state, _ = heads.cell(state, embedded(target, tokens[:, 1 + k : 1 + k + states.shape[1]]))
        yield heads.read(state, k)


def predict(heads: Heads, target: Target, batch: Batch) -> Iterator[Tensor]:
    with quick(batch.tokens.device):
        for read in forced(heads, target, batch):
            yield target.score(read)


def loss(heads: Heads, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Sum over the heads of 0.8^k times the mean cross-entropy in nats, over places whose token may be learned."""
    total = torch.zeros((), device=batch.tokens.device)
    with quick(batch.tokens.device):
        for k, read in enumerate(forced(heads, target, batch), 1):
            counts = batch.counts[:, 1 + k :]
            logits = target.score(read[:, : -1 - k][counts])
            total = total + DECAY**k * F.cross_entropy(logits.float(), batch.labels[:, 1 + k :][counts])
    return total


def words(heads: Heads) -> str:
    return f"Clover: a layer behind the target's last, a recurrent cell, {len(heads.blocks)} residual blocks"


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (PRE_NORM,),
    init_head=lambda target, chosen: init_head(target, chosen.heads),
    loss=loss,
    predict=predict,
    settings=described,
    words=words,
)
