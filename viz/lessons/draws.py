"""Ten thousand draws by the rule, and by a wrong one, at one recorded position: the bars of the first meet p.

The position is that of a recorded run, cut to the likeliest tokens and one bar for all others, which is treated as one token more:
the rule is exact for any p and q, so also for these. The wrong rule is a mistake that is easily made: after a refusal it draws
from p anew instead of from what p has left over (max(p - q, 0), scaled). No torch; the dice are numpy's, seeded.
"""

from dataclasses import dataclass

import numpy as np

from decoding.trace import Row
from viz.stepper.data import END, MARK
from viz.tokens import SPACE, label

COUNT = 10_000  # draws
MOST = 6  # bars beside the one for all others
FRAMES = 60  # stops on the way, at which the bars are shown
OTHERS = "all others"
Shares = tuple[float, ...]


@dataclass(frozen=True)
class Bars:
    """Two distributions over the same few tokens; the last name is that of all others. Both sum to 1."""

    names: tuple[str, ...]
    p: Shares
    q: Shares


@dataclass(frozen=True)
class Draws:
    """How often each token came, after so many draws."""

    seed: int
    after: tuple[int, ...]
    right: tuple[tuple[int, ...], ...]  # one tuple of counts for every stop, by the rule
    wrong: tuple[tuple[int, ...], ...]  # the same dice, by the wrong rule


def bars_of(row: Row, token_bytes: dict[int, bytes], most: int = MOST) -> Bars:
    """The likeliest tokens of a position that has both distributions, by the larger of the two; ValueError without q."""
    if row.q is None:
        raise ValueError("Nothing was drawn by a drafter at this position.")
    order = sorted(range(len(row.tokens)), key=lambda k: -max(row.p[k], row.q[k]))[:most]  # type: ignore[index]
    names = [label(token_bytes.get(row.tokens[k], b""), 14) for k in order]
    p, q = [row.p[k] for k in order], [row.q[k] for k in order]
    shown = tuple(f"{MARK}{one.removeprefix(SPACE) or one}{END}" for one in names)
    return Bars((*shown, OTHERS), filled(p), filled(q))


def filled(shares: list[float]) -> Shares:
    """With what is missing to 1 at the end; scaled where rounding made it more."""
    total = max(1.0, sum(shares))
    scaled = [share / total for share in shares]
    return (*scaled, max(0.0, 1 - sum(scaled)))


def leftover(p: Shares, q: Shares) -> Shares:
    """max(p - q, 0), scaled to sum to 1; p itself where nothing is left.

    >>> leftover((0.5, 0.5), (0.75, 0.25))
    (0.0, 1.0)
    """
    rest = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    return tuple(one / sum(rest) for one in rest) if sum(rest) > 0 else p


def meets(p: Shares, q: Shares, after_refusal: Shares) -> Shares:
    """What comes out in the long run if a guess from q is kept with probability min(1, p / q) and otherwise a token is drawn from
    `after_refusal`.

    >>> meets((0.5, 0.5), (0.75, 0.25), (0.0, 1.0)), meets((0.5, 0.5), (0.75, 0.25), (0.5, 0.5))
    ((0.5, 0.5), (0.625, 0.375))
    """
    kept = [min(a, b) for a, b in zip(p, q, strict=True)]
    refused = 1 - sum(kept)
    return tuple(one + refused * again for one, again in zip(kept, after_refusal, strict=True))


def variation(one: Shares, other: Shares) -> float:
    """Total variation: the share of draws that would have to move to make one the other.

    >>> variation((0.5, 0.5), (0.75, 0.25))
    0.25
    """
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2


def draw(bars: Bars, seed: int, count: int = COUNT) -> Draws:
    """Draw by both rules with the same guesses and the same dice."""
    dice = np.random.default_rng(seed)
    p, q = np.array(bars.p), np.array(bars.q)
    guess = picked(q, dice.random(count))
    refused = dice.random(count) * q[guess] >= p[guess]
    again = dice.random(count)
    right = np.where(refused, picked(np.array(leftover(bars.p, bars.q)), again), guess)
    wrong = np.where(refused, picked(p, again), guess)
    stops = stops_to(count)
    return Draws(seed, stops, counts(right, stops, len(p)), counts(wrong, stops, len(p)))


def picked(shares: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """A token for every uniform; never one whose share is 0."""
    found = np.searchsorted(np.cumsum(shares), uniforms * shares.sum(), side="right")
    return np.minimum(found, np.flatnonzero(shares)[-1])


def stops_to(count: int) -> tuple[int, ...]:
    """After how many draws the bars are shown: closely first, the last is all.

    >>> stops_to(10)
    (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    """
    return tuple(sorted({int(round(count ** (i / FRAMES))) for i in range(FRAMES)} | {*range(1, 11), count}))


def counts(tokens: np.ndarray, stops: tuple[int, ...], size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, np.bincount(tokens[:stop], minlength=size))) for stop in stops)


def shares_of(counted: tuple[int, ...]) -> Shares:
    return tuple(one / sum(counted) for one in counted)


def draws_data(bars: Bars, draws: Draws | None) -> dict:
    """As plain data for the picture; without draws only p and q."""
    names = [name.strip(MARK + END) for name in bars.names]
    shown = {"names": names, "p": [round(x, 5) for x in bars.p], "q": [round(x, 5) for x in bars.q], "seed": None, "after": []}
    if draws is None:
        return shown | {"right": [], "wrong": []}
    return shown | {"seed": draws.seed, "after": list(draws.after), "right": draws.right, "wrong": draws.wrong}
