"""What a target reads in place of a merged word: the mean of its pieces' embeddings, or what a trained network makes of them.

The network is the small sibling of ZeTT's (Minixhofer, Ponti and Vulić, NeurIPS 2024, https://arxiv.org/abs/2405.07883, section 3):
the old model's embeddings of the pieces, a small bidirectional transformer over them, the state of the first piece read out.

Departures: it predicts input embeddings only, as a prompt needs no others; what it puts out is added to the mean of the pieces, so
that untrained it is the mean; states keep the model's width. How it is trained: `decoding.training.recipes.dynamic_tokenization`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from decoding.models.heads import find, rebuilt
from decoding.models.target import Target
from decoding.models.word_merges import MOST_PIECES

KEY = "dynamic_tokenization"  # of the folder, as a head's
MAX_BLOCKS, MAX_WIDTH, LARGEST = 8, 16_384, 1e4


class Block(nn.Module):
    """Attention among the pieces of a word, and two layers on each."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.asked, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(g, k, width) -> the same.

        Args:
            mask: (g, k) bool, where there is a piece.
        """
        parts = self.asked(self.norm(states)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*parts, attn_mask=mask[:, None, None])
        states = states + self.out(found.transpose(1, 2).flatten(2))
        return states + self.down(F.gelu(self.up(self.mlp_norm(states))))


class Hypernetwork(nn.Module):
    """Embeddings of a word's pieces -> the embedding of the word.

    Args:
        width: of the embeddings.
        size: root mean square of the numbers in the target's table, by which pieces are divided and what comes out is multiplied.
    """

    def __init__(self, width: int, blocks: int, heads: int, inner: int, size: float) -> None:
        super().__init__()
        self.size = size
        self.place = nn.Embedding(MOST_PIECES, width)
        self.blocks = nn.ModuleList(Block(width, heads, inner) for _ in range(blocks))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)
        nn.init.normal_(self.place.weight, std=0.3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, pieces: Tensor, mask: Tensor) -> Tensor:
        """(g, k, width) embeddings and (g, k) bool, where there is a piece -> (g, width)."""
        states = pieces / self.size + self.place.weight[: pieces.shape[1]]
        for block in self.blocks:
            states = block(states, mask)
        return averaged(pieces, mask) + self.size * self.out(self.norm(states[:, 0]))

    @property
    def settings(self) -> dict[str, Any]:
        """From which the shapes of the file follow."""
        first = self.blocks[0]
        assert isinstance(first, Block)
        width, inner = self.place.embedding_dim, first.up.out_features
        return {"width": width, "blocks": len(self.blocks), "heads": first.heads, "inner": inner, "size": self.size}


def averaged(pieces: Tensor, mask: Tensor) -> Tensor:
    """The mean of the pieces there are: (g, k, width) and (g, k) bool -> (g, width)."""
    return (pieces * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def made(settings: dict[str, Any]) -> Hypernetwork:
    """An untrained one; ValueError for settings that cannot be."""
    found: dict[str, Any] = {name: settings.get(name) for name in ("width", "blocks", "heads", "inner", "size")}
    *sizes, size = found.values()
    whole = all(type(value) is int and 1 <= value <= MAX_WIDTH for value in sizes)
    if not (whole and isinstance(size, float) and 0 < size < LARGEST):
        raise ValueError(f"The network for merged words cannot have the sizes {found}.")
    if found["blocks"] > MAX_BLOCKS or found["width"] % found["heads"]:
        raise ValueError(f"The network for merged words cannot have the sizes {found}.")
    return Hypernetwork(**found)


def opened(target: Target) -> Hypernetwork | None:
    """The network that was trained for a target; None if there is none.

    Raises:
        ValueError: there is one, and `decoding.models.heads` refuses it.
    """
    if find(KEY, target.model) is None:
        return None
    with torch.random.fork_rng(devices=[]):  # what is drawn before the weights are read is nobody's
        found = rebuilt(KEY, target, made, "The network for merged words is")
    assert isinstance(found, Hypernetwork)
    return found


def read_in_place(embedded: Tensor, groups: Sequence[tuple[int, int]], network: nn.Module | None = None) -> Tensor:
    """(n, width) embeddings of tokens -> (groups, width), one row per group of neighbours: its token's own, or that of the word.

    Args:
        groups: (first token, behind the last one) of each.
        network: what makes one embedding of several; None: their mean.
    """
    rows = embedded[torch.tensor([start for start, _ in groups], device=embedded.device)]
    words = [i for i, (start, end) in enumerate(groups) if end - start > 1]
    if not words:
        return rows
    starts, ends = (torch.tensor([groups[i][side] for i in words], device=embedded.device)[:, None] for side in (0, 1))
    places = starts + torch.arange(int(max(groups[i][1] - groups[i][0] for i in words)), device=embedded.device)
    pieces, mask = embedded[places.clamp(max=len(embedded) - 1)], places < ends
    made_of = averaged(pieces, mask) if network is None else network(pieces, mask)
    return rows.index_copy(0, torch.tensor(words, device=embedded.device), made_of.to(rows.dtype))
