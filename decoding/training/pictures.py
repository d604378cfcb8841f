"""What image families learn from: sets of pictures whose pixels are tokens, in raster order behind the words of a prompt.

The pixel tokens come first, so that a pixel's token is the place of its colour in the palette; words have the ids behind them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from decoding.trace import Raster

Prompts = np.ndarray  # (n, words) ids
Images = np.ndarray  # (n, pixels) ids


@dataclass(frozen=True)
class Pictures:
    """A set of pictures, and how to tell whether one shows what was asked for."""

    name: str
    raster: Raster
    vocabulary: tuple[str, ...]  # of every id, pixels first
    learned: Callable[[np.random.Generator, int], tuple[Prompts, Images]]  # so many examples to learn from
    held_out: Callable[[], tuple[Prompts, Images]]  # all that is measured on
    right: Callable[[Prompts, Images], float]  # the share of images that show what the prompt asks for
    checked: str  # by whom, in words

    def ids(self, prompt: str) -> list[int]:
        """The tokens of a prompt.

        Raises:
            KeyError: a word is none of the vocabulary's.
        """
        known = {word: token for token, word in enumerate(self.vocabulary)}
        return [known[word] for word in prompt.split()]
