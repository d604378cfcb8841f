"""`deploy/places.py`: who is served next, and what becomes of places of those who are gone. Time is the test's own."""

import asyncio
from collections import Counter

import pytest

from deploy.buckets import now
from deploy.places import HOLD, LONGEST, SLOW_FOR, SOON, STILL, Places


def idle(tab: object) -> float:
    """Seconds that its script has computed."""
    return 0.0


@pytest.mark.parametrize("cancelled_first", [True, False])
def test_who_is_gone_at_the_moment_they_are_served_keeps_no_place(played, cancelled_first):
    async def story():
        places = Places(1, idle)
        await places.take("one", "one")
        waiting = asyncio.create_task(places.take("gone", "gone"))
        await asyncio.sleep(0)
        for cancel in (cancelled_first, not cancelled_first):
            waiting.cancel() if cancel else places.give("one")
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await asyncio.wait_for(places.take("next", "next"), HOLD)

    assert not played(story)


def test_who_asks_again_while_others_wait_is_served_when_their_own_place_is_lost(played):
    """They waited for ever, and the event loop asked without a pause whether their place was lost."""

    async def story():
        places, looks = Places(2, idle), []
        one, other, third = "one", "other", "third"
        for tab in (one, other):
            await places.take(tab, tab)
            places.begin(tab)
        waiting = asyncio.create_task(places.take(third, third))
        again = asyncio.create_task(places.take(one, one))  # its script has said nothing since
        await asyncio.sleep(0)
        places.give(other)
        await waiting
        places.give(third)
        whole = places._serve
        places._serve = lambda: looks.append(now()) or whole()
        await asyncio.wait_for(again, 2 * HOLD)
        return now(), len(looks)

    at, looks = played(story)
    assert at == pytest.approx(HOLD, abs=0.01) and looks < 2 * HOLD / SOON


def test_a_class_has_several_parts_where_others_have_one(played):
    """Ten addresses whose pages drew growing runs had ten of eleven parts, and a class of thirty the other one."""

    async def story(parts: int) -> float:
        places, had = Places(3, lambda tab: now(), parts=lambda whose: parts if whose == "class" else 1), {"class": 0, "others": 0}

        async def draw(tab: str, whose: str, kind: str) -> None:
            while True:
                await places.take(tab, whose)
                places.begin(tab)
                await asyncio.sleep(0.2)
                had[kind] += 1
                places.give(tab)

        drawn = [asyncio.create_task(draw(f"p{i}", "class", "class")) for i in range(2)]  # as many as run at the same time there
        drawn += [asyncio.create_task(draw(f"t{i}", f"192.0.2.{i}", "others")) for i in range(10)]
        await asyncio.sleep(60)
        for one in drawn:
            one.cancel()
        return had["class"] / sum(had.values())

    assert played(lambda: story(1)) < 0.15 and played(lambda: story(4)) > 0.25


def test_ten_who_load_dear_pages_do_not_stand_before_a_class(played):
    """Who had a page of half a second counted for nothing four seconds later, and a class that works never did: steps of it took
    as long as the ten went on. Three pages at a time left the steps a fourth of the interpreter."""

    async def story(addresses: int, page: float) -> tuple[float, float]:
        free = asyncio.Lock()  # of the interpreter, which all share
        places, waits, dear = Places(3, lambda tab: done[tab], parts=lambda whose: 4 if whose == "class" else 1), [], []
        done = Counter()

        async def draw(tab: str, whose: str, cost: float, rest: float, noted: list[float]) -> None:
            while True:
                began = now()
                await places.take(tab, whose, whose != "class")
                places.begin(tab)
                for _ in range(round(cost / 0.01)):
                    async with free:
                        await asyncio.sleep(0.01)
                    done[tab] += 0.01
                    places.spoke(tab)
                places.give(tab)
                noted.append(now() - began)
                await asyncio.sleep(rest)

        drawn = [asyncio.create_task(draw(f"p{i}", "class", 0.03, 1.5 + i / 30, waits)) for i in range(30)]
        drawn += [asyncio.create_task(draw(f"t{i}", f"192.0.2.{i}", page, 0.4, dear)) for i in range(addresses)]
        await asyncio.sleep(60)
        for one in drawn:
            one.cancel()
        return max(waits), max(dear)

    for addresses, page in ((5, 0.45), (10, 0.45), (10, 0.19)):
        steps, pages = played(lambda addresses=addresses, page=page: story(addresses, page))
        assert steps < 2.5 and pages < 20, "and they are served as well"


def test_slow_scripts_share_a_place(played):
    """Those of ten addresses took all three again and again, and a step waited for two of them."""

    async def story():
        places, waits = Places(3, idle), []
        for number in range(10):
            places.slow(f"slow {number}")

        async def draw(number: int) -> None:
            while True:
                await places.take(("tab", number), f"slow {number}")
                await asyncio.sleep(1.5)
                places.give(("tab", number))

        drawn = [asyncio.create_task(draw(number)) for number in range(10)]
        await asyncio.sleep(0.1)
        for _ in range(50):
            began = now()
            await places.take("step", "somebody")
            waits.append(now() - began)
            assert sum(("tab", number) in places for number in range(10)) == 1
            places.give("step")
            await asyncio.sleep(0.3)
        for one in drawn:
            one.cancel()
        return max(waits)

    assert played(story) == 0


def test_who_was_slow_is_forgotten(played):
    async def story():
        places = Places(3, idle)
        places.slow("a"), places.slow("b")
        await places.take(1, "a")
        waiting = asyncio.create_task(places.take(2, "b"))
        await asyncio.sleep(1)
        assert not waiting.done()
        places.give(1)
        await asyncio.sleep(0)
        assert waiting.done()
        await asyncio.sleep(SLOW_FOR + 1)
        await places.take(1, "a")
        return True

    assert played(story)


@pytest.mark.parametrize("works", [True, False])
def test_a_page_that_waits_for_something_keeps_no_other_from_beginning(played, works):
    """Twenty tabs that waited for each other's files kept a class of thirty from its pages for most of a minute."""

    async def story():
        began = now()
        places = Places(3, lambda tab: now() - began if works else 0.0)
        await places.take("waits", "one", page=True)
        places.begin("waits")
        await places.take("another", "other", page=True)
        return now() - began

    assert played(story) == pytest.approx(LONGEST if works else STILL, abs=SOON + 1e-9)


def test_who_had_little_of_late_comes_before_who_loads_again_and_again(played):
    """Ten visitors with five tabs each had a page each before every second one of a class of thirty."""

    async def story():
        served, done = [], Counter()
        places = Places(3, lambda tab: done[tab], later=lambda tab: tab.startswith("again"))

        async def load(tab: str, whose: str) -> None:
            await places.take(tab, whose, page=True)
            served.append(tab)
            places.begin(tab)
            await asyncio.sleep(0.1)
            done[tab] += 1
            places.give(tab)

        await asyncio.gather(*(load(f"again {i}", f"{i}") for i in range(10)), *(load(f"pupil {i}", "class") for i in range(5)))
        return served

    served = played(story)
    assert served[0] == "again 0" and served[1:6] == [f"pupil {i}" for i in range(5)]
