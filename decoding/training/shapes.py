"""Drawn shapes of 12 x 12 pixels in eight colours of two tones, asked for in words: "red circle on blue". The generator is here,
and so is who checks whether a picture shows what was asked for.

The lower right rim of a shape has the deep tone of its colour. It stands on a ground whose lowest rows are deep and whose upper
ones are bright, with two rows between that are dithered by dice. The prompt leaves open where the shape stands, in the middle or a
pixel beside it, and how the dice fall. Some prompts are kept back: what is measured on them, the model has to put together from
words that it learned in other company. Some examples are asked for with `any` in the place of words, so that the model also knows
how to draw without being told what.
"""

from functools import cache
from itertools import product

import numpy as np

from decoding.trace import Raster
from decoding.training.pictures import Images, Pictures, Prompts

SIDE, SIZE = 12, 8  # pixels of the picture, and of the shape
FOOT = 11  # the first row below the shape
SHIFTS = (-1, 0, 1)  # pixels to the right
COLOURS = {  # bright, deep
    "white": ("#fbf9f4", "#d9d2c3"),
    "black": ("#2b2f3a", "#14161c"),
    "red": ("#e0444e", "#a3212f"),
    "orange": ("#f29a3f", "#c76a14"),
    "yellow": ("#f8d95c", "#d6a51c"),
    "green": ("#4cb473", "#257a48"),
    "blue": ("#4a86e0", "#2456a8"),
    "purple": ("#a06ad2", "#69389b"),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "heart", "moon")
ON, ANY = "on", "any"
DEEP = len(COLOURS)  # from a bright tone to the deep one of the same colour
VOCABULARY = (*COLOURS, *(f"deep-{colour}" for colour in COLOURS), *SHAPES, ON, ANY)
ID = {word: token for token, word in enumerate(VOCABULARY)}
DITHERED = np.array([0.0] * 8 + [1 / 3, 2 / 3] + [1.0] * 2)  # of the ground's pixels are deep, row by row
UNNAMED, HALF_NAMED = 0.1, 0.05  # of the examples: all words are ANY; every word is with probability one half
NAMES = (0, 1, 3)  # places of the prompt with a choice
KEPT_BACK = 64  # prompts
HELD_OUT = 192  # pictures, of prompts kept back
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
            lobes = np.hypot(np.abs(x) - size / 4, y + size / 5) <= size / 4 + 0.2
            return lobes | (np.abs(x) <= (size * 0.46 - y) * 0.78) & (y > -size / 6) & (np.abs(x) <= middle)
        case "moon":
            return (far <= reach) & (np.hypot(x - size / 3.2, y + size / 10) > reach * 0.85)
    raise ValueError(f"There is no shape {shape!r}; there are {', '.join(SHAPES)}.")


def rimmed(inside: np.ndarray) -> np.ndarray:
    """(size, size) bool -> uint8: 1 inside, 2 on the lower right rim."""
    beyond = np.pad(inside, (0, 1))[1:, 1:]
    return inside.astype(np.uint8) + (inside & ~beyond)


@cache
def drawings() -> tuple[np.ndarray, np.ndarray]:
    """Every shape at every place: (n,) ids of the shape, (n, pixels) uint8, 0 ground, 1 bright, 2 deep."""
    which, pixels = [], []
    for shape, right in product(SHAPES, SHIFTS):
        left = (SIDE - SIZE) // 2 + right
        picture = np.zeros((SIDE, SIDE), dtype=np.uint8)
        picture[FOOT - SIZE : FOOT, left : left + SIZE] = rimmed(mask(shape, SIZE))
        which.append(ID[shape])
        pixels.append(picture.ravel())
    return np.array(which), np.stack(pixels)


@cache
def prompts() -> tuple[Prompts, Prompts]:
    """(n, 4) all that can be asked for with two different colours: what is learned from, and what is kept back."""
    words = product(COLOURS, SHAPES, (ON,), COLOURS)
    asked = [[ID[word] for word in one] for one in words if one[0] != one[3]]
    mixed = np.random.default_rng(16).permutation(np.array(asked))
    return mixed[KEPT_BACK:], mixed[:KEPT_BACK]


def pictured(asked: Prompts, rng: np.random.Generator) -> Images:
    """A picture for every prompt, in which nothing is left open by name."""
    _, pixels = drawings()
    drawn = (asked[:, 1] - ID[SHAPES[0]]) * len(SHIFTS) + rng.integers(len(SHIFTS), size=len(asked))
    chosen = pixels[drawn]
    deep = rng.random(chosen.shape) < np.repeat(DITHERED, SIDE)
    return np.where(chosen, asked[:, :1] + DEEP * (chosen == 2), asked[:, 3:] + DEEP * deep)


def learned(rng: np.random.Generator, count: int) -> tuple[Prompts, Images]:
    known, _ = prompts()
    asked = known[rng.integers(len(known), size=count)]
    images, unsaid = pictured(asked, rng), asked.copy()
    kind = rng.random((count, 1))
    dropped = (kind < UNNAMED) | (kind < UNNAMED + HALF_NAMED) & (rng.random((count, len(NAMES))) < 0.5)
    unsaid[:, NAMES] = np.where(dropped, ID[ANY], asked[:, NAMES])
    return unsaid, images


def held_out() -> tuple[Prompts, Images]:
    asked = np.resize(prompts()[1], (HELD_OUT, 4))
    return asked, pictured(asked, np.random.default_rng(61))


def right(asked: Prompts, images: Images) -> float:
    """The share of images that show what was asked for (`shows`)."""
    return float(np.mean([shows(prompt, image) for prompt, image in zip(asked, images, strict=True)]))


def shows(prompt: np.ndarray, image: np.ndarray) -> bool:
    """Whether the drawing nearest to an image is the shape that was asked for, in its colour and on its background, but
    for a few pixels; of the background either tone will do. A prompt with `any` is shown by nothing: it says too little."""
    which, pixels = drawings()
    colour, shape, _, ground = prompt
    inside = np.where(pixels == 2, colour + DEEP, colour)
    wrong = np.where(pixels > 0, inside != image, image % DEEP != ground).sum(-1)
    nearest = int(wrong.argmin())
    return bool(which[nearest] == shape and wrong[nearest] <= STRAY * (pixels[nearest] > 0).sum())


PICTURES = Pictures(
    name="shapes",
    raster=Raster(
        SIDE,
        SIDE,
        tuple(tones[deep] for deep in (0, 1) for tones in COLOURS.values()),
        ((*COLOURS, ANY), (*SHAPES, ANY), (ON,), (*COLOURS, ANY)),
    ),
    vocabulary=VOCABULARY,
    learned=learned,
    held_out=held_out,
    right=right,
    checked="the nearest of all drawings that the generator can make",
)
