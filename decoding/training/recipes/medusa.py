"""Medusa: cross-entropy of every head with the token that many places ahead, the k-th weighing 0.8^k; the target stays as it is.

Cai et al. 2024, https://arxiv.org/abs/2401.10774, section 2.2.1 (Medusa-1). Departures, at this size: Muon for the matrices of the
residual blocks (`decoding.training.fit`); the bias begins at 0 too, so that an untrained head says exactly what the target says.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from decoding.models.medusa_heads import KEY, RANKS, Heads, init_head
from decoding.models.target import Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch

DECAY = 0.8  # weight of every head, of the one before


def options(parser) -> None:
    parser.add_argument("--heads", type=int, default=4, help="heads; the paper has up to 5")
    parser.add_argument("--own-lm-head", action="store_true", help="a language-model head for every head, as in the paper")


def predict(heads: Heads, target: Target, batch: Batch):
    hidden = batch.states[target.last_hidden]
    for k in range(len(heads.blocks)):
        with quick(hidden.device):
            yield heads.scored(hidden, k, target)


def loss(heads: Heads, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Sum over the heads of 0.8^k times the mean cross-entropy in nats, over places whose token may be learned."""
    total = torch.zeros((), device=batch.tokens.device)
    hidden = batch.states[target.last_hidden]
    for k in range(1, len(heads.blocks) + 1):
        counts = batch.counts[:, 1 + k :]
        with quick(hidden.device):
            logits = heads.scored(hidden[:, : -1 - k][counts], k - 1, target)
        total = total + DECAY**k * F.cross_entropy(logits.float(), batch.labels[:, 1 + k :][counts])
    return total


def settings(heads: Heads) -> dict:
    vocab = heads.unembed[0].out_features if len(heads.unembed) else 0
    return {"width": heads.blocks[0].in_features, "heads": len(heads.blocks), "vocab": vocab}


def words(heads: Heads) -> str:
    whose = "a language-model head each" if len(heads.unembed) else "the target's language-model head"
    return f"Medusa: {len(heads.blocks)} residual blocks and {whose}"


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (target.last_hidden,),
    init_head=lambda target, chosen: init_head(target, chosen.heads, chosen.own_lm_head),
    loss=loss,
    predict=predict,
    settings=settings,
    words=words,
    calibrated=lambda depths: {"ranks": [depth["ranks"][:RANKS] for depth in depths]},  # the tree is grown from them
)
