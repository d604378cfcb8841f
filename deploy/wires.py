"""What a websocket may do beside its messages, which are the whole of what Streamlit sees: pings, pieces of messages, silence.

The server answers every ping at once and keeps the answers until they are read, keeps the pieces of a message until the last one
comes, and takes a connection that has fallen silent for closed only when all that was sent on it is read. Whoever reads nothing has
it hold as much as they like. Browsers send no pings and hardly any pieces; a connection with more of them than that is ended.
"""

from typing import Any

from decoding.limits import Rate
from deploy.buckets import Bucket

LONGEST_MESSAGE = 2**19  # bytes: all that the boxes of a page say; the largest has 80,000 characters
PINGS = Rate(20, 1.0)  # of a connection
PARTS = (  # of uvicorn's object
    "handle_ping",
    "handle_pong",
    "handle_cont",
    "keepalive_timeout",
    "schedule_ping",
    "read_paused",
    "transport",
)
PIECES = 256  # of a message; Chromium parts it at 128 kB


def is_closed(receive: Any) -> bool:
    """Whether the other end of the connection that messages are received from is gone."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    return transport is not None and transport.is_closing()


def cut(receive: Any) -> None:
    """End the connection that messages are received from, whatever is still to be read."""
    if (transport := getattr(getattr(receive, "__self__", None), "transport", None)) is not None:
        transport.abort()


def bound(wire: Any) -> None:
    """Have a connection, the object of the server behind `receive`, end when it does more of that."""
    if hasattr(wire, "config") and hasattr(wire.config, "ws_max_size"):
        wire.config.ws_max_size = LONGEST_MESSAGE  # for those that come; Streamlit's own limit has to be as high as what it sends
    if not all(hasattr(wire, name) for name in PARTS):
        return
    answer, take, pings = wire.handle_ping, wire.handle_cont, Bucket(PINGS)
    answered, pongs = wire.handle_pong, Bucket(PINGS)

    def handle_ping() -> None:
        if pings.wait() > 0:
            wire.transport.abort()
        else:
            answer()

    def handle_pong(pong: Any) -> None:
        if pongs.wait() > 0:  # more than there were pings: nobody asked for them
            wire.transport.abort()
        else:
            answered(pong)

    def handle_cont(piece: Any) -> None:
        if len(wire.frames) < PIECES:
            take(piece)
        else:
            wire.frames.clear()
            wire.transport.abort()

    def keepalive_timeout() -> None:
        if wire.read_paused:  # a message waits for its turn, and the answer to the ping behind it
            wire.pong_timer = wire.pending_ping_payload = None
            wire.schedule_ping()
        else:
            wire.transport.abort()  # does not wait until somebody reads what was sent

    wire.handle_ping, wire.handle_pong, wire.handle_cont = handle_ping, handle_pong, handle_cont
    wire.keepalive_timeout = keepalive_timeout
