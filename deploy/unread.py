"""What pages are told: heard of when Streamlit says it, and bounded until it is read.

A browser reads as slowly as it likes, and Streamlit keeps five hundred messages for it, however large they are. Who asked for a
long run again and again and read none of it had the server hold gigabytes. So there is so much for a tab and for all tabs; beyond
that the connection is ended of whoever has more, and where all have too much, of the fullest at the address that has most. And what
a script says counts when it is said: the end of one that nobody read kept its place from everybody else.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.web.server.starlette.starlette_websocket import StarletteSessionClient

from decoding.runs.log import log
from deploy.pace import Tab

EACH = 32 * 2**20  # bytes for a tab: the largest pages have a third of that
WHOLE = 256 * 2**20  # for all tabs
HEARS = "draftscope.hears"  # in what is known of a connection: who is to hear what Streamlit says to the page there


@dataclass
class Lying:
    """What lies there for a tab."""

    cut: Callable[[], None]
    sizes: deque[int] = field(default_factory=deque)  # of messages
    bytes: int = 0


class Unread:
    """All that was said to tabs and has not been read."""

    def __init__(self) -> None:
        self._tabs: dict[Tab, Lying] = {}
        self._bytes = 0

    def enter(self, tab: Tab, cut: Callable[[], None]) -> None:
        """Its connection is there; `cut` ends it."""
        self._tabs[tab] = Lying(cut)

    def said(self, tab: Tab, size: int) -> None:
        """A message of so many bytes lies there for it."""
        if (lying := self._tabs.get(tab)) is None:
            return
        lying.sizes.append(size)
        lying.bytes += size
        self._bytes += size
        if lying.bytes > EACH:
            self._end(tab)
        while self._bytes > WHOLE:
            self._end(self._fullest())

    def was_read(self, tab: Tab) -> None:
        """The message that has lain there for longest is on its way."""
        if (lying := self._tabs.get(tab)) is not None and lying.sizes:
            size = lying.sizes.popleft()
            lying.bytes -= size
            self._bytes -= size

    def leave(self, tab: Tab) -> None:
        """Its connection is gone, and with it what lay there."""
        if (lying := self._tabs.pop(tab, None)) is not None:
            self._bytes -= lying.bytes

    def _fullest(self) -> Tab:
        near: Counter[str] = Counter()
        for tab, lying in self._tabs.items():
            near[tab.names[0]] += lying.bytes
        most = max(near, key=near.__getitem__)
        return max((tab for tab in self._tabs if tab.names[0] == most), key=lambda tab: self._tabs[tab].bytes)

    def _end(self, tab: Tab) -> None:
        lying = self._tabs[tab]
        log("refused", why="a page does not read what it asks for", bytes=lying.bytes)
        self.leave(tab)
        lying.cut()


def bound() -> None:
    """Have whoever is to hear of it called with each message that Streamlit says to a page."""
    whole = getattr(StarletteSessionClient.write_forward_msg, "whole", StarletteSessionClient.write_forward_msg)

    def write_forward_msg(client: StarletteSessionClient, message: ForwardMsg) -> None:
        if (hears := client._websocket.scope.get(HEARS)) is not None:
            hears(message)
        whole(client, message)

    write_forward_msg.whole = whole  # type: ignore[attr-defined]
    StarletteSessionClient.write_forward_msg = write_forward_msg
