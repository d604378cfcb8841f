"""How much faster one run was than another, measured several times: a median with its ends.

Knows milliseconds, one number per round; all runs took turns, so that round i of one belongs to round i of another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """Of a number that was measured several times."""

    median: float
    low: float
    high: float
    rounds: int


def speedup(ms: Sequence[float], tokens: int, plain_ms: Sequence[float], plain_tokens: int) -> Spread | None:
    """Tokens per second over those of plain decoding, round by round; None without a round of both, or where no time passed.

    >>> speedup([50, 40, 25], 10, [100, 100, 50], 10)
    Spread(median=2.0, low=2.0, high=2.5, rounds=3)
    """
    pairs = list(zip(ms, plain_ms, strict=False))
    if not pairs or not tokens or not plain_tokens or not all(mine > 0 and plain > 0 for mine, plain in pairs):
        return None
    found = [tokens * plain / (plain_tokens * mine) for mine, plain in pairs]
    return Spread(median(found), min(found), max(found), len(found))


def spread_words(spread: Spread) -> str:
    """
    >>> spread_words(Spread(1.9, 1.7, 2.1, 3)), spread_words(Spread(1.4, 1.4, 1.4, 1))
    ('1.9 times (median of 3, 1.7 to 2.1)', '1.4 times (measured once)')
    """
    if spread.rounds == 1:
        return f"{spread.median:.2g} times (measured once)"
    return f"{spread.median:.2g} times (median of {spread.rounds}, {spread.low:.2g} to {spread.high:.2g})"


def milliseconds_words(ms: Sequence[float]) -> str:
    """
    >>> milliseconds_words([1520.4, 1480.0, 1700.2]), milliseconds_words([87.2])
    ('1,520 ms, 1,480 to 1,700', '87 ms')
    """
    middle = f"{median(ms):,.0f} ms"
    return middle if len(ms) == 1 else f"{middle}, {min(ms):,.0f} to {max(ms):,.0f}"
