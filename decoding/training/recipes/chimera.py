"""Chimera: cross-entropy of every head with the token that many places ahead, and the imitated state drawn to the true one.

Zeng et al. 2024, https://arxiv.org/abs/2402.15758. The s-th head weighs 0.8^(s-1). The error of a state is taken relative to the
mean square of true ones, so that it weighs alike whatever size a target's states have. A slot is always told the true tokens before
it: in a tree of several guesses the one that counts is the right one. Telling it the heads' own picks, as the released code does,
was tried for the last 30 % of the steps: the expected acceptance at depths 2 to 4 fell from .42 / .41 / .41 to .35 / .30 / .27.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from decoding.methods.chimera import KEY, Heads, described, imitated, init_head
from decoding.models.target import Target
from decoding.training.precision import quick
from decoding.training.recipe import Recipe
from decoding.training.states import Batch

DECAY = 0.8  # weight of every head, of the one before
PLACES = 128  # of a window, drawn anew for every step


def options(parser) -> None:
    parser.add_argument("--heads", type=int, default=4, help="residual heads")


def predict(heads: Heads, target: Target, batch: Batch) -> Iterator[Tensor]:
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    with quick(batch.tokens.device):
        for _, read in imitated(heads, target, batch.states[target.last_hidden], batch.tokens, places):
            yield target.score(read)


def loss(heads: Heads, target: Target, batch: Batch, done: float = 0.0) -> Tensor:
    """Sum over the slots of 0.8^(s-1) times cross-entropy in nats plus relative squared error, means over drawn places whose token
    may be learned."""
    hidden, device = batch.states[target.last_hidden], batch.tokens.device
    length = hidden.shape[1]
    sampled = torch.randperm(length - 1, generator=torch.Generator().manual_seed(batch.seed))[:PLACES].sort().values.to(device)
    total, size = torch.zeros((), device=device), hidden.pow(2).mean()
    with quick(device):
        for k, (made, read) in enumerate(imitated(heads, target, hidden, batch.tokens, sampled)):
            ahead = sampled + 2 + k
            counts = (ahead < length) & batch.counts[:, ahead.clamp(max=length - 1)]
            wanted = batch.labels[:, ahead.clamp(max=length - 1)][counts]
            scored = target.score(read[counts])
            error = (made.float() - hidden[:, (ahead - 1).clamp(max=length - 1)])[counts].pow(2).mean() / size
            total = total + DECAY**k * (F.cross_entropy(scored.float(), wanted) + error)
    return total


def words(heads: Heads) -> str:
    return f"Chimera: a trigram encoder, a layer over the target's states, {len(heads.residual)} residual heads"


RECIPE = Recipe(
    key=KEY,
    options=options,
    aux_hidden_layers=lambda target: (target.last_hidden,),
    init_head=lambda target, chosen: init_head(target, chosen.heads),
    loss=loss,
    predict=predict,
    settings=described,
    words=words,
)
