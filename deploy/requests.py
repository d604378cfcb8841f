"""How fast pages and files are served, so that who asks for them as fast as they come does not hold up those who step.

All answers are made in one event loop, through which every message of every visitor passes. So the requests of one address may take
so much of its time and no more, reckoned by what was measured of each kind; what is beyond waits. A class that opens its pages at
once gets them one after the other.
"""

import asyncio

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decoding.limits import limits
from decoding.runs.visitors import network
from deploy.asking import address_of
from deploy.pace import Bucket

LONGEST_PATH = 1_000  # characters; those of pages and files have some hundred
LONGEST_WAIT = 20.0  # seconds; browsers give up after some more
ANY, HEADER, BYTE = 3.0, 0.004, 5e-6  # milliseconds of a processor: an answer, a line of its request, a byte of either


class Requests:
    """Has every request wait for its turn, and whoever opens a websocket."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._buckets: dict[str, list[Bucket]] = {}  # address -> for a moment, and for a while

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not limits().public:
            await self.app(scope, receive, send)
            return
        buckets = self._of(network(address_of(scope)))
        wait = spent(buckets, ANY + HEADER * len(scope["headers"]))
        await asyncio.sleep(min(wait, LONGEST_WAIT))
        if scope["type"] == "websocket":
            await (refused(receive, send) if wait > LONGEST_WAIT else self.app(scope, receive, send))
        elif wait > LONGEST_WAIT:
            await Response("Your network asks for too many pages. Try again in a minute.", 429)(scope, receive, send)
        elif len(scope["path"]) > LONGEST_PATH:
            await Response(status_code=414)(scope, receive, send)
        else:
            await self.app(scope, charged_for(receive, buckets), charged(send, buckets))

    def _of(self, address: str) -> list[Bucket]:
        if address not in self._buckets:
            self._buckets = {one: held for one, held in self._buckets.items() if not all(bucket.full for bucket in held)}
            self._buckets[address] = [Bucket(rate) for rate in limits().serving]
        return self._buckets[address]


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
