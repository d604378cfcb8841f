"""What is wrong with a drafter, in at most three lines: where it loses, whether its confidence is right, how much was bad luck, and
whether another choice of its own would have done.

Knows the table of `viz.drafter.judgements` through `viz.drafter.levels`: a place counts once, however many guesses it had. Every
line follows from a rule below and says its numbers; a rule without enough places says so instead. What was found comes first; that
nothing was found fills up. Thresholds:

    FEW     places a verdict takes, and first guesses with a probability that a word on confidence takes
    CELL    places of one kind, and of all others, before the kind is compared; LOST lost ones before causes are counted
    SURE    bits of entropy below which the target is called sure
    GAP     of confidence, below which it is called right
    SHARE   of the lost places, from which a cause is called one
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import pandas as pd

from viz.drafter.acceptance import wilson
from viz.drafter.judgements import KEPT
from viz.drafter.levels import levels

FEW, CELL, LOST = 50, 20, 20
SURE, GAP, SHARE = 1.0, 0.05, 0.1
MOST = 3  # lines
WIDER = 4  # choices that a wider draft would still offer

KINDS = {
    "word start": "word starts",
    "inside a word": "tokens inside a word",
    "digit": "digits",
    "punctuation": "punctuation",
    "whitespace": "white space",
    "identifier": "names in code",
    "other": "tokens that are no characters",
}


@dataclass(frozen=True)
class Line:
    """One line of a verdict."""

    words: str
    found: bool  # False: the rule looked and there was nothing


def verdict(judged: pd.DataFrame) -> tuple[str, ...]:
    """At most three lines on a drafter's judged tokens (`judgements`); plain text."""
    places = levels(judged)
    if len(places) < FEW:
        return (f"Too little to judge by: {counted(len(places), 'place')}, a verdict takes {FEW}.",)
    if places["accepted"].all():
        return (f"It lost nowhere: one of its guesses was right in all of {len(places):,} places.",)
    lines = [line for rule in RULES for line in rule(places)]
    return tuple(line.words for line in sorted(lines, key=lambda line: not line.found)[:MOST])


def weakest(places: pd.DataFrame) -> Iterator[Line]:
    """Where it loses most: of the kinds of place (class of the first guess, and whether the target was sure) the one with most
    losses above its share, if the 95 % intervals of it and of all others do not overlap. What bad luck decided is left out."""
    fair = places[~places["luck"]]
    rate = 1 - fair["accepted"].mean() if len(fair) else 0.0
    found = []
    for (kind, sure), part in fair.groupby([fair["class"], sureness(fair["entropy"])], observed=True):
        rest = fair.drop(part.index)
        if min(len(part), len(rest)) < CELL:
            continue
        here, there = int(part["accepted"].sum()), int(rest["accepted"].sum())
        excess = len(part) - here - rate * len(part)
        if wilson(here, len(part))[1] < wilson(there, len(rest))[0]:
            found.append((excess, f"{KINDS[str(kind)]}{sure}", here, len(part), there, len(rest)))
    if not found:
        yield Line(f"No kind of place stands out among {len(fair):,}: it loses nowhere clearly more often than elsewhere.", False)
        return
    _, where, here, of, there, others = max(found)
    yield Line(f"It loses most on {where}: right in {here:,} of {of:,} such places, in {there:,} of {others:,} others.", True)


def sureness(entropy: pd.Series) -> pd.Series:
    """In words, for each entropy of the target in bits."""
    words = (entropy < SURE).map({True: " where the target is sure", False: " where the target could go on in several ways"})
    return words.where(entropy.notna(), "")


def confident(places: pd.DataFrame) -> Iterator[Line]:
    """Whether first guesses have, on average, the probability that the target gives them: GAP apart, and two standard errors."""
    known = places[places["confidence"].between(0, 1.01) & places["target p"].notna()]
    if len(known) < FEW:
        none = "it has no probabilities" if known.empty else f"only {counted(len(known), 'first guess')} had a probability"
        yield Line(f"Of its confidence nothing can be said: {none}.", False)
        return
    gaps = known["confidence"] - known["target p"]
    gap, error = float(gaps.mean()), float(gaps.std()) / sqrt(len(gaps))
    means = f"{known['confidence'].mean():.2f} on average, the target {known['target p'].mean():.2f}"
    if abs(gap) < GAP or abs(gap) < 2 * error:
        yield Line(f"Its confidence is about right: it gives its first guesses {means}.", False)
        return
    much = "high" if gap > 0 else "low"
    yield Line(f"Its confidence is too {much} by {abs(gap):.2f}: it gives its first guesses {means}.", True)


def by_chance(places: pd.DataFrame) -> Iterator[Line]:
    """How many of the lost places were bad luck; nothing where no draw decides (greedy runs)."""
    lost = places[~places["accepted"]]
    unlucky = int(lost["luck"].sum())
    if not unlucky:
        return
    if len(lost) < LOST:
        yield Line(f"It lost {counted(len(lost), 'place')}, too few to say how much was bad luck ({LOST} are needed).", False)
    elif unlucky < SHARE * len(lost):
        yield Line(f"Luck explains little: {unlucky:,} of {len(lost):,} lost places.", False)
    else:
        yield Line(
            f"Luck explains {part_of(unlucky, len(lost))}: the guess was the target's own favourite, and the draw went against it.",
            True,
        )


def second_choice(places: pd.DataFrame) -> Iterator[Line]:
    """Whether the target's favourite was near the top of the drafter's distribution where it lost without bad luck, or absent."""
    lost = places[~places["accepted"] & ~places["luck"] & places["overlap"].notna() & (places["wanted"] != "")]
    if len(lost) < LOST:
        return
    near, absent = int(lost["wanted rank"].between(2, WIDER).sum()), int(lost["wanted rank"].isna().sum())
    if near >= absent and near >= SHARE * len(lost):
        some = part_of(near, len(lost), " (bad luck aside)")
        yield Line(f"In {some}, the target's favourite was its second to fourth choice: 4 guesses there would have it.", True)
    elif absent >= SHARE * len(lost):
        some = part_of(absent, len(lost), " (bad luck aside)")
        yield Line(f"In {some}, the target's favourite is not among its {KEPT} likeliest: {KEPT} guesses would miss it.", True)


def part_of(some: int, all_: int, which: str = "") -> str:
    return f"{some:,} of {all_:,} lost places{which}, {some / all_:.0%}"


def counted(n: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{n:,} {noun if n == 1 else plural}"


RULES = (weakest, confident, by_chance, second_choice)
