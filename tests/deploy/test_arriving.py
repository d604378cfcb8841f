"""`deploy/arriving.py`: what arrives is taken apart no faster than an address may have it, in order. Time is the test's own."""

import asyncio
from types import SimpleNamespace

import pytest
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from decoding.limits import PUBLIC
from deploy import arriving
from deploy.arriving import MOST, PIECE, bound, kinds, known
from deploy.buckets import now

RATE = PUBLIC.arriving
COST = 1e-5  # seconds for a byte


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Seconds that the taking apart took."""
    monkeypatch.setenv("DRAFTSCOPE_MODE", "public")
    monkeypatch.setattr(arriving, "_addresses", {})
    monkeypatch.setattr(arriving, "_whole", [])
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(arriving, "perf_counter", lambda: clock.now)
    return clock


class Transport:
    def __init__(self) -> None:
        self.reads, self.ended = True, False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        self.ended = True


@pytest.fixture
def wire(clock):
    """What makes a connection from an address."""

    class Wire:
        read_paused = False

        def __init__(self, address: str) -> None:
            self.client, self.transport, self.got = (address, 1), Transport(), b""
            self.config = SimpleNamespace(forwarded_allow_ips="127.0.0.1")

        def data_received(self, data: bytes) -> None:
            assert len(data) <= PIECE
            clock.now += COST * len(data)
            if b"!" in data:
                raise ValueError("no frame")
            self.got += data

    bound(Wire)
    bound(Wire)  # once is enough
    return Wire


def test_a_flood_has_its_part_of_the_time_and_others_do_not_wait(played, wire, clock):
    """Of one connection, of many, and of one that is opened anew each time."""

    async def story():
        for open_anew in (False, True):
            began, taken, mine = now(), clock.now, wire("192.0.2.1")
            while now() < began + 60:
                if mine.transport.reads:
                    mine.data_received(b"x" * 2**18)
                    mine = wire("192.0.2.1") if open_anew else mine
                await asyncio.sleep(0.01)
            assert 1000 * (clock.now - taken) < RATE.at_once + 60 * RATE.per_second + 2**18 * COST * 1000 + 50
            assert 1000 * (clock.now - taken) > 0.7 * 60 * RATE.per_second
            other = wire("192.0.2.2")
            other.data_received(b"hello")
            assert other.got == b"hello" and other.transport.reads

    played(story)


def test_ten_floods_have_their_part_together_and_others_do_not_wait(played, wire, clock):
    async def story():
        began, floods = now(), [wire(f"192.0.2.{i}") for i in range(10)]
        while now() < began + 60:
            for mine in floods:
                if mine.transport.reads:
                    mine.data_received(b"x" * 2**14)
            await asyncio.sleep(0.01)
        together = PUBLIC.whole.arriving.per_second + 10 * PUBLIC.arriving_little.per_second
        assert 1000 * clock.now < 10 * RATE.at_once + 60 * together + 10 * 2**14 * COST * 1000
        assert min(len(mine.got) for mine in floods) > 0.5 * max(len(mine.got) for mine in floods)
        other = wire("198.51.100.1")
        other.data_received(b"hello")
        assert other.got == b"hello" and other.transport.reads

    played(story)


def test_all_of_it_comes_in_order(played, wire):
    """With pauses in reading, after which the connection reads on; unless it waits for something itself."""
    said = bytes(i % 251 for i in range(300_000)).replace(b"!", b"?")

    async def story():
        first, second = wire("192.0.2.1"), wire("192.0.2.1")
        first.data_received(said[:200_000])
        second.data_received(said)
        first.data_received(said[200_000:])
        second.read_paused = True
        assert not first.transport.reads and not second.transport.reads
        await asyncio.sleep(60)
        assert first.got == second.got == said
        assert first.transport.reads and not second.transport.reads

    played(story)


def test_a_connection_that_breaks_or_is_gone_is_in_nobodys_way(played, wire):
    async def story():
        broken, gone, whole = (wire("192.0.2.1") for _ in range(3))
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for one in (broken, gone, whole):
            one.data_received(b"x" * 100_000)
        broken.data_received(b"!")
        gone.transport.ended = True
        await asyncio.sleep(60)
        assert len(whole.got) == 100_000 and broken.transport.ended and len(gone.got) < 100_000
        whole.data_received(b"x")
        assert len(whole.got) == 100_001

    played(story)


def test_nobody_has_it_hold_more_than_so_much(played, wire):
    async def story():
        mine = wire("192.0.2.1")
        for _ in range(MOST // 2**18 + 2):
            mine.data_received(b"x" * 2**18)
        assert mine.transport.ended and not mine.arrived.data

    played(story)


def test_behind_a_proxy_one_connection_is_not_in_the_way_of_another(played, wire):
    """The proxy's address is everybody's; once it is known whose a websocket is, it counts with theirs."""

    async def story():
        flood, other, third = wire("127.0.0.1"), wire("127.0.0.1"), wire("127.0.0.1")
        flood.data_received(b"x" * 2**18)
        assert not flood.transport.reads
        for one, address in ((other, "192.0.2.9"), (third, "192.0.2.9")):
            one.data_received(b"GET")
            assert one.got == b"GET"
            known(one, address)
        other.data_received(b"x" * 2**18)
        third.data_received(b"x")
        assert third.got == b"GET" and not third.transport.reads
        await asyncio.sleep(60)
        assert third.got == b"GETx" and third.transport.reads

    played(story)


def test_who_owes_nothing_is_forgotten(played, wire):
    async def story():
        for i in range(40):
            wire(f"192.0.2.{i}").data_received(b"x")
        await asyncio.sleep(10)
        wire("198.51.100.1").data_received(b"x")
        assert list(arriving._addresses) == ["198.51.100.1"]

    played(story)


def test_on_a_server_of_ones_own_all_is_taken_at_once(played, monkeypatch, clock):
    monkeypatch.setenv("DRAFTSCOPE_MODE", "local")
    got = []

    class Own:
        def data_received(self, data: bytes) -> None:
            got.append(data)

    bound(Own)
    Own().data_received(b"x" * 2**18)
    assert got == [b"x" * 2**18]


def test_the_servers_own_connections_are_those():
    assert {H11Protocol, WebSocketsSansIOProtocol} <= set(kinds())
