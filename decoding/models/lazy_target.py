"""LazyTarget: a target that prunes its prompt layer by layer at every call and brings tokens back.

Fu, Cho, Merth, Mehta, Rastegari, Najibi 2024 (LazyLLM), https://arxiv.org/abs/2407.14057. Behind some layers only those tokens stay
alive for the layers above to which the row that writes pays most; every call decides anew, and a token that stopped earlier goes on
from where it stopped. So each layer reads each token once at most, and the text is another than the full model's.

It stands where the loop asks for a `Target` and runs the layers of an ordinary one; nothing in the loop knows of it. Choices that
the paper leaves open:

- **Where**: behind a quarter, a half and three quarters of the layers, each with a share of its own. Shares are counts,
  `ceil(share * alive)`; among equal scores the later token stays.
- **Which row scores**: the root, the last token of the text, at the layer that ends a stage; the mean over its query heads. Below
  it a draft may hang, chain or tree: its nodes are read in the same call, by all layers, see who is alive for the root, and are
  neither scored nor dropped. If they scored, what is written would depend on what was guessed, and no rule of acceptance would be
  exact for it. So under a drafter the decision is made at every call, not at every token.
- **The first and the last token** always stay and count: the last one writes; the first one draws attention that says nothing of
  its content, and without it small models collapse.
- **The prompt is not read before the first token is asked for**, together with the root (and a draft): its score row is the root's.
- **Controls**: `RANDOM` scores (the root still stays, for nothing could be written without it; the first token may go), and
  `STATIC` pruning: who was alive behind the prompt stays so, new tokens always live, nobody comes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil

import numpy as np
import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput
from decoding.models import layers
from decoding.models.attention_row import rotary_of, weights
from decoding.models.cache import TreeCache
from decoding.models.lazy_cache import LazyCache, Stage
from decoding.models.wrapped_target import WrappedTarget
from decoding.sample import Sampling

ATTENTION, RANDOM, STATIC = "attention", "random", "attention, once"
MOST_LAYERS = 255  # a depth is written as one byte


@dataclass(frozen=True, eq=False)
class Pruned:
    """What one call did to a text of n tokens; layers count from 1."""

    depths: np.ndarray  # (n,) uint8: the last layer in which a token was alive
    scores: Tensor  # (layers, n) float32, on the device: what the root paid, 0 where a token was not alive
    passes: int  # rows times layers that were computed
    full_passes: int  # that the full model would have computed
    revived: int  # tokens that came back from the aux cache
    waiting: int  # entries of the aux cache behind the call


@dataclass(frozen=True, eq=False)
class LazyOutput(TargetOutput):
    """What the pruned target said, and how it came to it."""

    pruned: Pruned = field(kw_only=True)
    full_logits: Tensor | None = field(default=None, kw_only=True)  # (n + 1, vocab) of the full model, where both are compared


def stages_of(count: int, shares: Sequence[float]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Behind which layers is pruned, and the share that stays; places at which nothing is dropped are left out.

    Args:
        count: layers of the model.
        shares: of those alive, behind a quarter, a half and three quarters of them.

    >>> stages_of(12, (0.7, 0.5, 0.3)), stages_of(12, (1.0, 0.5, 1.0)), stages_of(2, (0.5, 0.5, 1.0))
    (((3, 6, 9), (0.7, 0.5, 0.3)), ((6,), (0.5,)), ((1,), (0.25,)))
    """
    found: dict[int, float] = {}
    for quarter, share in enumerate(shares, 1):
        place = max(1, quarter * count // 4)
        if share < 1 and place < count:
            found[place] = found.get(place, 1.0) * share
    return tuple(found), tuple(found.values())


@dataclass(frozen=True, eq=False)
class LazyTarget(WrappedTarget):
    """A target, pruned.

    Args:
        shares: of those alive that stay, behind a quarter, a half and three quarters of the layers.
        by: ATTENTION, or a control: RANDOM, STATIC.
        compared: the full model reads every row as well, at the price of a whole pass.
    """

    reads_at_once = True
    shares: tuple[float, float, float] = (0.7, 0.5, 0.3)
    by: str = ATTENTION
    compared: bool = False

    @cached_property
    def layers(self) -> int:
        return self.target.model.config.num_hidden_layers

    @cached_property
    def stages(self) -> tuple[range, ...]:
        """The layers between two prunings, counted from 0."""
        places, _ = stages_of(self.layers, self.shares)
        return tuple(range(a, b) for a, b in zip((0, *places), (*places, self.layers), strict=True))

    @cached_property
    def kept(self) -> tuple[float, ...]:
        """The share that goes on into stage 1, 2, ..."""
        return stages_of(self.layers, self.shares)[1]

    def new_cache(self) -> LazyCache:
        return LazyCache(self.layers, len(self.stages), TreeCache() if self.compared else None)

    @torch.inference_mode()
    def extend_with_hidden(
        self, cache: LazyCache, tokens: Sequence[int], aux_hidden_layers: Sequence[int] = (), *, every_row: bool = False
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Note tokens of the text, which are read when the next token is asked for; (0, vocab) logits, for nothing was said.

        Raises:
            ValueError: rows or states of a prompt are wanted that may never be computed.
        """
        if every_row or aux_hidden_layers:
            raise ValueError("A target that prunes its prompt has no row for every token of it; this drafter needs them.")
        cache.note(self.target.embedded(self.target.ids(tokens)))
        cache.committed += len(tokens)
        if cache.full is not None:
            self.target.extend(cache.full, tokens)
        return torch.empty(0, self.target.vocab, device=self.device), {}

    @torch.inference_mode()
    def read(
        self, cache: LazyCache, tokens: Sequence[int], draft: Draft, sampling: Sampling, aux_hidden_layers: Sequence[int] = ()
    ) -> LazyOutput:
        """Read whatever of the text is alive and unread, the root, and every node of the draft, in one call; commits nothing.

        Raises:
            ValueError: states are wanted (`aux_hidden_layers`), which rows that stopped do not have.
        """
        if aux_hidden_layers:
            raise ValueError("A target that prunes its prompt hands out no states of its layers.")
        nodes = cache.note(self.target.embedded(self.target.ids([tokens[-1], *draft.tokens])))[1:]
        call = Call(self, cache, len(tokens), nodes, draft)
        for number in range(len(self.stages)):
            call.run(number)
        logits = self.target.score(layers.normed(self.target.model, call.hidden[0, -len(nodes) - 1 :]))
        full = None
        if cache.full is not None:
            full = self.target.read(cache.full, tokens, draft, sampling).logits
        return LazyOutput(logits, sampling.probabilities(logits), pruned=call.pruned(), full_logits=full)

    # -- what tests change -------------------------------------------------------------------------------------------------

    def survivors(self, cache: LazyCache, stage: int, alive: np.ndarray, scores: Tensor) -> np.ndarray:
        """Who goes on into a stage.

        Args:
            alive: (k,) places in the stage before, ascending; the last one is the root.
            scores: (k,) what the root pays them.

        Returns:
            places, ascending.
        """
        share, root = self.kept[stage - 1], int(alive[-1])
        if self.by == STATIC and len(cache.frozen) >= len(self.kept):
            return np.concatenate((cache.frozen[stage - 1], np.arange(cache.prompt, root + 1)))
        if self.by == RANDOM:
            chosen = best(np.random.default_rng((root, stage)).random(len(alive)), share, (-1,))
        else:
            chosen = best(scores.double().cpu().numpy(), share, (0, -1))
        if self.by == STATIC:
            cache.prompt = root + 1
            cache.frozen.append(alive[chosen])
        return alive[chosen]

    def positions(self, places: np.ndarray, alive: np.ndarray) -> np.ndarray:
        """Where tokens of the text stand for the rotary positions: where they stand, whoever else is alive."""
        return places


def best(scores: np.ndarray, share: float, forced: Sequence[int]) -> np.ndarray:
    """Which of k scores are among the best `ceil(share * k)`, ascending; the later one of two that are equal.

    Args:
        forced: that are among them in any case.

    >>> best(np.array([0.1, 0.5, 0.2, 0.2, 0.0]), 0.5, (0, -1)).tolist(), best(np.array([0.5, 0.2, 0.2]), 0.5, ()).tolist()
    ([0, 1, 4], [0, 2])
    """
    count = max(1, len(set(np.arange(len(scores))[list(forced)])), ceil(share * len(scores) - 1e-9))
    ranked = scores.astype(np.float64)
    ranked[list(forced)] = np.inf
    return np.sort(len(scores) - 1 - np.argsort(-ranked[::-1], kind="stable")[:count])


class Call:
    """One call of the target: stage after stage, fewer tokens of the text in each."""

    def __init__(self, target: LazyTarget, cache: LazyCache, length: int, nodes: np.ndarray, draft: Draft) -> None:
        self.lazy, self.cache, self.nodes, self.draft = target, cache, nodes, draft
        self.alive = np.arange(length)
        self.hidden = torch.empty(0)  # (1, rows, width) behind the stage that was run last: tokens, the root last, then the nodes
        self.scores: list[tuple[np.ndarray, list[Tensor]]] = []  # of every stage who was alive, and per layer their scores
        self.depths = np.zeros(length, dtype=np.uint8)
        self.read = cache.computed[:, :length].copy()  # before the call
        self.rows = [0] * len(target.stages)

    def run(self, number: int) -> None:
        """One stage: whoever is alive in it and was not read by it goes through its layers."""
        lazy, cache, stage = self.lazy, self.cache, self.lazy.stages[number]
        if number:
            alive, scores = self.scores[-1]
            self.alive = lazy.survivors(cache, number, alive, scores[-1])
        self.depths[self.alive] = stage.stop
        todo = cache.todo(number, self.alive)
        rows, seen = np.concatenate((todo, self.nodes)), np.concatenate((self.alive, self.nodes))
        places = self.positions(todo)
        mask = self.mask(todo)
        view = Stage(cache, rows, seen)
        hidden, model = cache.states[number].read(rows)[None], lazy.target.model
        rotary = rotary_of(model, hidden, places[:, len(todo) - 1 : len(todo)])
        scores = []
        for layer in stage:
            root = hidden[0, len(todo) - 1]
            hidden = layers.through(model, hidden, range(layer, layer + 1), places, mask, view)
            scores.append(weights(model, layer, root, rotary, view.keys[:, :, : len(self.alive)]).mean(0))
        cache.computed[number, rows] = True
        if number + 1 < len(lazy.stages):
            cache.states[number + 1].write(rows, hidden[0])
        self.rows[number] = len(rows)
        self.hidden = hidden
        self.scores.append((self.alive, scores))

    def positions(self, todo: np.ndarray) -> Tensor:
        """(1, rows) of the tokens that go through, and of the nodes."""
        places = self.lazy.positions(todo, self.alive)
        below = int(places[-1]) + self.draft.depths
        return torch.as_tensor(np.concatenate((places, below))).to(self.lazy.device)[None]

    def mask(self, todo: np.ndarray) -> Tensor | None:
        """(1, 1, rows, seen) additive: a token sees those alive up to its own place in the text, a node all of them and its
        ancestors. None where fused attention makes the same by itself: for the root alone, or a text from its beginning."""
        target, nodes = self.lazy.target, len(self.nodes)
        fused = target.model.config._attn_implementation == "sdpa"
        if not nodes and (len(todo) == 1 or (fused and len(todo) == len(self.alive))):
            return None
        own = torch.as_tensor(todo).to(target.device)
        text = torch.as_tensor(self.alive).to(target.device)
        visible = torch.zeros(len(todo) + nodes, len(self.alive) + nodes, dtype=torch.bool, device=target.device)
        visible[: len(todo), : len(self.alive)] = text <= own[:, None]
        visible[len(todo) :, : len(self.alive)] = True
        visible[len(todo) :, len(self.alive) :] = torch.as_tensor(self.draft.visible[1:, 1:]).to(target.device)
        mask = torch.zeros(visible.shape, dtype=target.dtype, device=target.device)
        return mask.masked_fill_(~visible, torch.finfo(target.dtype).min)[None, None]

    def pruned(self) -> Pruned:
        """What was done."""
        lazy, n = self.lazy, len(self.depths)
        sizes = [len(stage) for stage in lazy.stages]
        scores = torch.zeros(lazy.layers, n, device=lazy.device)
        layer = 0
        for alive, found in self.scores:
            at = torch.as_tensor(alive).to(lazy.device)
            scores[layer : layer + len(found)].index_copy_(1, at, torch.stack(found))
            layer += len(found)
        came = ~self.read[1:] & self.cache.computed[1:, :n] & self.read[:-1]
        new = int(np.count_nonzero(~self.read[0])) + len(self.nodes)
        return Pruned(
            self.depths,
            scores,
            sum(rows * size for rows, size in zip(self.rows, sizes, strict=True)),
            new * lazy.layers,
            int(came.any(0).sum()),
            self.cache.waiting(n),
        )
