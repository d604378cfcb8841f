"""Handwritten digits of 8 x 8 pixels in eight greys: 1,797 images, UCI "Optical Recognition of Handwritten Digits".

Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49, CC BY 4.0; the part that scikit-learn carries, kept beside the weights.
The levels 0 to 16 become eight greys, the first 1,500 images are learned from. One in ten is asked for as `any`, so that the model
also knows the digits without their names.
"""

from functools import cache
from pathlib import Path

import numpy as np

from decoding.trace import Raster
from decoding.training.pictures import Images, Pictures, Prompts

DATA = Path(__file__).parent.parent / "digits" / "data.npz"
GREYS = 8
LEARNED = 1500
UNNAMED = 0.1  # of the examples are asked for as ANY
NEIGHBOURS = 5

GREY_WORDS = tuple(f"g{grey}" for grey in range(GREYS))
DIGIT_WORDS = tuple(f"digit{digit}" for digit in range(10))
ANY = "any"
VOCABULARY = (*GREY_WORDS, *DIGIT_WORDS, ANY)
PALETTE = tuple(f"#{level:02x}{level:02x}{level:02x}" for level in (255 - round(255 * grey / (GREYS - 1)) for grey in range(GREYS)))


@cache
def kept() -> tuple[Prompts, Images]:
    """All digits, (n, 1) the ids of their names, and all images, (n, 64) greys."""
    with np.load(DATA, allow_pickle=False) as data:
        images = np.minimum(data["images"].astype(np.int64) * GREYS // 17, GREYS - 1)
        return data["digits"].astype(np.int64)[:, None] + GREYS, images


def learned(rng: np.random.Generator, count: int) -> tuple[Prompts, Images]:
    """Examples to learn from, drawn with replacement."""
    prompts, images = kept()
    chosen = rng.integers(LEARNED, size=count)
    unnamed = rng.random((count, 1)) < UNNAMED
    return np.where(unnamed, VOCABULARY.index(ANY), prompts[chosen]), images[chosen]


def held_out() -> tuple[Prompts, Images]:
    prompts, images = kept()
    return prompts[LEARNED:], images[LEARNED:]


def right(prompts: Prompts, images: Images) -> float:
    """The share of images whose nearest neighbours among those learned from are mostly the digit that was asked for."""
    names, known = (part[:LEARNED] for part in kept())
    far = ((images[:, None].astype(np.int64) - known[None]) ** 2).sum(-1)
    near = names[np.argsort(far, axis=1, kind="stable")[:, :NEIGHBOURS], 0]
    voted = [np.bincount(row).argmax() for row in near]
    return float((np.array(voted) == prompts[:, 0]).mean())


PICTURES = Pictures(
    name="digits",
    raster=Raster(8, 8, PALETTE, ((*DIGIT_WORDS, ANY),)),
    vocabulary=VOCABULARY,
    learned=learned,
    held_out=held_out,
    right=right,
    checked=f"the vote of the {NEIGHBOURS} nearest of the {LEARNED:,} images that were learned from",
)
