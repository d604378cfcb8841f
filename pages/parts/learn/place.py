"""Where a reader of the course is, and the link to it: `?lesson=3&card=2`, for a class also `view=class`, `class` and `lead`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pages.parts.learn.classes import KEY, is_code
from viz.lessons.lesson import Lesson
from viz.tokens import plain

CLASS_VIEW = "class"
NAMES = ("lesson", "card", "view", "class", "lead")


@dataclass
class Reader:
    """One tab. Lessons and cards count from 0; lesson None is the list of all."""

    lesson: int | None = None
    card: int = 0
    projected: bool = False  # `view=class`
    code: str = ""  # of a class
    key: str = ""  # of its teacher
    tab: str = ""  # by which its votes are known
    answers: dict[tuple[int, int], int] = field(default_factory=dict)  # question -> option that was chosen
    skipped: set[tuple[int, int]] = field(default_factory=set)  # whose answer was shown without a choice
    seed: int = 1  # of the draws
    wanted: dict[str, str] = field(default_factory=dict)  # what the address said last
    notes: list[str] = field(default_factory=list)  # what was wrong with it
    alone: tuple[dict, set] = field(default_factory=lambda: ({}, set()))  # answers and what was shown outside of a class
    turned_away: bool = False  # whether the class could not be opened again, because there are too many

    @property
    def answered(self) -> bool:
        """Whether anything was, which a page that was just opened has not."""
        return bool(self.answers or self.skipped or any(self.alone))

    @property
    def at(self) -> tuple[int, int]:
        return (self.lesson or 0, self.card)

    @property
    def revealed(self) -> bool:
        return self.at in self.answers or self.at in self.skipped

    def turn_to(self, code: str, key: str, shown: Iterable[tuple[int, int]] = ()) -> None:
        """To a class, or to none. What was tried alone, or in another class, is not what this one is shown; who leaves it has again
        what they answered alone."""
        if (code, key) != (self.code, self.key):
            if not self.code:
                self.alone = self.answers, self.skipped
            self.answers, self.skipped = ({}, set()) if code else self.alone
        self.code, self.key = code, key
        self.skipped |= set(shown)

    def go(self, lesson: int | None, card: int = 0) -> None:
        self.lesson, self.card = lesson, card
        self.notes = []

    def parameters(self) -> dict[str, str]:
        """What the address says of it."""
        said = {} if self.lesson is None else {"lesson": f"{self.lesson + 1}", "card": f"{self.card + 1}"}
        said |= {"view": CLASS_VIEW} if self.projected else {}
        said |= {"class": self.code} if self.code else {}
        return said | ({"lead": self.key} if self.key else {})


def opened(reader: Reader, query: Mapping[str, str], lessons: Sequence[Lesson]) -> None:
    """Go where the address says; what it says wrongly is left out, with a sentence."""
    reader.notes = []
    reader.projected = query.get("view") == CLASS_VIEW
    if "view" in query and not reader.projected:
        reader.notes.append(f"There is no view “{plain(query['view'], 20)}”; “class” is the one for a projector.")
    lesson = counted(query, "lesson", len(lessons), reader.notes)
    reader.lesson = None if lesson is None else lesson - 1
    reader.card = 0
    if "card" in query and lesson is None:
        reader.notes.append("The link names a card and no lesson.")
    elif lesson is not None:
        reader.card = (counted(query, "card", len(lessons[lesson - 1].cards), reader.notes) or 1) - 1
    reader.turn_to(*coded(query, reader.notes))
    if reader.code:
        reader.projected = True


def counted(query: Mapping[str, str], name: str, most: int, notes: list[str]) -> int | None:
    """A number from 1 to `most`, or None with a note if something else is said."""
    text = query.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= most:
        return int(text)
    notes.append(f"The link asks for {name} “{plain(text, 20)}”; there are {name}s 1 to {most:,}.")
    return None


def coded(query: Mapping[str, str], notes: list[str]) -> tuple[str, str]:
    """Code and key of a class; "" for what is none."""
    code, key = query.get("class", ""), query.get("lead", "")
    code = code.upper() if code.isascii() else code  # typed from a screen
    if code and not is_code(code):
        notes.append(f"“{plain(code, 20)}” is no code of a class: those have 4 to 8 capital letters and digits.")
        return "", ""
    if key and (not code or not KEY.fullmatch(key)):
        notes.append("The teacher's part of this link is damaged; it was left out.")
        return code, ""
    return code, key
