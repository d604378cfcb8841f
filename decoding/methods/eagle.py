"""EAGLE: one small layer carries the target's own state on, token by token, and the tree of its most probable paths is drafted.

Li et al. 2024, https://arxiv.org/abs/2401.15077 (EAGLE: sections 3.1 and 3.2); Li et al. 2024, https://arxiv.org/abs/2406.16858
(EAGLE-2: the dynamic tree, sections 4.1 and 4.2); Li et al. 2025, https://arxiv.org/abs/2503.01840 (EAGLE-3: three tapped layers
and training on its own outputs, sections 3.1 and 3.2). Trained by `python -m decoding.training eagle`, with the target left
as it is; published checkpoints of all three open too (`decoding.models.published_heads`).

Slot i holds the state of position i and the embedding of token i + 1, stands at position i, and says which token i + 2 is. Two
kinds of head. *eagle*: the state is what the target's language-model head reads; one layer without a norm in front of it puts out
the next state, which that head scores. *eagle3*: three layers of the target are mixed into one state; attention reads it beside
the embedding, both behind norms, and what the layer puts out takes the place of the mix below drafted tokens.

Departures: above temperature 0 chosen trees are followed where the target's own draw agrees (`verify.match`). The formula of the
first paper, p / q with what is left of p, holds only for candidates that were drawn and not ranked anew: for the drawn tree, that
of the static shape with siblings drawn without replacement. The static shape is grown from how often each rank was right on
held-out text, so that any size can be had. Heads trained here may be scored by the target's language-model head (`vocab` 0).
Taps are the authors' where they are three different layers, see `layers_of`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from decoding.draft import EMPTY, Draft
from decoding.drafting.dynamic_tree import JOINT, OWN, Extend, Grown, grow
from decoding.drafting.sampled_tree import draw_tree
from decoding.drafting.static_tree import Path, check_ranks, sparse_tree
from decoding.method import Drafter, Method, param
from decoding.models.attention import Attention, Memory, Sizes, causal
from decoding.models.cache import TreeCache
from decoding.models.family import Family, transpose_weights
from decoding.models.heads import Head, Settings, head_for
from decoding.models.published_heads import head_of
from decoding.models.target import PRE_NORM, Target, TargetOutput
from decoding.sample import Sampling
from decoding.verify import Verification, match, recursive_rejection

KEY = "eagle"
KINDS = ("eagle", "eagle3")
TAPPED = {"eagle": 1, "eagle3": 3}  # layers of the target that a head reads
RANKS = 10  # best tokens at a depth that may stand in a static tree
MOST_NODES, MOST_FAN_OUT, MOST_EXPANSIONS = 64, 10, 8
MAX_WIDTH, MAX_VOCAB, MAX_LAYERS = 65_536, 2**20, 1_024
LIMITS = {  # of the layer
    "hidden_size": MAX_WIDTH,
    "num_attention_heads": 1_024,
    "num_key_value_heads": 1_024,
    "head_dim": MAX_WIDTH,
    "intermediate_size": 2**20,
}
ROWS = 512  # of a prompt, read at once
ROPES = ("default", "linear", "llama3", "yarn")  # rotary scalings that do not depend on the length of the text
SOFT = 0.4  # of the final norm's factors, in an untrained head of kind eagle3
PROMPT_TOKEN = 64  # tokens read to see how large states are
COSINE = "cosine with the true state"  # score of an accepted node: of the state that the head put out behind it
SHARE = "share of {}"  # facts of a step, eagle3 alone: of a tapped layer in the mix at the root
USUAL = ((0.6, 0.15, 0.07, 0.04, 0.03),) * 5  # of a head that says nothing about its accuracies: right at rank 1, 2, ...


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
            or len(self.aux_hidden_layers) != TAPPED[self.kind]
        ):
            count = TAPPED[self.kind]
            raise ValueError(
                f"An EAGLE head that reads the layers {self.aux_hidden_layers!r} cannot be; one with {count} different ones can."
            )
        if self.kind == "eagle" and (self.vocab or self.normed):
            raise ValueError("An EAGLE head of kind 'eagle' with a language-model head or norms of its own cannot be.")
        if self.mapped and not self.vocab:
            raise ValueError("An EAGLE head with a draft vocabulary and without a language-model head of its own cannot be.")
        _ = self.config

    @classmethod
    def of(cls, settings: Settings) -> "Shape":
        """From a head's description, as far as it says; ValueError for settings that cannot be."""
        found = {name: settings[name] for name in cls.__dataclass_fields__ if name in settings}
        lacking = {"kind", "reads", "aux_hidden_layers", "layer"} - found.keys()
        if lacking or not isinstance(found["aux_hidden_layers"], list | tuple) or not isinstance(found["layer"], dict):
            what = ", ".join(sorted(lacking)) or "aux_hidden_layers and layer rightly"
            raise ValueError(f"An EAGLE head whose description does not say {what} cannot be.")
        return cls(**found | {"aux_hidden_layers": tuple(found["aux_hidden_layers"])})

    @property
    def config(self) -> LlamaConfig:
        """The layer in the words of `transformers`; ValueError for one that cannot be."""
        return llama(self.layer)

    @property
    def width(self) -> int:
        return self.config.hidden_size


def check_int(what: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from low to high (ValueError)."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} {value!r} cannot be; {low} to {high:,} can.")


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
    more = ("rms_norm_eps", "rope_parameters", "attention_bias", "mlp_bias", "max_position_embeddings")
    try:
        return LlamaConfig(**{name: layer[name] for name in (*LIMITS, *more) if name in layer})
    except (TypeError, KeyError, ValueError, ArithmeticError) as error:
        raise ValueError(f"A layer of these sizes cannot be: {error}") from error


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

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, width = shape, shape.width
        inputs = 2 * width if shape.kind == "eagle" else 3 * shape.reads
        self.fc = nn.Linear(inputs, width, bias=shape.bias)
        self.layer = Layer(shape)
        if shape.kind == "eagle3":
            self.norm = LlamaRMSNorm(width, shape.config.rms_norm_eps)
        if shape.embeds:
            self.embed_tokens = nn.Embedding(shape.embeds, width)
        if shape.vocab:
            self.unembed = nn.Linear(width, shape.vocab, bias=False)
        if shape.mapped:
            self.register_buffer("tokens", torch.zeros(shape.vocab, dtype=torch.long))  # which of the target's each draft token is

    @property
    def attention(self) -> Attention:
        return self.layer.self_attn

    def embedded(self, tokens: Tensor, target: Target) -> Tensor:
        """(...) tokens -> (..., width)."""
        embed = self.embed_tokens if self.shape.embeds else target.model.get_input_embeddings()
        return embed(tokens).to(self.fc.weight.dtype)

    def mixed(self, states: Sequence[Tensor]) -> Tensor:
        """What the target put out at the aux hidden layers, (..., reads) each -> the state of the slots."""
        states = [values.to(self.fc.weight.dtype) for values in states]
        return states[0] if self.shape.kind == "eagle" else self.fc(torch.cat(states, -1))

    def shares(self, states: Sequence[Tensor]) -> Tensor:
        """(aux hidden layers,) what each tapped layer puts into the mix of one row, eagle3 alone: norms of what they add, in parts
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
    """Where a head of kind eagle3 aux hidden layers a target: behind 2 layers, half of them, and all but 3; if those are not three
    in order, behind the first, half and all but the last one; in a target of 3 layers or fewer whatever there is.

    Source: EAGLE-3, the authors' code; the paper says low, middle and high.
    """
    count = target.model.config.num_hidden_layers
    for aux_hidden_layers in ((2, count // 2, count - 3), (1, count // 2, count - 1)):
        if aux_hidden_layers == tuple(sorted(set(aux_hidden_layers))):
            return aux_hidden_layers
    return (*range(count), PRE_NORM)[-3:] if count > 1 else (0, PRE_NORM, 1)


def init_head(target: Target, kind: str, own: bool = False) -> Heads:
    """Untrained: what it puts out is the state it got, scored by the target's head or a copy of it (`own`, eagle3 alone).

    Of three states that is the highest one, brought to size 1: residual streams are large, and what a young layer adds to one
    would be lost in it; norms make up for the size. It speaks about the token that was just read, so it speaks softly.
    """
    sizes, width = Sizes.of(target), target.model.config.hidden_size
    if (embeds := target.model.get_input_embeddings().weight.shape[1]) != width:
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
            made.unembed.weight.copy_(target.model.get_output_embeddings().weight[:vocab])
    return made.to(target.device)


def final_norm(target: Target, width: int) -> Tensor:
    """The factors of the norm in front of the target's language-model head, as far as it has them; else ones."""
    norms = [getattr(part, "weight", None) for part in target.model.modules() if "Norm" in type(part).__name__]
    fits = norms and norms[-1] is not None and norms[-1].shape == (width,)
    return norms[-1].detach() if fits else torch.ones(width)


def size(target: Target, aux_layer: int) -> float:
    """The root mean square of a target's states at an aux hidden layer; of a few tokens the middle one, since the first is often
    odd."""
    tokens = [i % target.vocab for i in range(min(PROMPT_TOKEN, target.context))]
    states = target.forward(TreeCache(), target.ids(tokens), range(len(tokens)), aux_hidden_layers=(aux_layer,))[1][aux_layer]
    return float(states.float().square().mean(-1).sqrt().median().clamp(min=1e-6))


def load_head(target: Target, head: Head | None = None) -> tuple[Heads, tuple[tuple[float, ...], ...]]:
    """The head of a target, and how often each rank was right at each depth; ValueError if there is none that fits.

    Args:
        head: an opened one; None: the one that is found.
    """
    head = head or head_for(KEY, target.model, shapes)
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
        pairs += [("embeddings of width", shape.width, model.get_input_embeddings().weight.shape[1])]
    if shape.kind == "eagle" or not shape.vocab:
        pairs += [("a language-model head of width", shape.width, model.get_output_embeddings().weight.shape[1])]
    for what, expected, found in pairs:
        if expected != found:
            raise ValueError(f"The EAGLE head is for {what} {expected:,}; the target has {found:,}.")
    if max(shape.aux_hidden_layers) > config.num_hidden_layers:
        raise ValueError(f"The EAGLE head reads layer {max(shape.aux_hidden_layers)}; the target has {config.num_hidden_layers}.")
    if shape.vocab and not shape.mapped and shape.vocab < target.vocab or 0 < shape.embeds < target.vocab:
        least = shape.vocab if shape.vocab and not shape.mapped else shape.embeds
        raise ValueError(f"The EAGLE head knows {least:,} tokens; the target has {target.vocab:,}.")


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    nodes: int = param(24, "Tree size", "Nodes that are kept; the papers have 25 (static) and 48 to 60.", low=1, high=MOST_NODES)
    fan_out: int = param(
        4, "Fan-out", "Children of a node, and nodes expanded per level; the paper has 10.", low=1, high=MOST_FAN_OUT
    )
    expansions: int = param(
        4, "Expansions", "Times the newest level is expanded; the tree is one level deeper.", low=0, high=MOST_EXPANSIONS
    )
    tree: str = param(
        "dynamic",
        "Tree",
        "dynamic: of the paths that the head finds most probable here (EAGLE-2); static: the same ranks always; drawn: that shape, "
        "its siblings drawn from q and judged with p and q (EAGLE). At temperature 0 drawn is static.",
        choices=("dynamic", "static", "sampled"),
    )


class Reader:
    """A head on one text: slots of committed text with the target's states, and below the last one those of a tree."""

    def __init__(self, heads: Heads, target: Target) -> None:
        self.heads, self.target = heads, target
        self.memory = Memory()
        self.last: Tensor | None = None  # (1, width) what the last slot of the text put out
        self.outputs = torch.empty(0)  # (1 + rows of the tree, width)
        self.level = 0

    def commit(self, states: Sequence[Tensor], tokens: Sequence[int]) -> None:
        """New slots behind the text: what the target put out at the aux hidden layers, (rows, reads) each, and the token behind
        each row."""
        mixed, embedded = self.heads.mixed(states), self.heads.embedded(self.target.ids(tokens), self.target)
        for start in range(0, len(tokens), ROWS):
            rows = slice(start, start + ROWS)
            residual, asked = self.heads.slot(mixed[None, rows], embedded[None, rows])
            before, count = self.memory.committed, asked.shape[1]
            positions = torch.arange(before, before + count, device=self.target.device)[None]
            seen = self.memory.commit(*self.heads.attention.keys_values(asked, positions))
            visible = causal(count, before, asked.device) if before else None
            self.last = self.heads.finish(residual, self.heads.attention(asked, positions, *seen, visible))[0, -1:]

    def begin(self) -> Tensor:
        """(1, vocab) logits behind the root; a tree may be grown now."""
        self.memory.drop()
        self.outputs, self.level = self.last, 0
        return self.heads.scored(self.last, self.target)

    def extend(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Read one more level of the tree, as `joint_tree.grow` asks for it: (m, vocab) logits."""
        state = self.outputs[parents + 1]
        residual, asked = self.heads.slot(state[None], self.heads.embedded(tokens, self.target)[None])
        positions = torch.full((1, len(tokens)), self.memory.committed + self.level, device=tokens.device)
        *seen, visible = self.memory.grow(*self.heads.attention.keys_values(asked, positions), parents)
        found = self.heads.finish(residual, self.heads.attention(asked, positions, *seen, visible))[0]
        self.outputs, self.level = torch.cat((self.outputs, found)), self.level + 1
        return self.heads.scored(found, self.target)


class Eagle(Drafter):
    """Keeps keys and values of the committed slots; a draft takes one small layer per level and one copy from the device."""

    reads_prompt_hidden = True

    def __init__(self, target: Target, params: Params, sampling: Sampling, head: Head | None = None) -> None:
        heads, ranks = load_head(target, head)
        self.params, self.target = params, target
        self.reader = Reader(heads, target)
        self.aux_hidden_layers = heads.shape.aux_hidden_layers
        self.sampling, self.shown = sampling, Sampling() if sampling.greedy else sampling
        ranks = tuple(row[: min(params.fan_out, target.vocab)] for row in ranks[: params.expansions + 1])
        self.tree = "static" if params.tree == "sampled" and sampling.greedy else params.tree  # a one-hot q would draw one token
        self.paths = () if self.tree == "dynamic" else sparse_tree(ranks, params.nodes)
        self.read: tuple[int, ...] = ()  # of the last draft: the place of every node among those that the head read, or -1
        self.init_head: list[Tensor] = []  # states at the aux hidden layers that no slot was made of yet, (rows, width) each

    def begin(self, tokens, output) -> None:
        self.init_head = [] if output is None else [output.hidden[aux_layer] for aux_layer in self.aux_hidden_layers]

    def propose(self, tokens, rng) -> Draft:
        if self.init_head:
            self.reader.commit(self.init_head, tokens[-len(self.init_head[0]) :])
            self.init_head = []
        if self.reader.last is None:  # a prompt of one token: nothing was read yet
            return EMPTY
        first = self.reader.begin()
        return self._sampled(first, rng) if self.tree == "sampled" else self._chosen(first)

    def _chosen(self, first: Tensor) -> Draft:
        params = self.params
        if self.tree == "static":
            found = fixed(first, self.reader.extend, self.paths)
        else:
            sizes = {"nodes": params.nodes, "fan_out": params.fan_out, "expansions": params.expansions}
            found = grow(first, self.reader.extend, **sizes)
        self.read = found.read
        return found.draft(f"{self.tree} tree", self.shown, 1 + self.reader.level)

    def _sampled(self, first: Tensor, rng: Generator) -> Draft:
        """EAGLE, section 3.2 of its paper, at a temperature above 0: the static shape, siblings drawn without replacement."""

        def extend(tokens: Tensor, parents: list[int]) -> Tensor:
            return self.reader.extend(tokens, torch.tensor(parents, device=first.device)).float()

        found = draw_tree(first.float(), extend, counts_of(self.paths), sampling=self.sampling, rng=rng)
        self.read = found.read
        scores = {JOINT: found.joint, OWN: torch.tensor(found.own)}
        return found.draft("sampled tree", 1 + self.reader.level, scores)

    def observe(self, draft, output, verification) -> None:
        rows = torch.tensor([0, *(node + 1 for node in verification.path)], device=self.target.device)
        self.init_head = [output.hidden[aux_layer][rows] for aux_layer in self.aux_hidden_layers]
        if len(draft):
            self.tell(draft, output, verification)

    @torch.inference_mode()
    def tell(self, draft: Draft, output: TargetOutput, verification: Verification) -> None:
        """Note what the target's states say about the draft, for the pictures.

        COSINE, a score: of the state that the head put out behind an accepted node and of the one that took its place: the
        target's own (eagle), the mix of its layers (eagle3). Only nodes that the head read have one. SHARE, a fact of the step.
        """
        heads, path = self.reader.heads, verification.path
        shares = (
            [SHARE.format(layer_name(aux_layer)) for aux_layer in self.aux_hidden_layers] if heads.shape.kind == "eagle3" else []
        )
        parts: list[Tensor] = []
        if shares:
            parts.append(heads.shares([part[:1] for part in self.init_head]))
        # a draft that was cut at the end of the context lost its deepest levels, which stand last: places stay right
        known = [k for k, node in enumerate(path) if self.read[node] >= 0]
        if known:
            rows = torch.tensor([[k + 1 for k in known], [self.read[path[k]] + 1 for k in known]], device=self.target.device)
            true = heads.mixed([part[rows[0]] for part in self.init_head])
            parts.append(F.cosine_similarity(self.reader.outputs[rows[1]].float(), true.float(), dim=-1))
        numbers = torch.cat(parts).tolist() if parts else []  # the one copy from the device
        draft.facts.update(zip(shares, numbers, strict=False))
        if known:
            draft.scores[COSINE] = torch.full((len(draft),), torch.nan)
            draft.scores[COSINE][[path[k] for k in known]] = torch.tensor(numbers[len(shares) :])


def counts_of(paths: Sequence[Path]) -> list[list[int]]:
    """How many children every node of a fixed tree has, level by level, the root first; leaves of the last level are left out.

    >>> counts_of(((0,), (1,), (0, 0), (0, 1), (1, 0)))
    [[2], [2, 1]]
    """
    below = Counter(path[:-1] for path in paths)
    levels = [[()], *(list(level) for _, level in groupby(paths, key=len))]
    return [[below[path] for path in level] for level in levels[:-1]]


def fixed(first: Tensor, extend: Extend, paths: Sequence[Path]) -> Grown:
    """The tree of these ranks, breadth first, whatever the head thinks of them (EAGLE, section 3.2).

    Args:
        first, extend: as for `joint_tree.grow`.
    """
    inner = {path[:-1] for path in paths}
    reads: dict[Path, int] = {(): -1}  # paths that were read, in order
    tokens, own, rows, logits = [], [], [], [first]
    scored = first
    for _, level in groupby(paths, key=len):
        level = list(level)
        best = scored.float().softmax(-1).topk(max(path[-1] for path in level) + 1)
        row = torch.tensor([reads[path[:-1]] + 1 for path in level], device=first.device)
        local = row - sum(map(len, logits[:-1]))
        rank = torch.tensor([path[-1] for path in level], device=first.device)
        tokens.append(best.indices[local, rank])
        own.append(best.values[local, rank])
        rows.append(row)
        below = [i for i, path in enumerate(level) if path in inner]
        if below:
            parents = torch.tensor([reads[level[i][:-1]] for i in below], device=first.device)
            scored = extend(tokens[-1][torch.tensor(below, device=first.device)], parents)
            reads |= {level[i]: len(reads) - 1 + number for number, i in enumerate(below)}
            logits.append(scored)
    drafted, factors = torch.stack((torch.cat(tokens).double(), torch.cat(own).double())).tolist()  # the one copy
    place = {(): -1} | {path: i for i, path in enumerate(paths)}
    joint: dict[Path, float] = {(): 1.0}
    for path, factor in zip(paths, factors, strict=True):
        joint[path] = joint[path[:-1]] * factor
    return Grown(
        tuple(map(int, drafted)),
        tuple(place[path[:-1]] for path in paths),
        torch.cat(rows),
        torch.cat(logits),
        tuple(reads.get(path, -1) for path in paths),
        torch.tensor([joint[path] for path in paths]),
        torch.tensor(factors),
        (),
    )


def build(family: Family, params: Params, sampling: Sampling):
    rule = recursive_rejection if params.tree == "sampled" and not sampling.greedy else match
    return Eagle(family.target, params, sampling, head_of(family, KEY)), rule


METHOD = Method(
    key=KEY,
    title="EAGLE",
    paper="https://arxiv.org/abs/2406.16858",
    authors="Li et al. (ICML 2024, EMNLP 2024, NeurIPS 2025)",
    year=2024,
    idea=(
        "One small layer on the target's own hidden states drafts token by token: each guess is fed back together with the state "
        "that it came from. How sure the layer is says which paths are worth drafting, so every step gets a tree of its own."
    ),
    algorithm=(
        "Wherever text was committed, the layer reads the target's true states beside the token that followed.",
        "Its next state is scored for the tokens that may follow the root; the best few become children.",
        "The most probable nodes of the newest level are expanded: their token and the layer's own last state go in, states of the "
        "target are not known there.",
        "Of all levels, the nodes with the largest products of probabilities are kept; a parent is never worth less than a child.",
        "The target reads the tree in one call and draws its own token at every position; children that agree are followed.",
        "Or the tree has a fixed shape: siblings are drawn from q without repeats, and tried in that order with p and q.",
    ),
    lossless=(
        "A chosen tree is a function of the past and is only compared with what the target draws itself: how it was ranked, pruned "
        "and trained changes the speed alone. A drawn tree is kept whole and judged in draw order, by rejection."
    ),
    params=Params,
    build=build,
    head="target",
)
