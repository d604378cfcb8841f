"""From tensors to the trace: what one step leaves behind, reduced on the device, copied once."""

from collections.abc import Mapping, Sequence
from math import isnan, isqrt, log

import torch
from torch import Tensor

from decoding.draft import Draft, TargetOutput
from decoding.method import Observed
from decoding.trace import Node, Row
from decoding.verify import NotFinite, Verification

TOP = 8  # tokens kept of p, and of q
LARGE = 16_384  # tokens, of a vocabulary that is sorted in parts
TINY = 1e-30
LOG_TINY, LN_2 = log(TINY), log(2)
FLOOR = 1e-9  # of q inside KL(p || q), which would be infinite where a cut-off q is 0


@torch.inference_mode()
def recorded(
    draft: Draft, output: TargetOutput, verification: Verification, observed: Observed, *, greedy: bool, full: bool = True
) -> tuple[tuple[Node, ...], tuple[Row | None, ...], dict[str, float], dict[str, bytes]]:
    """Nodes, rows, facts and grids of a step. Whatever of them is still on a device comes to the host in one copy.

    Args:
        full: False leaves out the rows and the grids.
    """
    scores, facts = {**draft.scores, **observed.scores}, {**draft.facts, **observed.facts}
    table = Table(draft, output, verification, greedy=greedy) if full else None
    given = {"rows": table.packed} if table else {}
    given |= {f"score {name}": values for name, values in scores.items()}
    given |= {f"fact {name}": value for name, value in facts.items() if isinstance(value, Tensor)}
    grids = observed.grids if full else {}
    given |= {f"grid {name}": values for name, values in grids.items()}
    found = copied(given)
    numbers = {name: found[f"score {name}"] for name in scores}
    known = {name: found[f"fact {name}"][0] if f"fact {name}" in found else float(value) for name, value in facts.items()}
    small = {name: bytes(map(int, found[f"grid {name}"])) for name in grids}
    return nodes(draft, verification, numbers), table.rows(found["rows"]) if table else (), known, small


def nodes(draft: Draft, verification: Verification, scores: Mapping[str, Sequence[float]]) -> tuple[Node, ...]:
    """One Node per drafted token; `scores` have a number for each, NaN where there is none."""
    return tuple(
        Node(
            token,
            draft.parents[i],
            verification.q[i],
            verification.p[i],
            verification.u[i],
            verification.verdicts[i],
            draft.source[i],
            {name: values[i] for name, values in scores.items() if values[i] == values[i]}
            | (verification.scores[i] if verification.scores else {}),
        )
        for i, token in enumerate(draft.tokens)
    )


def copied(tensors: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """The numbers of tensors on the host, each in one line; one copy for all that are still on a device."""
    away = {name: values.reshape(-1) for name, values in tensors.items() if values.device.type != "cpu"}
    found = {name: values.reshape(-1).tolist() for name, values in tensors.items() if name not in away}
    if away:
        wide = torch.float32 if any(values.device.type == "mps" for values in away.values()) else torch.float64
        line = torch.cat([values.to(wide) for values in away.values()]).tolist()
        for name, values in away.items():
            found[name], line = line[: len(values)], line[len(values) :]
    return found


class Table:
    """One Row for every position where something was drafted or drawn: the top of p and q, every child's token and the final one,
    with p, q and the residual.

    Full distributions stay on the device. In a greedy run p and q are one-hot, which shows nothing: there p is shown at
    temperature 1, and q as the drafter believed it.
    """

    def __init__(self, draft: Draft, output: TargetOutput, verification: Verification, *, greedy: bool) -> None:
        self.draft, self.verification = draft, verification
        self.wanted = [row for row in range(len(draft) + 1) if row == verification.row or draft.children(row - 1)]
        log_p = picked(output.logits, self.wanted).log_softmax(-1) if greedy else None
        p = picked(output.probs, self.wanted) if log_p is None else log_p.exp()
        heads = [draft.children(row - 1)[0] if draft.children(row - 1) else 0 for row in self.wanted]
        believed = drafted(draft)
        q = None if believed is None else picked(believed, heads)
        tokens = torch.cat([tops(p), *([] if q is None else [tops(q)]), of_interest(draft, verification, self.wanted, p.device)], 1)
        columns = [p, picked(verification.residual, self.wanted), *([] if q is None else [q])]
        self.size, self.has_q = tokens.shape[1], q is not None
        self.packed = torch.cat([spread(p, q, log_p), tokens.to(p.dtype), *(column.gather(1, tokens) for column in columns)], 1)

    def rows(self, numbers: list[float]) -> tuple[Row | None, ...]:
        """From all numbers of `packed`; None for the other positions."""
        made: list[Row | None] = [None] * (len(self.draft) + 1)
        width = self.packed.shape[1]
        for i, row in enumerate(self.wanted):
            values = numbers[i * width : (i + 1) * width]
            has_q = self.has_q and bool(self.draft.children(row - 1))
            if has_q and isnan(values[1]):
                raise NotFinite("drafter")
            made[row] = build(values, self.size, has_q, self.verification.sampled.get(row))
        return tuple(made)


def drafted(draft: Draft) -> Tensor | None:
    """(n, vocab) what the drafter believed at every node."""
    return draft.q if draft.draft_probabilities is None else draft.draft_probabilities


def picked(rows: Tensor, wanted: list[int]) -> Tensor:
    """Some of the rows; those that stand side by side are not copied."""
    if wanted and wanted == list(range(wanted[0], wanted[0] + len(wanted))):
        return rows[wanted[0] : wanted[0] + len(wanted)]
    return rows[torch.tensor(wanted, device=rows.device)]


def tops(probs: Tensor) -> Tensor:
    """(rows, vocab) -> (rows, TOP) tokens. Of a large vocabulary only the parts with the largest maxima are sorted: the others have
    none of them."""
    rows, vocab = probs.shape
    if vocab < LARGE:
        return probs.topk(min(TOP, vocab), sorted=False).indices
    part = isqrt(vocab)
    whole = vocab // part * part
    parts = probs[:, :whole].view(rows, -1, part)
    best = parts.amax(-1).topk(TOP, sorted=False).indices[..., None]
    found = torch.cat((parts.gather(1, best.expand(-1, -1, part)).flatten(1), probs[:, whole:]), 1)
    inside, behind = (torch.arange(*ends, device=probs.device) for ends in ((part,), (whole, vocab)))
    tokens = torch.cat(((best * part + inside).flatten(1), behind.expand(rows, -1)), 1)
    return tokens.gather(1, found.topk(TOP, sorted=False).indices)


def of_interest(draft: Draft, verification: Verification, wanted: list[int], device: torch.device) -> Tensor:
    """(wanted, widest) the tokens drafted at each row, filled up with the final token."""
    lists = [[draft.tokens[c] for c in draft.children(row - 1)] for row in wanted]
    widest = max(map(len, lists)) + 1
    return torch.tensor([found + [verification.token] * (widest - len(found)) for found in lists], device=device)


def spread(p: Tensor, q: Tensor | None, log_p: Tensor | None = None) -> Tensor:
    """(rows, 3) entropy of p in bits, overlap of p and q, KL(p || q) in bits; zeros in place of the last two without q.

    Args:
        log_p: natural logarithms of p, where they are known.
    """
    log_p = p.clamp(min=TINY).log() if log_p is None else log_p.clamp(min=LOG_TINY)  # quicker than to treat 0 log 0 apart
    entropy = (p * log_p).sum(1) / -LN_2
    if q is None:
        return torch.stack((entropy, torch.zeros_like(entropy), torch.zeros_like(entropy)), 1)
    divergence = (p * q.clamp(min=FLOOR).log()).sum(1) / -LN_2 - entropy
    return torch.stack((entropy, torch.minimum(p, q).sum(1), divergence), 1)


def build(values: list[float], size: int, has_q: bool, sampled: int | None) -> Row:
    """A Row from one line of numbers: three of `spread`, `size` tokens, then their p, residual and q. One place per token."""
    tokens, p, residual = (values[3 + i * size : 3 + (i + 1) * size] for i in range(3))
    q = values[3 + 3 * size :] if has_q else p
    places = {token: i for i, token in enumerate(tokens)}.values()
    order = sorted((i for i in places if p[i] > 0 or q[i] > 0), key=p.__getitem__, reverse=True)
    return Row(
        tuple([int(tokens[i]) for i in order]),
        tuple([p[i] for i in order]),
        tuple([q[i] for i in order]) if has_q else None,
        tuple([residual[i] for i in order]),
        values[0],
        values[1] if has_q else None,
        values[2] if has_q else None,
        sampled,
    )
