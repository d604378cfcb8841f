"""Chimera: a trigram of the newest tokens, mixed with all of the target's own last states, stands in for the target's next state.

Zeng et al. 2024, https://arxiv.org/abs/2402.15758: a trigram encoder in place of the target's lower layers, one transformer layer
over the target's states in place of its upper ones, and residual heads that read the last true state h beside the imitated one, o.
Every token of the tree goes through the encoders again, so that the guesses of a path depend on each other. Trained by `python -m
decoding.training chimera`, with the target left as it is.

Departures: a head is W R [h; o] with the target's own language-model head W and R of width x 2 width, begun as [I, I], where the
    paper trains a matrix of vocabulary x 2 width (for 4,096 tokens and a width of 256 ten times the parameters); a slot sees the
    target's states, the imitated states before it on its path, and its own trigram alone (versions of the released code disagree);
    in front of the first token the first one is repeated; embeddings are scaled to a root mean square of 1; the tree is that of the
    most probable paths (`decoding.drafting.dynamic_tree`) in place of a fixed one; exact acceptance (the released test script
    accepts what is typical,
which is not lossless).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from decoding.checks import check_int
from decoding.draft import EMPTY, Draft
from decoding.drafting.dynamic_tree import grow
from decoding.method import Drafter, Method, param
from decoding.models.attention import Block, Memory, Sizes, attended, heads_first
from decoding.models.family import Family
from decoding.models.heads import Settings, rebuilt, shapes_of
from decoding.models.layers import embedding
from decoding.models.pieces import Pieces
from decoding.models.requirements import TARGET_HEAD
from decoding.models.spread import looked_up
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import FROM_H, FROM_O, JOINT, OWN
from decoding.verify import match

KEY = "chimera"
MAX_HEADS, MAX_NODES = 16, 64
FAN_OUT = 8  # children that a node may have, and nodes of a level that are expanded
SIZES = ("width", "attention heads", "mlp", "theta", "eps")


class Heads(nn.Module):
    """Trigram encoder, full-context encoder and K residual heads.

    Args:
        sizes: of the full-context encoder.
        heads: K.
    """

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        self.sizes = sizes
        width = sizes.width
        self.gram = nn.Linear(3 * width, 3 * width)
        self.join = nn.Linear(3 * width, width, bias=False)
        self.context = Block(sizes.config)
        self.residual = nn.ModuleList(nn.Linear(2 * width, width, bias=False) for _ in range(heads))

    def trigram(self, target: Target, grams: Tensor) -> Tensor:
        """(..., 3) tokens, the newest last -> (..., width)."""
        rows = looked_up(embedding(target.model), grams)
        joined = F.rms_norm(rows.float(), rows.shape[-1:], eps=1e-12).to(target.dtype).flatten(-2)
        return self.join(joined + F.silu(self.gram(joined)))

    def slot(
        self, rows: Tensor, positions: Tensor, text: tuple[Tensor, Tensor, Tensor], own: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """The full-context encoder for one slot behind every place of a text, all places at once.

        Args:
            rows: (batch, places, width) trigrams, at (1, places) positions.
            text: keys and values (batch, heads, length, head width) of the target's states, and (places, length) bool, the states
                that a place sees.
            own: keys and values (batch, heads, places, head width), of which a place sees the one at its own place: of its imitated
                states so far, then of its trigram.

        Returns:
            (batch, places, width) imitated states.
        """
        attend, (keys, values, visible) = self.context.self_attn, text
        normed = self.context.input_layernorm(rows)
        queries = attend.split(attend.q_proj(normed))
        queries = apply_rotary_pos_emb(queries, queries, *attend.rotary(normed, positions))[0] * attend.head_width**-0.5
        scores = (queries @ keys.transpose(-1, -2)).masked_fill(~visible, float("-inf"))
        more = torch.stack([(queries * key).sum(-1) for key, _ in own], -1)
        weights = torch.cat((scores, more), -1).softmax(-1)
        length = keys.shape[2]
        found = weights[..., :length] @ values
        for j, (_, value) in enumerate(own):
            found = found + weights[..., length + j, None] * value
        rows = rows + attend.o_proj(found.transpose(1, 2).flatten(-2))
        return rows + self.context.mlp(self.context.post_attention_layernorm(rows))

    def read(self, hidden: Tensor, imitated: Tensor, k: int) -> Tensor:
        """What head k, from 0, hands to the language-model head, (..., width) as both states."""
        return self.residual[k](torch.cat((hidden.expand_as(imitated), imitated), -1))

    def from_hidden(self, hidden: Tensor, k: int) -> Tensor:
        """The part of it that stems from the true state."""
        return F.linear(hidden, self.residual[k].weight[:, : hidden.shape[-1]])


def init_head(target: Target, heads: int) -> Heads:
    """Untrained heads: nearly zero for the imitated state, so that every head says what the target says next."""
    made = Heads(Sizes.of(target), heads)
    width = made.sizes.width
    for part in (made.gram.weight, made.gram.bias, made.context.self_attn.o_proj.weight, made.context.mlp.down_proj.weight):
        nn.init.zeros_(part)
    nn.init.normal_(made.join.weight, std=0.1 / (3 * width) ** 0.5)
    for head in made.residual:
        head.weight.data = torch.cat((torch.eye(width), torch.eye(width)), 1)
    return made.to(target.device)


def described(heads: Heads) -> Settings:
    """From which the shapes of the file follow."""
    return dict(zip(SIZES, asdict(heads.sizes).values(), strict=True)) | {"heads": len(heads.residual)}


def heads_of(settings: Settings) -> Heads:
    """Heads of these sizes; ValueError for settings that cannot be."""
    sizes = Sizes(*(settings.get(name) for name in SIZES))
    heads = settings.get("heads")
    check_int("Chimera with heads", heads, 1, MAX_HEADS)
    return Heads(sizes, heads)


shapes = shapes_of(heads_of)


def load_head(target: Target) -> Heads:
    """The heads of a target; ValueError if there are none that fit."""
    return rebuilt(KEY, target, heads_of, "The heads of Chimera are")


# -- all places of a text at once --------------------------------------------------------------------------------------


def imitated(heads: Heads, target: Target, hidden: Tensor, tokens: Tensor, places: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Draft a chain behind some places of a text, all of them at once: training is drafting with the tokens given.

    Behind place i, h_0 to h_i are known and token i + 1 is the root. Slot s, from 1, stands at position i + s, reads the token
    there and imitates h_{i+s}.

    Args:
        hidden: (batch, length, width) states behind the final norm.
        tokens: (batch, length).
        places: (m,) ascending.

    Yields:
        for every slot (batch, m, width) imitated states, and what its head hands to the language-model head.
    """
    length = hidden.shape[1]
    everywhere = torch.arange(length, device=hidden.device)
    text = (*heads.context.keys_values(hidden, everywhere[None]), everywhere <= places[:, None])
    own: list[tuple[Tensor, Tensor]] = []
    true = F.pad(tokens, (0, len(heads.residual) + 1))
    grams = torch.stack((true[:, (places - 1).clamp(min=0)], true[:, places], true[:, places + 1]), -1)
    for k in range(len(heads.residual)):
        positions = (places + 1 + k)[None]
        rows = heads.trigram(target, grams)
        seen = heads.context.keys_values(rows, positions)
        made = heads.slot(rows, positions, text, [*own, seen])
        own.append(heads.context.keys_values(made, positions))
        read = heads.read(hidden[:, places], made, k)
        yield made, read
        grams = torch.cat((grams[..., 1:], true[:, places + 2 + k, None]), -1)


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    nodes: int = param(24, "Tree size", "Nodes of the tree; the paper's has 25.", low=1, high=MAX_NODES)
    heads: int = param(4, "Heads", "Heads that are asked, at most as many as were trained.", low=1, high=MAX_HEADS)


class Chimera(Drafter):
    """Keeps keys and values of the full-context encoder for the target's states, and the last state."""

    reads_prompt_hidden = True

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.target, self.params = target, params
        self.heads = load_head(target)
        self.levels = min(params.heads, len(self.heads.residual))
        self.aux_hidden_layers = (target.last_hidden,)
        self.shown = Sampling() if sampling.greedy else sampling
        self.memory, self.pieces = Memory(), Pieces(target.graphs)
        self.hidden: Tensor | None = None  # (1, width) at the token before the root

    def begin(self, tokens, output) -> None:
        if output is not None:
            self.commit(output.hidden[self.aux_hidden_layers[0]])

    def observe(self, draft, output, verification) -> None:
        self.commit(output.hidden[self.aux_hidden_layers[0]][[0, *(node + 1 for node in verification.path)]])

    @torch.inference_mode()
    def commit(self, rows: Tensor) -> None:
        """(m, width) states of the target at tokens that were committed."""
        positions = torch.arange(self.memory.committed, self.memory.committed + len(rows), device=rows.device)[None]
        self.memory.commit(*self.heads.context.keys_values(rows[None], positions))
        self.hidden = rows[-1:]

    def propose(self, tokens, rng) -> Draft:
        if self.hidden is None:  # a prompt of one token: nothing was read yet
            return EMPTY
        self.memory.drop()
        before = self.target.ids([tokens[max(0, len(tokens) - 3)], tokens[-2]])  # two tokens, then the root
        grams: list[Tensor] = []  # per level (m, 3)
        root = len(tokens) - 1

        def extend(drafted: Tensor, parents: Tensor) -> Tensor:
            level = len(grams)
            above = torch.cat(grams)[parents + 1][:, 1:] if grams else before[None]
            grams.append(torch.cat((above, drafted[:, None]), 1))
            return self.slots(grams[-1], root + level, parents + 1 if level else parents, level)

        first = extend(self.target.ids(tokens[-1:]), torch.full((1,), -1, device=self.hidden.device))
        tree = grow(first, extend, nodes=self.params.nodes, fan_out=FAN_OUT, expansions=self.levels - 1)
        depths = torch.tensor(tree.depths, device=first.device) - 1
        drafted = self.target.ids(tree.tokens)
        whole = tree.logits[tree.rows, drafted]
        scored = torch.cat([self.target.score(self.heads.from_hidden(self.hidden, k)) for k in range(self.levels)])
        from_h = scored[depths, drafted]  # stays on the device until the step is recorded
        scores = tree.tensors(JOINT, OWN) | {FROM_H: from_h, FROM_O: whole - from_h}
        source = [f"head {depth}" for depth in tree.depths]
        return tree.draft(source, draft_probabilities=tree.believed(self.shown), scores=scores, calls=self.levels)

    @torch.inference_mode()
    def slots(self, grams: Tensor, position: int, parents: Tensor, level: int) -> Tensor:
        """(m, 3) trigrams at one depth -> (m, vocab) logits of head `level`, from 0, behind imitated states, which are remembered
        for the slots below them.

        Args:
            parents: (m,) the slots above, counted in the order in which they were made, -1 for none.
        """
        positions = torch.full_like(parents, position)
        rows, *parts = self.pieces(self._opened, grams, positions)
        queries, *own = map(heads_first, parts)
        keys, values, visible = self.memory.grow(*own, parents)
        found = attended(queries, keys, values, visible)[0]
        *seen, logits = self.pieces(self._closed, rows, found, positions, self.hidden.expand(len(grams), -1), more=(level,))
        for kept, rows in zip((keys, values), map(heads_first, seen), strict=True):
            kept[:, :, -len(grams) :] = rows  # below, a slot is seen as what it came to, not as its trigram
        return logits

    def _opened(self, grams: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """Up to attention: the rows, queries, keys and values."""
        rows = self.heads.trigram(self.target, grams)
        return rows, *self.heads.context.opened(rows, positions)

    def _closed(self, rows: Tensor, found: Tensor, positions: Tensor, hidden: Tensor, level: int) -> tuple[Tensor, ...]:
        """Behind it: keys and values of the imitated states, and what head `level` says behind them."""
        made = self.heads.context.closed(rows, found)
        keys, values = (part[0].transpose(0, 1) for part in self.heads.context.keys_values(made[None], positions[None]))
        return keys, values, self.target.score(self.heads.read(hidden, made, level))


def build(family: Family, params: Params, sampling: Sampling):
    return Chimera(family.target, params, sampling), match


METHOD = Method(
    key=KEY,
    title="Chimera",
    paper="https://arxiv.org/abs/2402.15758",
    authors="Zeng et al. (2024)",
    year=2024,
    group="heads",
    line="A head that imitates the large model's next state from the last three words.",
    idea=(
        "A head that reads only the target's last state knows neither the token just written nor those being guessed. Chimera "
        "imitates the target's next state from the last three tokens and all states so far, and adds it to the last true one."
    ),
    algorithm=(
        "A trigram encoder turns the root and the two tokens before it into a vector.",
        "One layer of attention over all of the target's last states so far turns it into an imitation of the next state.",
        "A residual head adds the last true state and the imitated one; the target's language-model head scores the sum.",
        "The most probable tokens go through the encoders again, each with the imitated states above it.",
        "The paths with the largest products of probabilities are the tree; the target reads it in one call.",
        "Follow the children that agree with what the target draws; its true states there replace the imitated ones.",
    ),
    lossless="The tree is a function of the past and is only compared with what the target draws itself.",
    params=Params,
    build=build,
    requirements=(TARGET_HEAD,),
)
