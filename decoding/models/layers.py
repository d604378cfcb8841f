"""Some of the layers of a Llama-like model, without the others: for models that answer early and for those that go on from there.

Every layer of such a model takes and gives (batch, rows, width) states, and knows nothing of the layers around it. Masks are always
given: what a model does without one is its own affair.
"""

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from decoding.models.cache import TreeCache

if TYPE_CHECKING:
    from decoding.models.target import Target

ROWS = 9  # tokens that a model is tried with
TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2}  # largest difference over the spread of the logits; rounding gives less
_known: "WeakKeyDictionary[nn.Module, str]" = WeakKeyDictionary()


def through(
    model: PreTrainedModel,
    hidden: Tensor,
    layers: range,
    positions: Tensor,
    mask: Tensor | None = None,
    cache: TreeCache | None = None,
) -> Tensor:
    """Hidden rows after some of the layers.

    Args:
        hidden: (batch, rows, width) what comes out of the layer before `layers`, or the embeddings.
        layers: which ones, counted from 0.
        positions: (1, rows) of each row in its text.
        mask: (1, 1, rows, keys) additive; None with fused attention: every row sees those before it and itself.
        cache: keys and values of these layers, to which those of the rows are appended.
    """
    body = model.model
    rotary = body.rotary_emb(hidden, positions)
    for layer in body.layers[layers.start : layers.stop]:
        hidden = layer(hidden, attention_mask=mask, position_ids=positions, past_key_values=cache, position_embeddings=rotary)
    return hidden


def normed(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """(..., width) states behind the last layer -> what the language-model head reads."""
    return final_norm(model)(hidden)


def final_norm(model: PreTrainedModel) -> nn.Module:
    return model.model.norm if hasattr(model.model, "norm") else model.model.final_layernorm


def causal(rows: int, before: int, like: Tensor) -> Tensor | None:
    """(1, 1, rows, before + rows) additive mask of rows behind `before` others; None for one row, which sees all."""
    if rows == 1:
        return None
    least = torch.finfo(like.dtype).min
    return torch.full((rows, before + rows), least, dtype=like.dtype, device=like.device).triu(before + 1)[None, None]


def refusal(target: "Target") -> str:
    """Why the layers of this model cannot be run one by one, as a sentence; "" if they can.

    Tried out, once per model: the logits of a few tokens, layer by layer, against those of a pass of the whole model.
    """
    if target.model not in _known:
        _known[target.model] = tried(target)
    return _known[target.model]


@torch.inference_mode()
def tried(target: "Target") -> str:
    model, name = target.model, type(target.model).__name__
    body = getattr(model, "model", None)
    parts = all(hasattr(body, part) for part in ("embed_tokens", "layers", "rotary_emb"))
    if not parts or not (hasattr(body, "norm") or hasattr(body, "final_layernorm")):
        return f"The layers of a {name} cannot be run one by one here; those of models built like a Llama can."
    tokens = torch.arange(min(ROWS, target.context)) * 7 % target.vocab
    whole, _ = target.forward(TreeCache(), tokens.to(target.device), range(len(tokens)))
    try:
        positions = torch.arange(len(tokens), device=target.device)[None]
        hidden = body.embed_tokens(tokens.to(target.device))[None]
        mask = causal(len(tokens), 0, hidden)
        for number in range(model.config.num_hidden_layers):
            hidden = through(model, hidden, range(number, number + 1), positions, mask)
        error = (target.score(normed(model, hidden))[0] - whole).abs().max() / whole.std().clamp(min=1e-12)
    except Exception as problem:  # whatever an unknown architecture asks of its layers, it means no
        return f"The layers of a {name} cannot be run one by one: {type(problem).__name__}: {problem}"
    if error <= TOLERANCE.get(target.dtype, 2e-1):
        return ""
    return f"Run one by one, the layers of a {name} differ from the whole model by {float(error):.2g} of the logits' spread."
