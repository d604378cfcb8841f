"""`deploy/pace.py`: a flood waits in its own queue, a hand is never slowed. Time is the test's own."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine

import pytest

from decoding.limits import PUBLIC
from deploy.pace import LINGER, Pace, Tab, now

OWN, SHARED = PUBLIC.visitor, PUBLIC.address


class Loop(asyncio.SelectorEventLoop):
    """In which nobody waits: when nothing is left to do, it is as late as what comes next."""

    def __init__(self) -> None:
        self.at = 0.0
        super().__init__(Selector(self))

    def time(self) -> float:
        return self.at


class Selector(selectors.DefaultSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> list:
        assert timeout is not None, "everybody waits for ever"
        self.loop.at += timeout
        return super().select(0)


@pytest.fixture
def played(monkeypatch) -> Callable[[Callable[[], Coroutine]], object]:
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")

    def play(story: Callable[[], Coroutine]) -> object:
        with asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(story())

    return play


async def asked(tab: Tab, count: int, page: bool = True) -> int:
    """So many messages, one after the other; how many went by when it was ended."""
    done = 0
    try:
        for done in range(count):  # noqa: B007
            await tab.turn(page)
    except asyncio.CancelledError:
        return done
    return count


async def flood(tabs: list[Tab], count: int, seconds: float, page: bool = True) -> int:
    """How many messages of all these tabs went by in so many seconds."""
    tasks = [asyncio.create_task(asked(tab, count, page)) for tab in tabs]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    return sum(await asyncio.gather(*tasks))


@pytest.mark.parametrize("page", [True, False])
def test_what_a_hand_asks_for_does_not_wait(played, page):
    """Twenty quick clicks, and one per second for ten minutes."""

    async def story():
        tab, waited = Pace().enter("key", "here"), 0.0
        for number in range(620):
            began = now()
            await tab.turn(page)
            waited += now() - began
            await asyncio.sleep(number >= 20)
        return waited

    assert played(story) == 0


def test_ticks_of_a_visitors_tabs_hardly_wait(played):
    """Each asks four times a second for a fragment, and once in a while for its page."""

    async def story():
        pace, waits = Pace(), []

        async def play(tab: Tab) -> None:
            for number in range(120):
                began = now()
                await tab.turn(page=number % 60 == 0)
                waits.append(now() - began)
                await asyncio.sleep(0.25)

        await asyncio.gather(*(play(pace.enter("key", "here")) for _ in range(6)))
        return max(waits)

    assert played(story) == 0


def test_a_flood_of_pages_goes_by_slowly(played):
    """Six sockets of one visitor want two hundred each."""
    assert played(lambda: flood_of(6, 200, 60)) == pytest.approx(OWN.pages.at_once + 60 * OWN.pages.per_second, abs=2)


def test_a_flood_of_fragments_goes_by_slowly(played):
    found = played(lambda: flood_of(6, 2000, 60, page=False))
    assert found == pytest.approx(OWN.others.at_once + 60 * OWN.others.per_second, abs=2)


def test_with_many_keys_an_address_is_one(played):
    async def story():
        pace = Pace()
        return await flood([pace.enter(f"key{i}", "there") for i in range(50)], 200, 60)

    assert played(story) == pytest.approx(SHARED.pages.at_once + 60 * SHARED.pages.per_second, abs=2)


async def flood_of(sockets: int, count: int, seconds: float, page: bool = True) -> int:
    pace = Pace()
    return await flood([pace.enter("bad", "there") for _ in range(sockets)], count, seconds, page)


def test_the_others_do_not_wait_for_a_flood(played):
    """Neither elsewhere, nor behind the same address."""

    async def story():
        pace, waits = Pace(), []
        bad = asyncio.create_task(flood([pace.enter("bad", "school") for _ in range(6)], 200, 60))
        for key, address in (("good", "home"), ("pupil", "school")) * 5:
            tab, began = pace.enter(key, address), now()
            await tab.turn(page=True)
            waits.append(now() - began)
            await asyncio.sleep(1)
        bad.cancel()
        return waits

    assert played(story) == [0] * 10


def test_a_class_opens_its_pages_at_once(played):
    """Thirty visitors behind one address, three pages each."""

    async def story():
        pace = Pace()
        await asyncio.gather(*(asked(pace.enter(f"pupil{i}", "school"), 3) for i in range(30)))
        return now()

    assert played(story) == 0


def test_messages_of_a_tab_keep_their_order(played):
    async def story():
        tab, order = Pace().enter("key", "here"), []
        for number in range(OWN.pages.at_once + 5):
            await tab.turn(page=number % 2 == 0)
            order.append(number)
        return order

    assert played(story) == list(range(OWN.pages.at_once + 5))


def test_connections_are_counted_and_closed_ones_for_a_moment(played):
    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "here") for _ in range(OWN.tabs)]
        assert None not in tabs and pace.enter("key", "elsewhere") is None
        others = [pace.enter(f"key{i}", "here") for i in range(SHARED.tabs)]
        assert others.count(None) == OWN.tabs and pace.enter(None, "here") is None and pace.enter(None, "there") is not None
        pace.leave(tabs[0])
        assert pace.enter("key", "here") is None
        await asyncio.sleep(LINGER + 1)
        assert pace.enter("key", "here") is not None and pace.enter("key", "here") is None

    played(story)


def test_a_new_connection_begins_with_what_is_left(played):
    """And whoever has been away long enough is forgotten."""

    async def story():
        pace = Pace()
        tab = pace.enter("key", "here")
        await asked(tab, OWN.pages.at_once)
        pace.leave(tab)
        began = now()
        await pace.enter("key", "here").turn(page=True)
        waited = now() - began
        await asyncio.sleep(LINGER + OWN.pages.at_once / OWN.pages.per_second + 5)
        pace.leave(pace.enter("key", "here"))
        return waited, pace

    waited, _ = played(story)
    assert waited == pytest.approx(1 / OWN.pages.per_second)


def test_who_is_gone_and_owes_nothing_is_forgotten(played):
    async def story():
        pace = Pace()
        tab = pace.enter("key", "here")
        await asked(tab, 10)
        pace.leave(tab)
        await asyncio.sleep(LINGER + 60)
        pace.enter("other", "there")
        return list(pace._buckets)

    assert played(story) == ["address there", "visitor other"]
