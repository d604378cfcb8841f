"""What one row pays to the rows before it, by hand: fused attention gives no weights, and of a layer one row of them is wanted.

For models built like a Llama whose layers compute queries with a `q_proj` of their own. That it is the very attention of the layer
is tried out (`refusal`): what comes out of the weights must be what the layer's attention puts out for that row.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from decoding.models import layers
from decoding.models.cache import TreeCache
from decoding.models.heard import heard
from decoding.models.once import Once
from decoding.models.self_test import LAYER_ROWS, TOLERANCE, layers_refusal
from decoding.models.target import Target

_known: Once[str] = Once("waiting until the model is tried out")  # model -> why its attention cannot be read, or ""


def rotary_of(model: PreTrainedModel, like: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1, head width) cosines and sines at a position, (1, 1)."""
    return cast(Any, model.model.rotary_emb)(like, position)


def weights(model: PreTrainedModel, layer: int, row: Tensor, rotary: tuple[Tensor, Tensor], keys: Tensor) -> Tensor:
    """(heads, k) float32: how one row attends to k rows, all of which it sees; every query head for itself.

    Args:
        layer: counted from 0.
        row: (width,) what comes into the layer.
        rotary: of its position.
        keys: (1, key-value heads, k, head width), as the layer caches them.
    """
    attention, normed = parts(model, layer)
    queries = attention.q_proj(normed(row[None]))[None].unflatten(-1, (-1, keys.shape[-1]))
    norm = getattr(attention, "q_norm", None)
    queries = (queries if norm is None else norm(queries)).transpose(1, 2)
    queries = apply_rotary_pos_emb(queries, queries, *rotary)[0]
    groups = keys.shape[1]
    scores = queries[0, :, 0].unflatten(0, (groups, -1)) @ keys[0].transpose(1, 2)  # (groups, heads of a group, k)
    return (scores.float() * attention.scaling).flatten(0, 1).softmax(-1)


def parts(model: PreTrainedModel, layer: int) -> tuple[Any, nn.Module]:
    """The attention of a layer, and the norm in front of it."""
    found = cast(Any, model.model.layers[layer])
    return found.self_attn, found.input_layernorm


def refusal(target: Target) -> str:
    """Why the attention of this model cannot be read row by row, as a sentence; "" if it can. Tried out, once per model."""
    if reason := layers_refusal(target):
        return reason
    return _known.of(target.model, lambda: tried(target))


@torch.inference_mode()
def tried(target: Target) -> str:
    """A few tokens, layer by layer: the weights of the last row, its values and the layer's own output projection against what the
    layer's attention puts out."""
    model, name = target.model, type(target.model).__name__
    if target.windows:
        return f"Some layers of a {name} see {min(target.windows.values()):,} tokens at most; a prompt is pruned where all see all."
    out: list[Tensor] = []
    cache, ids = TreeCache(), torch.arange(min(LAYER_ROWS, target.context), device=target.device) * 7 % target.vocab
    positions = torch.arange(len(ids), device=target.device)[None]
    mask, hidden, worst = target.layer_mask(len(ids), 0), layers.embedding(model)(ids)[None], 0.0
    try:
        rotary = rotary_of(model, hidden, positions[:, -1:])
        for layer in range(model.config.num_hidden_layers):
            attention, _ = parts(model, layer)
            with heard(attention, lambda output: out.append(output[0][0, -1])):
                after = layers.through(model, hidden, range(layer, layer + 1), positions, mask, cache)
            held = cache.layers[layer]
            paid = weights(model, layer, hidden[0, -1], rotary, held.keys[:, :, : held.length])
            values = held.values[0, :, : held.length].repeat_interleave(len(paid) // held.values.shape[1], 0)
            own = attention.o_proj((paid.to(values.dtype)[:, None] @ values).flatten()[None])[0]
            worst = max(worst, float((own - out.pop()).abs().max() / after.std().clamp(min=1e-12)))
            hidden = after
    except Exception as problem:  # whatever an unknown architecture calls its parts, it means no
        return f"The attention of a {name} cannot be read row by row: {type(problem).__name__}: {problem}"
    if worst <= TOLERANCE.get(target.dtype, 2e-1):
        return ""
    return f"Read row by row, the attention of a {name} differs from that of its layers by {worst:.2g} of their spread."
