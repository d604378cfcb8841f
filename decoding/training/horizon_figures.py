"""What is said of a foretold horizon: how far off it is, and what of it is more than counting.

Counting tokens alone foretells a horizon well, because sentences are alike in length: a mean error of .12 and a perfect rank
correlation inside each. So every reader is held against the position alone, and of its own the part is taken that the position does
not explain.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RIDGE = 30.0
USUAL = 60  # tokens up to which a position has a median of its own


@dataclass(frozen=True)
class Rows:
    """Tokens of units, side by side; a row is what stands behind the t-th token of one."""

    unit: np.ndarray  # (rows,) which one
    t: np.ndarray  # (rows,) from 1 on
    length: np.ndarray  # (rows,) of the unit

    @property
    def y(self) -> np.ndarray:
        """(rows,) the horizon."""
        return (self.length - self.t) / self.length

    @property
    def left(self) -> np.ndarray:
        """(rows,) tokens that are still to come."""
        return self.length - self.t

    @classmethod
    def of(cls, lengths: Iterable[int]) -> "Rows":
        """Every token of units of these lengths, one unit behind the other."""
        sizes = np.array(list(lengths), dtype=np.int64)
        unit = np.repeat(np.arange(len(sizes)), sizes)
        t = np.concatenate([np.arange(1, size + 1) for size in sizes]) if len(sizes) else np.zeros(0, np.int64)
        return cls(unit, t, sizes[unit] if len(sizes) else t)

    def chosen(self, which: np.ndarray) -> "Rows":
        return Rows(self.unit[which], self.t[which], self.length[which])


def medians(rows: Rows, most: int) -> tuple[float, ...]:
    """t - 1 -> the median horizon behind the t-th token, over t - 2 to t + 2; as far as ten units reach."""
    found = []
    for t in range(1, most + 1):
        if (rows.t == t).sum() < 10:
            break
        found.append(round(float(np.median(rows.y[abs(rows.t - t) <= (2 if t > USUAL else 0)])), 4))
    return tuple(found) or (0.5,)


def by_position(rows: Rows, position: tuple[float, ...]) -> np.ndarray:
    """(rows,) what counting says."""
    return np.array(position)[np.minimum(rows.t, len(position)) - 1]


def ridge(states: np.ndarray, y: np.ndarray, strength: float = RIDGE) -> np.ndarray:
    """(width + 1,) weights and a constant for (rows, width) states: ridge regression on standardised entries."""
    mean, scale = states.mean(0), states.std(0) + 1e-6
    z = (states - mean) / scale
    weights = np.linalg.solve(z.T @ z + strength * np.eye(z.shape[1]), z.T @ (y - y.mean())) / scale
    return np.append(weights, y.mean() - mean @ weights)


def figures(said: np.ndarray, rows: Rows) -> dict[str, float]:
    """Of a foretold horizon: mean absolute error, R2, the rank correlation with the position inside a unit (turned round: 1 is
    falling all the way), that of what the position does not explain with the tokens left, and how well it tells whether one token
    at most is left (AUC)."""
    y = rows.y
    inside = [spearman(-said[rows.unit == unit], rows.t[rows.unit == unit]) for unit in np.unique(rows.unit)]
    return {
        "mae": round(float(abs(said - y).mean()), 4),
        "r2": round(float(1 - ((said - y) ** 2).mean() / y.var()), 4),
        "inside": round(float(np.mean(inside)), 4),
        "beyond": round(spearman(beside(said, rows.t), beside(rows.left.astype(float), rows.t)), 4),
        "last": round(auc(-said, rows.left <= 1), 4),
    }


def beside(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(rows,) values without the mean of all rows at the same position."""
    count = np.bincount(t)
    return values - (np.bincount(t, values) / np.maximum(count, 1))[t]


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on; equal values share the mean of theirs.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, which, count = np.unique(np.round(values, 12), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[which]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; 0 where either is the same everywhere."""
    x, y = (ranks(one) - (len(one) + 1) / 2 for one in (a, b))
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else 0.0


def auc(score: np.ndarray, true: np.ndarray) -> float:
    """How often a true row has a higher score than another one; .5 is chance, also where all are alike."""
    yes, no = int(true.sum()), int((~true).sum())
    return float((ranks(score)[true].sum() - yes * (yes + 1) / 2) / (yes * no)) if yes and no else 0.5
