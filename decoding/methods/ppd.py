"""PPD, parallel prompt decoding: trained placeholders make the target guess several places ahead in the pass that checks guesses.

Chen et al. 2024, https://arxiv.org/abs/2405.18628: prompt tokens and their ensemble (section 3), the trees and their size (section
4; `decoding.drafting.prompt_token_trees`). All that is trained is E, one vector per place ahead and member; the target stays as it
is. Trained by `python -m decoding.training ppd`.

The placeholders are read behind the draft (`decoding.drafting.prompt_tokens`): no row of text sees them, so what the target says of
the text is untouched, and their keys and values are dropped behind every pass. Placeholder i below a node stands i places behind it
and speaks of the token behind that place; the target's own row at the node speaks of the one before.

Departures: exact acceptance is the default (the paper's typical acceptance is not lossless above temperature 0); members of an
ensemble are read at inference too, and their logits averaged; the number of rows is chosen by passes timed on this machine.
"""

import statistics
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from decoding.acceptance.typical import typical
from decoding.checks import check_int
from decoding.draft import PLAIN, Draft, Reading
from decoding.drafting.prompt_token_trees import Machine, ProbeTree, Ranks, machine
from decoding.drafting.prompt_tokens import PromptTokensOutput, WithPromptTokens
from decoding.method import Drafter, Method, param
from decoding.models.cache import TreeCache
from decoding.models.family import Family
from decoding.models.heads import Settings, check_ranks, check_width, head_for, shared
from decoding.models.once import Once
from decoding.models.requirements import TARGET_HEAD
from decoding.models.target import Target
from decoding.sample import Sampling
from decoding.score_names import (
    LATENCY,
    MEMBERS,
    PROMPT_TOKEN_PROBABILITY,
    PROMPT_TOKENS,
    RANK,
    ROOT_PROMPT_TOKENS,
    ROW_BUDGET,
    STATE,
    TREE_VALUE,
    YIELD,
)
from decoding.verify import match

KEY = "ppd"
RANKS = 8  # best tokens of a prompt token that may stand in a tree
MAX_WIDTH, MAX_PROMPT_TOKENS, MAX_MEMBERS = 65_536, 4, 32
BUDGETS = (16, 24, 32, 48, 64)  # rows of a pass
MEASURED = "measured"
TEXT, PASSES = 64, 20  # tokens before the passes that are timed, and how many of each size
ENOUGH, FEWEST = 1.5, 3  # seconds after which no more are timed, unless there were fewer than this


class Prompts(nn.Module):
    """E: what is read in place of the embedding of a token, (prompt tokens, members, width)."""

    def __init__(self, width: int, prompt_tokens: int, members: int = 1) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.zeros(prompt_tokens, members, width))


def init_head(target: Target, prompt_tokens: int, members: int) -> Prompts:
    """Untrained: the embeddings of ordinary tokens, spread over the vocabulary; ValueError for a target that reads tokens only."""
    if reason := vectors_refusal(target):
        raise ValueError(reason)
    made = Prompts(target.model.config.hidden_size, prompt_tokens, members).to(target.device)
    count = prompt_tokens * members
    tokens = torch.arange(1, count + 1, device=target.device) * (target.vocab - 1) // (count + 1)
    made.embed.data.copy_(target.embedded(tokens).view_as(made.embed))
    return made


def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The tensors of a head file; ValueError for settings that cannot be."""
    found = {name: settings.get(name) for name in ("width", "prompt_tokens", "members")}
    for name, high in (("width", MAX_WIDTH), ("prompt_tokens", MAX_PROMPT_TOKENS), ("members", MAX_MEMBERS)):
        check_int(f"Prompt tokens with {name}", found[name], 1, high)
    check_ranks(settings.get("ranks"), found["prompt_tokens"], RANKS, "prompt tokens")
    return {"embed": (found["prompt_tokens"], found["members"], found["width"])}


def load_head(target: Target) -> tuple[Prompts, Ranks]:
    """The prompt tokens of a target, and how often each rank of each was right on held-out text; ValueError if there are none that
    fit."""

    def build() -> tuple[Prompts, Ranks]:
        head = head_for(KEY, target.model, shapes)
        check_width("The prompt tokens are", head, target.model)
        settings = head.settings
        made = Prompts(settings["width"], settings["prompt_tokens"], settings["members"])
        made.load_state_dict(head.tensors)
        return made.to(target.device, target.dtype).eval(), tuple(map(tuple, settings["ranks"]))

    return shared(KEY, target.model, build)


# -- how many rows -----------------------------------------------------------------------------------------------------

_timed: Once[dict[int, float]] = Once("waiting until the target is timed")


def latencies(target: Target) -> dict[int, float]:
    """Rows -> milliseconds of a pass, the median of some; timed once per model, in a second or two."""
    return _timed.of(target.model, lambda: timed(target))


@torch.inference_mode()
def timed(target: Target) -> dict[int, float]:
    cache = TreeCache()
    text = min(TEXT, max(1, target.context - BUDGETS[-1]))
    target.extend(cache, [0] * text)
    found: dict[int, list[float]] = {rows: [] for rows in BUDGETS}
    begun = perf_counter()
    for number in range(PASSES + 1):
        if number > FEWEST and perf_counter() - begun > ENOUGH:
            break
        for rows, times in found.items():
            embeddings = target.embedded(torch.zeros(rows, dtype=torch.long, device=target.device))
            started = perf_counter()
            positions = [min(text + row, target.context - 1) for row in range(rows)]
            target.forward(cache, None, positions, embeddings=embeddings)[0][0, 0].item()  # waits for the device
            cache.keep(())
            times += [1000 * (perf_counter() - started)] * (number > 0)  # the first round only warms up
    return {rows: statistics.median(times) for rows, times in found.items()}


def best_budget(ranks: Ranks, members: int, milliseconds: dict[int, float]) -> int:
    """The number of rows that should yield most tokens per time."""
    return max(milliseconds, key=lambda rows: machine(ranks, rows, members).tokens / milliseconds[rows])


# -- the drafter -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    prompt_tokens: int = param(
        3, "Prompt tokens", "Places looked ahead (m), at most as many as were trained.", low=1, high=MAX_PROMPT_TOKENS
    )
    budget: str = param(
        MEASURED,
        "Rows of a pass",
        "Root, guesses and prompt tokens together. measured: passes are timed on this machine, and the number that should yield "
        "most tokens per second is taken.",
        choices=(MEASURED, *map(str, BUDGETS)),
    )
    rule: str = param(
        "exact",
        "Acceptance",
        "exact: follow the token that the target draws; typical: take what the target finds plausible, as in the paper, which is "
        "not lossless above temperature 0.",
        choices=("exact", "typical"),
    )
    epsilon: float = param(0.09, "Typical: threshold", "No token above this probability is refused (epsilon).", low=0.0, high=1.0)
    delta: float = param(
        0.3, "Typical: entropy share", "A token passes above this share of exp(-entropy) too (delta).", low=0.0, high=1.0
    )


class Ppd(Drafter):
    """Keeps what the prompt tokens below the last accepted node said; drafting is a look-up in it, one copy from the device."""

    def __init__(self, target: Target, params: Params, sampling: Sampling) -> None:
        self.target = target
        prompts, ranks = load_head(target)
        self.embeddings = prompts.embed  # (prompt tokens, members, width)
        ranks = tuple(row[: target.vocab] for row in ranks[: params.prompt_tokens])
        members = self.embeddings.shape[1]
        self.latencies = latencies(target) if params.budget == MEASURED else {}
        self.budget = best_budget(ranks, members, self.latencies) if self.latencies else int(params.budget)
        self.machine: Machine = machine(ranks, self.budget, members)
        self.curve = {LATENCY.format(rows): ms for rows, ms in self.latencies.items()}
        self.curve |= {YIELD.format(rows): float(machine(ranks, rows, members).tokens) for rows in self.latencies}
        self.shown = Sampling() if sampling.greedy else sampling
        self.logits: Tensor | None = None  # (s, vocab) of the prompt tokens below the root, s the state

    @property
    def state(self) -> int:
        return 0 if self.logits is None else len(self.logits)

    def propose(self, tokens, rng) -> Draft:
        tree = self.machine.trees[self.state]
        reading = self.reading(tree, self.target.context - len(tokens))
        if not tree.paths:
            return Draft((), (), reading=reading, facts=self.facts())
        prompt_token = torch.tensor([len(path) - 1 for path in tree.paths], device=self.target.device)
        ranks = [path[-1] for path in tree.paths]
        rank = torch.tensor(ranks, device=self.target.device)
        best, found = self.logits.softmax(-1).topk(max(ranks) + 1)
        drafted, probabilities = torch.stack(
            (found[prompt_token, rank].double(), best[prompt_token, rank].double())
        ).tolist()  # the one copy
        n = len(tree.paths)
        scores = {
            PROMPT_TOKEN_PROBABILITY: torch.tensor(probabilities),
            RANK: torch.tensor(ranks) + 1.0,
            TREE_VALUE: torch.tensor(tree.values),
        }
        return Draft(
            tuple(map(int, drafted)),
            tree.parents,
            draft_probabilities=self.shown.probabilities(self.logits)[prompt_token],
            source=tuple(f"prompt token {len(path)}" for path in tree.paths),
            scores=scores
            | {PROMPT_TOKENS: torch.tensor(tree.prompt_tokens, dtype=torch.float), STATE: torch.full((n,), float(self.state))},
            facts=self.facts(),
            reading=reading,
        )

    def facts(self) -> dict[str, float]:
        """What the pictures need of the whole pass; what was measured is told once in a run."""
        told, self.curve = self.curve, {}
        return {
            ROOT_PROMPT_TOKENS: float(self.machine.most),
            MEMBERS: float(self.machine.members),
            ROW_BUDGET: float(self.budget),
        } | told

    def reading(self, tree: ProbeTree, room: int) -> Reading:
        """With the prompt tokens of a tree, the root's first; without those beyond the context, which is `room` tokens away."""
        members = range(self.machine.members)
        hung = [(-1, 0, self.machine.most)]
        hung += [(i, len(tree.paths[i]), count) for i, count in enumerate(tree.prompt_tokens)]
        rows = [(i, d, j) for i, depth, count in hung for j in members for d in range(1, count + 1) if depth + d <= room]
        if not rows:
            return PLAIN
        nodes, distances, owners = zip(*rows, strict=True)
        return WithPromptTokens(self.embeddings[[d - 1 for d in distances], list(owners)], nodes, distances, owners)

    def observe(self, draft, output, verification) -> None:
        self.logits = None
        read = draft.reading
        if not isinstance(read, WithPromptTokens) or not isinstance(output, PromptTokensOutput):
            return
        end = verification.row - 1
        hung = [(d, row) for row, (i, d) in enumerate(zip(read.nodes, read.distances, strict=True)) if i == end]
        if hung:  # by distance, the members of each
            rows = torch.tensor([row for _, row in sorted(hung)], device=self.target.device)
            self.logits = output.prompt_tokens[rows].unflatten(0, (-1, self.machine.members)).mean(1)


def build(family: Family, params: Params, sampling: Sampling):
    rule = typical(params.epsilon, params.delta) if params.rule == "typical" else match
    return Ppd(family.target, params, sampling), rule


def vectors_refusal(target: Target) -> str:
    """Why this model cannot read vectors in place of tokens, as a sentence; "" if it can."""
    if not getattr(target.model.config, "hidden_size_per_layer_input", None):
        return ""
    name = type(target.model).__name__
    return f"Every layer of a {name} looks its tokens up by itself; it cannot read a prompt token, which is none."


class Vectors:
    """A target that reads a vector in place of a token; of one that is not loaded it cannot be told."""

    words, part = "a target that reads vectors in place of tokens", "target"

    def lacking(self, method: Method, family: Any) -> str:
        target = getattr(family, "target", None)
        return vectors_refusal(target) if isinstance(target, Target) else ""

    def parameters(self, method: Method, family: Any) -> int:
        return 0


METHOD = Method(
    key=KEY,
    title="Parallel prompt decoding",
    paper="https://arxiv.org/abs/2405.18628",
    authors="Chen et al. (EMNLP 2025)",
    year=2024,
    group="itself",
    line="Trained placeholders make the large model guess ahead in the call that checks.",
    idea=(
        "A few trained placeholders behind the last token make the frozen target guess several places ahead, in the same pass that "
        "checks the guesses made before. All that is trained is one vector per place."
    ),
    algorithm=(
        "The placeholders below the last accepted token said what may come after next; their best tokens fill a tree.",
        "Below the root and every node hang new placeholders; how many decides how deep the next tree can be.",
        "The target reads root, guesses and placeholders in one call; no row of text sees a placeholder.",
        "Follow the children that agree with what the target draws; the first token without a child is the correction.",
        "The placeholders below the node where this ended speak in the next step; all their rows are dropped from the cache.",
    ),
    lossless=(
        "No token sees a placeholder, so the target's distributions are its own, and the tree is only compared with what it draws "
        "itself. Typical acceptance, an option, gives this up at temperatures above 0."
    ),
    params=Params,
    build=build,
    requirements=(Vectors(), TARGET_HEAD),
    lossless_with=lambda values, greedy: greedy or values.get("rule") != "typical",
)
