"""Drawn shapes of 16 x 16 pixels in eight colours, asked for in words: "large red circle on blue". The generator is here, and so is
who checks whether a picture shows what was asked for.

The prompt leaves open where the shape stands: in the middle, or one pixel beside it. Some prompts are kept back: what is measured
on them, the model has to put together from words that it learned in other company.
"""

from functools import cache
from itertools import product

import numpy as np

from decoding.trace import Raster
from decoding.training.pictures import Images, Pictures, Prompts

SIDE = 16
SIZES = {"small": 7, "medium": 10, "large": 13}  # pixels
SHIFTS = (-1, 0, 1)  # pixels, down and to the right
COLOURS = {
    "white": "#fbf9f4",
    "black": "#23262f",
    "red": "#d7343f",
    "orange": "#f08c2e",
    "yellow": "#f6d24a",
    "green": "#3a9d5d",
    "blue": "#2f6fd0",
    "purple": "#8a4fbf",
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "heart", "moon")
ON = "on"
VOCABULARY = (*COLOURS, *SIZES, *SHAPES, ON)
ID = {word: token for token, word in enumerate(VOCABULARY)}
KEPT_BACK = 120  # prompts
HELD_OUT = 480  # pictures, of prompts kept back
STRAY = 0.05  # of a shape's pixels may be others than drawn, in a picture that is right


def mask(shape: str, size: int) -> np.ndarray:
    """(size, size) bool: the pixels of a shape."""
    middle = (size - 1) / 2
    y, x = np.mgrid[:size, :size] - middle
    far, reach = np.hypot(x, y), size / 2
    match shape:
        case "circle":
            return far <= reach
        case "square":
            return np.ones((size, size), dtype=bool)
        case "triangle":
            return np.abs(x) <= (y + middle) / 2
        case "diamond":
            return np.abs(x) + np.abs(y) <= middle
        case "cross":
            return np.minimum(np.abs(x), np.abs(y)) <= size / 6
        case "ring":
            return (far <= reach) & (far > reach - size / 4)
        case "heart":
            lobes = np.hypot(np.abs(x) - size / 4, y + size / 4) <= size / 4 + 0.3
            return lobes | (np.abs(x) <= (middle - y) * 0.75) & (y > -size / 4) & (np.abs(x) <= middle)
        case "moon":
            return (far <= reach) & (np.hypot(x - size / 3, y) > reach * 0.92)
    raise ValueError(f"There is no shape {shape!r}; there are {', '.join(SHAPES)}.")


@cache
def drawings() -> tuple[np.ndarray, np.ndarray]:
    """Every shape in every size at every place: (n, 2) ids of size and shape, (n, SIDE * SIDE) bool."""
    which, pixels = [], []
    for (word, size), shape in product(SIZES.items(), SHAPES):
        for down, right in product(SHIFTS, repeat=2):
            top, left = (SIDE - size) // 2 + down, (SIDE - size) // 2 + right
            picture = np.zeros((SIDE, SIDE), dtype=bool)
            picture[top : top + size, left : left + size] = mask(shape, size)
            which.append((ID[word], ID[shape]))
            pixels.append(picture.ravel())
    return np.array(which), np.stack(pixels)


@cache
def prompts() -> tuple[Prompts, Prompts]:
    """(n, 5) all that can be asked for with two different colours: what is learned from, and what is kept back."""
    words = product(SIZES, COLOURS, SHAPES, (ON,), COLOURS)
    asked = [[ID[word] for word in one] for one in words if one[1] != one[4]]
    mixed = np.random.default_rng(16).permutation(np.array(asked))
    return mixed[KEPT_BACK:], mixed[:KEPT_BACK]


def pictured(asked: Prompts, rng: np.random.Generator) -> Images:
    """A picture for every prompt."""
    _, pixels = drawings()
    places = len(SHIFTS) ** 2
    drawn = (asked[:, 0] - ID["small"]) * len(SHAPES) + asked[:, 2] - ID[SHAPES[0]]
    chosen = drawn * places + rng.integers(places, size=len(asked))
    return np.where(pixels[chosen], asked[:, 1:2], asked[:, 4:])


def learned(rng: np.random.Generator, count: int) -> tuple[Prompts, Images]:
    known, _ = prompts()
    asked = known[rng.integers(len(known), size=count)]
    return asked, pictured(asked, rng)


def held_out() -> tuple[Prompts, Images]:
    asked = np.resize(prompts()[1], (HELD_OUT, 5))
    return asked, pictured(asked, np.random.default_rng(61))


def right(asked: Prompts, images: Images) -> float:
    """The share of images that show what was asked for (`shows`)."""
    return float(np.mean([shows(prompt, image) for prompt, image in zip(asked, images, strict=True)]))


def shows(prompt: np.ndarray, image: np.ndarray) -> bool:
    """Whether the drawing nearest to an image is the shape that was asked for, in its size, its colour and on its background, but
    for a few pixels."""
    which, pixels = drawings()
    size, colour, shape, _, ground = prompt
    wrong = (np.where(pixels, colour, ground) != image).sum(-1)
    nearest = int(wrong.argmin())
    return bool(np.array_equal(which[nearest], (size, shape)) and wrong[nearest] <= STRAY * pixels[nearest].sum())


PICTURES = Pictures(
    name="shapes",
    raster=Raster(SIDE, SIDE, tuple(COLOURS.values()), (tuple(SIZES), tuple(COLOURS), SHAPES, (ON,), tuple(COLOURS))),
    vocabulary=VOCABULARY,
    learned=learned,
    held_out=held_out,
    right=right,
    checked="the nearest of all drawings that the generator can make",
)
