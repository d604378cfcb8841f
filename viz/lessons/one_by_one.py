"""Lesson 1: why decoding is slow."""

from viz.lessons.costs import reading
from viz.lessons.lesson import CALL, CHECK, GUESS, Card, Lesson, Place, Question, Runs, token
from viz.lessons.places import best, letters, most_kept
from viz.lessons.say import nearest, numbers
from viz.step.boxes import ROOT
from viz.words import number

ONE, CHAIN = "story_plain", "story"
READINGS = (1.0, 2.0, 5.0)  # times a call, and as many guesses and one more


def one_by_one(runs: Runs) -> Lesson:
    return Lesson(
        "Why decoding is slow",
        "You can say what a call is, and why a model takes so long to write.",
        (tokens(runs), calls(runs), weight(runs), idea(runs)),
    )


def tokens(runs: Runs) -> Card:
    trace = runs[ONE]
    at = early(runs)
    asked = trace.header.messages[-1].content if trace.header.messages else trace.header.prompt
    return Card(
        "Word for word",
        f"Somebody asked a language model: {asked} Grey is the question, and behind it grows the answer.\n\n"
        f"A model does not write sentences. It writes one token at a time: a word, a piece of a word, or a sign. "
        f"The newest one here is {token(trace, trace.steps[at].tokens[-1])}.",
        Place(ONE, at),
        ("text",),
        show=("text",),
    )


def early(runs: Runs) -> int:
    """A call at which some words stand already: the longest word of some in the first lines."""
    trace = runs[ONE]
    return best(range(6, min(24, len(trace.steps))), lambda i: letters(trace, trace.steps[i].tokens[-1]), "word")


def calls(runs: Runs) -> Card:
    trace = runs[ONE]
    count, last = len(trace.steps), len(trace.steps) - 1
    options = (max(1, count // 8), max(2, count // 2), count, 2 * count)
    return Card(
        "One call, one token",
        "To choose the next token, the whole model is run once, from its first layer to its last. That is one call. Then it starts "
        "again, for the next token.",
        Place(ONE, early(runs)),
        ("text",),
        Question(
            "calls",
            f"The whole answer has {count} tokens. How many calls did it take?",
            numbers(options),
            options.index(count),
            f"{count} tokens, {count} calls: one for each. No call could begin before the one in front of it was done.",
            Place(ONE, last),
            ("text",),
        ),
        show=("sentence", "text"),
    )


def weight(runs: Runs) -> Card:
    one, several = runs["plain"], runs["speculative_sampling"]
    guesses = max(len(step.nodes) for step in several.steps)
    times = reading(several.steps) / reading(one.steps)
    return Card(
        "Where the time goes",
        "For one token the machine has to fetch every number that the model consists of. The fetching is what takes so long, not "
        f"the counting. A call took {reading(one.steps):.0f} thousandths of a second here, on a plain processor.\n\n"
        f"Now suppose that a call looks at {guesses} more tokens at the same time. The numbers are fetched once for all of them.",
        Place(CHAIN, most_kept(runs[CHAIN]), CHECK, ROOT),
        ("tree",),
        Question(
            "reading",
            f"How long does a call take that looks at {guesses + 1} places instead of one?",
            ("as long", "about twice as long", f"{guesses + 1} times as long"),
            nearest(times, READINGS),
            f"Measured here: {number(times, 2)} times as long, for {guesses + 1} places. On a graphics card it is usually hardly "
            "longer than for one. Looking at several tokens at once is cheap. Only: who says which tokens to look at?",
            Place(CHAIN, most_kept(runs[CHAIN]), CHECK, ROOT),
            ("tree",),
        ),
        show=CALL,
    )


def idea(runs: Runs) -> Card:
    trace = runs[CHAIN]
    step = trace.steps[most_kept(trace)]
    return Card(
        "The idea",
        "Let something quick guess the next tokens. Then let the large model check all guesses in one call. What it agrees with "
        f"is written; the first guess that it refuses, it replaces.\n\nHere {len(step.nodes)} tokens are guessed at once. The "
        "large model has said nothing yet.\n\nThis is speculative decoding. The next lesson takes one such call apart.",
        Place(CHAIN, most_kept(trace), GUESS, ROOT),
        ("tree",),
        show=CALL,
    )
