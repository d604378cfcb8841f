"""What a websocket may do beside its messages, which are the whole of what Streamlit sees: pings, pieces of messages, silence.

The server answers every ping at once and keeps the answers until they are read, keeps the pieces of a message until the last one
comes, and takes a connection that has fallen silent for closed only when all that was sent on it is read. Whoever reads nothing has
it hold as much as they like. Browsers send no pings and hardly any pieces; a connection with more of them than that is ended.
"""

from typing import Any

from decoding.limits import Rate
from deploy.pace import Bucket

LONGEST_MESSAGE = 2 * 2**20  # bytes: all that the boxes of a page say
PINGS = Rate(20, 1.0)  # of a connection
PIECES = 256  # of a message; Chromium parts it at 128 kB


def bound(wire: Any) -> None:
    """Have a connection, the object of the server behind `receive`, end when it does more of that."""
    if hasattr(wire, "config") and hasattr(wire.config, "ws_max_size"):
        wire.config.ws_max_size = LONGEST_MESSAGE  # for those that come; Streamlit's own limit has to be as high as what it sends
    if not all(hasattr(wire, name) for name in ("handle_ping", "handle_cont", "keepalive_timeout", "transport")):
        return
    answer, take, pings = wire.handle_ping, wire.handle_cont, Bucket(PINGS)

    def handle_ping() -> None:
        if pings.wait() > 0:
            wire.transport.abort()
        else:
            answer()

    def handle_cont(piece: Any) -> None:
        if len(wire.frames) < PIECES:
            take(piece)
        else:
            wire.frames.clear()
            wire.transport.abort()

    wire.handle_ping, wire.handle_cont = handle_ping, handle_cont
    wire.keepalive_timeout = lambda: wire.transport.abort()  # does not wait until somebody reads what was sent
