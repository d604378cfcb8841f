"""Acceptance rules, pure: (draft, output, uniforms) -> Verification. The letters: p target, q drafter, u uniform.

Which rule is exact for which draft:

| how the children came about              | recursive_rejection | match | k_seq |
|------------------------------------------|---------------------|-------|-------|
| sampled independently, all kept          | yes                 | yes   | no    |
| sampled without replacement, order kept  | yes                 | yes   | no    |
| sampled as sequences, repeats counted    | no                  | yes   | yes   |
| deterministic: top-k, retrieved, heads   | no                  | yes   | no    |

Leviathan et al. 2023 and Chen et al. 2023 for one child (R1), Miao et al. 2024 (SpecInfer) for several sampled with
replacement (R3w), Chen et al. 2024 (Sequoia) without (R3). All three are one recursion here, because a draft carries the
distribution each node was really sampled from. K-SEQ (R4) stands in `decoding.acceptance.k_seq`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite, isnan

import torch
from torch import Tensor

from decoding.draft import Draft, How, TargetOutput
from decoding.sample import draw
from decoding.score_names import CONFIDENCE, HEAD_PROBABILITY, JOINT, OWN, PROMPT_TOKEN_PROBABILITY
from decoding.trace import Verdict

OF_DRAFTERS = frozenset({CONFIDENCE, HEAD_PROBABILITY, JOINT, OWN, PROMPT_TOKEN_PROBABILITY})  # scores that are probabilities


@dataclass(frozen=True, eq=False)
class Verification:
    """What became of a draft of n nodes."""

    path: tuple[int, ...]  # accepted nodes, in order
    verdicts: tuple[Verdict, ...]  # (n,)
    p: tuple[float, ...]  # (n,) what each node was judged with, after its elder siblings were rejected
    q: tuple[float | None, ...]  # (n,)
    u: tuple[float | None, ...]  # (n,)
    token: int  # the final one: bonus or correction
    residual: Tensor  # (n + 1, vocab) what each row leaves after all its children were rejected
    sampled: dict[int, int]  # row -> the token the target drew there, for `match`
    scores: tuple[dict[str, float], ...] = ()  # (n,) numbers of the rule's own per node, or none

    @property
    def row(self) -> int:
        """The row the walk ended at."""
        return self.path[-1] + 1 if self.path else 0

    def cut(self, count: int) -> "Verification":
        """Only the first `count` nodes of the path: no more were committed with rows of their own."""
        return replace(self, path=self.path[:count])

    def ended(self, draft: Draft, count: int) -> "Verification":
        """The text ended with node number `count` of the path, at least 1: whatever hangs below that node was not judged."""
        if count > len(self.path):
            return self
        judging = self.path[count - 1 :]  # the nodes below which the walk went on
        verdicts = [
            "not judged" if parent in judging else verdict for parent, verdict in zip(draft.parents, self.verdicts, strict=True)
        ]
        return replace(self, path=self.path[:count], verdicts=tuple(verdicts))


Accept = Callable[[Draft, TargetOutput, Tensor], Verification]


class NotFinite(ValueError):
    """A model put out numbers that are no probabilities: infinite, or none at all."""

    def __init__(self, model: str) -> None:
        super().__init__(f"The {model} put out numbers that are not finite.")
        self.model = model  # "target", "drafter", or the name of a head that only judges


def copied(output: TargetOutput, *parts: Tensor) -> list[float]:
    """Rows of numbers on the host, one behind the other: the one copy from the device that a rule makes.

    NotFinite if a row of the target's logits is spoilt; minus infinity is none, a token that cannot be written has it.
    """
    finite = output.logits.amax(-1).isfinite().all()
    numbers = torch.cat(parts).where(finite, torch.nan).tolist()
    if isnan(numbers[0]):
        raise NotFinite("target")
    return numbers


def check_numbers(draft: Draft) -> None:
    """Refuse a draft whose own probabilities are none (NotFinite): a head that is spoilt still names tokens, and would be wrong
    without a word. Looks only at what the drafter brought to the host itself."""
    for name in OF_DRAFTERS & draft.scores.keys():
        if (values := draft.scores[name]).device.type == "cpu" and not bool(values.isfinite().all()):
            raise NotFinite("drafter")


def recursive_rejection(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
    """Try the children in order; accept with min(1, p/q), else go on with the residual norm(max(p - q, 0)).

    Args:
        output: probs (n + 1, vocab).
        u: (n + 1,) uniforms on the CPU: u[i] judges node i, u[n] draws the final token.
    """
    check(recursive_rejection, draft)
    n = len(draft)
    p, residual = judged(draft, output.probs)
    finals = draw(residual, u[n:].to(residual.device).expand(n + 1))
    if n == 0:
        return Verification((), (), (), (), (), int(copied(output, finals.to(p.dtype))[0]), residual, {})
    assert draft.q is not None  # `check` refused drafts without
    q = draft.q.gather(1, _column(draft.tokens, residual.device)).squeeze(1)
    numbers = copied(output, p, q, finals.to(p.dtype))
    p, q, uniforms = tuple(numbers[:n]), tuple(numbers[n : 2 * n]), tuple(u[:n].tolist())
    if not all(map(isfinite, q)):
        raise NotFinite("drafter")
    path, verdicts = walk(draft, lambda i: uniforms[i] * q[i] < p[i])
    end = path[-1] + 1 if path else 0
    return Verification(path, verdicts, p, q, uniforms, int(numbers[2 * n + end]), residual, {})


def match(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
    """Draw from p at every row and follow the child that carries the drawn token (R2); exact for any draft.

    Args:
        u: (n + 1,) uniforms on the CPU, or more: u[r] draws the token of row r.
    """
    n = len(draft)
    probs = output.probs
    sampled = draw(probs, u[: n + 1].to(probs.device))
    numbers = copied(output, of_nodes(draft, probs), sampled.to(probs.dtype))
    return followed(draft, probs, numbers[:n], {row: int(token) for row, token in enumerate(numbers[n:])})


def of_nodes(draft: Draft, probs: Tensor) -> Tensor:
    """(n,) what the target gave every node's token."""
    return probs[_rows(draft, probs.device), torch.tensor(draft.tokens, device=probs.device, dtype=torch.long)]


def _rows(draft: Draft, device: torch.device) -> Tensor:
    """(n,) the row that every node stands at."""
    return torch.tensor(draft.parents, device=device, dtype=torch.long) + 1


def followed(draft: Draft, probs: Tensor, p: list[float], y: Mapping[int, int]) -> Verification:
    """The way of a text that the target wrote, through a tree: the children that carry its tokens, and the one behind them.

    Args:
        p: (n,) numbers of `of_nodes`.
        y: row -> the token that was drawn there, of all rows on the way at least.
    """
    n = len(draft)
    path, verdicts = walk(draft, lambda i: y[draft.parents[i] + 1] == draft.tokens[i])
    visited = (0, *(i + 1 for i in path))
    tokens = torch.tensor(draft.tokens, device=probs.device, dtype=torch.long)
    residual = probs.index_put((_rows(draft, probs.device), tokens), probs.new_zeros(())) if n else probs
    return Verification(
        path,
        verdicts,
        _in_turn(draft, p),
        (None,) * n,
        (None,) * n,
        y[visited[-1]],
        _normalised(residual, probs),
        {row: y[row] for row in visited},
    )


EXACT_FOR: dict[Accept, frozenset[How]] = {
    recursive_rejection: frozenset({"sampled", "sampled without replacement"}),
    match: frozenset({"sampled", "sampled without replacement", "sampled as sequences", "deterministic"}),
}  # a rule in a file of its own adds itself


def check(rule: Accept, draft: Draft) -> None:
    """Refuse a rule that is not exact for how the draft was made (ValueError)."""
    if len(draft) and draft.how not in EXACT_FOR[rule]:
        raise ValueError(f"{rule.__name__} is not exact for a draft whose nodes were {draft.how}.")


def walk(draft: Draft, accepted: Callable[[int], bool]) -> tuple[tuple[int, ...], tuple[Verdict, ...]]:
    """Follow the first accepted child from the root down; returns the path and a verdict for every node."""
    verdicts: list[Verdict] = ["not judged"] * len(draft)
    path: list[int] = []
    at = -1
    while True:
        for child in draft.children(at):
            if accepted(child):
                verdicts[child] = "accepted"
                path.append(child)
                at = child
                break
            verdicts[child] = "rejected"
        else:
            return tuple(path), tuple(verdicts)


def judged(draft: Draft, probs: Tensor) -> tuple[Tensor, Tensor]:
    """The chain of residuals at every row. It does not depend on the uniforms: to reach the k-th sibling, its elder ones must have
    been rejected.

    Returns:
        (n,) the probability each node is judged with; (n + 1, vocab) what remains of p after all children.
    """
    p, residual = probs.new_empty(len(draft)), probs.clone()
    for rank in range(max(draft.ranks, default=-1) + 1):
        nodes = [i for i, r in enumerate(draft.ranks) if r == rank]
        index = torch.tensor(nodes, device=probs.device)
        rows = torch.tensor([draft.parents[i] + 1 for i in nodes], device=probs.device)
        current = residual[rows]
        p[index] = current.gather(1, _column([draft.tokens[i] for i in nodes], probs.device)).squeeze(1)
        assert draft.q is not None  # the rules that come here were refused drafts without
        residual[rows] = _normalised((current - draft.q[index]).clamp_(min=0), current)
    return p, residual


def _normalised(weights: Tensor, otherwise: Tensor) -> Tensor:
    """(rows, vocab) weights scaled to sum to 1; a row that rounding left empty is replaced by that of `otherwise`."""
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / total, otherwise)


def _column(tokens: tuple[int, ...] | list[int], device: torch.device) -> Tensor:
    return torch.tensor(tokens, device=device)[:, None]


def _in_turn(draft: Draft, p: list[float]) -> tuple[float, ...]:
    """(n,) each child's probability given that its elder siblings were not drawn: the sequential form of `match`."""
    left: dict[int, float] = {}
    turn = []
    for i, parent in enumerate(draft.parents):
        remaining = left.get(parent, 1.0)
        turn.append(min(1.0, p[i] / remaining) if remaining > 1e-12 else 0.0)
        left[parent] = remaining - p[i]
    return tuple(turn)
