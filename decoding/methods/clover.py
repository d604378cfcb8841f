"""Clover: heads in a row, each told which token the one before it picked; a budget cuts their tree level by level.

Xiao et al. 2024, https://arxiv.org/abs/2405.00263: one more layer behind the target's last one (augmenting block), a small
recurrent cell that mixes in the token that was guessed last (regressive connection, attention decoder), and a residual block per
head in front of the target's own language-model head. No code of this version was published; the rule of the tree is the one that
its authors described later: per parent the best tokens up to a sum of 0.8 and above a quarter of the best, per level those most
probable as a path, until a budget is spent. Trained by `python -m decoding.training clover`, with the target left as it is.

Departures, most of them where the paper is silent: all heads share one cell; with one key a softmax is always 1, so that in its
place the cosine of query and key weighs the value, per attention head; the embedding of a token is its row of the language-model
head, scaled to a root mean square of 1; the final norm stands right behind the augmenting block, so that the cell works on states
of the size that the language-model head reads (before the norm they are 25 times as large in the shipped target, and the cell
would be too weak); exact acceptance. The second version (https://arxiv.org/abs/2408.00264: a cell before two blocks, features
learned too) is not built.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from decoding.checks import check_int
from decoding.draft import EMPTY, Draft
from decoding.drafting.tree_builder import TreeBuilder
from decoding.method import Drafter, Method, param
from decoding.models.attention import Block, Memory, Sizes, attended, heads_first
from decoding.models.family import Family
from decoding.models.heads import Settings, rebuilt, shapes_of
from decoding.models.layers import unembedding
from decoding.models.pieces import Pieces
from decoding.models.requirements import TARGET_HEAD
from decoding.models.spread import looked_up
from decoding.models.target import PRE_NORM, Target
from decoding.sample import Sampling
from decoding.score_names import GATE, JOINT, MOVED, OWN
from decoding.verify import match

KEY = "clover"
MAX_HEADS, MAX_NODES = 16, 64
LEFT_OUT = 3  # candidates below a parent that are shown though they were cut
NOTED = "noted"  # known of a node: what `extend` noted where it was offered
SIZES = ("width", "attention heads", "mlp", "theta", "eps")


class Heads(nn.Module):
    """The augmenting block, the cell and K residual blocks.

    Args:
        sizes: of the augmenting block.
        heads: K.
    """

    def __init__(self, sizes: Sizes, heads: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.augment = Block(sizes.config)
        self.norm = LlamaRMSNorm(sizes.width, sizes.eps)
        self.asking = LlamaRMSNorm(sizes.width, sizes.eps)
        self.query, self.key, self.value = (nn.Linear(sizes.width, sizes.width, bias=False) for _ in range(3))
        self.blocks = nn.ModuleList(nn.Linear(sizes.width, sizes.width) for _ in range(heads))

    def augmented(self, rows: Tensor, positions: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """States in front of the target's final norm -> what the heads begin with: (batch, rows, width) both."""
        return self.norm(self.augment(rows, positions, keys, values, visible))

    def cell(self, state: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a token into a state.

        Args:
            state, token: (..., width); the token as `embedded` gives it.

        Returns:
            the next state, and (..., attention heads) gates: cosines of query and key.
        """
        split = lambda rows: rows.unflatten(-1, (self.sizes.heads, -1))  # noqa: E731
        gates = F.cosine_similarity(split(self.query(self.asking(state))), split(self.key(token)), dim=-1)
        return state + F.silu(gates[..., None] * split(self.value(token))).flatten(-2), gates

    def read(self, state: Tensor, k: int) -> Tensor:
        """What head k, from 0, hands to the language-model head: (..., width) both."""
        return state + F.silu(self.blocks[k](state))


def embedded(target: Target, tokens: Tensor) -> Tensor:
    """(...) tokens -> (..., width) their rows of the language-model head, with a root mean square of 1."""
    rows = looked_up(unembedding(target.model), tokens)
    return F.rms_norm(rows.float(), rows.shape[-1:], eps=1e-12).to(target.dtype)


def init_head(target: Target, heads: int) -> Heads:
    """Untrained heads: the augmenting block repeats the target's last layer if that is like a Llama's, else it does nothing; the
    cell and the residual blocks do nothing."""
    config, sizes = target.model.config, Sizes.of(target)
    own = replace(sizes, mlp=getattr(config, "intermediate_size", None) or sizes.mlp)
    layer = whole_heads(target)
    made = Heads(own, heads)
    if {name: v.shape for name, v in layer.items()} == {name: v.shape for name, v in made.augment.state_dict().items()}:
        made.augment.load_state_dict(layer)
    else:
        made = Heads(sizes, heads)
        nn.init.zeros_(made.augment.self_attn.o_proj.weight)
        nn.init.zeros_(made.augment.mlp.down_proj.weight)
    last = [part for part in target.model.base_model.children() if "norm" in type(part).__name__.lower()]
    if last and getattr(last[-1], "weight", None) is not None and last[-1].weight.shape == made.norm.weight.shape:
        made.norm.weight.data.copy_(last[-1].weight)
    for asks in (made.query, made.key):
        asks.weight.data = torch.eye(sizes.width) + 0.01 * torch.randn(sizes.width, sizes.width)
    nn.init.zeros_(made.value.weight)
    for block in made.blocks:
        nn.init.zeros_(block.weight)
        nn.init.zeros_(block.bias)
    return made.to(target.device)


def whole_heads(target: Target) -> dict[str, Tensor]:
    """The target's last layer, its keys and values repeated for as many heads as it has queries."""
    layer = {name: values.detach().float() for name, values in target.last_layer.state_dict().items()}
    config = target.model.config
    groups = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    for name in ("self_attn.k_proj.weight", "self_attn.v_proj.weight"):
        if name in layer and groups > 1:
            rows = layer[name].unflatten(0, (config.num_attention_heads // groups, -1))
            layer[name] = rows.repeat_interleave(groups, 0).flatten(0, 1)
    return layer


def described(heads: Heads) -> Settings:
    """From which the shapes of the file follow."""
    return dict(zip(SIZES, asdict(heads.sizes).values(), strict=True)) | {"heads": len(heads.blocks)}


def heads_of(settings: Settings) -> Heads:
    """Heads of these sizes; ValueError for settings that cannot be."""
    sizes = Sizes(*(settings.get(name) for name in SIZES))
    heads = settings.get("heads")
    check_int("Clover with heads", heads, 1, MAX_HEADS)
    return Heads(sizes, heads)


shapes = shapes_of(heads_of)


def load_head(target: Target) -> Heads:
    """The heads of a target; ValueError if there are none that fit."""
    return rebuilt(KEY, target, heads_of, "The heads of Clover are")


# -- the tree ----------------------------------------------------------------------------------------------------------


Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@torch.inference_mode()
def branched(
    extend: Extend, root: Tensor, *, levels: int, budget: int, top_p: float, ratio: float, look: bool | None = None
) -> TreeBuilder:
    """Spend a budget of nodes level by level.

    Below a parent a token is a candidate while those before it sum to less than `top_p` and it has at least `ratio` of the best
    one's probability; of all candidates of a level the most probable paths are kept, as many as the budget has left. How many
    there are is known on the device alone: without `look` every level is worked out in the largest size it can have, and nothing
    is copied until the end.

    Args:
        extend: (tokens, parents), both (m,) on the device -> (m, vocab) logits behind those tokens and (m, c) numbers to note;
            parents are counted in the order in which tokens were handed to it, from the root, which is handed first with parent -1.
        root: (1,) its token.
        look: count the nodes of every level when it is done and go on with those alone; None: where that copies nothing, on a CPU.

    Returns:
        the nodes that were kept, with JOINT, OWN and NOTED, and some candidates that were cut.
    """
    device = root.device
    look = device.type == "cpu" if look is None else look
    tokens, parents, joint = root, torch.full_like(root, -1), torch.ones(1, device=device)
    alive, left = torch.ones(1, dtype=torch.bool, device=device), torch.tensor(budget, device=device)
    logits, kept, cut, start = [], [], [], 0
    for level in range(min(levels, budget)):
        scored, notes = extend(tokens, parents)
        fan_out, m = min(budget + LEFT_OUT, scored.shape[1]), len(tokens)
        best = scored.float().softmax(-1).topk(fan_out)
        fits = (best.values.cumsum(1) - best.values < top_p) & (best.values >= ratio * best.values[:, :1]) & alive[:, None]
        fits |= best.values.isnan()  # a head that is spoilt: its nodes are kept and refused, rather than nothing drafted
        worth = joint[:, None] * best.values
        ranked = worth.masked_fill(~fits, -1.0).flatten().topk(min(budget - level, m * fan_out))
        taken = ~(ranked.values < 0) & (torch.arange(len(ranked.values), device=device) < left)  # the first ones
        width = int(taken.sum()) if look else len(taken)
        taken, joint, picked = taken[:width], ranked.values[:width], ranked.indices[:width]
        above, places = picked // fan_out, torch.arange(m, device=device)
        chosen, own = best.indices.flatten()[picked], best.values.flatten()[picked]
        kept.append(torch.cat((columns(chosen, start + above, taken, joint, own), notes[above].double()), 1))
        counts = torch.zeros(m, dtype=torch.long, device=device).index_add_(0, above, taken.long())
        beyond = counts[:, None] + torch.arange(LEFT_OUT, device=device)  # what is kept below a parent are its best
        there, beyond = (beyond < fan_out) & alive[:, None], beyond.clamp(max=fan_out - 1)
        parent = (start + places)[:, None].expand_as(beyond)
        cut.append(columns(best.indices.gather(1, beyond), parent, there, worth.gather(1, beyond)))
        logits.append(scored)
        tokens, parents, alive, left = chosen, start + above, taken, left - taken.sum()
        start += m
        if not width:
            break
    lines = torch.cat([F.pad(lines, (0, kept[0].shape[1] - lines.shape[1])) for lines in (*kept, *cut)]).tolist()  # the one copy
    nodes = sum(map(len, kept))
    return numbered(lines[:nodes], lines[nodes:], torch.cat(logits))


def columns(*parts: Tensor) -> Tensor:
    """(m, ...) of one shape -> one float64 line per entry."""
    return torch.stack([part.double().flatten() for part in parts], 1)


def numbered(kept: list[list[float]], cut: list[list[float]], logits: Tensor) -> TreeBuilder:
    """Number what is there anew; row r + 1 of the distributions belongs to candidate r."""
    place = {0: -1}
    inside = [i for i, line in enumerate(kept) if line[2]]
    for i in inside:
        place[i + 1] = len(place) - 1
    lines = [kept[i] for i in inside]
    return TreeBuilder(
        [int(line[0]) for line in lines],
        [place[int(line[1])] for line in lines],
        {JOINT: [line[3] for line in lines], OWN: [line[4] for line in lines], NOTED: [line[5:] for line in lines]},
        pruned=[(int(line[0]), place[int(line[1])], line[3]) for line in cut if line[2]],
        logits=logits,
        rows=torch.tensor([int(line[1]) for line in lines], device=logits.device),
    )


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    nodes: int = param(24, "Budget", "Nodes of the tree at most; the paper drafts 4 tokens.", low=1, high=MAX_NODES)
    heads: int = param(4, "Heads", "Heads that are asked, at most as many as were trained; the paper has 3.", low=1, high=MAX_HEADS)
    top_p: float = param(
        0.8, "Sum per parent", "Below a parent, tokens are taken until their probabilities sum to this.", low=0.0, high=1.0
    )
    ratio: float = param(
        0.25, "Least share of the best", "Below a parent, no token with less than this share of the best one's.", low=0.0, high=1.0
    )


class Clover(Drafter):
    """Keeps keys and values of the augmenting block for all committed text but the root, and what the block says at its end."""

    reads_prompt_hidden = True
    aux_hidden_layers = (PRE_NORM,)

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.target, self.params = target, params
        self.heads = load_head(target)
        self.levels = min(params.heads, len(self.heads.blocks))
        self.shown = Sampling() if sampling.greedy else sampling
        self.memory, self.pieces = Memory(), Pieces(target.graphs)
        self.state: Tensor | None = None  # (1, width) behind the augmenting block, at the token before the root

    def begin(self, tokens, output) -> None:
        if output is not None:
            self.commit(output.hidden[PRE_NORM])

    def observe(self, draft, output, verification) -> None:
        self.commit(output.hidden[PRE_NORM][[0, *(node + 1 for node in verification.path)]])

    @torch.inference_mode()
    def commit(self, rows: Tensor) -> None:
        """(m, width) states of the target at tokens that were committed; only the last one is asked anything."""
        positions = torch.arange(self.memory.committed, self.memory.committed + len(rows), device=rows.device)
        queries, *seen = self.pieces(self.heads.augment.opened, rows, positions)
        keys, values = self.memory.commit(*map(heads_first, seen))
        everything = torch.ones(1, keys.shape[2], dtype=torch.bool, device=rows.device)
        found = attended(heads_first(queries[-1:]), keys, values, everything)[0]
        (self.state,) = self.pieces(self._closed, rows[-1:], found)

    def _closed(self, rows: Tensor, found: Tensor) -> tuple[Tensor]:
        return (self.heads.norm(self.heads.augment.closed(rows, found)),)

    def _read(self, before: Tensor, tokens: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """(n, width) states and (n,) tokens -> the states behind them, what the pictures are told, and logits of head `level`."""
        after, gates = self.heads.cell(before, embedded(self.target, tokens))
        moved = (after - before).norm(dim=-1, keepdim=True) / before.norm(dim=-1, keepdim=True)
        return after, torch.cat((moved, gates), 1), self.target.score(self.heads.read(after, level))

    def propose(self, tokens, rng) -> Draft:
        if self.state is None:  # a prompt of one token: nothing was read yet
            return EMPTY
        params, states = self.params, []

        def extend(drafted: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
            before = torch.cat(states)[parents] if states else self.state
            after, notes, scored = self.pieces(self._read, before, drafted, more=(len(states),))
            states.append(after)
            return scored, notes

        root = self.target.ids(tokens[-1:])
        options = {"budget": params.nodes, "top_p": params.top_p, "ratio": params.ratio}
        tree = branched(extend, root, levels=self.levels, **options)
        return self.drafted(tree, len(states))

    def drafted(self, tree: TreeBuilder, calls: int) -> Draft:
        """The tree as a draft, with what the cell did in front of the head that offered a node."""
        if not len(tree):
            return EMPTY
        names = (MOVED, *(GATE.format(j) for j in range(1, 1 + self.heads.sizes.heads)))
        numbers = dict(zip(names, torch.tensor(tree[NOTED]).unbind(1), strict=True))
        source, scores = [f"head {depth}" for depth in tree.depths], tree.tensors(JOINT, OWN) | numbers
        return tree.draft(source, draft_probabilities=tree.believed(self.shown), scores=scores, calls=calls)


def build(family: Family, params: Params, sampling: Sampling):
    return Clover(family.target, params, sampling), match


METHOD = Method(
    key=KEY,
    title="Clover",
    paper="https://arxiv.org/abs/2405.00263",
    authors="Xiao et al. (2024)",
    year=2024,
    group="heads",
    line="Medusa's heads, each told which word was guessed just before.",
    idea=(
        "Medusa's heads do not know what the others picked. Here a small cell hands every head the token that was guessed just "
        "before it, so that the guesses of a path belong together, and a tiny budget of nodes goes to the most probable paths."
    ),
    algorithm=(
        "One more layer, trained behind the target's last one, turns all states of the text so far into one to draft from.",
        "A cell mixes the root's token into that state; head 1 ranks the vocabulary from the result.",
        "Per parent the best tokens are taken, up to a sum of 0.8 and above a quarter of the best one.",
        "Of a whole level the most probable paths are kept, as many as the budget has left.",
        "Every token that was kept goes through the cell again, for the next head: its guesses depend on that token.",
        "The target reads the tree in one call and draws its own token at every position; follow the children that agree.",
    ),
    lossless="The tree is a function of the past and is only compared with what the target draws itself.",
    params=Params,
    build=build,
    requirements=(TARGET_HEAD,),
)
