"""A drafter without a model: a window of guesses behind the text, refreshed by every target call (Jacobi iteration).

One call reads all guesses at once; what the target says at the places that were not committed is the next window. Santilli et
al. 2023, https://arxiv.org/abs/2305.10427, for equality; Teng et al., ICLR 2025, https://arxiv.org/abs/2410.01699,
for sampling. How a guess is taken from what the target said, and what it is judged with, is the business of the methods.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from decoding.draft import EMPTY, Draft, TargetOutput
from decoding.method import Drafter
from decoding.models.target import Target
from decoding.sample import draw
from decoding.score_names import CALLS_BEFORE

AGAIN = "previous call"  # source of a guess that the target made; the others are named after how the window was filled up
NAMES = {"repeat": "repeated token", "random": "random token", "sample": "row to the left"}


class Window(Drafter):
    """At most `length` guesses, a chain. Rows stay on the device; the tokens are copied once per step.

    What is kept between two steps is replaced, never changed in place.
    """

    def __init__(self, target: Target, length: int, fill: str, greedy: bool) -> None:
        self.target = target
        self.length = length
        self.fill = fill
        self.greedy = greedy
        nothing = torch.zeros(0, target.vocab, device=target.device)
        self.said = TargetOutput(nothing, nothing)  # one row for every place of the window that was read
        self.last: Tensor | None = None  # (1, vocab) the row of the place before the first one that was never read
        self.ages: tuple[int, ...] = ()  # target calls that every place of the last draft had been through

    def propose(self, tokens: Sequence[int], rng: Generator) -> Draft:
        """The guesses of the last call, and behind them new ones."""
        size = min(self.length, self.target.context - len(tokens))
        if size < 1:
            return EMPTY
        uniforms = torch.rand(size, generator=rng).to(self.target.device)
        rows = self.said.probs[:size]
        known = len(rows)
        again = self.guess(rows, uniforms[:known])
        left = again[-1:] if known else self.target.ids(tokens[-1:])
        new = self.beginning(left).expand(size - known, -1)
        guesses = torch.cat((again, draw(new, uniforms[known:])))
        self.ages = (*self.ages[:known], *(0,) * (size - known))
        return self.draft(guesses, torch.cat((rows, new)), self.shown(size, new), known)

    def guess(self, rows: Tensor, uniforms: Tensor) -> Tensor:
        """(k, vocab) what the target said, (k,) uniforms -> (k,) tokens."""
        raise NotImplementedError

    def draft(self, guesses: Tensor, rows: Tensor, draft_probabilities: Tensor | None, known: int) -> Draft:
        """The draft of `guesses` (n,), the first `known` of them from the last call, each from its row of `rows` (n, vocab)."""
        raise NotImplementedError

    def chain(self, guesses: Tensor, known: int, **how) -> Draft:
        """A chain of the guesses, which are copied from the device here."""
        tokens = guesses.tolist()
        sources = (AGAIN,) * known + (NAMES[self.fill],) * (len(tokens) - known)
        scores = {CALLS_BEFORE: torch.tensor(self.ages, dtype=torch.float32)}
        return Draft(tuple(tokens), tuple(range(-1, len(tokens) - 1)), source=sources, scores=scores, **how)

    def beginning(self, left: Tensor) -> Tensor:
        """(1, vocab) what a guess at a place that was never read is drawn from; `left` (1,) is the token or guess before it."""
        if self.fill == "repeat":
            return self.said.probs.new_zeros(1, self.target.vocab).scatter(1, left[:, None], 1.0)
        if self.fill == "sample" and self.last is not None:
            return self.last
        return self.said.probs.new_full((1, self.target.vocab), 1 / self.target.vocab)

    def shown(self, size: int, new: Tensor) -> Tensor | None:
        """(size, vocab) rows for the pictures of a greedy run, where the true ones are one-hot: at temperature 1."""
        return torch.cat((self.said.logits[:size].softmax(-1), new)) if self.greedy else None

    def observe(self, draft, output, verification) -> None:
        """Row r says what comes behind node r - 1: the rows from the second one behind the path on are the next window's."""
        first = len(verification.path) + 1
        self.said = TargetOutput(output.logits[first:], output.probs[first:])
        self.last = output.probs[-1:]
        self.ages = tuple(age + 1 for age in (*self.ages, 0)[first:])
