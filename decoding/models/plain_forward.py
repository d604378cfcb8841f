"""One forward of plain Llama-like models, written as a function of their weights: what a pass over a few rows costs beside the
multiplications is mostly the way through the modules of `transformers`, which this leaves out.

It serves Llama, Qwen 2, Qwen 3 and Mistral without windows, quantisation or hooks; all others keep the forward of `transformers`
and say why (`refusal`). The weights are the model's own: those that are multiplied together lie side by side in one tensor, of
which the module's parameters are views, so nothing is there twice and whatever else reads, trains or saves the layers goes on as
before. Whether a model is still the one this was made for is asked at every pass (`serves`): weights that were moved or replaced,
or a hook that somebody hung into it, bring the forward of `transformers` back. Shapes depend on the rows alone, so that
`decoding.models.graphs` can run the same function over buffers that stay where they are.

Shapes: n rows, h query heads, g key-value heads, d the width of a head, k keys.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, rms_norm, scaled_dot_product_attention
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import LlamaForCausalLM, MistralForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

from decoding.models import packed
from decoding.models.windows import windows_of

SERVED = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, MistralForCausalLM)
OWN_HOOKS = "transformers.utils.output_capturing"
MOVING = ("dynamic", "longrope")  # rotary positions whose frequencies depend on how long a text is
FIRST_POSITIONS = 1024  # that the tables of rotary positions are made for; they double when they are full
PRE_NORM = -1  # an aux hidden layer: what the last layer puts out; the last of the numbered ones stands behind the final norm
Store = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]  # layer, its new keys and values (1, g, n, d) -> all it is to see


@dataclass(frozen=True, eq=False)
class Weights:
    """Of one layer, as they are multiplied from the right; a bias or a norm that the model has not is None."""

    norm: Tensor
    asked: Tensor  # (width, (h + 2 g) d): queries, keys, values
    asked_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gated: Tensor  # (width, 2 mlp): gate and what it lets through
    gated_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


def refusal(model: PreTrainedModel) -> str:
    """Why this forward cannot serve a model, as the end of a sentence; "" if it can."""
    name = type(model).__name__
    if type(model) not in SERVED:
        return f"it is a {name}, and only plain Llama, Qwen 2, Qwen 3 and Mistral are read by the short way"
    config = model.config
    if windows_of(config):
        return f"its layers see windows of {min(windows_of(config).values()):,} tokens"
    if (kind := (config.rope_parameters or {}).get("rope_type", "default")) in MOVING:
        return f"its rotary positions ({kind}) change with the length of the text"
    if getattr(model, "quantization_config", None) is not None or getattr(config, "quantization_config", None) is not None:
        return "its weights are packed in fewer bits"
    linear = [part for part in model.modules() if isinstance(part, nn.Linear)]
    if any(type(part) is not nn.Linear or is_traceable_wrapper_subclass(part.weight) for part in linear):
        return "its linear layers are of a kind of their own"
    if len({values.device for values in model.parameters()}) > 1 or len({part.weight.dtype for part in linear}) > 1:
        return "its layers lie on several devices, or in several number formats"
    if listened(tables_of_hooks(model)) or any(hasattr(part, "_hf_hook") for part in model.modules()):
        return "something hangs in its layers"
    return ""


def tables_of_hooks(model: nn.Module) -> list[dict]:
    return [table for part in model.modules() for table in (part._forward_hooks, part._forward_pre_hooks)]


def listened(tables: Iterable[dict]) -> bool:
    """Whether anything is called before or behind a part, but for what transformers hangs there to look at states itself."""
    return any(getattr(hook, "__module__", "") != OWN_HOOKS for table in tables if table for hook in table.values())


def beside(parts: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """The weights of linear layers that read the same, side by side as (inputs, outputs of all), and their biases. The weights of
    the layers become views of that; how they lie in memory stays as it was."""
    weights = [part.weight.data for part in parts]
    flipped = not weights[0].is_contiguous()  # input by input, see `decoding.models.checkpoints.transpose_weights`
    with torch.inference_mode(False), torch.no_grad():
        whole = torch.cat([values.t() for values in weights], 1) if flipped else torch.cat(weights, 0).t()
        biases = [part.bias for part in parts if part.bias is not None]
        bias = torch.cat([values.data for values in biases]) if biases else None
    for part, columns in zip(parts, whole.split([len(values) for values in weights], 1), strict=True):
        part.weight.data = columns.t()
    for values, own in zip(biases, bias.split([len(values) for values in biases]) if bias is not None else (), strict=True):
        values.data = own
    return whole, bias


def apart(model: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict) -> None:
    """A hook of `state_dict`: whoever asks for the tensors of a model, to save them, gets each by itself. Those that lie between
    each other in memory, input by input, could not be saved."""
    for name, values in state.items():
        if not values.is_contiguous() and values.untyped_storage().nbytes() > values.nbytes:
            state[name] = values.contiguous()


class PlainForward:
    """Made once per model; holds nothing of any text."""

    def __init__(self, model: PreTrainedModel) -> None:
        if why := refusal(model):
            raise ValueError(f"This model is not read by the short way: {why}.")
        config, body = model.config, cast(Any, model.model)
        self.model, self.body = model, body
        self.eps: float = config.rms_norm_eps
        self.groups = config.num_key_value_heads
        self.heads = config.num_attention_heads
        self.width: int = body.layers[0].self_attn.head_dim
        self.act = body.layers[0].mlp.act_fn
        self.layers = [weights(layer) for layer in body.layers]
        model.register_state_dict_post_hook(apart)
        self.norm: Tensor = body.norm.weight.data
        self.embedding: Tensor = body.embed_tokens.weight.data
        head = cast(nn.Linear, model.lm_head)
        self.head, self.head_bias = head.weight.data.t(), None if head.bias is None else head.bias.data
        self.blocks: Tensor | None = None  # the head in blocks, see `pack`
        self._version = 0  # of the head's weights when they were packed
        self.cos, self.sin = self.tables(min(FIRST_POSITIONS, config.max_position_embeddings))
        self._places = [(values, values.data_ptr()) for values in model.parameters()]
        parts = list(model.modules())
        self._parts = [(part._modules, name, child) for part in parts for name, child in part._modules.items()]
        self._parts += [(part._parameters, name, values) for part in parts for name, values in part._parameters.items()]
        self._hooks = tables_of_hooks(model)

    def serves(self, model: PreTrainedModel) -> bool:
        """Whether this is the model, and as it was: no weight was moved, no part replaced, and nobody listens to one."""
        return (
            model is self.model
            and not listened(self._hooks)
            and all(owner[name] is part for owner, name, part in self._parts)
            and all(values.data_ptr() == place for values, place in self._places)
        )

    def first(self, count: int) -> "PlainForward":
        """The same with the first layers alone."""
        part = copy(self)
        part.layers = self.layers[:count]
        return part

    def pack(self) -> None:
        """Lay the head out a second time, for passes over several rows, where that pays. It is a copy: an optimizer's step on the
        head is seen and the copy left aside; what is written past autograd, through `.data`, is not seen."""
        self.blocks, self._version = packed.packed(self.head), self.model.lm_head.weight._version

    @torch.inference_mode()
    def tables(self, count: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions below `count`, (count, 1, d) each; the first half of the sines has its sign turned."""
        positions = torch.arange(count, device=self.embedding.device)[None]
        cos, sin = self.body.rotary_emb(self.embedding[:1], positions)
        half = self.width // 2
        return cos[0, :, None], torch.cat((-sin[0, :, None, :half], sin[0, :, None, half:]), -1)

    def reach(self, position: int) -> None:
        """See to it that the tables hold a position. Those of before are never written to: a graph may read them."""
        count = len(self.cos)
        if position >= count:
            while position >= count:
                count *= 2
            self.cos, self.sin = self.tables(count)

    def embedded(self, ids: Tensor) -> Tensor:
        """(n,) -> (n, width)."""
        return embedding(ids, self.embedding)

    def __call__(
        self, rows: Tensor, positions: Tensor, mask: Tensor | None, store: Store, wanted: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """All layers and the last norm.

        Args:
            rows: (n, width) as `embedded` gives them.
            positions: (n,) below what `reach` was asked for, on the device of the weights.
            mask: (1, 1, n, k) additive; None: one row that sees all, or a chain with nothing before it.
            store: takes keys and values in.
            wanted: aux hidden layers, as in `Target.forward`.

        Returns:
            (n, width) states behind the last norm, and layer -> (n, width).
        """
        cos, sin = self.cos[positions], self.sin[positions]
        share = self.heads // self.groups
        mask = mask if mask is None or share == 1 else mask.repeat(1, 1, share, 1)  # see `found`
        hidden: dict[int, Tensor] = {0: rows} if 0 in wanted else {}
        for number, layer in enumerate(self.layers):
            rows = self.attended(number, layer, rows, cos, sin, mask, store)
            read = rms_norm(rows, rows.shape[-1:], layer.mlp_norm, self.eps)
            gate, through = multiplied(read, layer.gated, layer.gated_bias).chunk(2, 1)
            rows = added(rows, self.act(gate).mul_(through), layer.down, layer.down_bias)
            if number + 1 in wanted:
                hidden[number + 1] = rows
        if PRE_NORM in wanted:
            hidden[PRE_NORM] = rows
        normed = rms_norm(rows, rows.shape[-1:], self.norm, self.eps)
        if len(self.layers) in wanted:
            hidden[len(self.layers)] = normed
        return normed, hidden

    def attended(
        self, number: int, layer: Weights, rows: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, store: Store
    ) -> Tensor:
        """(n, width) -> the same with what attention found added."""
        n, turned, half = len(rows), self.heads + self.groups, self.width // 2
        found = multiplied(rms_norm(rows, rows.shape[-1:], layer.norm, self.eps), layer.asked, layer.asked_bias)
        found = found.view(n, turned + self.groups, self.width)
        both = found[:, :turned]
        if layer.query_norm is not None and layer.key_norm is not None:
            norms = (layer.query_norm, layer.key_norm)
            parts = zip(both.split((self.heads, self.groups), 1), norms, strict=True)
            both = torch.cat([rms_norm(part, norm.shape, norm, self.eps) for part, norm in parts], 1)
        both = (both * cos).addcmul_(torch.cat((both[..., half:], both[..., :half]), -1), sin)
        keys, fresh = (part.transpose(0, 1)[None] for part in (both[:, self.heads :], found[:, turned:]))
        keys, seen = store(number, keys, fresh)
        out = self.found(both[:, : self.heads], keys, seen, mask)
        return added(rows, out.reshape(n, -1), layer.out, layer.out_bias)

    def found(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(n, h, d) what the heads ask -> the same shape. Heads that share keys are put one behind the other, as rows of one head:
        keys and values are read once."""
        n, share = len(queries), self.heads // self.groups
        if mask is None and n > 1:
            asked = queries.transpose(0, 1)[None]
            return scaled_dot_product_attention(asked, keys, values, is_causal=True, enable_gqa=share > 1)[0].transpose(0, 1)
        asked = queries.view(n, self.groups, share, self.width).permute(1, 2, 0, 3).reshape(1, self.groups, share * n, self.width)
        out = scaled_dot_product_attention(asked, keys, values, mask)
        return out.view(self.groups, share, n, self.width).permute(2, 0, 1, 3)

    def scores(self, normed: Tensor) -> Tensor:
        """(n, width) states behind the last norm -> (n, entries) logits."""
        if self.blocks is not None and normed.shape[0] > 1 and self._version == self.model.lm_head.weight._version:
            return packed.multiplied(normed, self.blocks, self.head_bias)
        return multiplied(normed, self.head, self.head_bias)


def weights(layer: Any) -> Weights:
    """Those of a decoder layer, put side by side."""
    attention, mlp = layer.self_attn, layer.mlp
    asked, asked_bias = beside((attention.q_proj, attention.k_proj, attention.v_proj))
    gated, gated_bias = beside((mlp.gate_proj, mlp.up_proj))

    def data(part: Any, name: str = "weight") -> Any:
        values = getattr(part, name, None)
        return None if values is None else values.data

    return Weights(
        data(layer.input_layernorm), asked, asked_bias,
        data(getattr(attention, "q_norm", None)), data(getattr(attention, "k_norm", None)),
        attention.o_proj.weight.data.t(), data(attention.o_proj, "bias"),
        data(layer.post_attention_layernorm), gated, gated_bias,
        mlp.down_proj.weight.data.t(), data(mlp.down_proj, "bias"),
    )  # fmt: skip


def multiplied(rows: Tensor, by: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(rows, by) if bias is None else torch.addmm(bias, rows, by)


def added(to: Tensor, rows: Tensor, by: Tensor, bias: Tensor | None) -> Tensor:
    """What `rows` are multiplied to, on top of `to`."""
    found = torch.addmm(to, rows, by)
    return found if bias is None else found + bias
