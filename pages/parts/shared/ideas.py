"""The methods by the idea behind them: who guesses. A method that is not named here stands under the last idea."""

from collections.abc import Iterator
from dataclasses import dataclass

from decoding.methods import METHODS


@dataclass(frozen=True)
class Idea:
    """A group of methods."""

    title: str
    line: str  # what they have in common
    methods: tuple[str, ...]


IDEAS = (
    Idea(
        "Copies from text",
        "No model guesses: what followed the same words before is offered again.",
        ("prompt_lookup", "rest", "infinigram", "token_recycling"),
    ),
    Idea(
        "A small model guesses",
        "A cheap model writes ahead, as a chain or as a tree.",
        (
            "speculative_sampling", "multi_candidate", "spectr", "dyspec", "specdec_pp", "s2d", "judge", "rasd",
            "universal_assisted",
        ),
    ),
    Idea(
        "Heads on the large model",
        "Small trained layers read the large model's own states and guess from them.",
        ("medusa", "eagle", "clover", "chimera", "falcon", "ftp"),
    ),
    Idea(
        "The model itself",
        "The large model alone, or its first layers guess for the rest.",
        ("plain", "kangaroo"),
    ),
    Idea(
        "In parallel",
        "The large model guesses several places at once, in the call that checks.",
        ("jacobi", "speculative_jacobi", "ppd"),
    ),
)  # fmt: skip


def by_idea() -> Iterator[tuple[Idea, tuple[str, ...]]]:
    """Every idea with its methods, those of this version."""
    named = {key for idea in IDEAS for key in idea.methods}
    others = tuple(key for key in METHODS if key not in named)
    for idea in IDEAS:
        yield idea, tuple(key for key in idea.methods if key in METHODS) + others * (idea is IDEAS[-1])


def ordered() -> list[str]:
    """All methods, idea by idea."""
    return [key for _, keys in by_idea() for key in keys]
