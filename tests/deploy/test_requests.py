"""`deploy/requests.py`: whoever asks for pages as fast as they come waits, and nobody else. Time is the test's own."""

import asyncio

import pytest

from decoding.limits import PUBLIC
from deploy.buckets import now
from deploy.requests import ANY, BYTE, LONGEST_PATH, LONGEST_WAIT, MOST_HEADERS, Requests

MOMENT, WHILE = PUBLIC.serving


@pytest.fixture(autouse=True)
def public(monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")


async def app(scope, receive, send):
    kind = scope.get("kind", b"text/javascript")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", kind)]})
    await send({"type": "http.response.body", "body": b"x" * scope.get("size", 0)})


async def got(served: Requests, address: str = "192.0.2.1", path: str = "/x", **more) -> int:
    """The status of an answer."""
    said = []

    async def send(message):
        said.append(message)

    await served({"type": "http", "path": path, "client": (address, 1), "method": "GET", "headers": [], **more}, None, send)
    return said[0]["status"]


async def took(*asked) -> float:
    began = now()
    await asyncio.gather(*asked)
    return now() - began


@pytest.mark.parametrize(("more", "cost"), [({}, ANY), ({"size": 5_000_000}, ANY + 5_000_000 * BYTE)])
def test_a_flood_has_its_part_and_no_more(played, more, cost):
    """One after the other as fast as they are answered: half of the time at first, and a fifth when it goes on."""

    async def story():
        served, ends, count = Requests(app), now() + 300, 0
        while now() < ends:
            count += await got(served, **more) == 200
        return count * cost

    worked = played(story)
    assert worked <= WHILE.at_once + 300 * WHILE.per_second + 2 * cost
    assert worked > 0.8 * (WHILE.at_once + 300 * WHILE.per_second)


def test_others_do_not_wait(played):
    async def story():
        served = Requests(app)
        flood = [asyncio.create_task(got(served)) for _ in range(2_000)]
        await asyncio.sleep(0)
        waited = await took(got(served, "192.0.2.2"), got(served, "2001:db8::1"))
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        return waited

    assert played(story) == 0


def test_ten_floods_have_their_part_together_and_others_do_not_wait(played):
    """Each of its own half of the time was all of it: steps of others took 20 s."""

    async def story():
        served, ends, counts = Requests(app), now() + 60, [0] * 10

        async def flood(which: int) -> None:
            while now() < ends:
                counts[which] += await got(served, f"192.0.2.{which}") == 200

        tasks = [asyncio.create_task(flood(i)) for i in range(10) for _ in range(40)]
        await asyncio.sleep(30)
        waited = await took(*(got(served, "198.51.100.1") for _ in range(100)))
        await asyncio.gather(*tasks)
        return waited, counts

    waited, counts = played(story)
    rate = PUBLIC.whole.serving.per_second + 10 * PUBLIC.serving_little.per_second
    assert waited == 0 and sum(counts) * ANY < 10 * PUBLIC.serving_little.at_once + 62 * rate
    assert min(counts) > 0.8 * max(counts)


def test_who_gives_up_in_the_line_is_in_nobodys_way(played):
    async def story():
        served = Requests(app)
        many = [asyncio.create_task(got(served, f"192.0.2.{i % 10}")) for i in range(4_000)]
        await asyncio.sleep(2)
        for task in many[:-1]:
            task.cancel()
        began = now()
        await many[-1]
        return now() - began

    assert played(story) < 1


def test_a_page_with_its_files_does_not_wait_and_a_class_has_its_own_within_a_minute(played):
    """111 files and 9 MB, as browsers load it for the first time, six at a time each."""

    async def story():
        served, refused = Requests(app), []

        async def some(address: str, count: int) -> None:
            refused.extend([await got(served, address, size=81_000) for _ in range(count)])

        def page(address: str):
            return [some(address, 18 + (i < 3)) for i in range(6)]

        alone = await took(*page("192.0.2.9"))
        crowd = await took(*(one for _ in range(80) for one in page("192.0.2.1")))
        return alone, crowd, set(refused)

    alone, crowd, said = played(story)
    assert alone < 0.1 and crowd < 65 and said == {200}


def test_who_would_wait_too_long_is_refused_and_has_waited(played):
    async def story():
        served = Requests(app)
        many = [got(served) for _ in range(20_000)]
        began = now()
        found = await asyncio.gather(*many)
        return found, now() - began

    found, seconds = played(story)
    assert found.count(429) > 0 < found.count(200) and seconds >= LONGEST_WAIT


def test_websockets_that_are_opened_wait_too(played):
    """Also those that are refused behind it: a handshake takes as long as a file."""

    async def story():
        served, opened = Requests(app), []

        async def inner(scope, receive, send):
            opened.append(now())

        served.app = inner
        scope = {"type": "websocket", "path": "/", "client": ("192.0.2.1", 1), "headers": [(b"a", b"b")] * 100}
        said = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            said.append(message)

        await asyncio.gather(*(served(scope, receive, send) for _ in range(10_000)))
        return len(opened), max(opened), said

    count, last, said = played(story)
    assert count * ANY <= MOMENT.at_once + LONGEST_WAIT * MOMENT.per_second + 2 * ANY
    assert len(said) == 10_000 - count and said[0] == {"type": "websocket.close", "code": 1013}


def test_a_path_that_is_none_is_not_looked_at(played):
    async def story():
        return await got(Requests(app), path="/" + "a/" * LONGEST_PATH), await got(Requests(app), path="/" * LONGEST_PATH)

    assert played(story) == (414, 200)


def test_on_a_server_of_ones_own_nobody_waits(played, monkeypatch):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")

    async def story():
        served = Requests(app)
        return await took(*(got(served) for _ in range(5_000)))

    assert played(story) == 0


def test_who_owes_nothing_is_forgotten(played):
    async def story():
        served = Requests(app)
        for i in range(50):
            await got(served, f"192.0.2.{i}")
        await asyncio.sleep(60)
        await got(served, "198.51.100.1")
        return list(served._buckets)

    assert played(story) == ["198.51.100.1"]


def test_what_is_sent_is_paid_for_too(played):
    async def story():
        served, ends, count = Requests(app), now() + 60, 0

        async def reads(scope, receive, send):
            await receive()
            await app(scope, receive, send)

        async def receive():
            return {"type": "http.request", "body": b"x" * 5_000_000}

        served.app = reads
        while now() < ends:
            scope = {"type": "http", "path": "/x", "client": ("192.0.2.1", 1), "method": "PUT", "headers": []}
            await served(scope, receive, ignored)
            count += 1
        return count

    assert played(story) * 5_000_000 * BYTE <= MOMENT.at_once + 60 * MOMENT.per_second + 5_000_000 * BYTE


async def ignored(message) -> None:
    pass


def test_a_request_of_very_many_lines_is_refused(played):
    """Each is looked at again and again on the way to a page."""
    lines = [(b"a", b"")] * MOST_HEADERS

    async def story():
        return await got(Requests(app), headers=lines), await got(Requests(app), headers=[*lines, (b"a", b"")])

    assert played(story) == (200, 431)
