"""`deploy/wires.py`, at the very connection of the server: what it holds for whoever reads nothing, and what it does not."""

import asyncio
from types import SimpleNamespace

import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from deploy.wires import LONGEST_MESSAGE, PIECES, PINGS, bound
from tests.deploy.no_waiting import Loop


class Unread:
    """A transport whose other end reads nothing."""

    def __init__(self) -> None:
        self.held, self.ended = 0, False

    def write(self, data: bytes) -> None:
        self.held += len(data)

    def abort(self) -> None:
        self.ended, self.held = True, 0

    def is_closing(self) -> bool:
        return self.ended

    def get_extra_info(self, name: str) -> None:
        return None

    pause_reading = resume_reading = close = lambda self: None  # `close` waits for what is held to be read


class Connection:
    """A websocket of the server and the browser at its other end."""

    def __init__(self) -> None:
        async def app(scope, receive, send):
            bound(receive.__self__)
            await receive()
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                pass

        config = SimpleNamespace(
            loaded=True, loaded_app=app, root_path="", asgi_version="3.0", ws_per_message_deflate=False, ws_max_size=25_000_000,
            ws_ping_interval=30, ws_ping_timeout=30,
        )  # fmt: skip
        state = SimpleNamespace(connections=set(), tasks=set(), default_headers=[])
        self.there, self.browser = Unread(), ClientProtocol(parse_uri("ws://here/"))
        self.wire = WebSocketsSansIOProtocol(config, state, {}, asyncio.get_running_loop())  # type: ignore[arg-type]
        self.wire.connection_made(self.there)  # type: ignore[arg-type]

    async def open(self) -> "Connection":
        self.browser.send_request(self.browser.connect())
        self.wire.data_received(b"".join(self.browser.data_to_send()))
        for _ in range(5):
            await asyncio.sleep(0)
        self.browser.state = type(self.browser.state).OPEN
        return self

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.wire.data_received(frame.serialize(mask=True))


def played(story) -> Connection:
    """The connection, after the story of it."""

    async def all() -> Connection:
        await story(connection := await Connection().open())
        return connection

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(all())


@pytest.mark.parametrize("size", [0, 125])
def test_pings_without_end_are_not_answered_without_end(size):
    async def story(it: Connection) -> None:
        it.send(*[Frame(Opcode.PING, b"x" * size)] * 500)

    assert (found := played(story)).there.ended and not found.there.held


def test_pongs_that_nobody_asked_for_end_the_connection():
    async def story(it: Connection) -> None:
        it.send(*[Frame(Opcode.PONG, b"")] * 500)

    assert played(story).there.ended


def test_pings_now_and_then_are_answered():
    async def story(it: Connection) -> None:
        for _ in range(3 * PINGS.at_once):
            await asyncio.sleep(1 / PINGS.per_second)
            before = it.there.held
            it.send(Frame(Opcode.PING, b"x"))
            assert it.there.held > before
            it.send(Frame(Opcode.PONG, it.wire.pending_ping_payload or b""))

    assert not played(story).there.ended


@pytest.mark.parametrize("piece", [b"", b"x"])
def test_a_message_has_no_end_of_pieces(piece):
    """Empty ones are never too much to be held together."""

    async def story(it: Connection) -> None:
        it.send(Frame(Opcode.BINARY, piece, fin=False), *[Frame(Opcode.CONT, piece, fin=False)] * 3 * PIECES)

    assert (found := played(story)).there.ended and len(found.wire.frames) <= PIECES


def test_a_message_in_some_pieces_arrives():
    async def story(it: Connection) -> None:
        middle = [Frame(Opcode.CONT, b"x", fin=False)] * (PIECES - 2)
        for _ in range(3):
            it.send(Frame(Opcode.BINARY, b"x", fin=False), *middle, Frame(Opcode.CONT, b"x"))
            await asyncio.sleep(0)
        it.send(Frame(Opcode.PING, b"x"))

    assert not played(story).there.ended


def test_who_has_fallen_silent_is_gone_whatever_they_have_not_read():
    async def story(it: Connection) -> None:
        await asyncio.sleep(120)

    assert played(story).there.ended


def test_longer_messages_come_from_no_page():
    async def story(it: Connection) -> None:
        assert it.wire.config.ws_max_size == LONGEST_MESSAGE

    played(story)


def test_who_waits_for_a_turn_has_not_fallen_silent():
    """The server reads no further than the message that waits; the answer to its ping stands behind it."""

    async def story(it: Connection) -> None:
        it.wire.read_paused = True
        await asyncio.sleep(300)
        assert not it.there.ended
        it.wire.read_paused = False
        await asyncio.sleep(120)

    assert played(story).there.ended
