"""Room in memory, of which there is so much for all: who gives back what when there is too little."""

from collections.abc import Callable, Collection, Hashable
from typing import NamedTuple

from decoding.limits import limits


class Holding(NamedTuple):
    """Something of a visitor that takes memory."""

    visitor: str
    address: str
    nbytes: int
    busy: bool  # it is waited for
    since: float  # when it was last asked for
    let_go: Callable[[], None]


def make_room(holdings: list[Holding], own: int | None, near: int | None, whole: int | None) -> None:
    """Have holdings let go where there are more bytes than there may be: of a visitor, of an address, of all.

    They are those of addresses that hold more than a fair part, and there of the visitors that hold no less than the others do:
    where the address that holds most paid for all, a class did for ten visitors who held a third each of what it does. First what
    stands still, the longest first; then what was asked last.

    Args:
        own: bytes that a visitor may have; None: any number.
        near: likewise, all visitors at an address.
        whole: likewise, all.
    """
    there = [one for one in holdings if one.nbytes]
    for most, whose in ((own, by_visitor), (near, by_address), (whole, by_nobody)):
        if most is None:
            continue
        for group in grouped(there, whose):
            while sum(one.nbytes for one in group) > most:
                last = next_of(group, most)
                for those in (group, there):
                    those.remove(last)
                last.let_go()


def next_of(group: list[Holding], most: int) -> Holding:
    """Which one lets go, of some that take more than `most` bytes together."""
    own, addresses = [], [grouped(near, by_visitor) for near in grouped(group, by_address)]
    parts = [parts_of(visitors) for visitors in addresses]
    for visitors, part in zip(addresses, parts, strict=True):
        held = [sum(one.nbytes for one in theirs) for theirs in visitors]
        if sum(held) * sum(parts) > most * part:
            own += [one for theirs, each in zip(visitors, held, strict=True) if each * len(held) >= sum(held) for one in theirs]
    return min(own, key=lambda one: (one.busy, -one.since if one.busy else one.since))


def parts_of(visitors: Collection) -> int:
    """How many parts of what all have an address gets, at which there are these visitors: as of the device's time."""
    return min(len(visitors), limits().shares or 1)


def by_visitor(one: Holding) -> Hashable:
    return one.visitor


def by_address(one: Holding) -> Hashable:
    return one.address


def by_nobody(one: Holding) -> Hashable:
    return None


def grouped(holdings: list[Holding], whose: Callable[[Holding], Hashable]) -> list[list[Holding]]:
    groups: dict[Hashable, list[Holding]] = {}
    for one in holdings:
        groups.setdefault(whose(one), []).append(one)
    return list(groups.values())
