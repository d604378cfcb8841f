"""DySpec: a sampled draft tree that grows where the draft model is confident, one draw at a time.

Xiong et al. 2024, https://arxiv.org/abs/2410.11744, algorithms 1 (queue) and 2 (threshold). Siblings are drawn without
replacement from what is left of q, and the ordinary recursive rejection stays exact because a draw is decided on before its token
is known. Departures: q of a node is computed when its first child is due, which needs one call per inner node instead of one per
node and gives the same law; a full budget stops the threshold tree in order of arrival (the paper does not say how it is
capped); the threshold adapts to the budget (a parameter); at temperature 0 the tree may take the best unused tokens instead
of drawn ones and is then judged by matching (a parameter).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from decoding.draft import EMPTY, Draft
from decoding.drafting.draft_model import DraftModel
from decoding.drafting.tree_builder import TreeBuilder
from decoding.method import Drafter, Method, param
from decoding.models.requirements import DRAFT_MODEL
from decoding.models.target import Target
from decoding.sample import Sampling, draw
from decoding.score_names import ESTIMATE_AFTER, ESTIMATE_BEFORE, ORDER
from decoding.verify import match, recursive_rejection

NOTHING = 1e-12  # a value below this is no draw
SAME = 0.0  # draft temperature: that of the run


@dataclass(frozen=True)
class Params:
    nodes: int = param(24, "Tree size", "Node budget; the paper uses 64 and 768.", low=1, high=768)
    variant: str = param(
        "queue",
        "Variant",
        "queue: always the most promising draw; threshold: a level per call.",
        choices=("queue", "threshold"),
    )
    temperature: float = param(
        0.6,
        "Draft temperature",
        "What the draft model draws at, whatever the target does; 0 = as the target.",
        low=0.0,
        high=2.0,
    )
    adaptive: bool = param(True, "Adaptive threshold", "After each step move the threshold so that trees come near the budget.")
    greedy: str = param(
        "best first",
        "At temperature 0",
        "Take the best unused token, or draw as the paper does.",
        choices=("best first", "sampled"),
    )


class DynamicTree(Drafter):
    """Grows the tree with a priority queue, or level by level down to a threshold.

    While it grows, `left[u]` is what q of node u, -1 the root, has left after its children, unnormalised, and `mass[u]` its sum.
    Known of a node: "q", what it was drawn from, "before", the estimate that it is reached before it was drawn, and "weight", the
    product of q along its path.
    """

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.model = DraftModel(target)
        self.context = target.context
        self.params = params
        temperature = params.temperature or sampling.temperature
        self.chosen = sampling.greedy and params.greedy == "best first"
        # Drawing needs a temperature; taking the best does not, it only scales the estimates.
        self.sampling = Sampling(temperature or 1.0, sampling.top_k, sampling.top_p)
        self.threshold = 1 / params.nodes
        self.left: dict[int, Tensor] = {}
        self.mass: dict[int, float] = {}

    def begin(self, tokens, output) -> None:
        self.model.begin(tokens)

    def propose(self, tokens, rng) -> Draft:
        deepest = self.context - len(tokens)
        if deepest < 1:
            return EMPTY
        tree, self.left, self.mass = TreeBuilder(), {}, {}
        self._know(-1, self.model.root(tokens)[0])
        if self.params.variant == "queue":
            self._by_queue(tree, deepest, rng)
        else:
            self._by_level(tree, deepest, rng)
        return self._draft(tree)

    def _by_queue(self, tree: TreeBuilder, deepest: int, rng: Generator) -> None:
        fed: dict[int, int] = {-1: -1}  # node of the tree -> node of the draft model
        waiting = [(-1.0, 0, -1)]  # ties: the draw that has waited longest
        count = 1
        while waiting and len(tree) < self.params.nodes:
            value, _, u = heapq.heappop(waiting)
            if -value < NOTHING:
                break
            if u not in self.left:
                token = torch.tensor([tree.tokens[u]], device=self.left[-1].device)
                self._know(u, self.model.extend(token, [fed[tree.parents[u]]])[0])
                fed[u] = len(fed) - 1
            child = self._draw(tree, u, rng)
            heapq.heappush(waiting, (-self._value(tree, u), count, u))
            if tree.depths[child] < deepest:
                heapq.heappush(waiting, (-self._value(tree, child), count + 1, child))
            count += 2
        self.fed = fed

    def _by_level(self, tree: TreeBuilder, deepest: int, rng: Generator) -> None:
        fed: dict[int, int] = {-1: -1}
        level = [-1]
        for depth in range(1, deepest + 1):
            new: list[int] = []
            for u in level:
                while len(tree) < self.params.nodes and self._value(tree, u) >= max(self.threshold, NOTHING):
                    new.append(self._draw(tree, u, rng))
            level = [u for u in new if tree["weight"][u] >= self.threshold]
            if not level or depth == deepest or len(tree) == self.params.nodes:
                break
            ids = torch.tensor([tree.tokens[u] for u in level], device=self.left[-1].device)
            logits = self.model.extend(ids, [fed[tree.parents[u]] for u in level])
            for u, row in zip(level, logits, strict=True):
                fed[u] = len(fed) - 1
                self._know(u, row)
        self.fed = fed

    def _know(self, u: int, logits: Tensor) -> None:
        self.left[u] = self.sampling.probabilities(logits[None])[0]
        self.mass[u] = 1.0

    def _weight(self, tree: TreeBuilder, u: int) -> float:
        return tree["weight"][u] if u >= 0 else 1.0

    def _value(self, tree: TreeBuilder, u: int) -> float:
        """The estimate that the verifier reaches the next child of u: W(u) times what its q has left."""
        return self._weight(tree, u) * self.mass.get(u, 1.0)

    def _draw(self, tree: TreeBuilder, u: int, rng: Generator) -> int:
        """One more child of u, drawn from what its q has left; returns its node."""
        q = self.left[u] / self.mass[u]
        token = q.argmax()[None] if self.chosen else draw(q[None], torch.rand(1, generator=rng).to(q.device))
        left = self.left[u].scatter(0, token, 0.0)
        numbers = torch.stack((token[0].double(), self.left[u][token][0].double(), left.sum().double()))
        number, share, mass = numbers.tolist()  # the one copy of a draw: which comes next depends on it
        child = tree.add(int(number), u, q=q, before=self._value(tree, u), weight=self._weight(tree, u) * share)
        self.left[u], self.mass[u] = left, max(0.0, mass)
        return child

    def _draft(self, tree: TreeBuilder) -> Draft:
        self.size = len(tree)
        stacked = torch.stack(tree["q"]) if len(tree) else None
        return tree.draft(
            "draft model",
            q=None if self.chosen else stacked,
            draft_probabilities=stacked if self.chosen else None,
            how="deterministic" if self.chosen else "sampled without replacement",
            scores={
                ORDER: torch.arange(1.0, len(tree) + 1),
                ESTIMATE_BEFORE: torch.tensor(tree["before"]),
                ESTIMATE_AFTER: torch.tensor(tree["weight"]),
            },
            calls=self.model.calls,
        )

    def observe(self, draft, output, verification) -> None:
        self.model.keep(self._fed_path(verification.path))
        if self.params.variant == "threshold" and self.params.adaptive:
            moved = self.threshold * (max(self.size, 1) / self.params.nodes) ** 0.5
            self.threshold = min(max(moved, 1 / (8 * self.params.nodes)), 4 / self.params.nodes)

    def _fed_path(self, path: Sequence[int]) -> list[int]:
        """The draft model's own numbers of the accepted nodes that it has read."""
        return [self.fed[node] for node in path if node in self.fed]


def build(family, params: Params, sampling: Sampling):
    drafter = DynamicTree(family.draft, params, sampling)
    return drafter, match if drafter.chosen else recursive_rejection


METHOD = Method(
    key="dyspec",
    title="DySpec",
    paper="https://arxiv.org/abs/2410.11744",
    authors="Xiong et al. 2024",
    year=2024,
    group="small model",
    line="A small model grows the tree where it is most likely to be needed.",
    idea=(
        "A tree without a fixed shape: of all possible next draws, one more child here or a first child there, always make the one "
        "that the verifier is most likely to reach."
    ),
    algorithm=(
        "Estimate how likely the verifier is to reach each possible draw: the product of q down to it, times what q has left.",
        "Queue: make the draw with the largest estimate until the budget is used. Threshold: all draws above it, level by level.",
        "Draw siblings without replacement, and keep whatever comes out.",
        "The target reads the tree in one call; children are tried in draw order as in a multi-candidate tree.",
    ),
    lossless="Whether a draw is made is decided before its token is known, so recursive rejection without replacement stays exact.",
    params=Params,
    build=build,
    requirements=(DRAFT_MODEL,),
)
