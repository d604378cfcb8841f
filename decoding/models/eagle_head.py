"""The head of EAGLE: what its description says, its tensors, and the few steps between them. Trained here or published.

Li et al. 2024, https://arxiv.org/abs/2401.15077 (section 3.1) and 2025, https://arxiv.org/abs/2503.01840 (section 3.1). What drafts
with it is `decoding.methods.eagle`; files in the authors' format are read by `decoding.models.published_heads`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from decoding.checks import check_int
from decoding.models.attention import Attention, Sizes
from decoding.models.cache import TreeCache
from decoding.models.checkpoints import first_line, transpose_weights
from decoding.models.heads import Head, Settings, check_ranks, head_for, shared
from decoding.models.layers import embedding, unembedding
from decoding.models.target import PRE_NORM, Target

KEY = "eagle"
MAX_WIDTH, MAX_VOCAB, MAX_LAYERS = 65_536, 2**20, 1_024
KINDS = ("eagle", "eagle3")
TAPPED = {"eagle": (1,), "eagle3": (1, 3)}  # how many layers of the target a head reads
RANKS = 10  # best tokens at a depth that may stand in a static tree
ROPES = ("default", "linear", "llama3", "yarn")  # rotary scalings that do not depend on the length of the text
SOFT = 0.4  # of the final norm's factors, in an untrained head of kind eagle3
PROBED = 64  # tokens read to see how large states are
USUAL = ((0.6, 0.15, 0.07, 0.04, 0.03),) * 5  # of a head that says nothing about its accuracies: right at rank 1, 2, ...
LIMITS = {  # of the layer
    "hidden_size": MAX_WIDTH,
    "num_attention_heads": 1_024,
    "num_key_value_heads": 1_024,
    "head_dim": MAX_WIDTH,
    "intermediate_size": 2**20,
}


# -- what a head's description says ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What the tensors of a head follow from; ValueError for what cannot be."""

    kind: str
    reads: int  # width of the target's states
    aux_hidden_layers: tuple[int, ...]  # layers of the target, as in `Target.forward`
    layer: dict[str, Any]  # of its own, in the words of LlamaConfig
    vocab: int = 0  # tokens that an own language-model head scores; 0: the target's scores
    mapped: bool = False  # those are some of the target's tokens, named by the tensor `tokens`
    embeds: int = 0  # own embeddings; 0: the target's
    bias: bool = True  # of fc
    normed: bool = False  # eagle3: the state is added behind its norm

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"An EAGLE head of kind {self.kind!r} cannot be; {' and '.join(KINDS)} can.")
        for name, low, high in (("reads", 1, MAX_WIDTH), ("vocab", 0, MAX_VOCAB), ("embeds", 0, MAX_VOCAB)):
            check_int(f"An EAGLE head with {name}", getattr(self, name), low, high)
        for name in ("mapped", "bias", "normed"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"An EAGLE head with {name} {getattr(self, name)!r} cannot be; true or false can.")
        right = isinstance(self.aux_hidden_layers, tuple) and all(
            type(aux_layer) is int and PRE_NORM <= aux_layer <= MAX_LAYERS for aux_layer in self.aux_hidden_layers
        )
        if (
            not right
            or len(set(self.aux_hidden_layers)) != len(self.aux_hidden_layers)
            or len(self.aux_hidden_layers) not in TAPPED[self.kind]
        ):
            counts = " or ".join(map(str, TAPPED[self.kind]))
            raise ValueError(
                f"An EAGLE head that reads the layers {self.aux_hidden_layers!r} cannot be; one with {counts} different ones can."
            )
        if not self.mixes and self.reads != self.width:
            raise ValueError(f"An EAGLE head of width {self.width:,} that reads one state of width {self.reads:,} cannot be.")
        if self.kind == "eagle" and (self.vocab or self.normed):
            raise ValueError("An EAGLE head of kind 'eagle' with a language-model head or norms of its own cannot be.")
        if self.mapped and not self.vocab:
            raise ValueError("An EAGLE head with a draft vocabulary and without a language-model head of its own cannot be.")
        _ = self.config

    @classmethod
    def of(cls, settings: Settings) -> "Shape":
        """From a head's description, as far as it says; ValueError for settings that cannot be."""
        found: dict[str, Any] = {name: settings[name] for name in cls.__dataclass_fields__ if name in settings}
        lacking = {"kind", "reads", "aux_hidden_layers", "layer"} - found.keys()
        if lacking or not isinstance(found["aux_hidden_layers"], list | tuple) or not isinstance(found["layer"], dict):
            what = ", ".join(sorted(lacking)) or "aux_hidden_layers and layer rightly"
            raise ValueError(f"An EAGLE head whose description does not say {what} cannot be.")
        found["aux_hidden_layers"] = tuple(found["aux_hidden_layers"])
        return cls(**found)

    @property
    def config(self) -> LlamaConfig:
        """The layer in the words of `transformers`; ValueError for one that cannot be."""
        return llama(self.layer)

    @property
    def width(self) -> int:
        return self.config.hidden_size

    @property
    def mixes(self) -> bool:
        """Whether fc mixes what is read; a head of kind eagle3 that reads one layer takes it as it is."""
        return self.kind == "eagle" or len(self.aux_hidden_layers) > 1

    def shifted(self, by: int, target: Target) -> "Shape":
        """The same head on states that come `by` layers later in the target; ValueError if there are none."""
        if not by:
            return self
        if len(self.aux_hidden_layers) == 1:
            raise ValueError(
                "This EAGLE head reads the state behind the final norm; only those of EAGLE-3 have layers to be moved."
            )
        layers = target.model.config.num_hidden_layers
        moved = [by + (layers if aux_layer == PRE_NORM else aux_layer) for aux_layer in self.aux_hidden_layers]
        if not all(0 <= aux_layer <= layers for aux_layer in moved):
            way = "later" if by > 0 else "earlier"
            raise ValueError(
                f"The EAGLE head reads {', '.join(map(layer_name, self.aux_hidden_layers))}; there is none {way} than that."
            )
        return replace(self, aux_hidden_layers=tuple(PRE_NORM if aux_layer == layers else aux_layer for aux_layer in moved))


def llama(layer: dict[str, Any]) -> LlamaConfig:
    """One layer, from a few numbers that are checked before anything is made of them; ValueError."""
    for name, most in LIMITS.items():
        check_int(f"A layer with {name}", layer.get(name), 1, most)
    if layer["num_attention_heads"] % layer["num_key_value_heads"] or layer["head_dim"] % 2:
        raise ValueError("A layer whose attention heads do not divide evenly cannot be.")
    rope = layer.get("rope_parameters")
    if not isinstance(rope, dict) or rope.get("rope_type") not in ROPES:
        kind = rope.get("rope_type") if isinstance(rope, dict) else rope
        raise ValueError(f"Rotary positions of type {kind!r} are not supported in a head; {', '.join(ROPES)} are.")
    numbers = [layer.get("rms_norm_eps"), *(v for k, v in rope.items() if k != "rope_type" and not isinstance(v, bool))]
    if not all(type(value) in (int, float) and 0 < value < 1e12 for value in numbers):
        raise ValueError("A layer whose norms or rotary positions are no positive numbers cannot be.")
    more = ("rms_norm_eps", "rope_parameters", "attention_bias", "qkv_bias", "mlp_bias", "max_position_embeddings")
    try:
        return LlamaConfig(**{name: layer[name] for name in (*LIMITS, *more) if name in layer})
    except (TypeError, KeyError, ValueError, ArithmeticError, StrictDataclassError) as error:
        raise ValueError(f"A layer of these sizes cannot be: {first_line(error)}") from error


def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The tensors of a head file; ValueError for settings that cannot be."""
    shape = Shape.of(settings)
    if "ranks" in settings:
        check_ranks(settings["ranks"], len(settings["ranks"]) if isinstance(settings["ranks"], list) else 1, RANKS, "EAGLE heads")
    with torch.device("meta"):
        return {name: tuple(values.shape) for name, values in Heads(shape).state_dict().items()}


# -- the head ----------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """A Llama layer, except for what attention reads: without a norm (eagle), or embedding and state, each behind one (eagle3)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        config = shape.config
        norm = lambda: LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)  # noqa: E731
        if shape.kind == "eagle3":
            self.input_layernorm, self.hidden_norm = norm(), norm()
        self.self_attn = Attention(config, config.hidden_size * (2 if shape.kind == "eagle3" else 1))
        self.post_attention_layernorm = norm()
        self.mlp = LlamaMLP(config)


class Heads(nn.Module):
    """The head of either kind, as tensors and as the few steps between them; rows have the shape (..., width).

    A slot is read in three steps: `slot` makes of a state and an embedding what attention reads and what its outcome is added to;
    attention itself is the caller's, who keeps the keys and values; `finish` puts out the next state.
    """

    tokens: Tensor  # (vocab,) which of the target's each draft token is, of a head with a draft vocabulary

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, width = shape, shape.width
        inputs = 2 * width if shape.kind == "eagle" else 3 * shape.reads
        if shape.mixes:
            self.fc = nn.Linear(inputs, width, bias=shape.bias)
        self.layer = Layer(shape)
        if shape.kind == "eagle3":
            self.norm = LlamaRMSNorm(width, shape.config.rms_norm_eps)
        if shape.embeds:
            self.embed_tokens = nn.Embedding(shape.embeds, width)
        if shape.vocab:
            self.unembed = nn.Linear(width, shape.vocab, bias=False)
        if shape.mapped:
            self.register_buffer("tokens", torch.zeros(shape.vocab, dtype=torch.long))

    @property
    def attention(self) -> Attention:
        return self.layer.self_attn

    @property
    def dtype(self) -> torch.dtype:
        return self.attention.q_proj.weight.dtype

    def embedded(self, tokens: Tensor, target: Target) -> Tensor:
        """(...) tokens -> (..., width)."""
        embed = self.embed_tokens if self.shape.embeds else target.model.get_input_embeddings()
        return embed(tokens).to(self.attention.q_proj.weight.device, self.dtype)

    def mixed(self, states: Sequence[Tensor]) -> Tensor:
        """What the target put out at the aux hidden layers, (..., reads) each -> the state of the slots."""
        states = [values.to(self.dtype) for values in states]
        return states[0] if len(states) == 1 else self.fc(torch.cat(states, -1))

    def shares(self, states: Sequence[Tensor]) -> Tensor:
        """(aux hidden layers,) what each of them puts into the mix of one row, eagle3 alone: norms of what they add, in parts
        of their sum.

        Args:
            states: (1, reads) each.
        """
        blocks = self.fc.weight.split(self.shape.reads, 1)
        norms = torch.stack([(part.to(block.dtype) @ block.T).float().norm() for part, block in zip(states, blocks, strict=True)])
        return norms / norms.sum()

    def slot(self, state: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to, (..., width), and what attention reads, (..., width) or twice that."""
        if self.shape.kind == "eagle":
            both = self.fc(torch.cat((embedded, state), -1))
            return both, both
        normed = self.layer.hidden_norm(state)
        return normed if self.shape.normed else state, torch.cat((self.layer.input_layernorm(embedded), normed), -1)

    def finish(self, residual: Tensor, found: Tensor) -> Tensor:
        """With what attention found, both (..., width): the next state."""
        rows = residual + found
        return rows + self.layer.mlp(self.layer.post_attention_layernorm(rows))

    def scored(self, state: Tensor, target: Target) -> Tensor:
        """(..., width) next states -> (..., vocab) float32 logits; -inf for tokens that cannot be drafted."""
        if self.shape.kind == "eagle":
            return target.score(state)
        state = self.norm(state)
        if not self.shape.vocab:
            return target.score(state)
        logits = self.unembed(state).float()
        if not self.shape.mapped:
            return logits[..., : target.vocab]
        everything = logits.new_full((*logits.shape[:-1], target.vocab), -torch.inf)
        return everything.index_copy(-1, self.tokens, logits)


def layer_name(aux_layer: int) -> str:
    """An aux hidden layer in words.

    >>> layer_name(6), layer_name(PRE_NORM), layer_name(0)
    ('layer 6', 'the last layer', 'the embeddings')
    """
    return {PRE_NORM: "the last layer", 0: "the embeddings"}.get(aux_layer, f"layer {aux_layer}")


def layers_of(target: Target) -> tuple[int, int, int]:
    """Where a head of kind eagle3 reads a target: behind 2 layers, half of them, and all but 3; if those are not three
    in order, behind the first, half and all but the last one; in a target of 3 layers or fewer whatever there is.

    Source: EAGLE-3, the authors' code; the paper says low, middle and high.
    """
    count = target.model.config.num_hidden_layers
    for aux_hidden_layers in ((2, count // 2, count - 3), (1, count // 2, count - 1)):
        if aux_hidden_layers == tuple(sorted(set(aux_hidden_layers))):
            return aux_hidden_layers
    return (count - 2, count - 1, PRE_NORM) if count > 1 else (0, PRE_NORM, 1)


def init_head(target: Target, kind: str, own: bool = False) -> Heads:
    """Untrained: what it puts out is the state it got, scored by the target's head or a copy of it (`own`, eagle3 alone).

    Of three states that is the highest one, brought to size 1: residual streams are large, and what a young layer adds to one
    would be lost in it; norms make up for the size. It speaks about the token that was just read, so it speaks softly.
    """
    sizes, width = Sizes.of(target), target.model.config.hidden_size
    if (embeds := embedding(target.model).weight.shape[1]) != width:
        raise ValueError(f"An EAGLE head needs embeddings as wide as the states; the target's have {embeds:,} and {width:,}.")
    names = ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "rms_norm_eps", "rope_parameters")
    layer = {name: getattr(sizes.config, name) for name in names} | {"head_dim": width // sizes.heads}
    layer["rope_parameters"] = dict(layer["rope_parameters"])
    aux_hidden_layers = (target.last_hidden,) if kind == "eagle" else layers_of(target)
    vocab = target.vocab if own and kind == "eagle3" else 0
    made = Heads(Shape(kind, width, aux_hidden_layers, layer, vocab, bias=kind == "eagle"))
    with torch.no_grad():
        for part in (made.fc, made.attention.o_proj, made.layer.mlp.down_proj):
            for values in part.parameters():
                values.zero_()
        made.fc.weight[:, -width:] = torch.eye(width)
        if kind == "eagle3":
            made.fc.weight /= size(target, aux_hidden_layers[-1])
            made.norm.weight.copy_(SOFT * final_norm(target, width))
        if vocab:
            made.unembed.weight.copy_(unembedding(target.model).weight[:vocab])
    return made.to(target.device)


def final_norm(target: Target, width: int) -> Tensor:
    """The factors of the norm in front of the target's language-model head, as far as it has them; else ones."""
    norms = [getattr(part, "weight", None) for part in target.model.modules() if "Norm" in type(part).__name__]
    last: Tensor | None = norms[-1] if norms else None
    return torch.ones(width) if last is None or last.shape != (width,) else last.detach()


def size(target: Target, aux_layer: int) -> float:
    """The root mean square of a target's states at an aux hidden layer; of a few tokens the middle one, since the first is often
    odd."""
    tokens = [i % target.vocab for i in range(min(PROBED, target.context))]
    states = target.forward(TreeCache(), target.ids(tokens), range(len(tokens)), aux_hidden_layers=(aux_layer,))[1][aux_layer]
    return float(states.float().square().mean(-1).sqrt().median().clamp(min=1e-6))


def load_head(target: Target, head: Head | None = None) -> tuple[Heads, tuple[tuple[float, ...], ...]]:
    """The head of a target, and how often each rank was right at each depth; ValueError if there is none that fits.

    Args:
        head: an opened one; None: the one that is found, and `shared`.
    """
    if head is None:
        return shared(KEY, target.model, lambda: load_head(target, head_for(KEY, target.model, shapes)))
    shape = Shape.of(head.settings)
    check_fits(shape, target)
    heads = Heads(shape)
    heads.load_state_dict(head.tensors)
    if shape.mapped and not 0 <= int(heads.tokens.min()) <= int(heads.tokens.max()) < target.vocab:
        raise ValueError(f"The EAGLE head drafts token {int(heads.tokens.max()):,}; the target has {target.vocab:,} tokens.")
    return transpose_weights(heads.to(target.device, target.dtype).eval()), tuple(map(tuple, head.settings.get("ranks", USUAL)))


def check_fits(shape: Shape, target: Target) -> None:
    """Refuse a head for states or tokens that are not the target's (ValueError)."""
    config, model = target.model.config, target.model
    pairs = [("states of width", shape.reads, config.hidden_size)]
    if not shape.embeds:
        pairs += [("embeddings of width", shape.width, embedding(model).weight.shape[1])]
    if shape.kind == "eagle" or not shape.vocab:
        pairs += [("a language-model head of width", shape.width, unembedding(model).weight.shape[1])]
    for what, expected, found in pairs:
        if expected != found:
            raise ValueError(f"The EAGLE head is for {what} {expected:,}; the target has {found:,}.")
    if max(shape.aux_hidden_layers) > config.num_hidden_layers:
        raise ValueError(f"The EAGLE head reads layer {max(shape.aux_hidden_layers)}; the target has {config.num_hidden_layers}.")
    if shape.vocab and not shape.mapped and shape.vocab < target.vocab or 0 < shape.embeds < target.vocab:
        least = shape.vocab if shape.vocab and not shape.mapped else shape.embeds
        raise ValueError(f"The EAGLE head knows {least:,} tokens; the target has {target.vocab:,}.")
