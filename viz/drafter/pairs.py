"""Two drafters against each other: where one was right and the other not, and whether their taus can be told apart.

Knows the tables of judged tokens and the runs of both. Tokens are compared only behind the same text, taus only on
prompts that both have finished.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

PLACE = ["prompt", "position", "prefix"]
HOW_TO_READ_DISAGREEMENTS = "Both drafters stood behind the same text; the target kept a token of one and none of the other."
HOW_TO_READ_BOOTSTRAP = (
    "The interval holds 95 % of the differences that other prompts of the same kind would give; "
    "if it holds 0, the two are not told apart."
)


def places(frame: pd.DataFrame) -> pd.DataFrame:
    """One line per place in a text where something was judged: was one accepted, which one, what was tried."""
    ordered = frame.sort_values([*PLACE, "accepted"], ascending=[True, True, True, False], kind="stable")
    grouped = ordered.groupby(PLACE, sort=False)
    return grouped.agg(
        accepted=("accepted", "any"),
        tried=("token", " | ".join),
        confidence=("confidence", "first"),
        context=("context", "first"),
        wanted=("wanted", "first"),
        wanted_p=("wanted p", "first"),
        committed=("committed", "first"),
        domain=("domain", "first"),
        trace=("trace", "first"),
        step=("step", "first"),
        node=("node", "first"),
    )


def agreement(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, int]:
    """At how many places that both met behind the same text both, one or neither had a token accepted."""
    one, two = met(a, b)
    both = [(True, True), (True, False), (False, True), (False, False)]
    counts = [int(((one["accepted"] == x) & (two["accepted"] == y)).sum()) for x, y in both]
    return dict(zip(("both", "only a", "only b", "neither"), counts, strict=True))


def met(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`places` of both, cut to those that occur in both."""
    one, two = places(a), places(b)
    shared = one.index.intersection(two.index)
    return one.loc[shared], two.loc[shared]


def disagreements(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str] = ("a", "b")) -> pd.DataFrame:
    """Places with the same prompt and the same text before them where one drafter had a token accepted, the other not.

    `tried` names a drafter's judged tokens, the accepted one first; trace, step and node lead to the first of them.
    """
    one, two = met(a, b)
    apart = one["accepted"] != two["accepted"]
    one, two = one[apart], two[apart]
    shared = one[["domain", "context", "wanted", "wanted_p"]].rename(columns={"wanted_p": "wanted p"})
    winner = np.where(one["accepted"], *names) if len(one) else []
    table = shared.assign(**{"accepted by": winner})
    for label, side in zip(names, (one, two), strict=True):
        for column in ("tried", "confidence", "trace", "step", "node"):
            table[f"{column}, {label}"] = side[column]
    return table.reset_index().drop(columns="prefix")


def agreement_sentence(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str] = ("a", "b")) -> str:
    counts = agreement(a, b)
    total = sum(counts.values())
    if not total:
        return "The two drafters were never judged behind the same text, so they cannot be compared token by token."
    return (
        f"At {total} places both were judged behind the same text: both right {counts['both']}, only {names[0]} "
        f"{counts['only a']}, only {names[1]} {counts['only b']}, neither {counts['neither']}."
    )


@dataclass(frozen=True)
class Interval:
    """A mean over prompts and the ends of its 95 % interval; None where there are too few prompts."""

    mean: float | None
    low: float | None
    high: float | None
    prompts: int


def paired_taus(a: pd.DataFrame, b: pd.DataFrame) -> tuple[list[float], list[float]]:
    """tau of both drafters on the prompts both have finished, in the order of the prompts.

    Args:
        a, b: as `per_prompt` makes them.
    """
    one, two = (tallies.dropna(subset="tau").drop_duplicates("prompt").set_index("prompt")["tau"] for tallies in (a, b))
    shared = sorted(set(one.index) & set(two.index))
    return [float(one[prompt]) for prompt in shared], [float(two[prompt]) for prompt in shared]


def paired_bootstrap(taus_a: Sequence[float], taus_b: Sequence[float], seed: int = 0, resamples: int = 10_000) -> Interval:
    """Mean of tau_b - tau_a over prompts, with the 2.5 and 97.5 percentile of its mean over resampled prompts.

    Pairs are resampled, not runs: both drafters met the same prompts, and easy prompts are easy for both.
    """
    if len(taus_a) != len(taus_b):
        raise ValueError(f"The taus come in pairs, one per prompt; there are {len(taus_a)} and {len(taus_b)}.")
    differences = np.subtract(taus_b, taus_a)
    n = len(differences)
    if n < 2:
        return Interval(float(differences[0]) if n else None, None, None, n)
    rng = np.random.default_rng(seed)
    parts = np.diff([*range(0, resamples, 500), resamples])  # 500 at a time: thousands of prompts must fit into memory
    means = np.concatenate([differences[rng.integers(0, n, (part, n))].mean(1) for part in parts])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high), n)


def bootstrap_sentence(interval: Interval, names: tuple[str, str] = ("a", "b")) -> str:
    """The difference in words."""
    if interval.mean is None:
        return "There is no prompt that both drafters have finished."
    head = f"tau of {names[1]} minus tau of {names[0]}: {interval.mean:+.3f} over {interval.prompts} prompts"
    if interval.low is None:
        return f"{head.removesuffix('s')}; with a single prompt there is no interval."
    ends = f"{head}, 95 % interval {interval.low:+.3f} to {interval.high:+.3f}"
    if interval.low <= 0 <= interval.high:
        return f"{ends}: not told apart."
    return f"{ends}: {names[interval.mean > 0]} is better."
