"""A drafter without a model: a window of guesses behind the text, refreshed by every target call (Jacobi iteration).

One call reads all guesses at once; what the target says at the places that were not committed is the next window. Santilli et
al. 2023, https://arxiv.org/abs/2305.10427, for equality; Teng et al., ICLR 2025, https://arxiv.org/abs/2410.01699,
for sampling. How a guess is taken from what the target said, and what it is judged with, is the business of the methods.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Generator, Tensor

from decoding.draft import EMPTY, Draft, TargetOutput
from decoding.method import Drafter
from decoding.models.target import Target
from decoding.sample import draw
from decoding.score_names import CALLS_BEFORE
from decoding.trace import Raster

AGAIN = "previous call"  # source of a guess that the target made; the others are named after how the window was filled up
NAMES = {
    "repeat": "repeated token",
    "random": "random token",
    "sample": "row to the left",
    "above": "pixel above",
    "sample above": "row of the pixel above",
}
ABOVE = ("above", "sample above")  # ways to fill up that need a picture


class Window(Drafter):
    """At most `length` guesses, a chain. Rows stay on the device; the tokens are copied once per step.

    What is kept between two steps is replaced, never changed in place.

    Args:
        raster: of an image family. A token at random is then a pixel, and the place above a pixel is `width` places back; in the
            first row, where there is none, it is the one to the left.

    Raises:
        ValueError: new places are to be filled from above, and the family writes text.
    """

    def __init__(self, target: Target, length: int, fill: str, greedy: bool, raster: Raster | None = None) -> None:
        if fill in ABOVE and raster is None:
            raise ValueError(f"New places cannot be filled with {fill!r}: a text has no rows. Pictures have, as those of digits.")
        self.target = target
        self.length = length
        self.fill = fill
        self.greedy = greedy
        self.raster = raster
        nothing = torch.zeros(0, target.vocab, device=target.device)
        self.said = TargetOutput(nothing, nothing)  # one row for every place of the window that was read
        self.last: Tensor | None = None  # (1, vocab) the row of the place before the first one that was never read
        self.written = nothing  # (at most `width`, vocab) the rows that the last tokens of the text were drawn from
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
        new = self.beginnings(tokens, again, size)
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

    def beginnings(self, tokens: Sequence[int], again: Tensor, size: int) -> Tensor:
        """(size - k, vocab) what the guesses at places that were never read are drawn from, behind `again`, the k others."""
        known = len(again)
        if self.fill in ABOVE and self.raster is not None:
            return self.from_above(self.raster, tokens, again, size)
        if self.fill == "repeat" and self.is_pixel(tokens[-1] if not known else None):
            left = again[-1:] if known else self.target.ids(tokens[-1:])
            return self.one_hot(left).expand(size - known, -1)
        if self.fill == "sample" and self.last is not None:
            return self.last.expand(size - known, -1)
        return self.random.expand(size - known, -1)

    def from_above(self, raster: Raster, tokens: Sequence[int], again: Tensor, size: int) -> Tensor:
        """The same where a picture is filled from above, with the token there or with the row that it was drawn from."""
        known, done = len(again), len(tokens) - len(raster.asks)  # pixels of the picture
        if self.fill == "above":
            kept = tokens[-min(raster.width, done) :] if done else ()
            there = self.one_hot(torch.cat((self.target.ids(kept), again)))
        else:
            kept = tokens[len(tokens) - min(len(self.written), done) :]
            there = torch.cat((self.written[len(self.written) - len(kept) :], self.said.probs[:known]))
        if not len(there):  # nothing of the picture is known
            return self.random.expand(size - known, -1)
        places = [above(place, raster.width, known, done, len(kept)) for place in range(known, size)]
        return there[torch.tensor(places, dtype=torch.long, device=there.device)]

    def one_hot(self, tokens: Tensor) -> Tensor:
        """(n,) tokens -> (n, vocab) rows in which they are certain."""
        return self.said.probs.new_zeros(len(tokens), self.target.vocab).scatter(1, tokens[:, None], 1.0)

    @cached_property
    def random(self) -> Tensor:
        """(1, vocab) a row in which all tokens are equally likely, in a picture all pixels."""
        count = self.target.vocab if self.raster is None else len(self.raster.palette)
        row = self.said.probs.new_zeros(1, self.target.vocab)
        row[:, :count] = 1 / count
        return row

    def is_pixel(self, token: int | None) -> bool:
        """Whether a token can stand in a picture; of a text every one can, and None is a guess of the target's, which does."""
        return self.raster is None or token is None or token < len(self.raster.palette)

    def shown(self, size: int, new: Tensor) -> Tensor | None:
        """(size, vocab) rows for the pictures of a greedy run, where the true ones are one-hot: at temperature 1."""
        return torch.cat((self.said.logits[:size].softmax(-1), new)) if self.greedy else None

    def observe(self, draft, output, verification) -> None:
        """Row r says what comes behind node r - 1: the rows from the second one behind the path on are the next window's."""
        first = len(verification.path) + 1
        self.said = TargetOutput(output.logits[first:], output.probs[first:])
        self.last = output.probs[-1:]
        if self.fill == "sample above" and self.raster is not None:
            self.written = torch.cat((self.written, output.probs[:first]))[-self.raster.width :]
        self.ages = tuple(age + 1 for age in (*self.ages, 0)[first:])


def above(place: int, width: int, known: int, done: int, kept: int) -> int:
    """Where the pixel above one that is new stands, counted from the first of those that are known.

    Args:
        place: of the new one, counted from the first one behind the text.
        known: pixels of the window that are known, from place 0 on.
        done: pixels of the text.
        kept: of them that are remembered, the last ones; they stand at the places before 0.

    >>> [above(place, 4, 2, 3, 3) for place in range(2, 8)]  # xxx? / ?nnn / nnn.: three are there, two are guessed, six are new
    [1, 2, 3, 4, 1, 2]
    """
    while place >= known:
        place -= width
    return max(place, -kept) + kept if place + done >= 0 else known + kept - 1
