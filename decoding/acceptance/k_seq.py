"""K-SEQ, pure: pick one token from k independent guesses so that the target's law is kept (rule R4).

Sun et al. 2023 (SpecTr), https://arxiv.org/abs/2310.15141; the paper swaps the letters, here p is the target and q the drafter.
The guesses are tried in the order they were drawn, each with min(1, p / (rho q)); if all fail, the token comes from what rho q
left of p. rho depends on p, q and k only, never on the uniforms, so it is found on the device for all positions at once.
"""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput
from decoding.sample import draw, wide
from decoding.score_names import COPIES, GUESSES, OF_POSITION, RHO, UNIFORM_OF
from decoding.trace import Verdict
from decoding.verify import EXACT_FOR, NotFinite, Verification, check, copied

POINTS, ROUNDS = 256, 6  # the bracket of rho shrinks by 256 each round: to 1e-13 for k = 8
NOTHING = 1e-12  # a residual that sums to less is rounding


def k_seq(draft: Draft, output: TargetOutput, u: Tensor) -> Verification:
    """Try the copies at a node in the order of their sequences; go on with all sequences that hold the accepted token.

    A node's p in the Verification is p / rho, so that u * q < p says what happened; its u is the one that decided: of the accepted
    copy, or the lowest of those that were refused (of the first copy where none was tried). `scores` hold rho, beta = sum of
    min(q, p / rho), beta at rho = k, the chance of acceptance under R3w with the same guesses and the best possible one, the
    number of guesses at the position, of copies of the node, and the uniform of every copy (sequences count from 1).

    Args:
        output: probs (n + 1, vocab).
        u: (draft.uniforms + 1,) uniforms on the CPU, node by node in the order of `draft.copies`; the last draws the final token.
    """
    check(k_seq, draft)
    n, probs = len(draft), output.probs
    if n == 0:
        return Verification(
            (), (), (), (), (), int(copied(output, draw(probs, u[-1:].to(probs.device)).to(probs.dtype))[0]), probs, {}
        )
    parents = list(draft.by_parent)
    guesses = offered(draft)
    solved, residual = positions(draft, probs, [guesses[parent] for parent in parents])
    finals = draw(residual, u[-1:].to(residual.device).expand(n + 1))
    numbers = copied(output, *of_nodes(draft, probs), finals.to(solved.dtype), solved.flatten())
    p, q, finals = numbers[:n], numbers[n : 2 * n], numbers[2 * n : 3 * n + 1]
    if not all(map(isfinite, q)):
        raise NotFinite("drafter")
    found = (numbers[3 * n + 1 + i * len(OF_POSITION) :][: len(OF_POSITION)] for i in range(len(parents)))
    facts = {parent: dict(zip(OF_POSITION, row, strict=True)) for parent, row in zip(parents, found, strict=True)}
    judged = tuple(value / facts[parent][RHO] for value, parent in zip(p, draft.parents, strict=True))
    uniforms = dealt(draft, u[:-1].tolist())
    path, verdicts, deciding = walk_copies(draft, uniforms, judged, q)
    scores = tuple(
        {COPIES: float(len(copies)), GUESSES: float(guesses[parent])}
        | facts[parent]
        | {UNIFORM_OF.format(sequence + 1): uniform for sequence, uniform in copies.items()}
        for copies, parent in zip(uniforms, draft.parents, strict=True)
    )
    end = path[-1] + 1 if path else 0
    return Verification(path, verdicts, judged, tuple(q), deciding, int(finals[end]), residual, {}, scores)


def copies_of(draft: Draft) -> tuple[tuple[int, ...], ...]:
    """(n,) the sequences through every node."""
    assert draft.copies is not None  # `check` let sequences through alone
    return draft.copies


def offered(draft: Draft) -> dict[int, int]:
    """Parent -> the guesses at its position: the copies of all its children. Only sequences that agreed so far come there."""
    copies = copies_of(draft)
    return {parent: sum(len(copies[child]) for child in children) for parent, children in draft.by_parent.items()}


def dealt(draft: Draft, u: Sequence[float]) -> tuple[dict[int, float], ...]:
    """(n,) sequence -> its uniform at the node."""
    uniforms = iter(u)
    return tuple({sequence: next(uniforms) for sequence in through} for through in copies_of(draft))


def walk_copies(
    draft: Draft, uniforms: Sequence[dict[int, float]], p: Sequence[float], q: Sequence[float]
) -> tuple[tuple[int, ...], tuple[Verdict, ...], tuple[float, ...]]:
    """Follow the first accepted copy from the root down: the path, and for every node a verdict and the uniform behind it."""
    verdicts: list[Verdict] = ["not judged"] * len(draft)
    deciding = [next(iter(of_node.values())) for of_node in uniforms]
    path: list[int] = []
    copies, children = copies_of(draft), draft.children(-1)
    while children:
        turns = sorted((sequence, child) for child in children for sequence in copies[child])
        children = ()
        for sequence, child in turns:
            uniform = uniforms[child][sequence]
            if uniform * q[child] < p[child]:
                verdicts[child], deciding[child] = "accepted", uniform
                path.append(child)
                children = draft.children(child)
                break
            deciding[child] = min(uniform, deciding[child]) if verdicts[child] == "rejected" else uniform
            verdicts[child] = "rejected"
    return tuple(path), tuple(verdicts), tuple(deciding)


# -- what the device finds ---------------------------------------------------------------------------------------------


def of_nodes(draft: Draft, probs: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) p and (n,) q of every node's token."""
    tokens = torch.tensor(draft.tokens, device=probs.device)
    rows = torch.tensor(draft.parents, device=probs.device) + 1
    assert draft.q is not None  # `check` refused drafts without
    return wide(probs[rows, tokens]), wide(draft.q[torch.arange(len(draft), device=probs.device), tokens])


def positions(draft: Draft, probs: Tensor, guesses: list[int]) -> tuple[Tensor, Tensor]:
    """Every position with children, in the order of `draft.by_parent`, and what they leave of p.

    Args:
        probs: (n + 1, vocab).
        guesses: (m,) of each position.

    Returns:
        (m, 5) the numbers of OF_POSITION; (n + 1, vocab) the residual of each row, p itself without children.
    """
    rows = torch.tensor([parent + 1 for parent in draft.by_parent], device=probs.device)
    assert draft.q is not None  # `check` refused drafts without
    p, q = probs[rows], draft.q[[children[0] for children in draft.by_parent.values()]]
    solved = wide(torch.minimum(p, q).sum(1, keepdim=True)).repeat(1, len(OF_POSITION))  # with one guess all rules are R1
    solved[:, 0] = 1
    several = [i for i, k in enumerate(guesses) if k > 1]
    if several:
        solved[several] = solve(p[several], q[several], [guesses[i] for i in several])
    left = torch.addcmul(p, solved[:, :1].to(p.dtype), q, value=-1).clamp_(min=0)
    total = left.sum(1, keepdim=True)
    return solved, probs.index_put((rows,), torch.where(total > NOTHING, left / total, p))


def solve(p: Tensor, q: Tensor, k: list[int]) -> Tensor:
    """(m, vocab) p and q, (m,) guesses -> (m, 5) the numbers of OF_POSITION."""
    sums = Sums(p, q)
    count = sums.ratio.new_tensor(k)[:, None]
    rho = sums.division(count)
    found = (rho, sums.beta(rho), sums.beta(count), sums.recursive(count, max(k)), sums.optimum(count))
    return torch.cat(found, 1)


class Sums:
    """Positions with their tokens in ascending order of p / q: what rho asks of the whole vocabulary becomes a look-up.

    ratio (m, vocab); p and q (m, vocab + 1) running sums of the two, from 0 to 1.
    """

    def __init__(self, p: Tensor, q: Tensor) -> None:
        p, q = wide(p), wide(q)
        ratio = torch.where(q > 0, p / q, torch.inf)  # what q cannot draw is never refused
        order = ascending(ratio)
        self.ratio = ratio.gather(1, order)
        self.p, self.q = (self._running(values.gather(1, order)) for values in (p, q))

    @staticmethod
    def _running(values: Tensor) -> Tensor:
        sums = torch.nn.functional.pad(values.cumsum(1), (1, 0))
        return sums / sums[:, -1:]  # float32 rows sum to 1 only nearly

    def beta(self, rho: Tensor) -> Tensor:
        """(m, points) -> sum of min(q, p / rho): the chance that a single guess passes."""
        below = torch.searchsorted(self.ratio, rho)
        return (1 - self.q.gather(1, below) + self.p.gather(1, below) / rho).clamp_(0, 1)

    def division(self, k: Tensor) -> Tensor:
        """(m, 1) -> the smallest rho in [1, k] that is lossless: the root of g = 1 - (1 - beta)^k - rho beta, which decreases.

        Of the last bracket the upper end is kept: slightly too large is still lossless, too small is not.
        """
        steps = torch.linspace(0, 1, POINTS + 1, dtype=k.dtype, device=k.device)
        low, high = torch.ones_like(k), k
        for _ in range(ROUNDS):
            rho = low + (high - low) * steps
            beta = self.beta(rho)
            before = (any_of(beta, k) > rho * beta).sum(1, keepdim=True)  # points left of the root
            low, high = rho.gather(1, (before - 1).clamp(min=0)), rho.gather(1, before.clamp(max=POINTS))
        return high

    def optimum(self, k: Tensor) -> Tensor:
        """(m, 1) -> the best chance of any rule with k guesses: the least of p(H) + 1 - q(H)^k over all sets of tokens H.

        The best H holds the tokens of the smallest p / q (duality of the transport problem).
        """
        return (self.p + 1 - self.q**k).amin(1, keepdim=True)

    def recursive(self, k: Tensor, most: int) -> Tensor:
        """(m, 1) -> the chance that one of k guesses passes recursive rejection (R3w).

        After j failures the residual is max(p - t q, 0), scaled, whatever the tokens were: t grows by the mass that is left, and
        that mass is also the chance to have failed so far.
        """
        t, missed = torch.zeros_like(k), torch.ones_like(k)
        for tried in range(most):
            t = t + missed
            missed = torch.where(k > tried, 1 - t * self.beta(t), missed)
        return 1 - missed


def ascending(values: Tensor) -> Tensor:
    """(rows, n) -> the places of the values in ascending order, equal ones in any. On a CPU numpy sorts several times as fast."""
    return torch.from_numpy(values.numpy().argsort(1)) if values.device.type == "cpu" else values.argsort(1)


def any_of(beta: Tensor, k: Tensor) -> Tensor:
    """1 - (1 - beta)^k without losing digits."""
    return -torch.expm1(k * torch.log1p(-beta))


EXACT_FOR[k_seq] = frozenset({"sampled as sequences"})
