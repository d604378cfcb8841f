"""Jacobi decoding: guess a window of tokens, and let the target's own answers be the guesses of the next call.

Santilli et al. 2023, https://arxiv.org/abs/2305.10427; as the greedy baseline in Teng et al., ICLR 2025,
https://arxiv.org/abs/2410.01699. Departures: the window slides, so that it is full again after every call; the first call reads
it together with the end of the prompt (the latter paper spends a call without a window there); above temperature 0 equality is
judged against what the target draws, which stays lossless, and a guess is the likeliest token unless `guess` says otherwise.
"""

from dataclasses import dataclass

from decoding.drafting.window import Window
from decoding.method import Method, param
from decoding.models.target import Target
from decoding.sample import Sampling, draw
from decoding.trace import Raster
from decoding.verify import match


@dataclass(frozen=True)
class Params:
    window: int = param(8, "Window", "Guesses behind the text that every call refreshes.", low=1, high=32)
    fill: str = param(
        "random",
        "New places",
        "What stands at a place that was never read: a random token, the one before it again or, in a picture, the one above it.",
        choices=("random", "repeat", "above"),
    )
    guess: str = param(
        "likeliest",
        "Guess",
        "Above temperature 0: the target's likeliest token, or a draw from its row, which hardly ever agrees with the next one.",
        choices=("likeliest", "sampled"),
    )


class Jacobi(Window):
    """Guesses are only compared with what the target says next, never judged with a q."""

    def __init__(self, target: Target, params: Params, sampling: Sampling, raster: Raster | None = None) -> None:
        super().__init__(target, params.window, params.fill, sampling.greedy, raster)
        self.sampled = params.guess == "sampled"

    def guess(self, rows, uniforms):
        return draw(rows, uniforms) if self.sampled else rows.argmax(-1)

    def draft(self, guesses, rows, draft_probabilities, known):
        return self.chain(guesses, known, draft_probabilities=rows if draft_probabilities is None else draft_probabilities)


METHOD = Method(
    key="jacobi",
    title="Jacobi decoding",
    paper="https://arxiv.org/abs/2305.10427",
    authors="Santilli et al. 2023",
    year=2023,
    group="parallel",
    line="Guesses a whole window at once and repairs it call by call.",
    idea=(
        "Guess a whole window and run the target once over the guesses: what it says at every place is the guess of the next call. "
        "Guesses that reproduce themselves are the text, and no drafter is needed."
    ),
    algorithm=(
        "Fill the window behind the text with the guesses of the last call, and new places with a random or repeated token.",
        "The target reads the window in one call and says its own token at every place.",
        "Keep the guesses that agree, from the left; the first answer that differs is the correction.",
        "All answers behind it, although read on a guess that was wrong, are the guesses of the next call.",
    ),
    lossless="A guess is made before the target speaks, and is only ever compared with what it says.",
    params=Params,
    build=lambda family, params, sampling: (Jacobi(family.target, params, sampling, family.raster), match),
)
