"""How fast pages and files are served, so that who asks for them as fast as they come does not hold up those who step.

All answers are made in one event loop, through which every message of every visitor passes. So the requests of one address may take
so much of its time and no more, reckoned by what was measured of each kind; what is beyond waits. A class that opens its pages at
once gets them one after the other. And those addresses that ask for more than a visit does share a part of it, one request of each
after the other, so that ten of them do not take all.
"""

import asyncio
from collections import OrderedDict, deque

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decoding.limits import limits
from decoding.runs.visitors import network
from deploy.asking import address_of
from deploy.buckets import Bucket

LONGEST_PATH = 1_000  # characters; those of pages and files have some hundred
MOST_HEADERS = 200  # lines of a request; browsers and proxies send some thirty, and whoever reads them looks through all
MOMENT = 0.001  # seconds
LONGEST_WAIT = 20.0  # seconds; browsers give up after some more
ANY, HEADER, BYTE = 3.0, 0.004, 5e-6  # milliseconds of a processor: an answer, a line of its request, a byte of either


class Requests:
    """Has every request wait for its turn, and whoever opens a websocket."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._buckets: dict[str, list[Bucket]] = {}  # address -> for a moment, for a while, and what counts as little
        self._line = Line()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not limits().public:
            await self.app(scope, receive, send)
            return
        buckets, cost = self._of(near := network(address_of(scope))), ANY + HEADER * len(scope["headers"])
        wait = spent(buckets[:-1], cost)
        await asyncio.sleep(min(wait, LONGEST_WAIT))
        if wait <= LONGEST_WAIT and spent(buckets[-1:], cost) > 0:
            await self._line.turn(near, cost)
            buckets = [*buckets, self._line.bucket]
        many = len(scope["headers"]) > MOST_HEADERS
        if scope["type"] == "websocket":
            await (refused(receive, send) if many or wait > LONGEST_WAIT else self.app(scope, receive, send))
        elif wait > LONGEST_WAIT:
            await Response("Your network asks for too many pages. Try again in a minute.", 429)(scope, receive, send)
        elif many:
            await Response(status_code=431)(scope, receive, send)
        elif len(scope["path"]) > LONGEST_PATH:
            await Response(status_code=414)(scope, receive, send)
        else:
            await self.app(scope, charged_for(receive, buckets), charged(send, buckets))

    def _of(self, address: str) -> list[Bucket]:
        if address not in self._buckets:
            self._buckets = {one: held for one, held in self._buckets.items() if not all(bucket.full for bucket in held)}
            self._buckets[address] = [Bucket(rate) for rate in (*limits().serving, limits().serving_little)]
        return self._buckets[address]


class Line:
    """Requests of addresses that ask for much: one of each address after the other, and so many in all."""

    def __init__(self) -> None:
        self.bucket = Bucket(limits().whole.serving)
        self._waiting: OrderedDict[str, deque[tuple[float, asyncio.Future]]] = OrderedDict()  # address -> costs, whose turn is next
        self._timer: asyncio.Handle | None = None

    async def turn(self, address: str, cost: float) -> None:
        """Return when it is its turn."""
        served = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, deque()).append((cost, served))
        if self._timer is None:
            self._serve()
        await served

    def _serve(self) -> None:
        """One goes on at a time: the loop does what else there is in between."""
        self._timer, loop = None, asyncio.get_running_loop()
        while self._waiting:
            if (owed := self.bucket.wait(0)) > 0:
                self._timer = loop.call_later(max(owed, MOMENT), self._serve)
                return
            address, asked = self._waiting.popitem(last=False)
            cost, served = asked.popleft()
            if asked:
                self._waiting[address] = asked
            if not served.done():
                self.bucket.wait(cost)
                served.set_result(None)
                self._timer = loop.call_soon(self._serve)
                return


async def refused(receive: Receive, send: Send) -> None:
    """A websocket is."""
    await receive()
    await send({"type": "websocket.close", "code": 1013})


def charged(send: Send, buckets: list[Bucket]) -> Send:
    """Sends what `send` does, and has whoever asked pay for it before they are served again."""

    async def sent(message: Message) -> None:
        spent(buckets, BYTE * len(message.get("body", b"")))
        await send(message)

    return sent


def charged_for(receive: Receive, buckets: list[Bucket]) -> Receive:
    """Receives what `receive` does, and has whoever sends it pay."""

    async def received() -> Message:
        message = await receive()
        spent(buckets, BYTE * len(message.get("body", b"")))
        return message

    return received


def spent(buckets: list[Bucket], milliseconds: float) -> float:
    """Take so many; seconds until that much is there."""
    return max(bucket.wait(milliseconds) for bucket in buckets)
