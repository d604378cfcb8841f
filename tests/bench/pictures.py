"""Benchmark, not a test: target calls that an image family needs with every method that draws pictures.

    python -m tests.bench.pictures [--family digits] [--images 20] [--temperature 1] [--guidance 1] [--first-seed 1000]

One row per method and parameters: pixels per target call (plain decoding has 1) as the mean over pictures with its standard
error, the share of calls that gave a single pixel, and the share of pictures that show what was asked for. Picture i has
seed `first-seed` + i in every row, and asks for one word after the other. Counts, not times: how busy the machine is does
not matter.
"""

import argparse
from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from decoding.models.family import Family, load
from decoding.runs.run import Run
from decoding.sample import Sampling
from decoding.training.images import SET
from decoding.training.pictures import Pictures

FILLS = ("random", "repeat", "sample", "above", "sample above")
WINDOWS = (1, 4, 8, 16, 32)
OTHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}),
    ("jacobi", {"window": 16}),
    ("jacobi", {"window": 16, "fill": "above"}),
    ("jacobi", {"window": 16, "fill": "above", "guess": "sampled"}),
    ("prompt_lookup", {}),
    ("token_recycling", {}),
    ("speculative_sampling", {}),
    ("dyspec", {}),
    ("multi_candidate", {}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=SET, default="digits")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=[], help="methods, all if left out")
    parser.add_argument("--fills", nargs="*", default=FILLS, choices=FILLS, help="of speculative Jacobi decoding")
    parser.add_argument("--windows", nargs="*", type=int, default=WINDOWS, help="of speculative Jacobi decoding")
    options = parser.parse_args()
    family, pictures = load(options.family), SET[options.family]
    print(f"{options.images} pictures of {family.name}, temperature {options.temperature:g}, guidance {options.guidance:g}")
    print(f"{'method':22}{'parameters':52}{'pixels a call':>20}{'single':>8}{'right':>7}")
    for method, params in rows(options.fills, options.windows):
        if not options.only or method in options.only:
            print(line(family, pictures, method, params, options), flush=True)


def rows(fills: Sequence[str], windows: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from OTHERS
    for fill in fills:
        for window in windows:
            yield "speculative_jacobi", {"fill": fill, "window": window}
    if "random" in fills and 16 in windows:
        yield "speculative_jacobi", {"fill": "random", "window": 16, "certain": True}


def line(family: Family, pictures: Pictures, method: str, params: dict[str, Any], options: argparse.Namespace) -> str:
    """A row of the table, or why there is none."""
    rates, single, calls, prompts, images = [], 0, 0, [], []
    asked = asks(pictures, options.images)
    try:
        for number, prompt in enumerate(asked):
            sampling = Sampling(options.temperature, guidance=options.guidance)
            run = Run(family, method, params, prompt, sampling, options.first_seed + number, pictures.raster.pixels, record=False)
            steps = list(run)
            image = [token for step in steps for token in step.tokens]
            rates.append(len(image) / len(steps))
            single += sum(len(step.tokens) == 1 for step in steps)
            calls += len(steps)
            prompts.append(pictures.ids(prompt))
            images.append(image)
    except ValueError as error:
        return f"{method:22}{error}"
    spread = stdev(rates) / len(rates) ** 0.5 if len(rates) > 1 else 0.0
    said = ", ".join(f"{name} {value}" for name, value in params.items())
    right = pictures.right(np.array(prompts), np.array(images))
    return f"{method:22}{said:52}{mean(rates):>12.2f} ± {spread:.2f} {single / calls:>8.2f}{right:>7.2f}"


def asks(pictures: Pictures, count: int) -> list[str]:
    """Prompts in turn, those of the held-out pictures first where there are more words than one."""
    if len(pictures.raster.asks) == 1:
        words = pictures.raster.asks[0]
        return [words[i % 10] for i in range(count)]  # the digits, not `any`
    prompts, _ = pictures.held_out()
    return [" ".join(pictures.vocabulary[token] for token in prompts[i]) for i in range(count)]


if __name__ == "__main__":
    main()
