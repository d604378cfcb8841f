"""Kangaroo: cross-entropy of the adapter's distribution with the target's whole one at the same place; the target stays as it is.

Liu et al. 2024, https://arxiv.org/abs/2404.18911, section 3.1: the target's distribution as a soft label, no roll-out, since the
true states behind the exit layer are read in training and in drafting. Departures, at this size: Muon for the matrices
(`decoding.training.fit`); the adapter begins as the target's own norm and head behind the exit layer.
"""

import torch.nn.functional as F
from torch import Tensor

from decoding.methods.kangaroo import KEY, Adapter, init_head, settings_of, usual_exit
from decoding.models.target import PRE_NORM, Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch


def options(parser) -> None:
    parser.add_argument("--exit-layer", type=int, default=0, help="layers of the target that draft; 0: a sixth of them")


def aux_layer(target: Target, layer: int) -> int:
    """Where the states behind layer `layer` are found: those of the last one before the final norm."""
    return layer if layer < target.model.config.num_hidden_layers else PRE_NORM


def predict(adapter: Adapter, target: Target, batch: Batch):
    states = batch.states[aux_layer(target, adapter.layer)]
    with quick(states.device):
        yield target.score(adapter.whole(states))


def loss(adapter: Adapter, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Mean of - sum_v p log q in nats, over places whose next token may be learned."""
    states = batch.states[aux_layer(target, adapter.layer)]
    counts = batch.counts[:, 1:]
    with quick(states.device):
        out = adapter.whole(states)[:, :-1][counts]
        logits = target.score(out)
        p = target.score(batch.states[target.last_hidden][:, :-1][counts]).float().softmax(-1)
    return F.cross_entropy(logits.float(), p)


def words(adapter: Adapter) -> str:
    return f"Kangaroo: one attention layer behind layer {adapter.layer} and the target's language-model head"


def exit_of(target: Target, chosen) -> int:
    return chosen.exit_layer or usual_exit(target)


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (aux_layer(target, usual_exit(target)),),
    aux_hidden_layers_with=lambda target, chosen: (aux_layer(target, exit_of(target, chosen)),),
    init_head=lambda target, chosen: init_head(target, exit_of(target, chosen)),
    loss=loss,
    predict=predict,
    settings=settings_of,
    words=words,
    first=0,
)
