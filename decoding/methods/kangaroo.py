"""Kangaroo: the target's own first layers and a small adapter guess the next tokens; the other layers go on where these stopped.

Liu et al. 2024, https://arxiv.org/abs/2404.18911: the adapter and the early exit of the network (section 3.1), the exit from
drafting by confidence (3.2). The adapter is one attention layer between two norms, without a gated layer; its output is scored by
the target's own language-model head. Trained by `python -m decoding.training kangaroo`.

The states behind the exit layer are handed on with the draft (`decoding.drafting.resumed`): no layer reads a drafted token twice.
The token whose confidence is too low is kept and judged; drafting stops behind it. Throwing it away instead would bend what is
written.

Departures: tokens are drawn from q and judged by recursive rejection at any temperature (the released code is greedy only),
with the same result at temperature 0; the confidence is that of the drafter's distribution at temperature 1 before any filter;
the keys and values of the first layers are kept a second time by the drafter, so that a draft is plain data; the tree of the
conference paper, for which there is no code, is left out. The stop by confidence needs one copy from the device per drafted
token.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from decoding.checks import check_int
from decoding.draft import Draft
from decoding.drafting.resumed import Resumed
from decoding.method import Drafter, Method, param
from decoding.models import layers
from decoding.models.attention import Attention, Sizes, attended, causal, heads_first
from decoding.models.cache import Layer, TreeCache
from decoding.models.first_layers import FirstLayers
from decoding.models.heads import Head, Settings, head_for, shared
from decoding.models.pieces import Pieces
from decoding.models.requirements import TARGET_HEAD
from decoding.models.self_test import layers_refusal
from decoding.models.target import PREFILL_ROWS, Target
from decoding.sample import Sampling, draw
from decoding.score_names import CONFIDENCE, EXIT_LAYER, LAYERS, STOPPED
from decoding.verify import recursive_rejection

KEY = "kangaroo"
MAX_LAYERS = 1_024
SIZES = ("width", "heads", "theta", "eps")  # what an adapter's description says of its layer
UNSURE, FULL, ENDED = 1.0, 2.0, 3.0  # reasons for stopping: the confidence, the length (or the context), an end of text


class Adapter(nn.Module):
    """One attention layer between two norms; untrained, it hands on what it was given, normed as the target's own last state is.

    Args:
        sizes: of the attention; `mlp` is not used.
        layer: after how many layers of the target the states are taken.
    """

    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.sizes, self.layer = sizes, layer
        self.norm_in = LlamaRMSNorm(sizes.width, sizes.eps)
        self.attention = Attention(sizes.config)
        self.norm_out = LlamaRMSNorm(sizes.width, sizes.eps)
        nn.init.zeros_(self.attention.o_proj.weight)

    def keys_values(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention.keys_values(self.norm_in(states), positions)

    def forward(self, states: Tensor, positions: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """(batch, rows, width) states behind the exit layer -> the same shape, for the target's language-model head; what stands at
        a place predicts the very token that the target predicts there. The other arguments as for `Attention`."""
        return self.closed(states, attended(self.attention.queries(self.norm_in(states), positions), keys, values, visible))

    def opened(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention.opened`, of (n, width)."""
        return self.attention.opened(self.norm_in(states), positions)

    def closed(self, states: Tensor, found: Tensor) -> Tensor:
        """(..., width) states and what `attended` found for them -> what `forward` puts out."""
        return self.norm_out(states + self.attention.o_proj(found))

    def whole(self, states: Tensor) -> Tensor:
        """The same for whole texts, (batch, length, width)."""
        positions = torch.arange(states.shape[1], device=states.device)[None]
        return self(states, positions, *self.keys_values(states, positions))


def usual_exit(target: Target) -> int:
    """A sixth of the layers, at least one: 2 of 12. The paper has 2 of 32 and 3 of 40, of models whose layers know more."""
    return max(1, target.model.config.num_hidden_layers // 6)


def init_head(target: Target, layer: int) -> Adapter:
    """An untrained adapter: what the target's own norm and head make of the states behind layer `layer`, from 1."""
    if not 1 <= layer <= target.model.config.num_hidden_layers:
        raise ValueError(f"The target has {target.model.config.num_hidden_layers} layers; the exit cannot be behind {layer}.")
    if reason := layers_refusal(target):
        raise ValueError(reason)
    made = Adapter(Sizes.of(target), layer)
    weight = getattr(layers.final_norm(target.model), "weight", None)
    if weight is not None:
        made.norm_out.weight.data.copy_(weight)
    return made.to(target.device)


def settings_of(adapter: Adapter) -> Settings:
    sizes = asdict(adapter.sizes)
    return {name: sizes[name] for name in SIZES} | {"layer": adapter.layer}


def sizes_in(settings: Settings) -> Sizes:
    """ValueError for settings that cannot be."""
    layer = settings.get("layer")
    check_int("A Kangaroo adapter behind layer", layer, 1, MAX_LAYERS)
    return Sizes(**{name: settings.get(name) for name in SIZES}, mlp=1)


def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The tensors of a head file; ValueError for settings that cannot be."""
    with torch.device("meta"):
        made = Adapter(sizes_in(settings), settings["layer"])
    return {name: tuple(values.shape) for name, values in made.state_dict().items()}


def load_head(target: Target) -> Adapter:
    """The adapter of a target; ValueError if there is none that fits."""
    return shared(KEY, target.model, lambda: built(target, head_for(KEY, target.model, shapes)))


def built(target: Target, head: Head) -> Adapter:
    """An opened one; ValueError if it does not fit."""
    config, layer, width = target.model.config, head.settings["layer"], head.settings["width"]
    if width != config.hidden_size or layer > config.num_hidden_layers:
        raise ValueError(
            f"The Kangaroo adapter is for states of width {width:,} behind layer {layer}; the target has {config.hidden_size:,} "
            f"and {config.num_hidden_layers} layers."
        )
    made = Adapter(sizes_in(head.settings), layer)
    made.load_state_dict(head.tensors)
    return made.to(target.device, target.dtype).eval()


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    length: int = param(6, "Draft length", "Tokens drafted per step at most (gamma).", low=1, high=32)
    threshold: float = param(
        0.6,
        "Confidence to go on",
        "Drafting stops behind a token if the drafter's largest probability there is not above this (eta); 0: never.",
        low=0.0,
        high=1.0,
    )


class Kangaroo(Drafter):
    """Runs the target's first layers over its own rows of keys and values, and the adapter over what they put out.

    The first layers have always read one token more than the adapter: a drafted one, so that the target can go on from it. Behind a
    step in which everything was accepted the adapter makes up for it.
    """

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.target, self.params, self.sampling = target, params, sampling
        self.adapter = load_head(target)
        self.layer = self.adapter.layer
        self.first, self.pieces = FirstLayers(target, self.layer), Pieces(target.graphs)
        self.cache = TreeCache()  # of the first layers
        self.memory = Layer()  # of the adapter
        self.waiting = self._none()  # (rows, width) behind the exit layer, committed, not yet seen by the adapter
        self.drafted = self.waiting  # (n + 1, width) behind the exit layer: the root and what was drafted

    def begin(self, tokens, output) -> None:
        for start in range(0, len(tokens) - 1, PREFILL_ROWS):
            part = tokens[start : min(start + PREFILL_ROWS, len(tokens) - 1)]
            states = self.shallow(self.target.ids(part))
            self.cache.keep(range(len(part)))
            positions = self._positions(start, len(part))
            self.memory.update(*self.adapter.keys_values(states[None], positions))

    def shallow(self, ids: Tensor) -> Tensor:
        """(rows,) tokens behind all that was read -> (rows, width) states behind the exit layer."""
        return self.first(self.cache, ids)

    @torch.inference_mode()
    def adapted(self, states: Tensor) -> Tensor:
        """(rows, width) the next states that the adapter has not seen -> (1, vocab) logits behind the last of them."""
        before = self.memory.length
        positions = self._positions(before, len(states))[0]
        queries, *own = map(heads_first, self.pieces(self.adapter.opened, states, positions))
        keys, values = self.memory.update(*own)
        found = attended(queries, keys, values, causal(len(states), before, states.device))[0]
        return self.pieces(self._closed, states[-1:], found[-1:])[0]

    def _closed(self, states: Tensor, found: Tensor) -> tuple[Tensor]:
        """(n, width) states and what the adapter's attention found for them -> (n, vocab) logits."""
        return (self.target.score(self.adapter.closed(states, found)),)

    def propose(self, tokens, rng) -> Draft:
        uniforms = torch.rand(self.params.length, generator=rng).to(self.target.device)
        states = [self.shallow(self.target.ids(tokens[-1:]))]
        new, sampled, q, draft_probability_rows, confidences = torch.cat((self.waiting, states[0])), [], [], [], []
        reason = 0.0
        while not reason:
            logits = self.adapted(new)
            draft_probability_rows.append(logits.softmax(-1))
            q.append(self.sampling.probabilities(logits))
            token = draw(q[-1], uniforms[len(sampled) : len(sampled) + 1])
            number, confidence = torch.cat((token.double(), draft_probability_rows[-1].amax(-1).double())).tolist()
            sampled.append(int(number))
            confidences.append(confidence)
            new = self.shallow(token)  # also of the last one: the target resumes behind it
            states.append(new)
            reason = self.reason(sampled, confidence, len(tokens))
        self.drafted = torch.cat(states)
        return self._draft(sampled, q, draft_probability_rows, confidences, reason)

    def reason(self, sampled: list[int], confidence: float, length: int) -> float:
        """Why nothing is drafted behind the tokens so far; 0 to go on. Looks at q and at the past only: what was drawn is kept."""
        if sampled[-1] in self.target.ends:
            return ENDED
        if len(sampled) >= min(self.params.length, self.target.context - length):
            return FULL
        return UNSURE if confidence <= self.params.threshold else 0.0

    def _draft(
        self, sampled: list[int], q: list[Tensor], draft_probability_rows: list[Tensor], confidences: list[float], reason: float
    ) -> Draft:
        n = len(sampled)
        first = self.cache.committed
        rows = tuple((of.keys[:, :, first : of.length], of.values[:, :, first : of.length]) for of in self.cache.layers)
        return Draft(
            tuple(sampled),
            tuple(range(-1, n - 1)),
            torch.cat(q),
            torch.cat(draft_probability_rows) if self.sampling.greedy else None,
            how="sampled",
            source=("adapter",) * n,
            scores={
                CONFIDENCE: torch.tensor(confidences),
                EXIT_LAYER: torch.full((n,), float(self.layer)),
                LAYERS: torch.full((n,), float(self.target.model.config.num_hidden_layers)),
                STOPPED: torch.tensor([float("nan")] * (n - 1) + [reason]),
            },
            calls=n,
            reading=Resumed(self.layer, self.drafted, rows),
        )

    def observe(self, draft, output, verification) -> None:
        kept = len(verification.path) + 1
        seen = min(self.memory.length, self.cache.committed + kept)
        self.memory.keep(seen, None, 0)
        self.waiting = self.drafted[seen - self.cache.committed : kept]
        self.cache.keep(range(kept))

    def _positions(self, first: int, rows: int) -> Tensor:
        return torch.arange(first, first + rows, device=self.target.device)[None]

    def _none(self) -> Tensor:
        return torch.zeros(0, self.target.model.config.hidden_size, dtype=self.target.dtype, device=self.target.device)


class LlamaLayers:
    """A target that can be left after some of its layers; of one that is not loaded it cannot be told."""

    words, part = "a target built like a Llama", "target"

    def lacking(self, method: Method, family: Any) -> str:
        target = getattr(family, "target", None)
        return layers_refusal(target) if isinstance(target, Target) else ""

    def parameters(self, method: Method, family: Any) -> int:
        return 0


METHOD = Method(
    key=KEY,
    title="Kangaroo",
    paper="https://arxiv.org/abs/2404.18911",
    authors="Liu et al. (NeurIPS 2024)",
    year=2024,
    group="itself",
    line="The large model's first layers guess; the others check.",
    idea=(
        "The target drafts for itself: its first layers and one small attention layer guess token after token, until they are "
        "unsure. The other layers then go on from the states that the first ones left: no layer reads a drafted token twice."
    ),
    algorithm=(
        "The first layers read the root; from their state the adapter and the target's own head make a distribution q.",
        "Draw a token from it, read that one in the same way, and so on.",
        "Stop behind a token at which the largest probability was not above the threshold; it is submitted all the same.",
        "The remaining layers read the root and all drafted tokens in one call, from the states behind the exit layer.",
        "Token by token: accept if u × q < p; a rejected one is replaced by a draw from norm(max(p − q, 0)).",
    ),
    lossless=(
        "The deeper layers see exactly what they would see without drafting. Whether to stop depends on the past and on q, not on "
        "the token that was drawn, and that token is kept: rejection against q then follows the target exactly."
    ),
    params=Params,
    build=lambda family, params, sampling: (Kangaroo(family.target, params, sampling), recursive_rejection),
    requirements=(
        LlamaLayers(),
        TARGET_HEAD,
    ),
)
