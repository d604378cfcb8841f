"""Answers in pieces, so that a file lies in memory once, however many read it and however slowly.

Streamlit hands a file over as a whole, and the server keeps what a connection has not read: whoever asks a hundred times for a file
of their own, and reads none, has it hold a hundred. Packing it, or taking a part of it out, makes another one each time.
"""

import re
from collections import Counter

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decoding.limits import limits
from decoding.runs.visitors import network
from deploy.asking import address_of

PIECE = 64 * 2**10  # bytes
MEDIA = re.compile(r"/media/[^/]+$")  # where Streamlit serves the files that pages made
COPIED = (b"accept-encoding", b"range")  # headers for which it makes a copy of them
AT_ONCE = 40  # of one address: what was sent and not read lies with the system, some megabytes for each


class Downloads:
    """Sends files as they are, and every answer in pieces, each when the one before is on its way."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._under_way: Counter[str] = Counter()  # downloads, by address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not limits().public:
            await self.app(scope, receive, send)
        elif not MEDIA.search(scope["path"]):
            await self.app(scope, receive, in_pieces(send))
        elif self._under_way[near := network(address_of(scope))] >= AT_ONCE:
            await Response("Too many files are on their way to your network. Try again in a minute.", 429)(scope, receive, send)
        else:
            self._under_way[near] += 1
            try:
                kept = [(name, value) for name, value in scope["headers"] if name.lower() not in COPIED]
                await self.app({**scope, "headers": kept}, receive, in_pieces(send))
            finally:
                self._under_way[near] -= 1
                self._under_way += Counter()  # leaves out those that are at nothing


def in_pieces(send: Send) -> Send:
    """Sends what `send` does, a little at a time: the server waits before the next one until enough of those before was read."""

    async def sent(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or len(body) <= PIECE:
            await send(message)
            return
        for at in range(0, len(body), PIECE):
            more = at + PIECE < len(body) or message.get("more_body", False)
            await send({"type": "http.response.body", "body": body[at : at + PIECE], "more_body": more})

    return sent
