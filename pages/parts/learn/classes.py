"""Classes: who opened the same link votes on the question that the teacher shows. Kept in the memory of the server, nowhere else.

A class has a code, which its pupils' link carries, and a key, which only the teacher's link carries: who has the key moves on and
reveals. The code is made from the key, so nobody leads a class whose code they know, also where it was ended or forgotten. There
are no accounts; a vote belongs to a tab, on a public server to its visitor. Where there are too many, pupils who are there take
the places of those who are gone. Everything is bounded (`decoding.limits`), and what nobody looked at for some hours is
forgotten. All of it comes from strangers and is checked.
"""

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hmac import compare_digest
from threading import Lock
from time import monotonic
from typing import NamedTuple

from decoding.limits import CLASS_HOURS, CLASS_TABS, CLASSES, CLASSES_NEAR, Refused, left_for, limits
from decoding.runs.own_secret import own_secret

LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # none that is taken for another
CODE = re.compile(r"[A-Z0-9]{4,8}")
KEY = re.compile(r"[A-Za-z0-9_-]{8,32}")
LENGTH = 6  # of a code that is made here
AWAY = 60.0  # seconds without a look, after which a pupil is gone
IDLE = 600.0  # seconds without a look of anybody, after which a class may give way whatever was voted in it
FEW = 3  # classes that a visitor leads at a time: they give way to no other while there is anybody in them


class Spot(NamedTuple):
    """Where the teacher is: lesson and card, counted from 0, and whether the answer is shown."""

    lesson: int = 0
    card: int = 0
    revealed: bool = False


@dataclass
class Room:
    """One class."""

    key: str
    address: str = ""  # where it was opened
    opener: str = ""  # by which visitor, of a public server
    spot: Spot = Spot()
    shown: set[tuple[int, int]] = field(default_factory=set)  # (lesson, card) of questions whose answer was shown: it stays so
    seen: float = 0.0  # when anybody last looked
    votes: dict[tuple[int, int], dict[str, int]] = field(default_factory=dict)  # (lesson, card) -> tab -> option
    tabs: dict[str, float] = field(default_factory=dict)  # pupils -> when they last looked


class Tally(NamedTuple):
    """What the teacher's screen shows of a question."""

    counts: tuple[int, ...]  # per option
    tabs: int  # pupils that are there

    @property
    def votes(self) -> int:
        return sum(self.counts)


class Classes:
    """All classes of a server."""

    def __init__(self, clock: Callable[[], float] = monotonic, secret: Callable[[], bytes] | None = None) -> None:
        self.clock, self.secret = clock, secret or own_secret
        self.rooms: dict[str, Room] = {}
        self.lock = Lock()

    def opened(self, address: str = "", opener: str = "") -> tuple[str, str]:
        """A new class: its code and its key; Refused where there are too many, here or of this address."""
        with self.lock:
            self.forget()
            self.check_room(address)
            key = secrets.token_urlsafe(9)
            while (code := self.code_of(key)) in self.rooms:
                key = secrets.token_urlsafe(9)
            self.rooms[code] = Room(key, address, opener, seen=self.clock())
            return code, key

    def leads(self, code: str, key: str, address: str = "", opener: str = "") -> bool:
        """Whether this key is the teacher's; a class that was forgotten, as when the server began anew, is opened again by it.

        Raises:
            ValueError: code or key are none, or not of the same class, and there is no class with that code.
            Refused: there are too many classes.
        """
        if not is_code(code) or not KEY.fullmatch(key):
            raise ValueError("The teacher's part of this link is damaged.")
        with self.lock:
            self.forget()
            known = code in self.rooms
        if not known and self.code_of(key) != code:  # without the lock: it takes a while
            raise ValueError(f"The teacher's part of this link belongs to another class than {code}.")
        with self.lock:
            if code not in self.rooms and known:
                return False  # it was ended a moment ago
            if code not in self.rooms:
                self.check_room(address)
                self.rooms[code] = Room(key, address, opener, seen=self.clock())
            return compare_digest(self.rooms[code].key, key)

    def of(self, opener: str) -> dict[str, Room]:
        """The classes that a visitor has opened and not ended, by their codes; theirs alone to know."""
        with self.lock:
            self.forget()
            return {code: room for code, room in self.rooms.items() if opener and room.opener == opener}

    def visited(self, tab: str) -> list[str]:
        """The codes of the classes that a pupil is one of; theirs alone to know."""
        with self.lock:
            self.forget()
            return [code for code, room in self.rooms.items() if tab in room.tabs]

    def has_pupils(self, code: str, key: str) -> bool:
        """Whether a class that this key leads is open and somebody has come."""
        with self.lock:
            room = self.rooms.get(code)
            return room is not None and compare_digest(room.key, key) and bool(room.tabs)

    def close(self, code: str, key: str) -> None:
        with self.lock:
            room = self.rooms.get(code)
            if room is not None and compare_digest(room.key, key):
                del self.rooms[code]

    def move(self, code: str, key: str, spot: Spot) -> None:
        """The teacher goes on; without the key nothing happens. An answer that was shown stays shown, whatever a page that was
        loaded anew knows of it: who has seen it does not vote again."""
        with self.lock:
            room = self.rooms.get(code)
            if room is not None and compare_digest(room.key, key):
                room.shown |= {spot[:2]} if spot.revealed else set()
                room.spot, room.seen = spot._replace(revealed=spot[:2] in room.shown), self.clock()

    def shown(self, code: str, key: str) -> set[tuple[int, int]]:
        """The questions whose answer was shown, for the teacher's page."""
        with self.lock:
            room = self.rooms.get(code)
            return set(room.shown) if room is not None and compare_digest(room.key, key) else set()

    def spot(self, code: str, tab: str | None = None) -> Spot | None:
        """Where a class is; None if there is no such class. `tab` is a pupil's that looks."""
        with self.lock:
            self.forget()
            room = self.rooms.get(code)
            if room is None:
                return None
            room.seen = self.clock()
            if tab is not None and (tab in room.tabs or self.has_place(room, room.tabs)):
                room.tabs[tab] = room.seen
            return room.spot

    def vote(self, code: str, tab: str, spot: Spot, option: int, options: int) -> bool:
        """Whether the vote counts: for the question that is asked now, before its answer is shown, by one of the first tabs."""
        with self.lock:
            room = self.rooms.get(code)
            if room is None or room.spot != spot or spot.revealed or not 0 <= option < options:
                return False
            given = room.votes.setdefault(spot[:2], {})
            if tab not in given and not self.has_place(room, given):
                return False
            given[tab] = option
            return True

    def choice(self, code: str, tab: str, spot: Spot) -> int | None:
        """What a pupil has voted for, whatever their page remembers."""
        with self.lock:
            room = self.rooms.get(code)
            return room.votes.get(spot[:2], {}).get(tab) if room else None

    def tally(self, code: str, spot: Spot, options: int) -> Tally:
        """Who has voted for what, for whoever shows it, who is there then."""
        with self.lock:
            if (room := self.rooms.get(code)) is not None:
                room.seen = self.clock()
            given = list(room.votes.get(spot[:2], {}).values()) if room else []
            there = sum(self.clock() - seen < AWAY for seen in room.tabs.values()) if room else 0
            return Tally(tuple(given.count(i) for i in range(options)), there)

    def code_of(self, key: str) -> str:
        """The code of the class that a key leads."""
        made = hashlib.scrypt(key.encode(), salt=self.secret(), n=2**12, r=8, p=1, dklen=LENGTH)
        return "".join(LETTERS[byte % len(LETTERS)] for byte in made)

    # -- with the lock held -------------------------------------------------------------------------------------------------

    def has_place(self, room: Room, among: dict[str, float] | dict[str, int]) -> bool:
        """Whether one more may be among a class's pupils or its voters; if there are too many, those who are gone go."""
        if len(among) >= CLASS_TABS:
            for tab in [tab for tab in among if self.clock() - room.tabs.get(tab, -AWAY) >= AWAY]:
                del among[tab]
        return len(among) < CLASS_TABS

    def forget(self) -> None:
        old = self.clock() - CLASS_HOURS * 3600
        for code in [code for code, room in self.rooms.items() if room.seen < old]:
            del self.rooms[code]

    def check_room(self, address: str) -> None:
        if len(self.rooms) >= CLASSES.most:
            raise Refused(f"This server holds {CLASSES.most:,} classes at a time, and there are as many now. Try again later.")
        near = {code: room for code, room in self.rooms.items() if room.address == address}
        if limits().public and len(near) >= left_for(CLASSES_NEAR, CLASSES, len(self.rooms)):
            if not (last := self.gives_way(near)):
                raise Refused(
                    f"This server holds {CLASSES_NEAR:,} classes of one network at a time, or fewer; yours are {len(near):,}."
                )
            del self.rooms[last]  # its link opens it again

    def gives_way(self, near: dict[str, Room]) -> str:
        """The code of the class that another one may take the place of, of those of an address; "" if there is none: one in which
        nobody ever was and that its teacher has left, or that nobody has looked at for a while; or else the emptiest of whoever has
        opened most, and if those are few, one in which nobody is and nobody has voted."""
        away = {code: self.clock() - room.seen for code, room in near.items()}
        left = [code for code, room in near.items() if away[code] >= (IDLE if room.tabs or room.votes else AWAY)]
        if left:
            return max(left, key=lambda code: (not self.used(near[code]), away[code]))
        (most, count), *_ = Counter(room.opener for room in near.values()).most_common(1) or [("", 0)]
        own = {code: room for code, room in near.items() if room.opener == most and (count > FEW or not self.used(room))}
        return min(own, key=lambda code: (self.used(own[code]), own[code].seen), default="") if count > 1 and most else ""

    def used(self, room: Room) -> int:
        """How many pupils are there, and how many votes they have given."""
        return sum(self.clock() - seen < AWAY for seen in room.tabs.values()) + sum(map(len, room.votes.values()))


def is_code(text: str) -> bool:
    return CODE.fullmatch(text) is not None


classes = Classes()
