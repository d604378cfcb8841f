"""Speculative Jacobi decoding: a window of guesses drawn by one target call and judged by the next.

Teng et al., ICLR 2025, https://arxiv.org/abs/2410.01699. Every guess is kept with the row it was drawn
from, whatever context that row was read in, and judged by the ordinary rejection rule; guesses that are not committed are all
drawn anew, from the rows of the latest call. That is exact: given all that is committed and all rows kept, a guess has the law
of its row and is independent of every other uniform. Departures: of the paper's ways to fill new places those from above need a
picture, and text is filled from the left or at random; guidance, which reads every row twice, is left out; a random guess is judged
with the uniform row and a sampled one with the row it was drawn from, where the released code takes both as certain (a parameter),
and its "sample" is the neighbour's best token; the window has 8 places, where the released code reads 15; the first call already
reads a window; the correction is drawn from the residual as it is (the released code sends it through temperature and top-k
again); at temperature 0 rows are one-hot, so that the same rule is equality.
"""

from dataclasses import dataclass

from decoding.drafting.window import Window
from decoding.method import Method, param
from decoding.models.target import Target
from decoding.sample import Sampling, draw
from decoding.trace import Raster
from decoding.verify import recursive_rejection


@dataclass(frozen=True)
class Params:
    window: int = param(
        8, "Window", "Guesses behind the text that every call judges or draws anew; the paper uses 15.", low=1, high=32
    )
    fill: str = param(
        "random",
        "New places",
        "What stands at a place that was never read: a random token, the one before it again, a draw from the row to its left or, "
        "in a picture, the same from above.",
        choices=("random", "repeat", "sample", "above", "sample above"),
    )
    certain: bool = param(
        False, "New guesses count as certain", "Judge them with q = 1, as released, instead of what they were drawn from."
    )


class SpeculativeJacobi(Window):
    """Guesses are drawn, and carry the row they were drawn from."""

    def __init__(self, target: Target, params: Params, sampling: Sampling, raster: Raster | None = None) -> None:
        super().__init__(target, params.window, params.fill, sampling.greedy, raster)
        self.certain = params.certain

    def guess(self, rows, uniforms):
        return draw(rows, uniforms)

    def draft(self, guesses, rows, draft_probabilities, known):
        if self.certain:
            rows[known:] = 0
            rows[known:].scatter_(1, guesses[known:, None], 1.0)
        return self.chain(guesses, known, q=rows, draft_probabilities=draft_probabilities, how="sampled")


METHOD = Method(
    key="speculative_jacobi",
    title="Speculative Jacobi decoding",
    paper="https://arxiv.org/abs/2410.01699",
    authors="Teng et al., ICLR 2025",
    year=2024,
    group="parallel",
    line="The same window for sampled text: a guess is judged by how likely it is now and was a call ago.",
    idea=(
        "Jacobi decoding for sampling: two draws hardly ever agree, so a guess is not compared with a second draw but judged by "
        "how likely the target finds it now and how likely it found it one call ago."
    ),
    algorithm=(
        "Draw a guess at every place of the window from what the target said there in the last call; fill up new places behind.",
        "The target reads the whole window in one call.",
        "Guess by guess: accept if u × q < p, where q is the row of the last call; stop at the first rejection.",
        "After a rejection draw a correction from the residual, otherwise a bonus; all places behind are drawn anew next time.",
    ),
    lossless="A guess really was drawn from the row it is judged with, so each place is one exact step of speculative sampling.",
    params=Params,
    build=lambda family, params, sampling: (SpeculativeJacobi(family.target, params, sampling, family.raster), recursive_rejection),
)
