"""The key table of a target: the rows of its language-model head, centred, and their clusters.

Logits are dot products of one query with keys that no context changes, so tokens whose keys lie together rise and fall together.
The mean key is taken off first: it adds the same to every logit and changes no probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from decoding.models import layers
from decoding.models.once import Once
from decoding.models.progress import tell
from decoding.models.target import Target

ROUNDS = 12  # of k-means
SMALL, FEW, PER_CLUSTER = 8192, 64, 125  # up to so many keys: 64 clusters; beyond: one per 125 keys
CHUNK = 8192  # keys assigned at once
TINY = 1e-12

_made: Once["Keys"] = Once("waiting until the keys of the target are grouped")


@dataclass(frozen=True, eq=False)
class Keys:
    """Centred keys are never written out: every product is that with the table less that with the mean."""

    table: Tensor  # (vocab, d) as the model has it
    mean: Tensor  # (d,) float32
    norms: Tensor  # (vocab,) of the centred keys
    known: Tensor  # (vocab,) bool: ids that a token has
    cluster: Tensor  # (vocab,) int64; of unknown ids `count`, which is no cluster
    count: int

    def centred(self, tokens: Sequence[int] | Tensor) -> Tensor:
        """(n, d) centred keys of these tokens."""
        index = torch.as_tensor(tokens, dtype=torch.long, device=self.table.device)
        return self.table[index].float() - self.mean

    def dots(self, query: Tensor) -> Tensor:
        """(d,) -> (vocab,) dot products with all centred keys."""
        query = query.float()
        return self.table.float() @ query - self.mean @ query

    def cosines(self, token: int) -> Tensor:
        """(vocab,) cosines of all centred keys with that of a token; of unknown ids -2."""
        key = self.centred([token])[0]
        found = self.dots(key) / (self.norms * key.norm()).clamp(min=TINY)
        return found.clamp(-1, 1).masked_fill(~self.known, -2.0)

    def sizes(self) -> Tensor:
        """(clusters,) keys in each."""
        return torch.bincount(self.cluster[self.known], minlength=self.count)[: self.count]


def no_keys(target: Target) -> str:
    """Why the logits of a target are no dot products with the rows of its head, as a sentence; "" if they are."""
    head = layers.unembedding(target.model)
    name = type(target.model).__name__
    if type(head) is not nn.Linear or not head.weight.is_floating_point() or head.weight.ndim != 2:
        return f"The head of {name} is packed in a form of its own ({type(head).__name__}); its rows cannot be read as keys."
    if cap := getattr(target.model.config, "final_logit_softcapping", None):
        return f"{name} caps its logits at {cap:g}, so they are no dot products of a query and a key."
    return ""


def keys_of(target: Target) -> Keys:
    """The key table of a target, clustered when it is first asked for (seconds for 49,152 keys), while its weights are in use."""
    weight = layers.unembedding(target.model).weight[: target.vocab]
    return _made.of(
        target.model,
        lambda: clustered(weight.detach(), target.unused),
        lambda found: found.table.data_ptr() == weight.data_ptr() and found.table.shape == weight.shape,
    )


def clustered(table: Tensor, unused: Sequence[int] = (), count: int | None = None, seed: int = 0) -> Keys:
    """(vocab, d) keys -> with their clusters: spherical k-means on the centred ones, from a random choice of them."""
    known = torch.ones(len(table), dtype=torch.bool, device=table.device)
    known[list(unused)] = False
    mean = table[known].float().mean(0)
    norms = torch.cat([(part.float() - mean).norm(dim=1) for part in table.split(CHUNK)])
    members = known.nonzero()[:, 0]
    usual = FEW if len(members) <= SMALL else round(len(members) / PER_CLUSTER)
    count = min(count or usual, len(members))
    chosen = members.cpu()[torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))[:count]]
    centres = unit(table[chosen.to(table.device)].float() - mean)
    for turn in range(ROUNDS):
        tell(f"grouping the keys of the target, {turn + 1} of {ROUNDS}")
        sums = torch.zeros_like(centres)
        for part in members.split(CHUNK):
            keys = unit(table[part].float() - mean)
            sums.index_add_(0, (keys @ centres.T).argmax(1), keys)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > TINY, unit(sums), centres)  # one without keys stays
    cluster = torch.full((len(table),), count, dtype=torch.long, device=table.device)
    for part in members.split(CHUNK):
        cluster[part] = (unit(table[part].float() - mean) @ centres.T).argmax(1)
    return Keys(table, mean, norms, known, cluster, count)


def unit(rows: Tensor) -> Tensor:
    """(n, d) rows of length 1."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=TINY)
