"""`deploy/pace.py`: a flood waits in its own queue, a hand is never slowed. Time is the test's own."""

import asyncio
from collections import Counter
from dataclasses import replace
from math import inf
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from decoding import limits as rules
from decoding.limits import PUBLIC
from deploy.buckets import Bucket, now
from deploy.overlong import CLOSED, COMPUTES
from deploy.pace import LINGER, LOOK, PRICE, Pace, Tab
from deploy.places import HOLD, LONGEST, WORKS
from deploy.working import processor
from pages.parts.shared.runs import POLL, SLOWER, SLOWEST
from tests.conftest import PATIENCE, eventually

OWN, SHARED = PUBLIC.visitor, PUBLIC.address


async def asked(tab: Tab, count: int, page: bool = True) -> int:
    """So many messages, one after the other; how many went by when it was ended."""
    done = 0
    try:
        for done in range(count):  # noqa: B007
            await tab.turn(page)
            tab.ended()
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
            tab.ended()
            waited += now() - began
            await asyncio.sleep(number >= 20)
        return waited

    assert played(story) == 0


def test_ticks_of_a_visitors_tabs_hardly_wait(played):
    """For half a minute: two that have news look as often as any tab does, the others, whose runs wait for those, seldom."""

    async def story():
        pace, waits = Pace(), []

        async def play(tab: Tab, every: float) -> None:
            for number in range(int(30 / every)):
                began = now()
                await tab.turn(page=number % 60 == 0)
                tab.ended()
                waits.append(now() - began)
                await asyncio.sleep(every)

        often, seldom = POLL * SLOWER[0][1], POLL * SLOWEST
        paces = [often] * PUBLIC.at_once + [seldom] * (OWN.tabs - PUBLIC.at_once)
        await asyncio.gather(*(play(pace.enter("key", "here"), every) for every in paces))
        return max(waits)

    assert played(story) == 0


def test_a_flood_of_pages_goes_by_slowly(played):
    """Six sockets of one visitor want two hundred each."""
    assert played(lambda: flood_of(6, 200, 60)) == pytest.approx(OWN.pages.at_once + 60 * OWN.pages.per_second, abs=2)


def test_a_flood_of_fragments_goes_by_slowly(played):
    found = played(lambda: flood_of(6, 2000, 60, page=False))
    assert found == pytest.approx(OWN.others.at_once + 60 * OWN.others.per_second, abs=2)


@pytest.mark.parametrize(("sockets", "keys", "most"), [(6, 1, OWN.scripts), (24, 24, SHARED.scripts), (1, 1, 1)])
def test_few_scripts_run_at_the_same_time(played, sockets, keys, most):
    """For a visitor, and for an address; each takes its time, and all have their turn."""

    async def story():
        pace, running, seen, done = Pace(), 0, [], Counter()

        async def press(number: int) -> None:
            nonlocal running
            tab = pace.enter(f"key{number % keys}", "there")
            for _ in range(3):
                await tab.turn(page=False)
                running += 1
                seen.append(running)
                await asyncio.sleep(0.3)
                running -= 1
                tab.ended()
                done[number] += 1

        await asyncio.gather(*map(press, range(sockets)))
        return max(seen), set(done.values())

    assert played(story) == (most, {3})


@pytest.mark.parametrize("end", [lambda pace, tab: tab.ended(), lambda pace, tab: pace.leave(tab), None])
def test_a_place_comes_back(played, end):
    """When its script ended, its connection was closed, or nothing was heard of it: it may have run nothing at all."""

    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "there") for _ in range(OWN.scripts + 1)]
        for tab in tabs[:-1]:
            await tab.turn(page=False)
            await tab.turn(page=False)  # the same place
            tab.began()
        if end is not None:
            asyncio.get_running_loop().call_later(0.1, end, pace, tabs[0])
        await tabs[-1].turn(page=False, runs=False)
        assert now() == 0
        await tabs[-1].turn(page=False)
        return now()

    assert played(story) == pytest.approx(0.1 if end else HOLD, abs=0.01)


@pytest.mark.parametrize("pages", [1, 3])
def test_pages_that_fragments_bring_about_are_pages(played, pages):
    """A press whose callback has the whole page run again, once or more."""

    async def story():
        pace, began = Pace(), 0

        async def press(tab: Tab) -> None:
            nonlocal began
            while True:
                await tab.turn(page=False)
                tab.ended()
                for _ in range(pages):
                    tab.page_began()
                    began += 1
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(press(pace.enter("bad", "there"))) for _ in range(6)]
        await asyncio.sleep(60)
        for task in tasks:
            task.cancel()
        return began

    most = OWN.pages.at_once + 60 * OWN.pages.per_second
    assert most - 20 < played(story) <= most + 6 * pages  # what every tab has on credit


def test_a_page_that_was_asked_for_is_paid_once(played):
    """Also when it is one of several that Streamlit makes one run of."""

    async def story():
        tab = Pace().enter("key", "here")
        for _ in range(OWN.pages.at_once // 2):
            await tab.turn(page=True)
            await tab.turn(page=True)
            tab.page_began()
        return now()

    assert played(story) == 0


def test_pages_are_not_asked_for_in_advance(played):
    """Many that become one run leave nothing for pages that come later of themselves."""

    async def story():
        tab = Pace().enter("key", "here")
        await asked(tab, OWN.pages.at_once)
        for _ in range(5):
            tab.page_began()
        await tab.turn(page=False)
        return now()

    assert played(story) == pytest.approx(4 / OWN.pages.per_second)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::{:x}", "2001:db8:0:0:{:x}::1", "::ffff:192.0.2.7"])
def test_with_many_keys_an_address_is_one(played, address):
    """And all 2^64 that one connection has of IPv6."""

    async def story():
        pace = Pace()
        return await flood([pace.enter(f"key{i}", address.format(i + 1)) for i in range(120)], 200, 60)

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
            tab.ended()
            waits.append(now() - began)
            await asyncio.sleep(1)
        bad.cancel()
        return waits

    assert played(story) == [0] * 10


@pytest.mark.parametrize("near", [True, False])
def test_of_many_who_pour_at_the_same_time_nobody_has_more_than_his_part(played, near, monkeypatch):
    """Twenty addresses, or visitors of one, each with six tabs that never stop; a hand's script begins as soon as one ends."""

    done = Counter()
    monkeypatch.setattr(Tab, "computed", lambda tab: done[tab])

    async def story():
        pace, running, seen, waits = Pace(), 0, [], []

        async def run(tab: Tab) -> None:
            nonlocal running
            await tab.turn(page=False)
            tab.began()
            running += 1
            seen.append(running)
            await asyncio.sleep(0.2)
            running -= 1
            done[tab] += 0.2
            tab.ended()

        async def pour(tab: Tab) -> None:
            while True:
                await run(tab)

        for number in range(120):
            tab = pace.enter(f"bad{number // 6}", "school" if near else f"192.0.2.{number // 6}")
            asyncio.get_running_loop().create_task(pour(tab))
        tab = pace.enter("good", "school" if near else "home")
        for _ in range(20):
            await asyncio.sleep(1)
            began = now()
            await run(tab)
            waits.append(now() - began - 0.2)
        return max(seen), max(waits)

    most, wait = played(story)
    assert most == (SHARED.scripts if near else PUBLIC.whole.scripts)
    assert wait < (3.1 if near else 1.5)  # in their order it would be 12, or 8


def test_who_has_loaded_a_page_does_not_wait_until_all_others_have_had_as_much(played, monkeypatch):
    """Fifty visitors who ask for more steps than there is time for, one of whom has waited long for a page."""

    done = Counter()
    monkeypatch.setattr(Tab, "computed", lambda tab: done[tab])

    async def story():
        pace, waits = Pace(), {}

        async def run(tab: Tab, seconds: float) -> float:
            began = now()
            await tab.turn(page=False)
            tab.began()
            waited = now() - began
            for _ in range(5):
                await asyncio.sleep(seconds / 5)
                done[tab] += seconds / 5
                tab.spoke()
            tab.ended()
            return waited

        async def visit(number: int) -> None:
            tab = pace.enter(f"pupil{number}", "school")
            await run(tab, 0 if number else 4)
            await asyncio.sleep(3 * (number > 0))
            waits[number] = [await run(tab, 0.4) for _ in range(8)]

        await asyncio.gather(*map(visit, range(50)))
        return max(waits[0]), max(max(waits[number]) for number in range(1, 50))

    own, others = played(story)
    assert own < 2 * others and others < 2 * 50 * 0.4 / SHARED.scripts


def test_no_two_tabs_wait_for_each_others_places(played, monkeypatch):
    """One had a place of all and waited for one of its address, which the other had: when that befell all places, no page of
    anybody was drawn any more."""
    few = replace(PUBLIC, address=replace(SHARED, scripts=1), whole=replace(PUBLIC.whole, scripts=1))
    monkeypatch.setattr(rules, "PUBLIC", few)

    async def story():
        pace = Pace()
        other, one, two = pace.enter(None, "there"), pace.enter(None, "here"), pace.enter(None, "here")
        await other.turn(page=False)
        first = asyncio.create_task(one.turn(page=False))  # has the place of its address
        await asyncio.sleep(0)
        one.ended()  # an earlier script of it, and gives that back
        second = asyncio.create_task(two.turn(page=False))
        await asyncio.sleep(0)
        other.ended()
        await asyncio.wait_for(asyncio.gather(first, second), 5 * HOLD)
        return now()

    assert played(story) < 5 * HOLD


def test_how_long_pages_have_stood_is_known(played):
    """`/ready` tells it: with none that wait it is nothing, however long ago the last one ran."""

    async def story():
        pace, found = Pace(), [Pace().stand]
        tabs = [pace.enter(None, f"192.0.2.{i}") for i in range(PUBLIC.whole.scripts + 1)]
        await asyncio.gather(*(tab.turn(page=False) for tab in tabs[:-1]))
        await asyncio.sleep(50)
        found.append(pace.stand)
        waiting = asyncio.create_task(tabs[-1].turn(page=False))
        for tab in tabs[:-1]:  # they never say a word, nor that they are at their end
            tab._places[-1][0]._taken[tab].until = inf
        await asyncio.sleep(30)
        found.append(pace.stand)
        tabs[0].ended()
        await waiting
        return [*found, pace.stand]

    assert played(story) == pytest.approx([0, 0, 30, 0])


class Worker(Thread):
    """A script that is at work, or waits, until it is told to end."""

    def __init__(self, works: bool) -> None:
        super().__init__(daemon=True)
        self.works, self.over = works, Event()

    def run(self) -> None:
        if not self.works:
            self.over.wait(PATIENCE)
        while not self.over.is_set():
            sum(range(1000))


@pytest.fixture
def script(monkeypatch):
    """What a page's script does, from now on; its thread."""
    begun = []

    def does(works: bool) -> Worker:
        begun.append(thread := Worker(works))
        thread.start()
        monkeypatch.setattr("deploy.pace.script_of", lambda session: thread)
        monkeypatch.setattr("deploy.working.script_of", lambda session: thread)
        return thread

    yield does
    for thread in begun:
        thread.over.set()
        thread.join(PATIENCE)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize("works", [True, False], ids=["at work", "waiting"])
def test_a_script_that_says_nothing_keeps_its_place_while_it_is_at_work(played, script, works, closed):
    """Searches of a second each lost their places and went on: twenty-seven of them ran at the same time."""
    thread = script(works)

    async def story():
        pace = Pace()
        for tab in [pace.enter(None, "here") for _ in range(SHARED.scripts)]:
            await tab.turn(page=False)
            tab.began()
            if closed:
                pace.leave(tab)
        last = asyncio.create_task(pace.enter(None, "here").turn(page=False))
        for _ in range(20 * int(LONGEST + 1)):
            await asyncio.sleep(0.05)
            eventually(lambda: not works or worked(thread), "it does nothing")  # the test's time goes by without any
            if last.done():
                return now()

    def worked(thread: Worker, had: list = [0.0]) -> bool:  # noqa: B006
        before, had[0] = had[0], processor(thread)
        return had[0] > before + 2 * WORKS * 0.05

    lost = HOLD / 4 if closed else HOLD
    assert played(story) == pytest.approx(LONGEST if works else lost, abs=0.15)


def test_a_script_that_waits_for_a_step_lets_others_run(played):
    """Two of the three places were always held by scripts that waited for their steps in line, up to a second each."""

    async def story():
        pace = Pace()
        tabs = [pace.enter(None, f"192.0.2.{i}") for i in range(PUBLIC.whole.scripts)]
        for number, tab in enumerate(tabs):
            tab.belongs(f"session {number}")
            await tab.turn(page=False)
            tab.began()
        waiting = asyncio.create_task(pace.enter(None, "198.51.100.1").turn(page=False))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        pace.rests("session 1")
        await waiting
        pace.rests("nobody's")
        pace.leave(tabs[1])
        assert "session 1" not in pace._sessions
        return now()

    assert played(story) == pytest.approx(0.1, abs=0.05)


def test_a_class_goes_on_asking_while_some_of_it_wait_for_their_steps(played):
    """Two of an address run at the same time: thirty pupils had their steps two by two, one pair after the other in line."""

    async def story():
        pace, began = Pace(), now()
        await asyncio.gather(*(asked_and_rested(pace, number) for number in range(30)))
        return now() - began

    async def asked_and_rested(pace: Pace, number: int) -> None:
        tab = pace.enter(f"pupil {number}", "school")
        tab.belongs(f"session {number}")
        await tab.turn(page=False)
        tab.began()
        pace.rests(tab.session)
        await asyncio.sleep(0.9)
        await tab.goes_on()
        await asyncio.sleep(0.01)
        tab.ended()

    assert played(story) < 1.5


def test_who_has_waited_takes_a_place_again(played):
    """What was drawn behind a wait had none: seven scripts ran where three may, and a step took 56 s."""

    async def story():
        pace = Pace()
        tabs = [pace.enter(None, f"192.0.2.{i}") for i in range(PUBLIC.whole.scripts + 1)]
        for number, tab in enumerate(tabs[:-1]):
            tab.belongs(f"session {number}")
            await tab.turn(page=False)
            tab.began()
        go_on = pace.rests("session 1")
        await asyncio.sleep(0)
        await tabs[-1].turn(page=False)  # it has the place now
        waits = asyncio.create_task(tabs[1].goes_on())
        await asyncio.sleep(0.5)
        assert not waits.done()
        tabs[0].ended()
        await waits
        again = asyncio.create_task(pace.enter(None, "198.51.100.1").turn(page=False))
        await asyncio.sleep(0.1)
        assert not again.done()
        tabs[1].ended()
        await again
        return go_on, pace.rests("nobody's")

    go_on, nobodys = played(story)
    assert nobodys() is None and go_on() is None  # the server has ended


@pytest.mark.parametrize("works", [True, False])
def test_others_do_not_wait_long_for_scripts_that_say_nothing(played, script, monkeypatch, works):
    """Nor do they all run with more and more of them that are at work: ten were, and a step waited for each."""
    script(works)
    monkeypatch.setattr(Tab, "computed", lambda tab: now() if works else 0.0)

    async def story():
        pace = Pace()
        for tab in [pace.enter(None, f"192.0.2.{i}") for i in range(PUBLIC.whole.scripts)]:
            await tab.turn(page=False)
            tab.began()
        await pace.enter(None, "198.51.100.1").turn(page=False)
        return now()

    assert played(story) == pytest.approx(LONGEST if works else HOLD, abs=0.01)


def test_a_script_does_not_begin_anew_while_others_wait(played):
    """Streamlit breaks off what runs, and goes on without a place: so it would never be anybody else's turn."""

    async def story():
        pace, order = Pace(), []
        tabs = [pace.enter(None, f"192.0.2.{i}") for i in range(PUBLIC.whole.scripts + 1)]

        async def ask(tab: Tab, name: str) -> None:
            await tab.turn(page=False)
            tab.began()
            order.append((name, round(now(), 1)))

        async def end() -> None:
            for tab in tabs[:2]:
                await asyncio.sleep(0.1)
                tab.ended()

        for number, tab in enumerate(tabs[:-1]):
            await ask(tab, str(number))
        await asyncio.gather(ask(tabs[-1], "other"), ask(tabs[0], "again"), end())
        return order[-2:]

    assert played(story) == [("other", 0.1), ("again", 0.2)]


def test_a_script_that_is_broken_off_for_another_keeps_its_place(played):
    async def story():
        pace = Pace()
        first, second, third = (pace.enter("key", "there") for _ in range(3))
        await first.turn(page=False)
        await second.turn(page=False)
        await first.turn(page=False)  # nobody waits: it begins anew
        first.ended()
        waits = asyncio.create_task(third.turn(page=False))
        await asyncio.sleep(0.1)
        early = waits.done()
        first.began()
        first.ended(again=True)
        await asyncio.sleep(0.1)
        early |= waits.done()
        first.ended()
        await waits
        return early, now()

    assert played(story) == (False, pytest.approx(0.2))


@pytest.mark.parametrize("said", [0, 4])
def test_a_script_that_speaks_keeps_its_place(played, said):
    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "there") for _ in range(OWN.scripts + 1)]
        for tab in tabs[:-1]:
            await tab.turn(page=False)
        waits = asyncio.create_task(tabs[-1].turn(page=False))
        for _ in range(said):
            await asyncio.sleep(HOLD / 2)
            for tab in tabs[:-1]:
                tab.spoke()
        await waits
        return now()

    assert played(story) == pytest.approx(HOLD * (1 + said / 2), abs=0.01)


def test_a_script_that_speaks_for_ever_loses_its_place(played):
    async def story():
        pace = Pace()
        tabs = [pace.enter("key", "there") for _ in range(OWN.scripts + 1)]
        for tab in tabs[:-1]:
            await tab.turn(page=False)
        waits = asyncio.create_task(tabs[-1].turn(page=False))
        while not waits.done():
            await asyncio.sleep(HOLD / 4)
            for tab in tabs[:-1]:
                tab.spoke()
        return now()

    assert played(story) == pytest.approx(LONGEST, abs=HOLD)


def test_addresses_that_take_all_they_can_leave_some(played):
    """Of the connections to a server, which are never more than its memory holds; an address alone has as many as ever."""

    async def story():
        pace, found = Pace(), []
        for number in range(14):
            tabs = [pace.enter(None, f"192.0.2.{number}") for _ in range(SHARED.tabs + 1)]
            found.append(sum(tab is not None for tab in tabs))
        return found

    found, whole = played(story), PUBLIC.whole.tabs
    assert found[0] == SHARED.tabs and sum(found) < whole.most and found[-1] == whole.least


def test_a_class_opens_its_pages_at_once(played):
    """Thirty visitors behind one address, three pages each."""

    async def story():
        pace = Pace()
        await asyncio.gather(*(asked(pace.enter(f"pupil{i}", "school"), 3) for i in range(30)))
        return now()

    assert played(story) == 0


def test_a_class_has_more_parts_than_a_few_at_each_of_ten_addresses(played, monkeypatch):
    """Four visitors at each of those had four parts each, as many as thirty pupils, who waited for ten times as much."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")

    async def story():
        pace = Pace()
        tabs = [pace.enter(f"visitor {i}", f"198.51.{i % 10}.1") for i in range(40)]
        tabs += [pace.enter(f"pupil {i}", "203.0.113.1") for i in range(30)]
        asked = [asyncio.create_task(tab.turn(page=True)) for tab in tabs]
        await asyncio.sleep(0)
        pace._look()
        pace._alarm = pace._alarm and pace._alarm.cancel()
        parts = [pace._parts(tab.names[0]) for tab in (tabs[0], tabs[-1])]
        for one in asked:
            one.cancel()
        return parts

    assert played(story) == [1, 4]


def test_a_class_goes_on_together(played):
    """A hundred and twenty pupils, who follow and vote: of eighty, 26 were not heard for as long as a question stood."""

    async def story():
        pace, waits = Pace(), []
        pupils = [pace.enter(f"pupil{i}", "school") for i in range(120)]
        for _ in range(6):
            began = now()
            await asyncio.gather(*(asked(pupil, 2) for pupil in pupils))
            waits.append(now() - began)
            await asyncio.sleep(20)
        return max(waits)

    assert played(story) == 0


def test_a_neighbour_with_many_keys_keeps_nobody_from_their_page(played):
    """Eight keys, two tabs each: of a class at the same address three of 25 votes were heard."""

    async def story():
        pace, waits = Pace(), []

        async def ask(tab: Tab) -> None:
            await tab.turn(page=True)
            tab.began()
            await asyncio.sleep(0.05)
            tab.ended()

        async def flood(tab: Tab) -> None:
            while True:
                await ask(tab)

        evil = [asyncio.create_task(flood(pace.enter(f"made up {i}", "school"))) for i in range(50) for _ in range(2)]
        pupil = pace.enter("pupil", "school")
        await asyncio.sleep(60)
        for _ in range(10):
            began = now()
            await ask(pupil)
            waits.append(now() - began)
            await asyncio.sleep(5)
        for one in evil:
            one.cancel()
        return max(waits)

    assert played(story) < 51 * 0.05 + 0.05


def test_bytes_wait_before_they_are_read(played):
    """Of one visitor, and of many keys at one address; a page's own messages never do."""

    async def story():
        pace, waits = Pace(), []
        hand, crowd = pace.enter("hand", "elsewhere"), [pace.enter(f"key{i}", "here") for i in range(20)]
        for tab, size, count in ((crowd[0], 2**21, 10), (hand, 20_000, 600)):
            began = now()
            for _ in range(count):
                await tab.sent(size)
                await asyncio.sleep(0.1 * (tab is hand))
            waits.append(now() - began)
        began = now()
        await asyncio.gather(*(tab.sent(2**21) for tab in crowd for _ in range(2)))
        return waits[0], waits[1], now() - began

    alone, hand, crowd = played(story)
    assert alone == pytest.approx((10 * 2**21 - OWN.sent.at_once) / OWN.sent.per_second)
    assert hand == pytest.approx(60)
    assert crowd >= (40 * 2**21 - SHARED.sent.at_once) / SHARED.sent.per_second - 1


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
        return list(pace._purses)

    assert played(story) == ["address there", "visitor other"]


def test_nobody_waits_for_more_than_one_price(played):
    async def story():
        bucket = Bucket(OWN.pages)
        for _ in range(100):
            bucket.fine(PRICE)
        return bucket.wait()

    assert played(story) == pytest.approx(PRICE + 1 / OWN.pages.per_second)


def test_what_is_ended_costs_its_visitor_and_address(played):
    """So that it is not asked for again at once, by another tab."""

    async def story():
        pace, looked = Pace(), []
        tab, near, far = pace.enter("key", "here"), pace.enter("other", "here"), pace.enter("third", "there")
        looks = lambda most: looked.append(most) or len(looked) == 1  # noqa: E731
        tab.watched = SimpleNamespace(slow=True, alive=True, script=None, computed=0.0, look=looks)
        tab.session = "tab"
        pace.known(tab)
        await asyncio.sleep(1.5 * LOOK)
        waits = []
        for one in (tab, near, far):
            began = now()
            await one.turn(page=False)
            one.ended()
            waits.append(now() - began)
        pace.leave(tab)
        await asyncio.sleep(LOOK)
        assert looked[0] == COMPUTES and looked[-1] == CLOSED
        return waits

    own, near, far = played(story)
    assert PRICE - OWN.others.at_once / OWN.others.per_second == pytest.approx(own, abs=1)
    assert near < own and far == 0
