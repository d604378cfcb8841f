"""`deploy/pace.py`: a flood waits in its own queue, a hand is never slowed. Time is the test's own."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine

import pytest

from decoding.limits import PUBLIC
from deploy.pace import BUDGET, BURST, LINGER, LONGEST, PAGE, RATE, SHARE, Pace, Room, Tab, now

RUN = 0.2  # seconds of a page's script


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


class Server:
    """Runs a page of every tab for RUN seconds, unless the tab asks again; knows how many run."""

    def __init__(self) -> None:
        self.running: dict[Tab, asyncio.TimerHandle] = {}
        self.most = self.pages = 0

    async def page(self, tab: Tab) -> None:
        await tab.page()
        if tab in self.running:
            self.running.pop(tab).cancel()
        self.running[tab] = asyncio.get_running_loop().call_later(RUN, self.end, tab)
        self.most, self.pages = max(self.most, len(self.running)), self.pages + 1

    def end(self, tab: Tab) -> None:
        self.running.pop(tab, None)
        tab.ended()

    async def pages_of(self, tab: Tab, count: int) -> None:
        for _ in range(count):
            await self.page(tab)


def test_quick_clicks_do_not_wait(played):
    """Whole pages, fragments, and what asks for none."""

    async def story():
        pace = Pace()
        for ask in ("page", "fragment", "other"):
            tab = pace.enter("key", "here")
            for _ in range(20):
                await getattr(tab, ask)()
            tab.ended()
        return now()

    assert played(story) == 0


def test_ticks_of_ten_tabs_do_not_wait_long(played):
    """Each asks five times a second for a fragment of 0.02 s, and once in a while for its page."""

    async def story():
        pace, waits = Pace(), []

        async def play(tab: Tab) -> None:
            for number in range(150):
                began = now()
                await (tab.fragment() if number % 30 else tab.page())
                waits.append(now() - began)
                await asyncio.sleep(0.02)
                tab.ended()
                await asyncio.sleep(0.18)

        await asyncio.gather(*(play(pace.enter("key", "here")) for _ in range(10)))
        return waits

    waits = played(story)
    assert len(waits) == 1500 and max(waits) < 0.3 and sum(waits) / len(waits) < 0.05


def test_of_a_flood_one_page_runs_at_a_time(played):
    async def story():
        pace, server = Pace(), Server()
        flood = [asyncio.create_task(server.pages_of(pace.enter("bad", "there"), 200)) for _ in range(6)]
        await asyncio.sleep(60)
        for task in flood:
            task.cancel()
        return server.most

    assert played(story) == 1


def test_the_others_do_not_wait_for_a_flood(played):
    """Neither elsewhere, nor behind the same address."""

    async def story():
        pace, server = Pace(), Server()
        flood = [asyncio.create_task(server.pages_of(pace.enter("bad", "school"), 200)) for _ in range(6)]
        waits = []
        for key, address in (("good", "home"), ("pupil", "school")) * 5:
            tab, began = pace.enter(key, address), now()
            await server.page(tab)
            waits.append(now() - began)
            await asyncio.sleep(1)
        for task in flood:
            task.cancel()
        return waits

    assert played(story) == [0] * 10


def test_with_many_keys_an_address_is_one(played):
    async def story():
        pace, server = Pace(), Server()
        flood = [asyncio.create_task(server.pages_of(pace.enter(f"key{i}", "there"), 200)) for i in range(12)]
        await asyncio.sleep(5)
        tab, began = pace.enter("good", "home"), now()
        await server.page(tab)
        waited = now() - began
        for task in flood:
            task.cancel()
        return server.most, waited

    assert played(story) == (PUBLIC.pages_address, 0)


def test_a_class_opens_its_pages_as_fast_as_they_run(played):
    """Thirty visitors behind one address, in one moment."""

    async def story():
        pace, server = Pace(), Server()
        await asyncio.gather(*(server.page(pace.enter(f"pupil{i}", "school")) for i in range(30)))
        return now()

    assert played(story) == pytest.approx((30 / PUBLIC.pages_address - 1) * RUN)


def test_fragments_of_a_visitor_have_places(played):
    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "here") for _ in range(PUBLIC.fragments + 1)]
        for tab in tabs[:-1]:
            await tab.fragment()
        late = asyncio.create_task(tabs[-1].fragment())
        await asyncio.sleep(0.1)
        assert not late.done()
        tabs[0].ended()
        await late
        return now()

    assert played(story) == pytest.approx(0.1)


def test_a_page_behind_a_fragment_needs_its_place(played):
    """Else a flood would put one in front of each."""

    async def story():
        pace = Pace()
        one, other = pace.enter("key", "here"), pace.enter("key", "here")
        for tab in (one, other):
            await tab.fragment()
        await one.page()
        late = asyncio.create_task(other.page())
        await asyncio.sleep(0.1)
        assert not late.done()
        one.ended()
        await late
        return now()

    assert played(story) == pytest.approx(0.1)


def test_a_run_without_an_end_gives_its_place_back(played):
    """As a message for a fragment that is gone; and one whose browser has gone."""

    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "here") for _ in range(3)]
        await tabs[0].page()
        await tabs[1].page()
        first = now()
        pace.leave(tabs[1], "key", "here")
        await tabs[2].page()
        return first, now()

    assert played(story) == (LONGEST, LONGEST)


@pytest.mark.parametrize("ask", ["page", "fragment", "other"])
def test_whoever_sends_more_than_a_hand_does_waits(played, ask):
    """Until the run is over, if it asks for one; and then it goes on in its order."""

    async def story():
        tab = Pace().enter("key", "here")
        for _ in range(int(BURST) + 2):
            await getattr(tab, ask)()
            if now() > 0:
                break
        return now()

    assert played(story) == pytest.approx((PAGE if ask == "page" else 1) / RATE)


def test_a_run_that_is_over_ends_the_waiting(played):
    async def story():
        tab = Pace().enter("key", "here")
        for _ in range(1 + int(BURST / PAGE)):
            await tab.page()
        asyncio.get_running_loop().call_later(0.01, tab.ended)
        await tab.page()
        return now()

    assert played(story) == pytest.approx(0.01)


def test_connections_are_counted_and_closed_ones_for_a_moment(played):
    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "here") for _ in range(PUBLIC.tabs)]
        assert None not in tabs and pace.enter("key", "elsewhere") is None
        others = [pace.enter(f"key{i}", "here") for i in range(PUBLIC.tabs_address)]
        assert others.count(None) == PUBLIC.tabs and pace.enter(None, "here") is None and pace.enter(None, "there") is not None
        pace.leave(tabs[0], "key", "here")
        assert pace.enter("key", "here") is None
        await asyncio.sleep(LINGER + 1)
        assert pace.enter("key", "here") is not None and pace.enter("key", "here") is None

    played(story)


def test_a_new_connection_has_no_new_budget(played):
    """And whoever has been away long enough is forgotten."""

    async def story():
        pace = Pace()
        tab = pace.enter("key", "here")
        while now() < BUDGET:
            await tab.page()
            await asyncio.sleep(LONGEST / 2)
            tab.ended()
        pace.leave(tab, "key", "here")
        spent = pace._rooms["visitor key"][0].left()
        await asyncio.sleep(LINGER)
        pace.enter("other", "there")
        kept = pace._rooms["visitor key"][0].left()
        await asyncio.sleep(BUDGET / SHARE)
        pace.enter("another", "there")
        return spent, kept, "visitor key" in pace._rooms

    spent, kept, there = played(story)
    assert spent == pytest.approx(BUDGET * SHARE, abs=LONGEST) and kept == pytest.approx(spent + LINGER * SHARE) and not there


def test_who_leaves_while_waiting_holds_no_place(played):
    async def story():
        room = Room(1, SHARE)
        await room.enter()
        room.leave(2 * BUDGET)
        late = asyncio.create_task(room.enter())
        await asyncio.sleep(1)
        assert not late.done()
        late.cancel()
        await asyncio.sleep(BUDGET / SHARE)
        await asyncio.wait_for(room.enter(), 0.1)

    played(story)
