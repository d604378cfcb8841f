"""How much of the event loop's time the taking apart of what arrives may take, before anybody knows what it is.

Header lines, pieces of bodies and frames of websockets are taken apart in Python, as they arrive, some 20 microseconds each. If
somebody sends frames that say nothing, or headers that end in a fault, all visitors wait, and no pace of messages or requests ever
hears of it. So what arrives on the connections of one address is taken apart piece by piece, and waits as soon as that took more
than its part of the time; meanwhile nothing more is read. And those addresses that have more come than a visitor does share a part,
so that ten of them do not take all. What counts is measured.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from time import perf_counter
from typing import Any

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from decoding.limits import limits
from decoding.runs.visitors import network
from deploy.buckets import Bucket

PIECE = 4 * 2**10  # bytes
MOST = 2**20  # bytes of one connection that wait
MOMENT = 0.001  # seconds
Take = Callable[[Any, bytes], None]


class Turns:
    """Those connections of an address on which something waits, one piece of each after the other."""

    def __init__(self, whole: Bucket) -> None:
        self._bucket, self._little, self._whole = Bucket(limits().arriving), Bucket(limits().arriving_little), whole
        self._waiting: deque[Arrived] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits, and nothing is owed."""
        return not self._waiting and self._bucket.full

    def enter(self, arrived: "Arrived") -> None:
        self._waiting.append(arrived)
        if self._timer is None:
            self._serve()
        else:
            arrived.pause()

    def _serve(self) -> None:
        self._timer = None
        while self._waiting:
            if (owed := self._owed()) > 0:
                self._timer = asyncio.get_running_loop().call_later(max(owed, MOMENT), self._serve)
                for arrived in self._waiting:
                    arrived.pause()
                return
            arrived, began = self._waiting.popleft(), perf_counter()
            arrived.take()
            for bucket in (self._bucket, self._little, self._whole):
                bucket.wait(1000 * (perf_counter() - began))
            if arrived.data:
                self._waiting.append(arrived)
            else:
                arrived.done()

    def _owed(self) -> float:
        """Seconds until there is time for the next piece."""
        own = self._bucket.wait(0)
        return max(own, self._whole.wait(0)) if self._little.wait(0) > 0 else own


class Arrived:
    """What arrived on a connection and was not taken apart yet.

    Args:
        wire: uvicorn's object of the connection.
        whole: how that takes bytes.
    """

    def __init__(self, wire: Any, whole: Take) -> None:
        self.wire, self.data, self.turns = wire, b"", turns_of(wire)
        self._whole, self._queued, self._paused = whole, False, False

    def add(self, data: bytes) -> None:
        if self.wire.transport.is_closing():
            return
        self.data += data
        if len(self.data) > MOST:
            self.data = b""
            self.wire.transport.abort()
        elif not self._queued:
            self._queued = True
            self.turns.enter(self)

    def take(self) -> None:
        """One piece of it, if the connection is there; what is left is another's once that has taken the connection over."""
        piece, self.data = self.data[:PIECE], self.data[PIECE:]
        if self.wire.transport.is_closing():
            self.data = b""
            return
        try:
            self._whole(self.wire, piece)
        except Exception as error:  # as if the server had called it, without harm to who waits behind it
            self.data = b""
            asyncio.get_running_loop().call_exception_handler({"message": "What arrived could not be read.", "exception": error})
            self.wire.transport.abort()
        other = getattr(self.wire.transport, "get_protocol", lambda: self.wire)()
        if self.data and other is not self.wire:
            rest, self.data = self.data, b""
            other.data_received(rest)

    def pause(self) -> None:
        if not self._paused and not self.wire.transport.is_closing():
            self._paused = True
            self.wire.transport.pause_reading()

    def done(self) -> None:
        """Read on, unless the connection itself waits with that."""
        self._queued = False
        flow = getattr(self.wire, "flow", self.wire)
        if self._paused and not self.wire.transport.is_closing() and not getattr(flow, "read_paused", False):
            self.wire.transport.resume_reading()
        self._paused = False


_addresses: dict[str, Turns] = {}
_whole: list[Bucket] = []  # the one that all share, once there is a loop


def turns_of(wire: Any, address: str = "") -> Turns:
    """Those of its address; of a connection that a proxy opened its own, until the address is known behind it."""
    host = address or (wire.client or ("",))[0]
    if not address and host in ProxyHeadersMiddleware(None, wire.config.forwarded_allow_ips).trusted_hosts:  # type: ignore[arg-type]
        return Turns(shared())
    near = network(host)
    if near not in _addresses:
        for other in [other for other, turns in _addresses.items() if turns.idle]:
            del _addresses[other]
        _addresses[near] = Turns(shared())
    return _addresses[near]


def shared() -> Bucket:
    """What all addresses have together."""
    if not _whole:
        _whole.append(Bucket(limits().whole.arriving))
    return _whole[0]


def known(wire: Any, address: str) -> None:
    """The address at the other end of a connection has been told."""
    if (arrived := getattr(wire, "arrived", None)) is not None:
        arrived.turns = turns_of(wire, address)


def bound(kind: type) -> None:
    """Have all connections of this class of uvicorn's take what arrives so, on a public server."""
    whole = kind.data_received
    if hasattr(whole, "whole"):
        return

    def data_received(wire: Any, data: bytes) -> None:
        if not limits().public:
            whole(wire, data)
            return
        if not hasattr(wire, "arrived"):
            wire.arrived = Arrived(wire, whole)
        wire.arrived.add(data)

    data_received.whole = whole
    kind.data_received = data_received


def kinds() -> list[type]:
    """Uvicorn's classes of connections that are there."""
    names = (
        "http.h11_impl.H11Protocol",
        "http.httptools_impl.HttpToolsProtocol",
        "websockets.websockets_sansio_impl.WebSocketsSansIOProtocol",
    )
    found = []
    for name in names:
        module, _, kind = name.rpartition(".")
        with suppress(ImportError):
            found.append(getattr(import_module(f"uvicorn.protocols.{module}"), kind))
    return found
