"""EAGLE: one small layer carries the target's own state on, token by token, and the tree of its most probable paths is drafted.

Li et al. 2024, https://arxiv.org/abs/2401.15077 (EAGLE: sections 3.1 and 3.2); Li et al. 2024, https://arxiv.org/abs/2406.16858
(EAGLE-2: the dynamic tree, sections 4.1 and 4.2); Li et al. 2025, https://arxiv.org/abs/2503.01840 (EAGLE-3: three aux hidden
layers and training on its own outputs, sections 3.1 and 3.2). Trained by `python -m decoding.training eagle`, with the target left
as it is; published checkpoints of all three open too (`decoding.models.published_heads`).

Slot i holds the state of position i and the embedding of token i + 1, stands at position i, and says which token i + 2 is. Two
kinds of head. *eagle*: the state is what the target's language-model head reads; one layer without a norm in front of it puts out
the next state, which that head scores. *eagle3*: three layers of the target are mixed into one state; attention reads it beside
the embedding, both behind norms, and what the layer puts out takes the place of the mix below drafted tokens.

Departures: above temperature 0 deterministic trees are followed where the target's own draw agrees (`verify.match`). The formula
of the first paper, p / q with what is left of p, holds only for candidates that were drawn and not ranked anew: for the sampled
tree, that of the static shape with siblings drawn without replacement. The static shape is grown from how often each rank was
right on held-out text, so that any size can be had. Heads trained here may be scored by the target's language-model head (`vocab`
0). The aux hidden layers are the authors' where those are three different ones, see `layers_of`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.dynamic_tree import READ, Extend, grow
from decoding.drafting.sampled_tree import draw_tree
from decoding.drafting.static_tree import Path, parents_of, sparse_tree
from decoding.drafting.tree_builder import TreeBuilder, products
from decoding.method import Drafter, Method, Observed, param
from decoding.models.attention import Memory, attended, causal, heads_first
from decoding.models.eagle_head import KEY, Heads, layer_name, load_head
from decoding.models.family import Family
from decoding.models.heads import Head
from decoding.models.pieces import Pieces
from decoding.models.requirements import TARGET_HEAD
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import COSINE, JOINT, LAYER_SHARE, OWN
from decoding.verify import match, recursive_rejection

MOST_NODES, MOST_FAN_OUT, MOST_EXPANSIONS = 64, 10, 8
ROWS = 512  # of a prompt, read at once
SHIFTS = {"as stored": 0, "one earlier": -1, "one later": 1}  # layers


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
    layers: str = param(
        "as stored",
        "Layers",
        "EAGLE-3: the layers of the target that the head reads. Published heads count them in two ways and do not say which; the "
        "wrong one costs a little and shows nowhere else.",
        choices=tuple(SHIFTS),
    )


class Reader:
    """A head on one text: slots of committed text with the target's states, and below the last one those of a tree."""

    def __init__(self, heads: Heads, target: Target) -> None:
        self.heads, self.target = heads, target
        self.memory, self.pieces = Memory(), Pieces(target.graphs)
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
        """Read one more level of the tree, as `dynamic_tree.grow` asks for it: (m, vocab) logits."""
        positions = torch.full_like(tokens, self.memory.committed + self.level)
        residual, *parts = self.pieces(self._opened, tokens, self.outputs[parents + 1], positions)
        queries, keys, values = map(heads_first, parts)
        found = attended(queries, *self.memory.grow(keys, values, parents))[0]
        states, logits = self.pieces(self._closed, residual, found)
        self.outputs, self.level = torch.cat((self.outputs, states)), self.level + 1
        return logits

    def _opened(self, tokens: Tensor, states: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """Up to attention: what is added to, queries, keys and values, row by row."""
        residual, asked = self.heads.slot(states, self.heads.embedded(tokens, self.target))
        return residual, *self.heads.attention.opened(asked, positions)

    def _closed(self, residual: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Behind it: the next states, and their logits."""
        states = self.heads.finish(residual, self.heads.attention.o_proj(found))
        return states, self.heads.scored(states, self.target)


class Eagle(Drafter):
    """Keeps keys and values of the committed slots; a draft takes one small layer per level and one copy from the device."""

    reads_prompt_hidden = True

    def __init__(self, target: Target, params: Params, sampling: Sampling, head: Head | None = None) -> None:
        heads, ranks = load_head(target, head)
        heads.shape = heads.shape.shifted(SHIFTS[params.layers], target)
        self.params, self.target = params, target
        self.reader = Reader(heads, target)
        self.aux_hidden_layers = heads.shape.aux_hidden_layers
        self.sampling, self.shown = sampling, Sampling() if sampling.greedy else sampling
        ranks = tuple(row[: min(params.fan_out, target.vocab)] for row in ranks[: params.expansions + 1])
        self.tree = "static" if params.tree == "sampled" and sampling.greedy else params.tree  # a one-hot q would draw one token
        self.paths = () if self.tree == "dynamic" else sparse_tree(ranks, params.nodes)
        self.read: list[int] = []  # of the last draft: the place of every node among those that the head read, or -1
        self.pending: list[Tensor] = []  # states at the aux hidden layers that no slot was made of yet, (rows, width) each

    def begin(self, tokens, output) -> None:
        self.pending = [] if output is None else [output.hidden[aux_layer] for aux_layer in self.aux_hidden_layers]

    def propose(self, tokens, rng) -> Draft:
        if self.pending:
            self.reader.commit(self.pending, tokens[-len(self.pending[0]) :])
            self.pending = []
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
        return self._draft(found, draft_probabilities=found.believed(self.shown))

    def _sampled(self, first: Tensor, rng: Generator) -> Draft:
        """EAGLE, section 3.2 of its paper, at a temperature above 0: the static shape, siblings drawn without replacement."""

        def extend(tokens: Tensor, parents: list[int]) -> Tensor:
            return self.reader.extend(tokens, torch.tensor(parents, device=first.device)).float()

        found = draw_tree(first.float(), extend, counts_of(self.paths), sampling=self.sampling, rng=rng)
        return self._draft(found)

    def _draft(self, found: TreeBuilder, **more) -> Draft:
        self.read = found[READ]
        return found.draft(f"{self.tree} tree", scores=found.tensors(JOINT, OWN), calls=1 + self.reader.level, **more)

    def observe(self, draft, output, verification) -> Observed | None:
        rows = torch.tensor([0, *(node + 1 for node in verification.path)], device=self.target.device)
        self.pending = [output.hidden[aux_layer][rows] for aux_layer in self.aux_hidden_layers]
        return self.compared(len(draft), verification.path) if len(draft) else None

    @torch.inference_mode()
    def compared(self, nodes: int, path: Sequence[int]) -> Observed:
        """What the target's states say about the draft, for the pictures.

        COSINE, a score: of the state that the head put out behind an accepted node and of the one that took its place: the
        target's own (eagle), the mix of its layers (eagle3). Only nodes that the head read have one.
        LAYER_SHARE, a fact of the step.
        """
        heads = self.reader.heads
        shares = (
            [LAYER_SHARE.format(layer_name(aux_layer)) for aux_layer in self.aux_hidden_layers]
            if len(self.aux_hidden_layers) > 1
            else []
        )
        mix = heads.shares([part[:1] for part in self.pending]) if shares else ()
        facts = dict(zip(shares, mix, strict=False))  # all of it stays on the device until the step is recorded
        # a draft that was cut at the end of the context lost its deepest levels, which stand last: places stay right
        known = [k for k, node in enumerate(path) if self.read[node] >= 0]
        if not known:
            return Observed(facts=facts)
        places = torch.tensor(
            [[k + 1 for k in known], [self.read[path[k]] + 1 for k in known], [path[k] for k in known]], device=self.target.device
        )
        true = heads.mixed([part[places[0]] for part in self.pending])
        found = F.cosine_similarity(self.reader.outputs[places[1]].float(), true.float(), dim=-1)
        cosines = torch.full((nodes,), torch.nan, device=found.device)
        return Observed({COSINE: cosines.index_copy(0, places[2], found)}, facts)


def counts_of(paths: Sequence[Path]) -> list[list[int]]:
    """How many children every node of a fixed tree has, level by level, the root first; leaves of the last level are left out.

    >>> counts_of(((0,), (1,), (0, 0), (0, 1), (1, 0)))
    [[2], [2, 1]]
    """
    below = Counter(path[:-1] for path in paths)
    levels = [[()], *(list(level) for _, level in groupby(paths, key=len))]
    return [[below[path] for path in level] for level in levels[:-1]]


def fixed(first: Tensor, extend: Extend, paths: Sequence[Path]) -> TreeBuilder:
    """The tree of these ranks, breadth first, whatever the head thinks of them (EAGLE, section 3.2).

    Args:
        first, extend: as for `dynamic_tree.grow`; what is returned is known of as many things.
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
    parents = parents_of(paths)
    known = {JOINT: products(parents, factors), OWN: factors, READ: [reads.get(path, -1) for path in paths]}
    return TreeBuilder(list(map(int, drafted)), list(parents), known, logits=torch.cat(logits), rows=torch.cat(rows))


def build(family: Family, params: Params, sampling: Sampling):
    rule = recursive_rejection if params.tree == "sampled" and not sampling.greedy else match
    return Eagle(family.target, params, sampling, family.published_head(KEY)), rule


METHOD = Method(
    key=KEY,
    title="EAGLE",
    paper="https://arxiv.org/abs/2406.16858",
    authors="Li et al. (ICML 2024, EMNLP 2024, NeurIPS 2025)",
    year=2024,
    group="heads",
    line="One small layer carries the large model's state on, word by word.",
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
    requirements=(TARGET_HEAD,),
)
