"""How good a prediction of yes or no is: ranking and calibration, for outcomes that may be probabilities."""

import numpy as np


def auc(scores: np.ndarray, yes: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a yes is scored above a no, ties counting half.

    Args:
        scores: (n,).
        yes: (n,) from 0 to 1: how much of an outcome is a yes; the rest of it is a no.

    >>> auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.875
    """
    levels, place = np.unique(scores, return_inverse=True)
    of_yes, of_no = (np.bincount(place, weights, len(levels)) for weights in (yes, 1 - yes))
    below = np.cumsum(of_no) - of_no
    total = of_yes.sum() * of_no.sum()
    return float((of_yes * (below + of_no / 2)).sum() / total) if total > 0 else float("nan")


def calibration_error(scores: np.ndarray, yes: np.ndarray, bins: int = 10) -> float:
    """Mean distance between predicted and actual share of yes, over `bins` equal parts of [0, 1] weighted by their counts (the
    expected calibration error)."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    predicted, actual = (np.bincount(place, values, bins) for values in (scores, yes))
    return float(np.abs(predicted - actual).sum() / len(scores))


def unweighted(scores: np.ndarray, weight: float) -> np.ndarray:
    """The chance of a yes behind a prediction that was trained with the no's counting `weight` times.

    For a chance P the best such prediction is f = P / (P + w (1 - P)); this is its inverse.

    >>> unweighted(np.array([0.6]), 6.0).round(3)
    array([0.9])
    """
    return weight * scores / (1 - scores + weight * scores)
