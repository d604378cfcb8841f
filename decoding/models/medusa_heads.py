"""The heads of Medusa: a residual block each, with or without a language-model head of its own. Trained here or published.

Cai et al. 2024, https://arxiv.org/abs/2401.10774, section 2.1.1. What drafts with them is `decoding.methods.medusa`; files in the
authors' format are read by `decoding.models.published_heads`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from decoding.checks import check_int
from decoding.models.heads import Head, Settings, check_ranks, head_for, shared
from decoding.models.layers import unembedding
from decoding.models.target import Target

KEY = "medusa"
RANKS = 10  # best tokens of a head that may stand in the tree
MAX_WIDTH, MAX_HEADS, MAX_VOCAB = 65_536, 16, 2**20


class Heads(nn.Module):
    """K residual blocks, and K language-model heads if they have their own; untrained, every one says what the target says next.

    Args:
        width: of the target's states.
        heads: K.
        vocab: tokens that own language-model heads score; 0: the target's own head scores for all.
    """

    def __init__(self, width: int, heads: int, vocab: int = 0) -> None:
        super().__init__()
        blocks = [nn.Linear(width, width) for _ in range(heads)]
        self.blocks = nn.ModuleList(blocks)
        self.unembed = nn.ModuleList(nn.Linear(width, vocab, bias=False) for _ in range(heads if vocab else 0))
        for block in blocks:
            nn.init.zeros_(block.weight)
            nn.init.zeros_(block.bias)

    def scored(self, hidden: Tensor, k: int, target: Target) -> Tensor:
        """(..., width) states behind the final norm -> (..., vocab) logits of head k, from 0: of the token k + 1 places behind the
        one that the target itself predicts there."""
        moved = hidden + nn.functional.silu(self.blocks[k](hidden))
        return self.unembed[k](moved).float() if len(self.unembed) else target.score(moved)


def init_head(target: Target, heads: int, own: bool) -> Heads:
    """Untrained heads; own language-model heads begin as copies of the target's."""
    made = Heads(target.model.config.hidden_size, heads, target.vocab if own else 0)
    for own_head in made.unembed.parameters():
        own_head.data.copy_(unembedding(target.model).weight[: target.vocab])
    return made.to(target.device)


def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The tensors of a head file; ValueError for settings that cannot be."""
    found: dict[str, Any] = {name: settings.get(name) for name in ("width", "heads", "vocab")}
    for name, low, high in (("width", 1, MAX_WIDTH), ("heads", 1, MAX_HEADS), ("vocab", 0, MAX_VOCAB)):
        check_int(f"Medusa heads with {name}", found[name], low, high)
    check_ranks(settings.get("ranks"), found["heads"], RANKS, "Medusa heads")
    with torch.device("meta"):
        return {name: tuple(values.shape) for name, values in Heads(**found).state_dict().items()}


def load_head(target: Target, head: Head | None = None) -> tuple[Heads, tuple[tuple[float, ...], ...]]:
    """The heads of a target, and how often each rank of each was right on held-out text; ValueError if there are none that fit.

    Args:
        head: opened ones; None: those that are found, and `shared`.
    """
    if head is None:
        return shared(KEY, target.model, lambda: load_head(target, head_for(KEY, target.model, shapes)))
    settings = head.settings
    width = target.model.config.hidden_size
    if settings["width"] != width or settings["vocab"] not in (0, target.vocab):
        raise ValueError(
            f"The Medusa heads are for states of width {settings['width']:,} and {settings['vocab']:,} tokens (0: the target's own "
            f"head); the target has {width:,} and {target.vocab:,}."
        )
    heads = Heads(settings["width"], settings["heads"], settings["vocab"])
    heads.load_state_dict(head.tensors)
    return heads.to(target.device, target.dtype).eval(), tuple(map(tuple, settings["ranks"]))
