"""Some of the layers of a Llama-like model, without the others: for models that answer early and for those that go on from there.

Every layer of such a model takes and gives (batch, rows, width) states, and knows nothing of the layers around it. Masks are always
given: what a model does without one is its own affair.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from decoding.models.windows import layer_kinds


class Written(Protocol):
    """A cache, as a layer knows it."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep (1, heads, rows, width) of new rows; all keys and values that these rows may see."""
        ...


def through(
    model: PreTrainedModel,
    hidden: Tensor,
    layers: range,
    positions: Tensor,
    mask: Tensor | Mapping[str, Tensor] | None = None,
    cache: Written | None = None,
) -> Tensor:
    """Hidden rows after some of the layers, where they came from, whatever devices these lie on.

    Args:
        hidden: (batch, rows, width) what comes out of the layer before `layers`, or the embeddings.
        layers: which ones, counted from 0.
        positions: (1, rows) of each row in its text.
        mask: (1, 1, rows, keys) additive, or one per kind of layer; None with fused attention: every row sees those before it and
            itself.
        cache: keys and values of these layers, to which those of the rows are appended.
    """
    body, kinds = model.model, layer_kinds(model.config)
    typed = by_kind(type(body.rotary_emb))
    rotary = {kind: body.rotary_emb(hidden, positions, kind) for kind in set(kinds)} if typed else {}
    shared = None if typed else body.rotary_emb(hidden, positions)
    device = hidden.device
    for number in layers:
        kind = kinds[number] if kinds else ""
        hidden = body.layers[number](
            hidden,
            attention_mask=mask[kind] if isinstance(mask, Mapping) else mask,
            position_ids=positions,
            past_key_values=cache,
            position_embeddings=rotary.get(kind, shared),
        )
    return hidden.to(device)


@cache
def by_kind(rotary: type[nn.Module]) -> bool:
    """Whether rotary positions are another for every kind of layer."""
    return "layer_type" in inspect.signature(rotary.forward).parameters


def normed(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(..., width) states behind the last layer -> what the language-model head reads."""
    return final_norm(model)(hidden)


def final_norm(model: PreTrainedModel) -> nn.Module:
    return model.model.norm if hasattr(model.model, "norm") else model.model.final_layernorm


def embedding(model: PreTrainedModel) -> nn.Embedding:
    """Token -> what the first layer reads."""
    return cast(nn.Embedding, model.get_input_embeddings())


def unembedding(model: PreTrainedModel) -> nn.Linear:
    """The language-model head, which every causal model has."""
    return cast(nn.Linear, model.get_output_embeddings())


def scored(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(..., width) states like those behind the final norm -> the logits of the language-model head, scaled and capped as the model
    does it."""
    logits, config = unembedding(model)(hidden), model.config
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / scaling
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = cap * torch.tanh(logits / cap)
    return logits


def causal(rows: int, before: int, like: Tensor) -> Tensor | None:
    """(1, 1, rows, before + rows) additive mask of rows behind `before` others; None for one row, which sees all."""
    if rows == 1:
        return None
    least = torch.finfo(like.dtype).min
    return torch.full((rows, before + rows), least, dtype=like.dtype, device=like.device).triu(before + 1)[None, None]
