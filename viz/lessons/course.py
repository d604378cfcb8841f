"""The course: all lessons in order, the runs that they need, and how long they take."""

from viz.lessons.chain import chain
from viz.lessons.costs import KINDS, LANES, TASKS
from viz.lessons.lesson import Lesson, Maker, Runs, seconds_of
from viz.lessons.lossless import lossless
from viz.lessons.one_by_one import one_by_one
from viz.lessons.pays import pays
from viz.lessons.refusal import refusal
from viz.lessons.tree import tree
from viz.lessons.which import which

MAKERS: tuple[Maker, ...] = (one_by_one, chain, refusal, lossless, tree, pays, which)
NEEDED = tuple(
    dict.fromkeys(
        ["story_plain", "story", "plain", "speculative_sampling", *LANES.values()]
        + [f"{task}_{kind}" for task in TASKS for kind in KINDS.values()]
    )
)


def course(runs: Runs) -> tuple[Lesson, ...]:
    """All lessons.

    Raises:
        KeyError: a run is missing.
        LookupError: a run shows nothing of what a card is about.
    """
    return tuple(make(runs) for make in MAKERS)


def minutes(lessons: tuple[Lesson, ...]) -> float:
    return sum(lesson.seconds for lesson in lessons) / 60


def timetable(lessons: tuple[Lesson, ...]) -> str:
    """A line for every lesson and one for every card, with the seconds they take."""
    lines = []
    for number, lesson in enumerate(lessons, 1):
        lines.append(f"{number}. {lesson.title}: {lesson.seconds / 60:.1f} minutes")
        lines += [f"   {card.title}: {seconds_of(card):.0f} s" for card in lesson.cards]
    return "\n".join([*lines, f"{minutes(lessons):.0f} minutes"])
