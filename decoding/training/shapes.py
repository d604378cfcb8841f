"""Drawn shapes of 16 x 16 pixels in eight colours, asked for in words: "red circle on blue". The generator is here, and so is who
checks whether a picture shows what was asked for.

A shape has one of four sizes and any place inside the picture, which the prompt leaves open. Some prompts are kept back: what is
measured on them, the model has to put together from words that it learned in other company.
"""

from functools import cache
from itertools import product

import numpy as np

from decoding.trace import Raster
from decoding.training.pictures import Images, Pictures, Prompts

SIDE = 16
SIZES = (7, 9, 11, 13)  # pixels, odd: every shape has a middle
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
VOCABULARY = (*COLOURS, *SHAPES, ON)
ID = {word: token for token, word in enumerate(VOCABULARY)}
KEPT_BACK = 48  # prompts
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
            return np.minimum(np.abs(x), np.abs(y)) <= size // 6
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
    """Every shape in every size at every place: (n,) which shape, (n, SIDE * SIDE) bool."""
    which, pixels = [], []
    for number, size in product(range(len(SHAPES)), SIZES):
        shape = mask(SHAPES[number], size)
        for top, left in product(range(SIDE - size + 1), repeat=2):
            picture = np.zeros((SIDE, SIDE), dtype=bool)
            picture[top : top + size, left : left + size] = shape
            which.append(number)
            pixels.append(picture.ravel())
    return np.array(which), np.stack(pixels)


@cache
def by_size() -> tuple[tuple[np.ndarray, ...], ...]:
    """Shape -> size -> the places of its drawings in `drawings`: a size is drawn first, then a place."""
    which, _ = drawings()
    counts = [(SIDE - size + 1) ** 2 for size in SIZES]
    found = []
    for number in range(len(SHAPES)):
        first = int(np.flatnonzero(which == number)[0])
        found.append(tuple(np.split(first + np.arange(sum(counts)), np.cumsum(counts)[:-1])))
    return tuple(found)


@cache
def prompts() -> tuple[Prompts, Prompts]:
    """(n, 4) all that can be asked for with two different colours: what is learned from, and what is kept back."""
    pairs = [(ID[f], ID[s], ID[ON], ID[b]) for f, s, b in product(COLOURS, SHAPES, COLOURS) if f != b]
    mixed = np.random.default_rng(16).permutation(np.array(pairs))
    return mixed[KEPT_BACK:], mixed[:KEPT_BACK]


def pictured(asked: Prompts, rng: np.random.Generator) -> Images:
    """A picture for every prompt."""
    _, pixels = drawings()
    sizes = rng.integers(len(SIZES), size=len(asked))
    shapes = asked[:, 1] - ID[SHAPES[0]]
    chosen = [rng.choice(by_size()[shape][size]) for shape, size in zip(shapes, sizes, strict=True)]
    return np.where(pixels[chosen], asked[:, :1], asked[:, 3:])


def learned(rng: np.random.Generator, count: int) -> tuple[Prompts, Images]:
    known, _ = prompts()
    asked = known[rng.integers(len(known), size=count)]
    return asked, pictured(asked, rng)


def held_out() -> tuple[Prompts, Images]:
    asked = np.resize(prompts()[1], (HELD_OUT, 4))
    return asked, pictured(asked, np.random.default_rng(61))


def right(asked: Prompts, images: Images) -> float:
    """The share of images that show what was asked for (`shows`)."""
    return float(np.mean([shows(prompt, image) for prompt, image in zip(asked, images, strict=True)]))


def shows(prompt: np.ndarray, image: np.ndarray) -> bool:
    """Whether the drawing nearest to an image is the shape that was asked for, in its colour on its background, but for a few
    pixels."""
    which, pixels = drawings()
    colour, shape, _, ground = prompt
    wrong = (np.where(pixels, colour, ground) != image).sum(-1)
    nearest = int(wrong.argmin())
    return bool(which[nearest] == shape - ID[SHAPES[0]] and wrong[nearest] <= STRAY * pixels[nearest].sum())


PICTURES = Pictures(
    name="shapes",
    raster=Raster(SIDE, SIDE, tuple(COLOURS.values()), (tuple(COLOURS), SHAPES, (ON,), tuple(COLOURS))),
    vocabulary=VOCABULARY,
    learned=learned,
    held_out=held_out,
    right=right,
    checked="the nearest of all drawings that the generator can make",
)
