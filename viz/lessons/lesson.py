"""What a lesson is made of: cards that point to a place of a recorded run, and questions that are asked before it is shown.

Words hold tokens between the marks of `viz.stepper.data`, as text; everything else in them is plain. `shown_html` makes HTML of
them. Nothing here knows a model, or what is right: a question's answer is whatever its run did.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from decoding.trace import Trace
from viz.stepper.data import END, MARK
from viz.tokens import SPACE, as_html, name

Runs = Mapping[str, Trace]  # name of a recorded run -> the run

GUESS, CHECK, JUDGE, WRITE = range(4)  # the phases of a call, as the stepper counts them
CALL = ("sentence", "text", "tree")  # of the stepper: what a call did
WHY = ("sentence", "text", "bars")  # why one guess was kept or refused
MOST_OPTIONS = 5  # of a question: keys 1 to 5
PER_MINUTE = 130  # words that are read aloud, or slowly
LOOK, THINK = 20, 40  # seconds to look at a card's picture, and to answer a question and talk about it


@dataclass(frozen=True)
class Place:
    """Where a run is looked at."""

    run: str
    step: int  # index of the call
    phase: int = WRITE
    node: int | None = None  # of Step.nodes; len(nodes) is the token that the large model adds; None: whatever the stepper chooses


@dataclass(frozen=True)
class Question:
    """Asked before something is shown; `right` is the index of what the run did."""

    about: str  # what kind of question: "kept", "verdict", ...; the tests count its answer anew from the run
    ask: str
    options: tuple[str, ...]
    right: int
    reveal: str
    after: Place
    lights: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """What chooses each option: 1 to 5, or the number itself where the options count from none on."""
        counts = tuple(str(i) for i in range(len(self.options)))
        if self.options[1:] == counts[1:]:
            return counts
        return tuple(str(i + 1) for i in range(len(self.options)))


@dataclass(frozen=True)
class Card:
    title: str
    words: str  # paragraphs parted by an empty line
    place: Place
    lights: tuple[str, ...] = ()  # what the stepper points at
    question: Question | None = None
    picture: str = ""  # beside the stepper's: "texts", "draws", "draws:both", "cost" or "methods:" and a task
    show: tuple[str, ...] = WHY  # parts of the stepper; () if the picture stands alone

    def seen(self, revealed: bool) -> tuple[Place, tuple[str, ...]]:
        """Where the stepper stands, and what it points at."""
        if self.question is not None and revealed:
            return self.question.after, self.question.lights
        return self.place, self.lights


@dataclass(frozen=True)
class Lesson:
    title: str
    aim: str  # what one can say behind it
    cards: tuple[Card, ...]

    @property
    def seconds(self) -> float:
        """How long it takes: its words read slowly, a look at every picture, thinking about every question."""
        return sum(map(seconds_of, self.cards))


Maker = Callable[[Runs], Lesson]


def seconds_of(card: Card) -> float:
    said = [card.title, card.words]
    if card.question is not None:
        said += [card.question.ask, card.question.reveal, *card.question.options]
    words = sum(len(text.split()) for text in said)
    return 60 * words / PER_MINUTE + LOOK + THINK * (card.question is not None)


# -- tokens in words -------------------------------------------------------------------------------------------------------


def token(trace: Trace, id: int) -> str:
    """A token for the words of a card, marked; the space in front of it is left out."""
    shown = name(id, trace.token_bytes, 16)
    return f"{MARK}{shown.removeprefix(SPACE) or shown}{END}"


def shown_html(words: str) -> str:
    """Words as HTML: everything escaped, tokens in the type of tokens."""
    parts = re.split(f"{MARK}([^{MARK}{END}]*){END}", words)
    return "".join(f'<b class="lsn-tok">{as_html(part)}</b>' if i % 2 else as_html(part) for i, part in enumerate(parts))


def unmarked(words: str) -> str:
    """Words as plain text, tokens in quotes."""
    return words.replace(MARK, "“").replace(END, "”")


def paragraphs(words: str) -> list[str]:
    return [part for part in words.split("\n\n") if part]
