"""The rejections that cost most, those that were bad luck apart, and alarms: acceptance that looks broken rather than weak.

Knows the table of judged tokens for the first and whole runs for the second.
"""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from viz.drafter.judgements import DrafterRun
from viz.runs.tally import tally

MANY = 20  # judged tokens before a rate of 0 or 1 is called an alarm
MISSES, LUCK = "Misses", "Bad luck"
HOW_TO_READ_REJECTIONS = {
    MISSES: "The rejections that cost most: cost is how many more tokens the step might have brought. Those that were bad luck "
    "are in a group of their own.",
    LUCK: "The token was the target's own favourite, and the draw went against it. No training mends that; it grows with the "
    "temperature.",
}


def expensive(frame: pd.DataFrame, n: int = 20, luck: bool = False) -> pd.DataFrame:
    """The n rejections with the largest `cost`; among equals those with most behind them, then the most confident.

    Args:
        luck: those that were bad luck, instead of all others.
    """
    rejected = frame[~frame["accepted"].astype(bool) & (frame["luck"].astype(bool) == luck)]
    order = rejected.sort_values(["cost", "behind", "confidence"], ascending=False, na_position="last", kind="stable")
    columns = ["cost", "behind", "context", "token", "wanted", "wanted p", "committed", "confidence", "p", "q", "u"]
    return order.head(n)[[*columns, "class", "domain", "prompt", "trace", "step", "node"]]


def alarms(runs: Sequence[DrafterRun]) -> list[str]:
    """What looks broken rather than weak, a sentence each."""
    steps = [step for _, _, _, trace in runs for step in trace.steps]
    total = tally(steps)
    alarming = []
    if total.judged >= MANY and not total.accepted:
        alarming.append(
            f"0 % accepted: none of {total.judged} judged tokens was kept. A drafter with another tokenizer, wrong "
            "weights, or positions that are off by one looks like this."
        )
    if total.judged >= MANY and total.accepted == total.judged:
        alarming.append(
            f"100 % accepted: all of {total.judged} judged tokens were kept. Either the text repeats itself, or the "
            "drafter is the target itself."
        )
    silent = sum(not step.nodes for step in steps)
    if steps and silent * 2 > len(steps):
        share = "never drafted anything" if silent == len(steps) else f"was silent in {silent} of {len(steps)} steps"
        alarming.append(f"A silent drafter: it {share}, and the target wrote alone.")
    return [*alarming, *cliff(total.alpha_by_depth)]


def cliff(by_depth: Sequence[tuple[int, int, int]]) -> list[str]:
    """Every depth well fed, and from one on nothing is kept any more: usually a bug, not a weakness."""
    for (_, judged, accepted), (depth, next_, kept) in pairwise(by_depth):
        if next_ >= MANY and not kept and accepted * 2 > judged:
            return [
                f"A cliff at depth {depth}: none of {next_} judged tokens was kept there, but {accepted} of {judged} "
                "one depth before. Look for a wrong position, mask or cache beyond that depth."
            ]
    return []
