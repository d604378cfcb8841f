"""Falcon: a head that guesses a block of k tokens in one pass, so that m passes make a draft m * k tokens deep.

Gao et al. 2024, https://arxiv.org/abs/2412.12639: the semi-autoregressive head with its LSTM and the relaxed causal mask, coupled
sequential glancing distillation (in `decoding.training.recipes.falcon`), and a tree made for blocks. Trained by
`python -m decoding.training falcon`; the target stays as it is.

Slot i holds the target's state behind token i and the embedding of token i + 1. From slot i the head guesses the state behind token
i + k, hence token i + k + 1. The k newest slots are a block: they are asked together, and each sees all of the block. What none of
them sees is what another one picks, so inside a block all paths share one distribution per level; the next pass sees the picks.

Departures. The paper's tree is made by hand, ours holds the paths with the largest product of q, as EAGLE-2's do. The LSTM does run
along the text, and every path of the tree carries a state of its own; in the released code, which cannot run as it stands, the axes
are swapped, so that it remembers nothing. There is one layer of attention, and its keys depend on what stands before a slot alone,
so that what is kept of them does not depend on how blocks were cut. The root is one token; the last block are always the last k
slots, and with fewer of them nothing is drafted. Norms stand in front of the LSTM and behind the attention, and the state of a slot
is added to what the LSTM puts out: states of a small target have any size. The paper is greedy; above temperature 0 the tree
is matched, or a chain is drawn, every token of a block from its own row, and judged with p and q.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from decoding.checks import check_int
from decoding.draft import EMPTY, Draft, ancestor_mask
from decoding.drafting.dynamic_tree import grow
from decoding.drafting.sampled_chain import draw_chain
from decoding.method import Drafter, Method, param
from decoding.models.attention import Block, Memory, Sizes, attended, heads_first
from decoding.models.family import Family
from decoding.models.heads import Settings, rebuilt, shapes_of
from decoding.models.pieces import Pieces
from decoding.models.requirements import TARGET_HEAD
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import JOINT, OWN, SLOT_IN_BLOCK
from decoding.verify import match, recursive_rejection

KEY = "falcon"
MAX_BLOCK, MAX_LAYERS, MAX_PASSES = 8, 4, 4
MAX_NODES, MAX_FAN_OUT = 128, 16
State = tuple[Tensor, Tensor]  # of the LSTM: (layers, batch, width) each


class Head(nn.Module):
    """Norms, an LSTM and one layer of attention; embeddings and language-model head are the target's.

    Args:
        block: k, slots that are asked together.
        layers: of the LSTM.
    """

    def __init__(self, sizes: Sizes, block: int, layers: int) -> None:
        super().__init__()
        self.sizes, self.block = sizes, block
        self.state_norm, self.token_norm, self.norm = (LlamaRMSNorm(sizes.width, sizes.eps) for _ in range(3))
        self.lstm = nn.LSTM(2 * sizes.width, sizes.width, layers, batch_first=True)
        self.layer = Block(sizes.config)
        for part in (self.layer.self_attn.o_proj, self.layer.mlp.down_proj):
            nn.init.zeros_(part.weight)

    def slots(self, states: Tensor, tokens: Tensor, target: Target) -> Tensor:
        """(..., width) states and the (...) tokens behind them -> (..., 2 width)."""
        embedded = target.model.get_input_embeddings()(tokens)
        return torch.cat((self.state_norm(states), self.token_norm(embedded.to(states.dtype))), -1)

    def recurrent(self, slots: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(batch, rows, 2 width) slots in their order -> (batch, rows, width), and the state behind the last of them."""
        found, state = self.lstm(slots, state)
        return found + slots[..., : self.sizes.width], state

    def keys_values(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer.keys_values(rows, positions)

    def forward(self, rows: Tensor, positions: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
        """(batch, rows, width) of the LSTM -> states as the target would have them k places further on; arguments as for
        `decoding.models.attention.Attention`."""
        return self.norm(self.layer(rows, positions, keys, values, visible))


def relaxed(rows: int, block: int, offset: int = 0) -> Tensor:
    """(rows, rows) bool: a slot sees those before it and all of its own block, the first of which lacks `offset` slots.

    >>> relaxed(3, 2).int().tolist()
    [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    """
    number = (torch.arange(rows) + offset) // block
    return number[None, :] <= number[:, None]


def made(settings: Settings) -> Head:
    """An untrained head of these settings; ValueError for those that cannot be."""
    for name, high in (("block", MAX_BLOCK), ("layers", MAX_LAYERS)):
        check_int(f"A Falcon head with {name}", settings.get(name), 1, high)
    sizes = Sizes(settings.get("width"), settings.get("heads"), settings.get("mlp"))
    return Head(sizes, settings["block"], settings["layers"])


shapes = shapes_of(made)


def load_head(target: Target) -> Head:
    """The head of a target; ValueError if there is none that fits."""
    return rebuilt(KEY, target, made, "The Falcon head is")


# -- what is kept of the text ------------------------------------------------------------------------------------------


class Past:
    """The slots of the committed text: the LSTM's state behind them, its newest k rows, and the keys and values of all."""

    def __init__(self, head: Head, target: Target) -> None:
        self.head, self.target = head, target
        self.memory, self.pieces = Memory(), Pieces(target.graphs)
        self.state: State | None = None
        self.rows: Tensor | None = None  # (1, up to k, width)

    @property
    def length(self) -> int:
        return self.memory.committed

    def closed(self, rows: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width) rows and what attention found for them -> the states that the head expects, and their logits."""
        states = self.head.norm(self.head.layer.closed(rows, found))
        return states, self.target.score(states)

    def read(self, states: Tensor, tokens: Tensor) -> None:
        """Go on by (n, width) states and the (n,) tokens behind them."""
        slots = self.head.slots(states, tokens, self.target)[None]
        rows, self.state = self.head.recurrent(slots, self.state)
        positions = torch.arange(self.length, self.length + len(tokens), device=rows.device)[None]
        self.memory.commit(*self.head.keys_values(rows, positions))
        self.rows = (rows if self.rows is None else torch.cat((self.rows, rows), 1))[:, -self.head.block :]


class Blocks:
    """The blocks of one draft: that of the newest slots, and those that hang below nodes of the tree.

    Block 0 is asked with the slots of the text; the blocks of a pass are asked together and see the text, the blocks above them
    and all of themselves.
    """

    def __init__(self, past: Past) -> None:
        self.past, self.head, self.target = past, past.head, past.target
        k, n, device = self.head.block, past.length, past.rows.device
        past.memory.drop()
        layer = past.memory.layer
        keys, values = layer.keys[:, :, :n], layer.values[:, :, :n]
        positions = torch.arange(n - k, n, device=device)
        everything = torch.ones(k, n, dtype=torch.bool, device=device)
        self.pieces = past.pieces
        queries, _, _ = self.pieces(self.head.layer.opened, past.rows[0], positions)
        found = attended(heads_first(queries), keys, values, everything)[0]
        # (blocks, k, width), what the head expects; (blocks, k, vocab)
        self.states, self.logits = (part[None] for part in self.pieces(past.closed, past.rows[0], found))
        self.carried: State = past.state  # (layers, blocks, width) each: behind the slots of a block
        self.seen: Tensor | None = None  # (blocks, blocks) bool, which sees which
        self.tokens = torch.zeros(0, dtype=torch.long, device=device)  # of every node that was handed over,
        self.parents, self.block = self.tokens, self.tokens  # the node above it, and the block it was picked from
        self.depth, self.passes = 0, 1

    def extend(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """The next level, as `decoding.drafting.dynamic_tree.grow` asks for it: a pass of the head where a block is full."""
        above = torch.where(parents >= 0, parents, 0)
        block = torch.where(parents >= 0, self.below[above], 0) if self.depth else torch.zeros_like(parents)
        self.tokens, self.parents = torch.cat((self.tokens, tokens)), torch.cat((self.parents, parents))
        self.depth += 1
        place = self.depth % self.head.block
        if place == 0:
            block = self._asked(tokens, parents, block)
        self.below = torch.cat((self.below, block)) if self.depth > 1 else block  # the block that its children are picked from
        return self.logits[block, place]

    def _asked(self, tokens: Tensor, parents: Tensor, above: Tensor) -> Tensor:
        """A pass below the newest nodes, with the picks that lead to them from the blocks `above`; the new blocks' numbers."""
        k, path = self.head.block, [tokens]
        for _ in range(k - 1):
            path.append(self.tokens[parents])
            parents = self.parents[parents]
        slots = self.head.slots(self.states[above], torch.stack(path[::-1], 1), self.target)
        rows, carried = self.head.recurrent(slots, tuple(part[:, above].contiguous() for part in self.carried))
        first = self.past.length + self.depth - k
        positions = torch.arange(first, first + k, device=tokens.device).repeat(len(tokens))
        flat = rows.flatten(0, 1)
        queries, *own = map(heads_first, self.pieces(self.head.layer.opened, flat, positions))
        keys, values = self.past.memory.layer.update(*own)
        found = attended(queries, keys, values, self._visible(above))[0]
        found, logits = (part.unflatten(0, (-1, k)) for part in self.pieces(self.past.closed, flat, found))
        numbers = torch.arange(len(self.states), len(self.states) + len(tokens), device=tokens.device)
        self.states = torch.cat((self.states, found))
        self.logits = torch.cat((self.logits, logits))
        self.carried = tuple(torch.cat((old, new), 1) for old, new in zip(self.carried, carried, strict=True))
        self.passes += 1
        return numbers

    def _visible(self, above: Tensor) -> Tensor:
        """(new rows, all rows) bool for new blocks below the blocks `above`; block 0 is a part of the text."""
        new, k = len(above), self.head.block
        self.seen = ancestor_mask(above, self.seen)
        tree = self.seen[-new:, 1:].repeat_interleave(k, 0).repeat_interleave(k, 1)
        text = torch.ones(new * k, self.past.length, dtype=torch.bool, device=above.device)
        return torch.cat((text, tree), 1)


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    nodes: int = param(32, "Tree size", "Nodes that are kept, those with the largest product of q.", low=1, high=MAX_NODES)
    passes: int = param(2, "Passes", "Of the head per draft; each makes the tree a block deeper.", low=1, high=MAX_PASSES)
    frontier: int = param(4, "Expanded", "Nodes of a level that get children, the most probable.", low=1, high=MAX_FAN_OUT)
    fan_out: int = param(10, "Children", "Candidates looked at below a node.", low=1, high=MAX_FAN_OUT)
    shape: str = param(
        "tree",
        "Draft",
        "tree: the most probable paths, matched with what the target draws; chain: tokens drawn from q, judged with p and q.",
        choices=("tree", "chain"),
    )


class Falcon(Drafter):
    """Keeps the slots of the text; a draft takes one pass of the head per block of levels and one copy from the device."""

    reads_prompt_hidden = True

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.target, self.params = target, params
        self.head = load_head(target)
        self.aux_hidden_layers = (target.last_hidden,)
        self.sampling, self.shown = sampling, Sampling() if sampling.greedy else sampling

    def begin(self, tokens, output) -> None:
        self.past = Past(self.head, self.target)
        self.waiting: Tensor | None = (
            None if output is None else output.hidden[self.aux_hidden_layers[0]]
        )  # states behind the newest tokens

    def propose(self, tokens, rng) -> Draft:
        if self.waiting is not None:
            self.past.read(self.waiting, self.target.ids(tokens[-len(self.waiting) :]))
            self.waiting = None
        if self.past.length < self.head.block:  # no block yet
            return EMPTY
        blocks, of = Blocks(self.past), self.params
        first, depth = blocks.logits[0, :1], of.passes * self.head.block
        if of.shape == "chain":
            draft = draw_chain(first, blocks.extend, length=depth, sampling=self.sampling, rng=rng, source="")
        else:
            tree = {"nodes": of.nodes, "fan_out": of.fan_out, "expansions": depth - 1, "frontier": of.frontier}
            found = grow(first, blocks.extend, **tree)
            draft = found.draft("", draft_probabilities=found.believed(self.shown), scores=found.tensors(JOINT, OWN))
        places = [int(depth) - 1 for depth in draft.depths]
        slots = torch.tensor([place % self.head.block + 1.0 for place in places])
        source = tuple(f"pass {place // self.head.block + 1}" for place in places)
        return replace(draft, source=source, scores=draft.scores | {SLOT_IN_BLOCK: slots}, calls=blocks.passes)

    def observe(self, draft, output, verification) -> None:
        rows = torch.tensor([0, *(node + 1 for node in verification.path)], device=self.target.device)
        self.waiting = output.hidden[self.aux_hidden_layers[0]][rows]


def build(family: Family, params: Params, sampling: Sampling):
    return Falcon(family.target, params, sampling), recursive_rejection if params.shape == "chain" else match


METHOD = Method(
    key=KEY,
    title="Falcon",
    paper="https://arxiv.org/abs/2412.12639",
    authors="Gao et al. (AAAI 2025)",
    year=2024,
    group="heads",
    line="A head that guesses a block of words per pass.",
    idea=(
        "A head on the target's states guesses a block of tokens per pass instead of one: half the passes for the same depth. "
        "The tokens of a block cannot see each other's choice; hints during training make up for part of that."
    ),
    algorithm=(
        "Pair every state of the target with the token behind it; an LSTM runs along these slots.",
        "Ask the newest k slots together: each attends to all of the text and of its block, and guesses the state k places on.",
        "Read off k levels of candidates; within a block the level below is the same behind every candidate.",
        "For the most probable paths, ask a next block with the guessed states, the picked tokens and the path's own LSTM state.",
        "Keep the nodes with the largest product of q; the target reads that tree in one call and draws its own tokens.",
        "Follow the children that agree; the true states replace the guessed ones.",
    ),
    lossless=(
        "The tree is a function of the past that is only compared with what the target draws itself; a drawn chain is judged with "
        "p and q. Guessing blocks costs acceptance, never correctness."
    ),
    params=Params,
    build=build,
    requirements=(TARGET_HEAD,),
)
