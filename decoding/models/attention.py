"""Attention: the one part that heads with attention share, over keys and values that the caller keeps.

Rotary positions, norms and gated layers are those of `transformers`' Llama, and tensors have the names they have there, so that the
layer of a published head fits as it is. Unlike in a whole model, what a row asks with and what it is seen as may be
two different things, and a row may see any set of others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from decoding.checks import check_int
from decoding.draft import ancestor_mask
from decoding.models.cache import Layer
from decoding.models.target import Target

MAX_WIDTH, MAX_HEADS, MAX_MLP = 65_536, 1_024, 2**20


@dataclass(frozen=True)
class Sizes:
    """Of a layer; what a head's description says of it."""

    width: int
    heads: int
    mlp: int
    theta: float = 10_000.0  # base of the rotary positions
    eps: float = 1e-6  # of the norms

    def __post_init__(self) -> None:
        for name, most in (("width", MAX_WIDTH), ("heads", MAX_HEADS), ("mlp", MAX_MLP)):
            check_int(f"A layer with {name}", getattr(self, name), 1, most)
        if self.width % (2 * self.heads):
            raise ValueError(f"{self.heads} attention heads do not divide a width of {self.width} into even parts.")
        for name in ("theta", "eps"):
            if not isinstance(value := getattr(self, name), int | float) or not 0 < value < 1e12:
                raise ValueError(f"A layer with {name} {value!r} cannot be; a number above 0 can.")

    @classmethod
    def of(cls, target: Target) -> "Sizes":
        """Those of a target's layers as far as it is like a Llama, else usual ones for its width."""
        config = target.model.config
        width = config.hidden_size
        heads = config.num_attention_heads
        rope = getattr(config, "rope_parameters", None) or {}
        return cls(
            width,
            heads if width % (2 * heads) == 0 else 1,
            8 * round(width * 8 / 3 / 8),
            float(rope.get("rope_theta") or 10_000.0),
            float(getattr(config, "rms_norm_eps", None) or 1e-6),
        )

    @property
    def config(self) -> LlamaConfig:
        """The same in the words of `transformers`."""
        return LlamaConfig(
            hidden_size=self.width,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            intermediate_size=self.mlp,
            rms_norm_eps=self.eps,
            rope_parameters={"rope_type": "default", "rope_theta": self.theta},
        )


class Rotary(LlamaRotaryEmbedding):
    """Its frequencies stay float32 whatever format a module is brought to: in bfloat16 they are far off at position 500."""

    def _apply(self, move, recurse=True):
        exact = self.inv_freq
        super()._apply(move, recurse)
        self.inv_freq = exact.to(self.inv_freq.device)
        return self


class Attention(nn.Module):
    """Multi-head attention with rotary positions over rows that were given before.

    Args:
        config: of a Llama layer: width, heads, key-value heads, rotary positions.
        inputs: width of what queries, keys and values are computed from; None: the layer's own.
    """

    def __init__(self, config: LlamaConfig, inputs: int | None = None) -> None:
        super().__init__()
        self.head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        inputs = inputs or config.hidden_size
        put_out = bool(config.attention_bias)
        bias = put_out or bool(getattr(config, "qkv_bias", False))  # as in Qwen 2: on what is asked and seen alone
        self.q_proj = nn.Linear(inputs, config.num_attention_heads * self.head_width, bias=bias)
        groups = config.num_key_value_heads or config.num_attention_heads
        self.k_proj = nn.Linear(inputs, groups * self.head_width, bias=bias)
        self.v_proj = nn.Linear(inputs, groups * self.head_width, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_width, config.hidden_size, bias=put_out)
        self.rotary = Rotary(config)

    def split(self, rows: Tensor) -> Tensor:
        """(batch, rows, heads * head width) -> (batch, heads, rows, head width)."""
        return rows.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def keys_values(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What (batch, rows, inputs) are seen as, at (1 or batch, rows) positions: (batch, heads, rows, head width) each."""
        keys = self.split(self.k_proj(rows))
        cos, sin = self.rotary(rows, positions)
        return apply_rotary_pos_emb(keys, keys, cos, sin)[1], self.split(self.v_proj(rows))

    def forward(self, rows: Tensor, positions: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """What (batch, rows, inputs) at (1 or batch, rows) positions find: (batch, rows, width).

        Args:
            keys, values: (batch, key-value heads, k, head width), as `keys_values` gives them.
            visible: bool, broadcast over (batch, heads, rows, k), what a row sees; None: as many keys as rows, each sees itself and
                those before it.
        """
        return self.o_proj(attended(self.queries(rows, positions), keys, values, visible))

    def queries(self, rows: Tensor, positions: Tensor) -> Tensor:
        """What (batch, rows, inputs) ask at (1 or batch, rows) positions: (batch, heads, rows, head width)."""
        queries = self.split(self.q_proj(rows))
        return apply_rotary_pos_emb(queries, queries, *self.rotary(rows, positions))[0]

    def opened(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What (n, inputs) at (n,) positions ask and are seen as, row by row: queries, keys and values, (n, heads, head width)."""
        parts = self.queries(rows[None], positions[None]), *self.keys_values(rows[None], positions[None])
        queries, keys, values = (part[0].transpose(0, 1) for part in parts)
        return queries, keys, values


def attended(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
    """Attention alone, as in `Attention.forward`: (batch, heads, rows, head width) queries -> (batch, rows, heads * head width)."""
    keys, values = keys.to(queries.dtype), values.to(queries.dtype)
    grouped = keys.shape[1] != queries.shape[1]
    found = scaled_dot_product_attention(queries, keys, values, visible, is_causal=visible is None, enable_gqa=grouped)
    return found.transpose(1, 2).flatten(-2)


def heads_first(rows: Tensor) -> Tensor:
    """(n, heads, head width), as `Attention.opened` gives it -> (1, heads, n, head width)."""
    return rows.transpose(0, 1)[None]


class Block(nn.Module):
    """A Llama layer over rows that the caller keeps: norm, attention, norm, gated layer, each added to what came in."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = LlamaMLP(config)

    def keys_values(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.self_attn.keys_values(self.input_layernorm(rows), positions)

    def forward(self, rows: Tensor, positions: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """(batch, rows, width) -> the same shape; the other arguments as for `Attention`."""
        rows = rows + self.self_attn(self.input_layernorm(rows), positions, keys, values, visible)
        return rows + self.mlp(self.post_attention_layernorm(rows))

    def opened(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention.opened`, of (n, width)."""
        return self.self_attn.opened(self.input_layernorm(rows), positions)

    def closed(self, rows: Tensor, found: Tensor) -> Tensor:
        """(..., width) rows and what `attended` found for them -> what `forward` puts out."""
        rows = rows + self.self_attn.o_proj(found)
        return rows + self.mlp(self.post_attention_layernorm(rows))


class Memory:
    """Keys and values of one layer during a run: those of committed text, and behind them those of a tree that is being drafted.

    Rows of the tree count from 0 in the order they were written.
    """

    def __init__(self) -> None:
        self.layer = Layer()
        self.committed = 0
        self._tree: Tensor | None = None  # (1 + n, 1 + n) bool, what the rows of the tree see of each other; 0 is the text

    def commit(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Forget the tree, append rows of text; returns all keys and values."""
        self.drop()
        found = self.layer.update(keys, values)
        self.committed = self.layer.length
        return found

    def drop(self) -> None:
        """Forget the tree."""
        if self.layer.is_initialized:
            self.layer.keep(self.committed, None, 0)
        self._tree = None

    def grow(self, keys: Tensor, values: Tensor, parents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Append rows of the tree.

        Args:
            parents: (m,) rows of the tree that were written before, -1 for the committed text alone.

        Returns:
            all keys, all values, and (m, k) bool: the text, a row's ancestors in the tree, and itself.
        """
        m = len(parents)
        self._tree = ancestor_mask(parents + 1, self._tree)
        keys, values = self.layer.update(keys, values)
        text = torch.ones(m, self.committed, dtype=torch.bool, device=parents.device)
        return keys, values, torch.cat((text, self._tree[-m:, 1:]), 1)


def causal(rows: int, before: int, device: torch.device) -> Tensor:
    """(rows, before + rows) bool: every row sees those before it and itself.

    >>> causal(2, 1, torch.device("cpu")).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(rows, before + rows, dtype=torch.bool, device=device).tril(before)
