"""Future Token Prediction: a small decoder reads the target's last state, one vector, and writes the next few tokens from it.

Walker 2024, https://arxiv.org/abs/2410.18160, proposes a way of *pre-training*: an encoder's vector of one position is projected to
a short pseudo-sequence, to which a small decoder attends while it writes the next N tokens; the nearer the token, the more its
error counts. The paper publishes no speculative decoding and no speed-up. What stands here is our drafter on that idea: the target
is frozen, only projection and decoder are trained (`python -m decoding.training ftp`), and tree and verification are ours.

The decoder sees the memory of one state, a start vector, the root and the drafted path, and nothing else of the past: a draft costs
the same at any length of text. The newest state is that of the token before the root, so the first of the N outputs predicts the
root again, which is known: how well it does so says whether the state carries enough. Drafts are the other N - 1.

Departures, beside the frozen target: trainable norms in front of projection and decoder, since states and embeddings of a given
target have any size; positions count from the state, never from the beginning of the text; eight vectors and two blocks, a size
that suits a target of 256. Since the target was not trained to put a plan into its states, expect acceptance to fall faster with
depth than it would in a model trained that way.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from decoding.checks import check_int
from decoding.draft import EMPTY, Draft
from decoding.drafting.dynamic_tree import grow
from decoding.drafting.sampled_chain import draw_chain
from decoding.method import Drafter, Method, param
from decoding.models.attention import Attention, Memory, Sizes, attended, causal, heads_first
from decoding.models.family import Family
from decoding.models.heads import Settings, rebuilt, shapes_of
from decoding.models.pieces import Pieces
from decoding.models.requirements import TARGET_HEAD
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN, ROOT_Q, SLOT
from decoding.verify import match, recursive_rejection

KEY = "ftp"
MAX_SLOTS, MAX_OUTPUTS, MAX_BLOCKS = 64, 16, 8
MAX_NODES, MAX_FAN_OUT = 128, 16


class Cross(nn.Module):
    """Attention to the vectors of the memory, which have no positions: what tells them apart is the projection they come from."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))

    def split(self, rows: Tensor) -> Tensor:
        """(batch, rows, width) -> (batch, heads, rows, head width)."""
        return rows.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def keys_values(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, m, width) -> (batch, heads, m, head width) each."""
        return self.split(self.k_proj(slots)), self.split(self.v_proj(slots))

    def forward(self, rows: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, rows, width) -> what they found, of the same shape, and the weights, (batch, heads, rows, m)."""
        weights = (self.split(self.q_proj(rows)) @ keys.mT / math.sqrt(self.head_width)).softmax(-1)
        return self.o_proj((weights @ values).transpose(1, 2).flatten(-2)), weights


class Block(nn.Module):
    """Self-attention over the drafted tokens, attention to the memory, gated layer; each behind a norm, added to what came in."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.input_layernorm, self.cross_layernorm, self.post_attention_layernorm = (
            LlamaRMSNorm(sizes.width, sizes.eps) for _ in range(3)
        )
        self.self_attn = Attention(sizes.config)
        self.cross_attn = Cross(sizes.width, sizes.heads)
        self.mlp = LlamaMLP(sizes.config)

    def forward(
        self, rows: Tensor, positions: Tensor, keys: Tensor, values: Tensor, memory: tuple[Tensor, Tensor], visible: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(batch, rows, width) -> the same shape, and the weights over the memory; keys, values and visible as for `Attention`."""
        found = attended(self.self_attn.queries(self.input_layernorm(rows), positions), keys, values, visible)
        return self._behind(rows, found, *memory)

    def _behind(self, rows: Tensor, found: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """With what self-attention found; keys and values are those of the memory."""
        rows = rows + self.self_attn.o_proj(found)
        found, weights = self.cross_attn(self.cross_layernorm(rows), keys, values)
        rows = rows + found
        return rows + self.mlp(self.post_attention_layernorm(rows)), weights

    def opened(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention.opened`, of (n, width)."""
        return self.self_attn.opened(self.input_layernorm(rows), positions)

    def closed(self, rows: Tensor, found: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width) rows and what self-attention found for them -> the rows behind the block, and (n, m) what each paid to the
        memory, the mean over heads."""
        rows, weights = self._behind(rows[None], found[None], keys, values)
        return rows[0], weights[0].mean(0)


class Decoder(nn.Module):
    """Projection, start vector and blocks; embeddings and language-model head are the target's.

    Untrained, an output is the state that was read plus the embedding of the token before; output 0 ranks much as the target does.

    Args:
        slots: m, vectors of the memory.
        outputs: N, tokens it learns to write; the first of them is the one that the target itself predicts.
    """

    def __init__(self, sizes: Sizes, slots: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.sizes, self.slots, self.outputs = sizes, slots, outputs
        width = sizes.width
        self.state_norm, self.token_norm, self.norm = (LlamaRMSNorm(width, sizes.eps) for _ in range(3))
        self.project = nn.Linear(width, slots * width)
        self.start = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(blocks))
        self.begin()

    @torch.no_grad()
    def begin(self) -> None:
        """Blocks add nothing, but the first adds the state; vectors of the memory differ a little, or they would never differ."""
        eye = torch.eye(self.sizes.width, device=self.start.device)
        self.project.weight.normal_(std=0.5 / math.sqrt(self.sizes.width)).add_(eye.repeat(self.slots, 1))
        self.project.bias.zero_()
        for block in self.blocks:
            for part in (block.self_attn.o_proj, block.cross_attn.o_proj, block.mlp.down_proj):
                part.weight.zero_()
        first = self.blocks[0].cross_attn
        first.v_proj.weight.copy_(eye)
        first.o_proj.weight.copy_(eye)

    def memory(self, hidden: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(batch, width) states -> keys and values of their memory, (batch, heads, m, head width), per block."""
        slots = self.project(self.state_norm(hidden)).unflatten(-1, (self.slots, -1))
        return [block.cross_attn.keys_values(slots) for block in self.blocks]

    def read(self, tokens: Tensor, target: Target) -> Tensor:
        """(...) token ids -> (..., width) what the decoder reads of them."""
        embedded = target.model.get_input_embeddings()(tokens)
        return self.token_norm(embedded.to(self.start.dtype))

    def forward(self, hidden: Tensor, tokens: Tensor, target: Target) -> Tensor:
        """(batch, width) states and (batch, n) tokens behind them -> (batch, 1 + n, width) vectors to be scored; vector k is of the
        token k + 1 places behind the state and has seen the k tokens before that."""
        start = self.start.expand(len(hidden), 1, -1)
        rows = torch.cat((start, self.read(tokens, target)), 1)
        positions = torch.arange(rows.shape[1], device=rows.device)[None]
        for block, memory in zip(self.blocks, self.memory(hidden), strict=True):
            own = block.self_attn.keys_values(block.input_layernorm(rows), positions)
            rows, _ = block(rows, positions, *own, memory, None)
        return self.norm(rows)


def made(settings: Settings) -> Decoder:
    """An untrained decoder of these settings; ValueError for those that cannot be."""
    for name, low, high in (("slots", 1, MAX_SLOTS), ("outputs", 2, MAX_OUTPUTS), ("blocks", 1, MAX_BLOCKS)):
        check_int(f"A decoder with {name}", settings.get(name), low, high)
    sizes = Sizes(settings.get("width"), settings.get("heads"), settings.get("mlp"))
    return Decoder(sizes, settings["slots"], settings["outputs"], settings["blocks"])


shapes = shapes_of(made)


def load_head(target: Target) -> Decoder:
    """The decoder of a target; ValueError if there is none that fits."""
    return rebuilt(KEY, target, made, "The decoder is")


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    nodes: int = param(24, "Tree size", "Nodes that are kept, those with the largest product of q.", low=1, high=MAX_NODES)
    depth: int = param(
        4, "Levels", "Tokens drafted ahead, at most as many as the decoder was trained for.", low=1, high=MAX_OUTPUTS - 1
    )
    frontier: int = param(4, "Expanded", "Nodes of a level that get children, the most probable.", low=1, high=MAX_FAN_OUT)
    fan_out: int = param(8, "Children", "Candidates looked at below a node.", low=1, high=MAX_FAN_OUT)
    shape: str = param(
        "tree",
        "Draft",
        "tree: the most probable paths, matched with what the target draws; chain: tokens drawn from q, judged with p and q.",
        choices=("tree", "chain"),
    )


class Pass:
    """The decoder during one draft: its memory of one state, and the rows of the tree so far."""

    def __init__(self, decoder: Decoder, target: Target, hidden: Tensor, pieces: Pieces) -> None:
        self.decoder, self.target, self.pieces = decoder, target, pieces
        self.memory = decoder.memory(hidden)
        self.rows = [Memory() for _ in decoder.blocks]
        self.depth = 1  # position of the newest rows; the start vector has 0, the root 1
        self.weights: list[Tensor] = []  # (rows, m) each, of the rows whose logits were handed out

    def root(self, token: int) -> Tensor:
        """(2, vocab) logits of the start vector, which predicts the root, and of the root."""
        rows = torch.stack((self.decoder.start, self.decoder.read(self.target.ids([token]), self.target)[0]))
        positions = torch.arange(2, device=rows.device)
        scored = self._through(rows, positions, causal(2, 0, rows.device), None)
        self.weights[0] = self.weights[0][1:]
        return scored

    def extend(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """The next level, as `decoding.drafting.dynamic_tree.grow` asks for it."""
        self.depth += 1
        positions = torch.full_like(tokens, self.depth)
        return self._through(self.decoder.read(tokens, self.target), positions, None, parents)

    def _through(self, rows: Tensor, positions: Tensor, visible: Tensor | None, parents: Tensor | None) -> Tensor:
        """(n, width) -> (n, vocab); without parents the rows are the beginning, which all others see."""
        seen = []
        for block, memory, kept in zip(self.decoder.blocks, self.memory, self.rows, strict=True):
            queries, *own = map(heads_first, self.pieces(block.opened, rows, positions))
            if parents is None:
                keys, values = kept.commit(*own)
            else:
                keys, values, visible = kept.grow(*own, parents)
            rows, weights = self.pieces(block.closed, rows, attended(queries, keys, values, visible)[0], beside=memory)
            seen.append(weights)
        self.weights.append(torch.stack(seen).mean(0))
        return self.pieces(self._scored, rows)[0]

    def _scored(self, rows: Tensor) -> tuple[Tensor]:
        return (self.target.score(self.decoder.norm(rows)),)


class Ftp(Drafter):
    """Keeps the state of the token before the root, and nothing else of the past; a draft takes one small pass per level and one
    copy from the device. The numbers for the pictures stay there until the step is recorded."""

    reads_prompt_hidden = True

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.target, self.params = target, params
        self.decoder, self.pieces = load_head(target), Pieces(target.graphs)
        self.levels = min(params.depth, self.decoder.outputs - 1)
        self.aux_hidden_layers = (target.last_hidden,)
        self.sampling, self.shown = sampling, Sampling() if sampling.greedy else sampling
        self.hidden: Tensor | None = None  # (1, width) at the token before the root

    def begin(self, tokens, output) -> None:
        self.hidden = None if output is None else output.hidden[self.aux_hidden_layers[0]][-1:]

    def propose(self, tokens, rng) -> Draft:
        if self.hidden is None:  # a prompt of one token: nothing was read yet
            return EMPTY
        now, of = Pass(self.decoder, self.target, self.hidden, self.pieces), self.params
        again, first = now.root(tokens[-1]).split(1)
        if of.shape == "chain":
            draft = draw_chain(first, now.extend, length=self.levels, sampling=self.sampling, rng=rng, source="decoder")
            rows = slice(None)
        else:
            tree = {"nodes": of.nodes, "fan_out": of.fan_out, "expansions": self.levels - 1, "frontier": of.frontier}
            found = grow(first, now.extend, **tree)
            draft = found.draft("decoder", draft_probabilities=found.believed(self.shown), scores=found.tensors(JOINT, OWN))
            rows = found.rows
        looked = torch.cat(now.weights)[rows]
        scores = {ROOT_Q: self.shown.probabilities(again)[0, tokens[-1]].expand(len(draft))}
        scores |= {SLOT.format(i): column for i, column in enumerate(looked.T, 1)}
        return replace(draft, scores=draft.scores | scores, calls=self.levels)

    def observe(self, draft, output, verification) -> None:
        row = verification.row
        self.hidden = output.hidden[self.aux_hidden_layers[0]][row : row + 1]


def build(family: Family, params: Params, sampling: Sampling):
    return Ftp(family.target, params, sampling), recursive_rejection if params.shape == "chain" else match


METHOD = Method(
    key=KEY,
    title="Future Token Prediction",
    paper="https://arxiv.org/abs/2410.18160",
    authors="Walker (2024); drafter by us",
    year=2024,
    group="heads",
    line="A small decoder that unfolds one state into the next words.",
    idea=(
        "Our drafter on a paper about pre-training: a small decoder unfolds the target's last state, one vector, into a short "
        "memory and writes the next tokens from it alone. The target is frozen here, and the paper publishes no speed-up: what is "
        "shown is our own measurement."
    ),
    algorithm=(
        "Project the state of the token before the root to eight vectors: all that the decoder gets to see of the past.",
        "Feed a start vector and the root. The first output predicts the root again, which shows how much the state carries; the "
        "second predicts the first new token.",
        "Level by level, feed the most probable nodes; each sees the memory and its own path.",
        "Keep the nodes with the largest product of q; the target reads that tree in one call and draws its own tokens.",
        "Follow the children that agree, and take the state of the last accepted token for the next draft.",
    ),
    lossless=(
        "The target is left as it is; the tree is a function of the past that is only compared with what the target draws itself; "
        "a drawn chain is judged with p and q."
    ),
    params=Params,
    build=build,
    requirements=(TARGET_HEAD,),
)
